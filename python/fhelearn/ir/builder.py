"""The builder: the only way to make a program; every node is inferred and checked as it is emitted."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np

from fhelearn.exceptions import ProgramError
from fhelearn.ir.cost import inference_work
from fhelearn.ir.interval import Bounds
from fhelearn.ir.program import MAX_PROGRAM_BOUNDS, MAX_PROGRAM_WORK, Node, Program, Value
from fhelearn.ir.verify import DeclaredBounds, check_text, infer, verify


def _frozen(value: Any) -> Any:
    """Attributes as they are kept: tuples for sequences of int, private read-only int64 arrays for ndarrays."""
    if isinstance(value, np.ndarray):
        if value.dtype.kind not in "iu" and not (value.dtype == object and value.size):
            raise ProgramError(f"must be an integer array, got dtype {value.dtype}")
        if value.dtype == np.uint64 or value.dtype == object:
            bounds = Bounds.of(value, value)
            if value.size and not bounds.fits_int64:
                raise ProgramError("has entries beyond 63 bits")
        kept = np.array(value, dtype=np.int64, order="C")
        kept.setflags(write=False)
        return kept
    if isinstance(value, np.integer):
        return int(value)
    if isinstance(value, list | tuple):
        return tuple(int(v) if isinstance(v, np.integer) else v for v in value)
    return value


@dataclass
class ProgramBuilder:
    """Builds a program node by node, inferring and checking each.

    Examples
    --------
    >>> builder = ProgramBuilder()
    >>> x = builder.emit("input", shape=(3,), lo=0, hi=3)
    >>> y = builder.emit("matmul", x, weights=np.array([[1, -1], [1, 1], [1, -1]]))
    >>> print(builder.build(y))
    %0: u2[3] in [0, 3] = input()
    %1: i5[2] in [-6, 9] = matmul(%0) weights=(3, 2)
    return %1
    """

    nodes: list[Node] = field(default_factory=list)
    _work: int = 0
    _bounds: int = 0

    def emit(
        self, op: str, *operands: int, name: str = "", declared: DeclaredBounds | None = None, **attributes: Any
    ) -> int:
        """Append a node and return its index.

        Parameters
        ----------
        op : str
            A key of :data:`fhelearn.ir.OPS`.
        *operands : int
            Indices that earlier calls returned.
        name : str
            For messages and statistics.
        declared : DeclaredBounds, optional
            Narrower bounds than interval arithmetic proves.
        **attributes
            As the op's signature in ``SPEC.md`` says; sequences of int and integer arrays are copied.

        Raises
        ------
        ProgramError
            Names the node, the op, the value met and what is allowed.
        """
        check_text(f"%{len(self.nodes)} {op}: name", name)
        where = f"%{len(self.nodes)} {op}" + (f" '{name}'" if name else "")
        value, kept = self._infer(where, op, operands, attributes, declared)
        sources = [self.nodes[i].value for i in operands]
        self._work += inference_work(op, value.shape, sources, kept)
        if self._work > MAX_PROGRAM_WORK:
            raise ProgramError(f"{where}: the program needs too much work; at most {MAX_PROGRAM_WORK} steps in all")
        self._bounds += int(value.bounds.lo.size)
        if self._bounds > MAX_PROGRAM_BOUNDS:
            raise ProgramError(
                f"{where}: the program has too many bounds of single elements; at most {MAX_PROGRAM_BOUNDS}"
            )
        self.nodes.append(Node(op, tuple(int(i) for i in operands), MappingProxyType(kept), value, name))
        return len(self.nodes) - 1

    def inferred(self, op: str, *operands: int, **attributes: Any) -> Value:
        """The value that :meth:`emit` would define with these arguments; nothing is appended."""
        return self._infer(f"%{len(self.nodes)} {op}", op, operands, attributes, None)[0]

    def _infer(
        self,
        where: str,
        op: str,
        operands: tuple[int, ...],
        attributes: dict[str, Any],
        declared: DeclaredBounds | None,
    ) -> tuple[Value, dict[str, Any]]:
        frozen = {}
        for key in sorted(attributes):
            try:
                frozen[key] = _frozen(attributes[key])
            except ProgramError as error:
                raise ProgramError(f"{where}: {key} {error}") from None
        return infer(where, op, [self._operand(where, i) for i in operands], frozen, declared)

    def _operand(self, where: str, index: int) -> Node:
        if isinstance(index, bool) or not isinstance(index, int | np.integer) or not 0 <= index < len(self.nodes):
            raise ProgramError(f"{where}: operand {index!r} must be one of the {len(self.nodes)} earlier nodes")
        return self.nodes[index]

    def value(self, index: int) -> Value:
        """The value that node `index` defines."""
        return self.nodes[index].value

    def build(self, *outputs: int) -> Program:
        """The program that returns `outputs`. Raises ProgramError if there is none or one is no node."""
        program = Program(tuple(self.nodes), tuple(int(i) for i in outputs))
        verify(program, reinfer=False)
        return program
