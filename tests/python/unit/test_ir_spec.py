"""SPEC.md is normative: its tables and the code must say the same."""

import re
from importlib.resources import files

import pytest

from fhelearn.ir import FORMAT_VERSION, OPS

SPEC = (files("fhelearn.ir") / "SPEC.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| `(\w+)` \| (\w+) \| ([\w ]+) \|([^|]*)\|", SPEC, flags=re.MULTILINE)


def test_the_specification_lists_every_op_and_no_other() -> None:
    assert sorted(name for name, *_ in ROWS) == sorted(OPS)


@pytest.mark.parametrize(("name", "kind", "arity", "attributes"), ROWS, ids=[row[0] for row in ROWS])
def test_a_row_states_kind_arity_and_attributes_of_its_op(name: str, kind: str, arity: str, attributes: str) -> None:
    spec = OPS[name]
    least, most = spec.arity
    assert kind == spec.kind
    assert arity == (str(least) if least == most else f"{least} to {most}")
    assert re.findall(r"`(\w+)`: (\w+)", attributes) == list(spec.attributes.items())


def test_the_specification_states_the_format_version() -> None:
    assert f"Format version: {FORMAT_VERSION}." in SPEC
