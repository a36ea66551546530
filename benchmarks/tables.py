"""Markdown tables of measured results: from JSON to text, nothing else."""

from __future__ import annotations

from collections import defaultdict
from types import ModuleType
from typing import Any

Entry = dict[str, Any]

UNITS = (("s", 1.0), ("ms", 1e3), ("µs", 1e6), ("ns", 1e9))
BYTES = (("MB", 1e6), ("kB", 1e3), ("B", 1.0))
CLEAR, TRACED = "scikit-learn, in the clear", "concrete-python's front end"
# What the front page shows: a sentence, fhelearn's benchmark, the peer's name and benchmark, rows to divide by.
HEADLINES = (
    ("simulate 100,000 rows", "fhelearn_simulates_labels", CLEAR, "scikit_learn_predicts_labels", 1),
    ("one encrypted row of 64", "fhelearn_executes", TRACED, "tracing_front_end_executes", 64),
    ("one encrypted row alone", "fhelearn_executes_one_row", TRACED, "tracing_front_end_executes_one_row", 1),
    ("compile", "fhelearn_compiles", TRACED, "tracing_front_end_compiles", 1),
    ("make keys", "fhelearn_makes_keys", TRACED, "tracing_front_end_makes_keys", 1),
    ("start Python and `import fhelearn`", "import[fhelearn]", "numpy alone", "import[numpy]", 1),
)


def duration(seconds: float) -> str:
    """Three significant digits in the unit that reads best."""
    unit, factor = next((unit for unit in UNITS if seconds * unit[1] >= 0.9995), UNITS[-1])
    return f"{seconds * factor:.3g} {unit}"


def size(count: int) -> str:
    """Three significant digits of a number of bytes in the unit that reads best (1 kB = 1000 B)."""
    unit, factor = next((unit for unit in BYTES if count >= unit[1]), BYTES[-1])
    return f"{count / factor:.3g} {unit}"


def label(entry: Entry) -> str:
    """Make `numpy int64 matmul` of `bench_numpy_int64_matmul[(256, 784, 256)]`."""
    parameter = entry["params"].get("name") if entry["params"] else None
    return str(parameter or entry["name"].partition("[")[0].removeprefix("bench_").replace("_", " "))


def is_ours(entry: Entry) -> bool:
    """Whether an entry is fhelearn's own, the one that ratios refer to."""
    name = label(entry)
    return name == "fhelearn" or name.startswith(("fhelearn ", "engine "))


def timing_tables(report: dict[str, Any]) -> str:
    """One table per group (and per shape in a group): median, distance of the quartiles, ratio to fhelearn's median."""
    groups: dict[str, list[Entry]] = defaultdict(list)
    for entry in report["benchmarks"]:
        shape = (entry["params"] or {}).get("shape")
        groups[entry["group"] + (" " + " x ".join(f"{extent:,}" for extent in shape) if shape else "")].append(entry)
    lines: list[str] = []
    for group, entries in groups.items():
        ours = next(entry["stats"]["median"] for entry in entries if is_ours(entry))
        lines += [f"**{group}**", ""]
        lines += ["| | median | quartiles apart | times fhelearn's | rounds |", "|---|--:|--:|--:|--:|"]
        for entry in sorted(entries, key=lambda entry: float(entry["stats"]["median"])):
            stats = entry["stats"]
            columns = [label(entry), duration(stats["median"]), duration(stats["iqr"])]
            lines.append("| " + " | ".join([*columns, f"{stats['median'] / ours:.2f}", str(stats["rounds"])]) + " |")
        lines.append("")
    return "\n".join(lines)


def accuracy_table(rows: list[dict[str, Any]]) -> str:
    """Agreement on the four data sets."""
    lines = [
        "| data, all rows | model | `n_bits` | float | simulated | decrypted | worst difference from float "
        "| decrypted = simulated | output bits | lookups | per encrypted row |",
        "|---|---|--:|--:|--:|--:|--:|---|--:|--:|--:|",
    ]
    for row in rows:
        labels = row["model"] == "LogisticRegression"
        worst = f"{row['worst']:.2%} of labels" if labels else f"{row['worst']:.1e} of the range"
        columns = [f"{row['data']}, {row['rows']}", row["model"], row["n_bits"]]
        columns += [f"{row[name]:.4f}" for name in ("float_metric", "simulated_metric", "decrypted_metric")]
        columns += [worst, "every row" if row["exact"] else "**no**", str(row["output_bits"]), str(row["lookups"])]
        lines.append("| " + " | ".join([*columns, f"{row['milliseconds_per_row']:.1f} ms"]) + " |")
    return "\n".join(lines) + "\n"


def forest_table(rows: list[dict[str, Any]], peer: dict[str, Any]) -> str:
    """Tree models: counts, sizes and times, beside the peer's."""
    lines = [
        "| model | grid | lookups (peer) | bits | complexity (peer) | ciphertexts in | keys | bytes in "
        "| s/row, alone (peer) | s/row, of 32 | simulate, µs/row | labels that agree | undecided "
        "| decrypted = simulated |",
        "|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|---|",
    ]
    for row in rows:
        lookups, complexity, seconds = peer.get(row["model"], (None, None, None))
        columns = [row["model"], row["grid"]]
        columns += [beside(str(row["lookups"]), lookups), str(row["bit_width"])]
        columns += [beside(f"{row['complexity']:.3g}", complexity and f"{complexity:.3g}"), str(row["ciphertexts"])]
        columns += [size(row["key_bytes"]), size(row["input_bytes"])]
        columns += [beside(f"{row['seconds_one_row']:.2f}", seconds), f"{row['seconds_batched']:.2f}"]
        columns += [f"{row['microseconds_simulated']:.2f}", f"{row['agreement']:.2%}", str(row["undecided"])]
        lines.append("| " + " | ".join([*columns, "every row" if row["exact"] else "**no**"]) + " |")
    return "\n".join(lines) + "\n"


