"""The text form of programs: for people, expect tests and error reports; it is not parsed back."""

from __future__ import annotations

from typing import Any

import numpy as np

from fhelearn.ir.program import Node, Program


def to_text(program: Program) -> str:
    """One line per node and one for the outputs; arrays are shown by their shape, declared bounds by their reason."""
    lines = [f"%{index}: {_value(node)} = {_operation(node)}" for index, node in enumerate(program.nodes)]
    return "\n".join([*lines, "return " + ", ".join(f"%{i}" for i in program.outputs)])


def _value(node: Node) -> str:
    value = node.value
    kind = f"{'i' if value.signed else 'u'}{value.bit_width}[{','.join(map(str, value.shape))}]"
    trust = "" if value.provenance == "proved" else f" {value.provenance}"
    return f"{kind} in [{value.bounds.minimum}, {value.bounds.maximum}]{trust}"


def _operation(node: Node) -> str:
    shown = {} if node.op == "input" else node.attributes
    attributes = "".join(f" {key}={_attribute(value)}" for key, value in shown.items())
    operands = ", ".join(f"%{i}" for i in node.operands)
    notes = [note for note in (node.name, node.value.reason) if note]
    return f"{node.op}({operands}){attributes}" + (f"  # {'; '.join(notes)}" if notes else "")


def _attribute(value: Any) -> str:
    return str(value.shape) if isinstance(value, np.ndarray) else str(value)
