"""The README's Python blocks run, in order, in one namespace, and print what the README says they print."""

import contextlib
import io
import re
from importlib import import_module

import pytest

from tests.python.architecture.project import ROOT

BLOCK = re.compile(r"^```python\n(.*?)^```(?:\n\n?```text\n(.*?)^```)?", re.DOTALL | re.MULTILINE)
README = ROOT / "README.md"


def blocks() -> list[tuple[str, str | None]]:
    """Every Python block with the text block that follows it at once, if any: what it prints."""
    return [(found[1], found[2]) for found in BLOCK.finditer(README.read_text(encoding="utf-8"))]


def run(chosen: list[tuple[str, str | None]]) -> None:
    namespace: dict[str, object] = {"__name__": "readme"}
    for code, expected in chosen:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(code, str(README), "exec"), namespace)
        if expected is not None:
            assert printed.getvalue() == expected


def needs_keys(code: str) -> bool:
    return re.search(r"execute|fhe_circuit_|server|decrypt", code) is not None


def test_readme_has_python_blocks() -> None:
    assert len(blocks()) >= 3


def test_every_python_block_of_the_readme_that_needs_no_key_runs() -> None:
    run([(code, expected) for code, expected in blocks() if not needs_keys(code)])


@pytest.mark.fhe
def test_every_python_block_of_the_readme_runs(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(str(tmp_path))
    run(blocks())


def test_the_readme_says_what_a_commercial_user_must_know() -> None:
    text = README.read_text(encoding="utf-8")
    assert "BSD-3-Clause-Clear" in text
    assert "patent" in text


@pytest.mark.parametrize(
    "module",
    [
        "linear_model",
        "svm",
        "discriminant_analysis",
        "naive_bayes",
        "kernel_ridge",
        "tree",
        "ensemble",
        "xgboost",
        "lightgbm",
        "neural_network",
    ],
)
def test_the_readme_lists_every_public_estimator(module: str) -> None:
    text = README.read_text(encoding="utf-8")
    for name in import_module(f"fhelearn.{module}").__all__:
        assert re.search(rf"\b{name}\b", text)
