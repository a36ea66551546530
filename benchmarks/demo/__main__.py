"""Train, compile, encrypt, run, decrypt, compare, plot; exits with 1 if decrypted and simulated answers differ."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from sklearn.datasets import load_breast_cancer, load_diabetes

import fhelearn
from benchmarks.demo import plot, table
from benchmarks.demo.experiment import Experiment, run
from fhelearn.linear_model import LogisticRegression, Ridge

PLOT = Path("build") / "fhelearn-demo.png"


def experiments() -> list[Experiment]:
    """One classifier and one regressor, both on raw, unscaled features."""
    cancer, diabetes = load_breast_cancer(), load_diabetes(scaled=False)
    classifier = LogisticRegression(solver="newton-cholesky")
    return [
        run("LogisticRegression", "breast cancer", classifier, cancer.data, cancer.target),
        run("Ridge", "diabetes", Ridge(), diabetes.data, diabetes.target),
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the report, write the plot, and compare; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.demo", description=__doc__)
    parser.add_argument("--plot", type=Path, default=PLOT, help="where to write the PNG (default: %(default)s)")
    path = parser.parse_args(arguments).plot
    print(f"\nfhelearn {fhelearn.__version__}: scikit-learn models that predict on encrypted data\n")
    done = experiments()
    for e in done:
        sizes = f"{e.train_rows} training rows of {e.features} raw features, {e.rows} encrypted rows"
        print(f"{e.title} on {e.data}: {sizes}\n")
        print(table.predictions(e), end="\n\n\n")
    print(table.costs(done), end="\n\n")
    path.parent.mkdir(parents=True, exist_ok=True)
    plot.draw(done, path)
    print(f"Plot: {path}")
    wrong = [e.title for e in done if not e.decrypted_equals_simulated]
    if wrong:
        print(f"FAILED: decrypted and simulated answers differ for {', '.join(wrong)}", file=sys.stderr)
        return 1
    print("Every decrypted answer equals the simulated one.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
