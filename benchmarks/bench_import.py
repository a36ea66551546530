"""Import times, each in a fresh interpreter: what a script or a worker pays before it does anything."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

STATEMENTS = {
    "an empty script": "pass",
    "numpy": "import numpy",
    "scikit-learn's linear_model": "import sklearn.linear_model",
    "fhelearn": "import fhelearn",
    "fhelearn.linear_model": "import fhelearn.linear_model",
}


@pytest.mark.benchmark(group="Start Python and import")
@pytest.mark.parametrize("name", STATEMENTS)
def bench_import(name: str, benchmark: Any, tmp_path: Path) -> None:
    command = [sys.executable, "-c", STATEMENTS[name]]
    done = benchmark.pedantic(
        subprocess.run,
        (command,),
        {"cwd": tmp_path, "capture_output": True, "check": True},
        rounds=20,
        warmup_rounds=2,
    )
    assert done.returncode == 0
