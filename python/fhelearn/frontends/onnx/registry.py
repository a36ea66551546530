"""The operators that can be imported: one small function each, found by the operator's name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from fhelearn.exceptions import UnsupportedOperatorError
from fhelearn.frontends.onnx.quantizer import Quantizer
from fhelearn.frontends.onnx.values import Clear, Encrypted, Tensor

if TYPE_CHECKING:
    from onnx import NodeProto


@dataclass(frozen=True, eq=False)
class GraphNode:
    """A node of the graph, ready to be imported.

    Attributes
    ----------
    proto : onnx.NodeProto
    name : str
        Unique in the graph.
    inputs : sequence of Tensor or None
        None where an optional input was left out.
    attributes : mapping of str to object
        As Python and NumPy values.
    opset : int
    feeds_lookup : bool
        Whether a lookup may read the result, so that its width is worth bits.
    """

    proto: NodeProto
    name: str
    inputs: Sequence[Tensor | None]
    attributes: dict[str, Any]
    opset: int
    feeds_lookup: bool

    @property
    def op_type(self) -> str:
        """The operator."""
        return str(self.proto.op_type)

    def __str__(self) -> str:
        return f"{self.op_type} '{self.name}'"

    def unsupported(self, what: str, remedy: str) -> UnsupportedOperatorError:
        """The error that this node cannot be encrypted: `what` is wrong (an attribute and its value), and a remedy."""
        return UnsupportedOperatorError(f"{self}: {what}; {remedy}")

    def has(self, position: int) -> bool:
        """Whether there is an input at `position`."""
        return position < len(self.inputs) and self.inputs[position] is not None

    def clear(self, position: int, what: str, default: Any = None) -> Clear:
        """The input at `position`, which must be constant; `default` where it was left out."""
        if not self.has(position):
            return np.asarray(default)
        value = self.inputs[position]
        if isinstance(value, Encrypted):
            raise self.unsupported(f"{what} depends on encrypted data", f"make {what} a constant")
        assert value is not None
        return value

    def encrypted(self, position: int, what: str) -> Encrypted:
        """The input at `position`, which must be encrypted."""
        value = self.inputs[position] if self.has(position) else None
        if not isinstance(value, Encrypted):
            raise self.unsupported(f"{what} is constant while another operand is encrypted", "exchange them")
        return value

    def integers(self, position: int, name: str) -> tuple[int, ...] | None:
        """Integers that ONNX keeps in the input `position` in newer opsets, in the attribute `name` in older; or None."""
        if self.has(position):
            return tuple(int(v) for v in self.clear(position, name).ravel())
        given = self.attributes.get(name)
        if given is None:
            return None
        return tuple(int(v) for v in np.ravel(given))


Handler: TypeAlias = Callable[[Quantizer, GraphNode], "Tensor | Sequence[Tensor]"]

OPERATORS: dict[str, Handler] = {}
"""By operator of the default domain, what imports a node some input of which is encrypted."""


def imports(*op_types: str) -> Callable[[Handler], Handler]:
    """Register a handler for operators."""

    def register(handler: Handler) -> Handler:
        for op_type in op_types:
            OPERATORS[op_type] = handler
        return handler

    return register
