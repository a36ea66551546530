"""What each module may load: checked on real imports in fresh interpreters, and on the source text."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.python.architecture.project import PACKAGE, imported_modules, python_files

HEAVY = (
    "torch",
    "concrete",
    "mlir",
    "sklearn",
    "scipy",
    "pandas",
    "numba",
    "onnx",
    "xgboost",
    "lightgbm",
    "matplotlib",
)


def loaded_by(statement: str, folder: Path) -> set[str]:
    """Top-level modules loaded after one statement in a fresh interpreter, started away from the checkout."""
    code = f"{statement}\nimport json, sys\nprint(json.dumps(sorted(name.partition('.')[0] for name in sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout))


@pytest.mark.parametrize("library", HEAVY)
def test_importing_fhelearn_loads_no_heavy_library(library: str, tmp_path: Path) -> None:
    assert library not in loaded_by("import fhelearn", tmp_path)


@pytest.mark.parametrize("module", ["linear_model", "svm", "tree", "ensemble"])
def test_importing_estimators_loads_neither_torch_nor_concrete(module: str, tmp_path: Path) -> None:
    loaded = loaded_by(f"import fhelearn.{module}", tmp_path)
    assert "sklearn" in loaded
    assert not loaded & {"torch", "concrete", "mlir", "onnx", "xgboost", "lightgbm"}


@pytest.mark.parametrize(("module", "other"), [("xgboost", "lightgbm"), ("lightgbm", "xgboost")])
def test_importing_boosters_loads_neither_torch_nor_concrete_nor_the_other_library(
    module: str, other: str, tmp_path: Path
) -> None:
    loaded = loaded_by(f"import fhelearn.{module}", tmp_path)
    assert module in loaded
    assert not loaded & {"torch", "concrete", "mlir", "onnx", other}


def test_fit_compile_and_simulate_load_neither_torch_nor_the_tracing_front_end(tmp_path: Path) -> None:
    program = (
        "import numpy as np\n"
        "from fhelearn.ir import ProgramBuilder\n"
        "from fhelearn.backends.native import NativeEngine\n"
        "b = ProgramBuilder()\n"
        "x = b.emit('input', shape=(2,), lo=0, hi=3, name='x')\n"
        "y = b.emit('matmul', x, weights=np.array([[1], [2]], dtype=np.int64))\n"
        "(out,) = NativeEngine(b.build(y)).run([np.array([[3, 1]], dtype=np.int64)])\n"
        "assert out.tolist() == [[5]]"
    )
    assert not loaded_by(program, tmp_path) & {"torch", "concrete", "mlir", "sklearn"}


@pytest.mark.parametrize("path", python_files("python"), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_only_the_concrete_back_end_names_concrete(path: Path) -> None:
    if PACKAGE / "backends" / "concrete" in path.parents:
        return
    assert not {name for name in imported_modules(path) if name.partition(".")[0] in {"concrete", "mlir"}}


@pytest.mark.parametrize("path", python_files("python"), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_only_the_engine_and_the_rim_import_the_native_module(path: Path) -> None:
    engines = (PACKAGE / "backends" / "native.py", PACKAGE / "backends" / "native_forest.py")
    if path in engines or PACKAGE / "quantization" in path.parents:
        return
    assert not {name for name in imported_modules(path) if name.startswith("fhelearn._core")}


PICKLES = {
    "pickle",
    "cPickle",
    "dill",
    "cloudpickle",
    "marshal",
    "shelve",
    "joblib.load",
    "joblib.dump",
    "numpy.lib.npyio",
}


@pytest.mark.parametrize("path", python_files("python", "benchmarks"), ids=lambda path: path.name)
def test_nothing_reads_pickles(path: Path) -> None:
    assert not PICKLES & set(imported_modules(path))
    text = path.read_text(encoding="utf-8")
    assert "joblib.load" not in text
    assert "allow_pickle=True" not in text.replace(" ", "")
