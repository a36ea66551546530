"""Where the project's files are; shared by the architecture tests."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
PACKAGE = ROOT / "python" / "fhelearn"


def python_files(*folders: str) -> list[Path]:
    """List the Python files under folders of the checkout, sorted."""
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def cpp_files() -> list[Path]:
    """List the C++ files of the checkout, sorted."""
    suffixes = {".cpp", ".hpp", ".h", ".inl"}
    return sorted(
        path for folder in ("cpp", "tests/cpp") for path in (ROOT / folder).rglob("*") if path.suffix in suffixes
    )


def imported_modules(path: Path) -> Iterator[str]:
    """Yield the full name of every module that a file imports, and of every name it imports from one.

    Relative imports are made absolute, so ``from ._core import Engine`` in ``fhelearn/backends`` yields
    ``fhelearn.backends._core`` and ``fhelearn.backends._core.Engine``.
    """
    package = list(path.relative_to(ROOT / "python").parts[:-1]) if path.is_relative_to(ROOT / "python") else []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)
