"""The shape of the checkout: its top level, its size limits, and flags that a wheel must not be built with."""

from pathlib import Path

import pytest

from tests.python.architecture.project import ROOT, cpp_files, python_files

MAX_FILE_LINES = 500
FIXED = {"python", "cpp", "tests", "benchmarks", "CMakeLists.txt", "pyproject.toml", "README.md"}
SUPPORT = {
    ".ci",
    ".clang-format",
    ".clang-tidy",
    ".git",
    ".gitignore",
    ".pre-commit-config.yaml",
    "CHANGELOG.md",
    "CMakePresets.json",
    "CONTRIBUTING.md",
    "LICENSE",
    "Makefile",
}


MADE_BY_TOOLS = {".venv", "build", "dist", ".hypothesis", ".benchmarks"}  # .gitignore holds them, and every *_cache


def test_top_level_is_the_one_of_the_design() -> None:
    present = {path.name for path in ROOT.iterdir() if not path.name.endswith("_cache")}
    assert present >= FIXED
    assert not present - FIXED - SUPPORT - MADE_BY_TOOLS


@pytest.mark.parametrize(
    "path", [*python_files("python", "tests", "benchmarks"), *cpp_files()], ids=lambda path: path.name
)
def test_no_file_is_longer_than_500_lines(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MAX_FILE_LINES


@pytest.mark.parametrize("path", [*(ROOT / "cpp").rglob("*"), ROOT / "CMakeLists.txt"], ids=lambda path: path.name)
def test_nothing_is_compiled_for_the_machine_at_hand(path: Path) -> None:
    if path.is_file():
        text = path.read_text(encoding="utf-8")
        assert "march=native" not in text
        assert "mtune=native" not in text


@pytest.mark.parametrize("folder", ["include", "src"])
def test_the_core_never_sees_python(folder: str) -> None:
    text = "\n".join(path.read_text(encoding="utf-8") for path in cpp_files() if ROOT / "cpp" / folder in path.parents)
    assert "pybind11" not in text
    assert "Python.h" not in text


@pytest.mark.parametrize("path", python_files("python", "tests", "benchmarks"), ids=lambda path: path.name)
def test_no_test_is_left_out_or_expected_to_fail(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for words in (
        ("mark", "skip"),
        ("pytest", "skip"),
        ("pytest", "importorskip"),
        ("mark", "xfail"),
        ("mark", "flaky"),
    ):
        assert ".".join(words) not in text
