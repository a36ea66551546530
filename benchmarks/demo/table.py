"""The demo's text output: tables ruled with box-drawing lines, 100 columns at most."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from benchmarks.demo.experiment import Experiment
from benchmarks.tables import duration, size

SHOWN_ROWS = 6


def ruled(header: Sequence[str], rows: Sequence[Sequence[str]], indent: str = "  ") -> str:
    """Left-align the first column, right-align the others, draw a line under the header."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]

    def line(cells: Sequence[str]) -> str:
        first, *others = (
            cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(cells, widths, strict=True))
        )
        return indent + "   ".join([first, *others]).rstrip()

    return "\n".join([line(header), indent + "───".join("─" * width for width in widths), *map(line, rows)])


def predictions(experiment: Experiment) -> str:
    """Compare the three ways, then show the first rows of each."""
    e = experiment
    ways = {"float (scikit-learn)": e.clear, "simulated (C++ engine)": e.simulated, "decrypted": e.decrypted}
    stages = {
        "float (scikit-learn)": e.seconds["predict in the clear"],
        "simulated (C++ engine)": e.seconds["simulate"],
        "decrypted": sum(e.seconds[stage] for stage in ("quantize", "encrypt", "run encrypted", "decrypt")),
    }
    rows = [
        [way, f"{e.metric(prediction):.4f}", "" if i == 0 else e.agreement(prediction), duration(stages[way] / e.rows)]
        for i, (way, prediction) in enumerate(ways.items())
    ]
    summary = ruled(["prediction", e.metric_name, "against float", "per row"], rows)
    form = str if e.is_classifier else "{:.6f}".format
    chosen = [[f"test row {i}", str(e.truth[i]), *(form(p[i]) for p in ways.values())] for i in range(SHOWN_ROWS)]
    sample = ruled(["", "truth", "float", "simulated", "decrypted"], chosen)
    return f"{summary}\n\n{sample}"


def costs(experiments: Sequence[Experiment]) -> str:
    """Put measured times, then what each model's own report says, side by side."""
    titles = [e.title for e in experiments]
    stages = [stage for stage in experiments[0].seconds if stage not in ("predict in the clear", "simulate")]
    times = [[stage, *(duration(e.seconds[stage]) for e in experiments)] for stage in stages]
    reports = [e.report for e in experiments]
    figures = [
        ["estimated time per row", *(duration(r.seconds_per_row or 0) for r in reports)],
        ["encrypted input per row", *(size(r.input_bytes_per_row or 0) for r in reports)],
        ["encrypted answer per row", *(size(r.output_bytes_per_row or 0) for r in reports)],
        ["secret keys", *(size(r.secret_key_bytes or 0) for r in reports)],
        ["evaluation keys", *(size(r.evaluation_key_bytes or 0) for r in reports)],
        ["table lookups", *(str(r.lookups) for r in reports)],
        ["bits: inputs, weights, answer", *(f"{r.input_bits}, {r.weight_bits}, {r.accumulator_bits}" for r in reports)],
        ["chance of a wrong answer", *(chance(r.global_p_error or 0) for r in reports)],
        ["values clipped to the range", *(f"{e.report.clipped} of {e.rows * e.features}" for e in experiments)],
    ]
    measured = ruled(["measured, all rows", *titles], times)
    return f"{measured}\n\n\n{ruled(['says report()', *titles], figures)}"


def chance(probability: float) -> str:
    """Write a probability as the next greater power of two."""
    return "0" if probability == 0 else f"2^{np.ceil(np.log2(probability)):.0f}"
