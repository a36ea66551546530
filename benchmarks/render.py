"""`make bench`: run every benchmark, then write the measured tables into benchmarks/README.md and README.md."""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import subprocess
import sys
from dataclasses import asdict
from datetime import date
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

from benchmarks import tables
from benchmarks.forests import PEER

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "build" / "benchmarks"
LIBRARIES = ("fhelearn", "concrete-python", "scikit-learn", "xgboost", "lightgbm", "torch", "onnx", "numpy")
MODULES = (
    "linear_model",
    "svm",
    "discriminant_analysis",
    "naive_bayes",
    "kernel_ridge",
    "cross_decomposition",
    "tree",
    "ensemble",
    "xgboost",
    "lightgbm",
    "neural_network",
)


def run_timings(path: Path) -> None:
    """Run every benchmark file, one after the other, and save pytest-benchmark's JSON."""
    command = [sys.executable, "-m", "pytest", "benchmarks", "-m", "", "--benchmark-only", f"--benchmark-json={path}"]
    subprocess.run([*command, "-q"], cwd=ROOT, check=True)


def machine() -> str:
    """Processor, system and versions that the figures belong to."""
    cpuinfo = Path("/proc/cpuinfo")
    model = re.search(r"model name\s*: (.*)", cpuinfo.read_text()) if cpuinfo.exists() else None
    processor = model[1] if model else platform.processor()
    versions = ", ".join(f"{name} {version(name)}" for name in LIBRARIES)
    python = f"{platform.system()}, Python {platform.python_version()}"
    load = f"load average of the last 15 minutes {os.getloadavg()[2]:.1f}"
    return f"Measured {date.today()} on {os.cpu_count()} cores of {processor}, {load}, {python}; {versions}.\n"


def measure() -> None:
    """Run everything and leave the raw results in build/benchmarks."""
    from benchmarks import accuracy, forests, large_forests, networks

    RESULTS.mkdir(parents=True, exist_ok=True)
    run_timings(RESULTS / "timings.json")
    (RESULTS / "accuracy.json").write_text(json.dumps([asdict(row) for row in accuracy.measure_all()], indent=1))
    (RESULTS / "forests.json").write_text(json.dumps([asdict(row) for row in forests.measure_all()], indent=1))
    large = [asdict(row) for row in large_forests.measure_all()]
    (RESULTS / "large_forests.json").write_text(json.dumps(large, indent=1))
    (RESULTS / "networks.json").write_text(json.dumps([asdict(row) for row in networks.measure_all()], indent=1))
    (RESULTS / "machine.txt").write_text(machine())


def replace(path: Path, name: str, content: str) -> None:
    """Put content between the markers `<!-- name -->` and `<!-- end name -->` of a page."""
    begin, end = f"<!-- {name} -->", f"<!-- end {name} -->"
    pattern = re.compile(re.escape(begin) + r".*?" + re.escape(end), re.DOTALL)
    text = path.read_text(encoding="utf-8")
    if not pattern.search(text):
        raise ValueError(f"{path}: the markers {begin} and {end} are missing; put them where the table belongs")
    path.write_text(pattern.sub(lambda _: f"{begin}\n\n{content}\n{end}", text), encoding="utf-8")


def main() -> None:
    """Measure (or, with --reuse, read what was measured last) and rewrite both pages."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--reuse", action="store_true", help="render the last results again instead of measuring")
    if not parser.parse_args().reuse:
        measure()
    timings = json.loads((RESULTS / "timings.json").read_text())
    accuracy = json.loads((RESULTS / "accuracy.json").read_text())
    page, front = ROOT / "benchmarks" / "README.md", ROOT / "README.md"
    replace(page, "machine", (RESULTS / "machine.txt").read_text())
    replace(page, "timings", tables.timing_tables(timings))
    replace(page, "accuracy", tables.accuracy_table(accuracy))
    forests = json.loads((RESULTS / "forests.json").read_text())
    replace(page, "forests", tables.forest_table(forests, PEER))
    large = json.loads((RESULTS / "large_forests.json").read_text())
    replace(page, "large forests", tables.large_forest_table(large))
    networks = json.loads((RESULTS / "networks.json").read_text())
    replace(page, "networks", tables.network_table(networks))
    replace(front, "networks", tables.network_headlines(networks))
    replace(front, "forests", tables.forest_headlines(forests, PEER))
    replace(front, "costs", tables.cost_table(timings, accuracy))
    replace(front, "estimators", tables.estimator_table([import_module(f"fhelearn.{name}") for name in MODULES]))


if __name__ == "__main__":
    main()
