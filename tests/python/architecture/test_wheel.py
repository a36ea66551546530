"""What the wheel holds, read from the record of the installed one (`make install` puts it there)."""

from email.parser import Parser
from importlib.metadata import Distribution, distribution
from pathlib import Path

import pytest

from tests.python.architecture.project import PACKAGE, ROOT


@pytest.fixture(scope="module")
def wheel() -> Distribution:
    return distribution("fhelearn")


@pytest.fixture(scope="module")
def names(wheel: Distribution) -> list[str]:
    assert wheel.files is not None
    return [file.as_posix() for file in wheel.files]


def test_wheel_holds_one_native_module(names: list[str]) -> None:
    assert len([name for name in names if name.startswith("fhelearn/_core.") and name.endswith((".so", ".pyd"))]) == 1


@pytest.mark.parametrize("name", ["fhelearn/_core.pyi", "fhelearn/py.typed", "fhelearn/ir/SPEC.md"])
def test_wheel_holds(name: str, names: list[str]) -> None:
    assert name in names


def test_wheel_holds_the_license_text(wheel: Distribution) -> None:
    text = wheel.read_text("licenses/LICENSE")
    assert text == (ROOT / "LICENSE").read_text(encoding="utf-8")


def test_wheel_holds_every_module_of_the_package(names: list[str]) -> None:
    here = {path.relative_to(PACKAGE.parent).as_posix() for path in PACKAGE.rglob("*.py")}
    assert {name for name in names if name.startswith("fhelearn/") and name.endswith(".py")} == here


def test_wheel_holds_nothing_but_the_package_and_its_metadata(wheel: Distribution, names: list[str]) -> None:
    allowed = ("fhelearn/", f"fhelearn-{wheel.version}.dist-info/")
    assert not [name for name in names if not name.startswith(allowed)]
    assert not [name for name in names if name.endswith((".cpp", ".hpp", ".h", ".a", ".cmake"))]


def test_stub_names_what_the_native_module_holds() -> None:
    import fhelearn._core as core

    stub = Path(str(core.__file__)).with_name("_core.pyi").read_text(encoding="utf-8")
    for name in ("Engine", "quantize", "dequantize", "isa"):
        assert hasattr(core, name)
        assert name in stub


def test_metadata_gives_one_version_and_the_license(wheel: Distribution) -> None:
    import fhelearn

    fields = Parser().parsestr(wheel.read_text("METADATA") or "")
    assert fields["Version"] == fhelearn.__version__
    assert fields["License-Expression"] == "BSD-3-Clause"


@pytest.mark.parametrize("extra", ["torch", "xgboost", "lightgbm", "all", "test", "bench", "dev"])
def test_metadata_offers_the_extra(extra: str, wheel: Distribution) -> None:
    assert extra in (wheel.metadata.get_all("Provides-Extra") or [])