def large_forest_table(rows: list[dict[str, Any]]) -> str:
    """Large forests: sizes, and times up to the program and of simulation."""
    lines = [
        "| model, 50 features | distinct conditions | lookups | model to program | memory for it "
        "| simulate 100,000 rows | scores within the bound |",
        "|---|--:|--:|--:|--:|--:|---|",
    ]
    for row in rows:
        columns = [row["model"], f"{row['conditions']:,}", f"{row['lookups']:,}", duration(row["seconds_to_program"])]
        columns += [f"{row['megabytes']:.0f} MB", duration(row["seconds_to_simulate"])]
        lines.append("| " + " | ".join([*columns, "yes" if row["exact"] else "**no**"]) + " |")
    return "\n".join(lines) + "\n"


def forest_headlines(rows: list[dict[str, Any]], peer: dict[str, Any]) -> str:
    """Make the front page's table of tree models: those that the peer has too."""
    lines = ["| breast cancer | table lookups | one encrypted row | Concrete ML 1.9 |", "|---|--:|--:|---|"]
    for row in rows:
        if row["model"] in peer and row["grid"] == "thresholds":
            lookups, _, seconds = peer[row["model"]]
            ours = f"{row['lookups']} of {row['bit_width']} bits | {row['seconds_one_row']:.2f} s"
            lines.append(f"| {row['model']} | {ours} | {lookups} lookups, {seconds} s |")
    return "\n".join(lines) + "\n"


def network_table(rows: list[dict[str, Any]]) -> str:
    """Networks: counts, sizes and times."""
    lines = [
        "| network | bits: activations, weights | rounded to | `p_error` | lookups | complexity | keys | bytes in "
        "| accuracy: float, simulated | module to program | s/row, encrypted | simulate, µs/row "
        "| labels decrypted = simulated |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for row in rows:
        columns = [row["network"], f"{row['activation_bits']}, {row['weight_bits']}", f"{row['rounding_bits']} bits"]
        columns += [f"{row['p_error']:.2g}", f"{row['lookups']} of {row['bit_width']} bits", f"{row['complexity']:.3g}"]
        columns += [size(row["key_bytes"]), size(row["input_bytes"])]
        columns += [
            f"{row['float_accuracy']:.4f}, {row['simulated_accuracy']:.4f}",
            duration(row["seconds_to_program"]),
        ]
        columns += [f"{row['seconds_one_row']:.2f}", f"{row['microseconds_simulated']:.2f}"]
        lines.append("| " + " | ".join([*columns, f"{row['agreement']:.0%}"]) + " |")
    return "\n".join(lines) + "\n"


def network_headlines(rows: list[dict[str, Any]]) -> str:
    """Make the front page's table of networks."""
    lines = [
        "| digits | accuracy: float, simulated | table lookups | one encrypted row | simulated rows per second "
        "| Concrete ML 1.9 |",
        "|---|--:|--:|--:|--:|---|",
    ]
    for row in rows:
        if row["shown"]:
            columns = [row["network"], f"{row['float_accuracy']:.3f}, {row['simulated_accuracy']:.3f}"]
            columns += [f"{row['lookups']} of {row['bit_width']} bits", f"{row['seconds_one_row']:.1f} s"]
            columns += [f"{1e6 / row['microseconds_simulated']:,.0f}", row["peer"]]
            lines.append("| " + " | ".join(columns) + " |")
    return "\n".join(lines) + "\n"


def beside(ours: str, theirs: Any) -> str:
    """Our figure with the peer's, if there is one, in parentheses."""
    return ours if theirs is None else f"{ours} ({theirs})"


def cost_table(report: dict[str, Any], accuracy: list[dict[str, Any]]) -> str:
    """Make the front page's table: time beside a peer's, then sizes."""
    medians = {entry["name"].removeprefix("bench_"): float(entry["stats"]["median"]) for entry in report["benchmarks"]}
    lines = ["| LogisticRegression, 30 features | fhelearn | beside it |", "|---|--:|---|"]
    for sentence, ours, peer, theirs, rows in HEADLINES:
        lines.append(f"| {sentence} | {duration(medians[ours] / rows)} | {peer}: {duration(medians[theirs] / rows)} |")
    row = next(row for row in accuracy if row["data"] == "breast cancer" and row["n_bits"] == "default")
    sizes = {name: size(value) for name, value in row.items() if "_bytes" in name}
    lines.append(f"| evaluation keys; secret keys | {sizes['evaluation_key_bytes']}; {sizes['secret_key_bytes']} | |")
    lines.append(
        f"| ciphertexts per row, in; out | {sizes['input_bytes_per_row']}; {sizes['output_bytes_per_row']} | |"
    )
    lines.append(f"| table lookups | {row['lookups']} | |")
    return "\n".join(lines) + "\n"


def estimator_table(modules: list[ModuleType]) -> str:
    """Every public estimator, by module."""
    lines = ["| module | estimators |", "|---|---|"]
    lines += [f"| `{module.__name__}` | {', '.join(sorted(module.__all__))} |" for module in modules]
    return "\n".join(lines) + "\n"
