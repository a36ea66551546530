"""What an operation is: one OpSpec per row of the table in SPEC.md."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from fhelearn.ir.interval import Bounds
from fhelearn.ir.program import Value

Attributes: TypeAlias = Mapping[str, Any]
AttributeKind: TypeAlias = Literal["int", "bool", "str", "ints", "array", "bound"]
"""``bound`` is an int, or an int array that broadcasts to the value's shape."""

OpKind: TypeAlias = Literal["source", "levelled", "lookup", "static"]
"""What encryption pays: nothing (source, static), linear arithmetic (levelled), or table lookups."""


@dataclass(frozen=True)
class OpSpec:
    """Everything there is to know of an operation.

    Attributes
    ----------
    name : str
    kind : {"source", "levelled", "lookup", "static"}
    arity : tuple of int
        Least and greatest number of operands.
    attributes : mapping of str to AttributeKind
        All are required.
    shape : callable ``(operand values, attributes) -> shape``
        Raises ProgramError (without saying where) if the operands or attributes do not fit.
    bounds : callable ``(operand values, attributes) -> Bounds``
        The tightest bounds per element that interval arithmetic proves; called after `shape`.
    evaluate : callable ``(operand arrays, attributes) -> array``
        The normative meaning on arrays ``(n, *shape)`` of int64 (or of Python integers).
    lookups : callable ``(operand values, attributes) -> int``
        Table lookups per row when lowered without passes.
    """

    name: str
    kind: OpKind
    arity: tuple[int, int]
    attributes: Mapping[str, AttributeKind]
    shape: Callable[[Sequence[Value], Attributes], tuple[int, ...]]
    bounds: Callable[[Sequence[Value], Attributes], Bounds]
    evaluate: Callable[[Sequence[Any], Attributes], Any]
    lookups: Callable[[Sequence[Value], Attributes], int] = lambda operands, attributes: 0
