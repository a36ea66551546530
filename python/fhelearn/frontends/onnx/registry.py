"""The operators that can be imported: one small function each, found by the operator's name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

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
    input_types : sequence of numpy.dtype or None
        What the graph declares of the inputs' elements; None where it does not.
    """

    proto: NodeProto
    name: str
    inputs: Sequence[Tensor | None]
    attributes: dict[str, Any]
    opset: int
    feeds_lookup: bool
    input_types: Sequence[np.dtype[Any] | None] = ()

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
        """Integers of the input `position` (newer opsets) or of the attribute `name` (older ones); or None."""
        if self.has(position):
            return tuple(int(v) for v in self.clear(position, name).ravel())
        given = self.attributes.get(name)
        if given is None:
            return None
        return tuple(int(v) for v in np.ravel(given))


Handler: TypeAlias = Callable[[Quantizer, GraphNode], "Tensor | Sequence[Tensor]"]

OPERATORS: dict[str, Handler] = {}
"""By operator of the default domain, what imports a node some input of which is encrypted."""

ANY_REMEDY = "replace it by supported ones (see the table in the README), or run it in the clear before or after"

_AT_THE_END = "make it the model's last step: the client then computes it after decryption"
_COMPARE = "put it at the model's end, where the client computes it, or use Max and comparisons"
_NORMALIZE = (
    "train with BatchNormalization instead, whose statistics are constants, or make it the model's first or last step: "
    "the client then computes it before encryption or after decryption"
)
_UNROLL = "unroll it before export; each step is a MatMul and supported activations"
_KNOWN_SIZE = "its result's shape depends on encrypted data; compute a mask by comparisons and multiply by it"
_STATIC = "export one branch with a fixed number of steps: what runs cannot depend on encrypted data"

REMEDIES: dict[str, str] = {
    **dict.fromkeys(
        ("Softmax", "LogSoftmax"), f"{_AT_THE_END}; inside attention use a function of each element, such as Relu"
    ),
    **dict.fromkeys(("ArgMax", "ArgMin", "Hardmax", "TopK"), _COMPARE),
    **dict.fromkeys(
        ("LayerNormalization", "InstanceNormalization", "GroupNormalization", "RMSNormalization", "LpNormalization",
         "MeanVarianceNormalization", "LRN", "SkipLayerNormalization"),
        _NORMALIZE,
    ),
    **dict.fromkeys(("RNN", "LSTM", "GRU"), _UNROLL),
    **dict.fromkeys(("Loop", "Scan", "If"), _STATIC),
    **dict.fromkeys(("NonZero", "NonMaxSuppression", "Unique", "Compress"), _KNOWN_SIZE),
    "Einsum": "write it as Transpose, Reshape and MatMul",
    "Attention": "write it as MatMul, scaling and a function of one element in place of the softmax",
    "ReduceProd": "multiply the slices by Mul, or sum logarithms",
    "CumProd": "multiply the slices by Mul, or sum logarithms",
    "MaxUnpool": "upsample by Resize or ConvTranspose",
    "MaxRoiPool": "crop by Slice at fixed places and use MaxPool",
    "RoiAlign": "crop by Slice at fixed places and use AveragePool",
    "GridSample": "the places that it reads must be constant: use Resize or Gather",
    "DeformConv": "use Conv",
    "Det": "compute it from the elements by Mul and Sub, or on the client",
    "Multinomial": _AT_THE_END,
}  # fmt: skip
"""By operator that has no handler, what users can do instead."""


_AnyHandler = TypeVar("_AnyHandler", bound=Handler)


def imports(*op_types: str) -> Callable[[_AnyHandler], _AnyHandler]:
    """Register a handler for operators."""

    def register(handler: _AnyHandler) -> _AnyHandler:
        for op_type in op_types:
            OPERATORS[op_type] = handler
        return handler

    return register
