"""What an import gives: encoders, program, decoders, and what a report needs to know of the graph."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fhelearn.ir import Program, from_bytes, to_bytes
from fhelearn.ir.cost import lookup_counts
from fhelearn.quantization.uniform import UniformDecoder, UniformEncoder
from fhelearn.typing import FloatArray, IntArray


@dataclass(frozen=True, eq=False)
class TensorEncoder:
    """Float tensors to the integers of one input of the program.

    Attributes
    ----------
    name : str
        Of the graph's input.
    row : tuple of int
        Shape of one row as users give it; empty for scalars.
    shape : tuple of int
        Of the program's input.
    columns : UniformEncoder
        Of the flattened elements.
    """

    name: str
    row: tuple[int, ...]
    shape: tuple[int, ...]
    columns: UniformEncoder

    def quantize(self, x: FloatArray) -> IntArray:
        """Nearest codes, clipped. x: float64, shape (n, *row), no NaN. Returns int64, shape (n, *shape)."""
        return self.columns.quantize(x.reshape(len(x), -1)).reshape(len(x), *self.shape)

    def dequantize(self, q: IntArray) -> FloatArray:
        """The floats that codes stand for: shape (n, *row)."""
        return self.columns.dequantize(q.reshape(len(q), -1)).reshape(len(q), *self.row)


@dataclass(frozen=True, eq=False)
class TensorDecoder:
    """Integers of one output of the program to float tensors.

    Attributes
    ----------
    name : str
        Of the graph's output.
    row : tuple of int
        Shape of one row of the answer.
    columns : UniformDecoder
        Of the flattened elements.
    """

    name: str
    row: tuple[int, ...]
    columns: UniformDecoder

    def dequantize(self, q: IntArray) -> FloatArray:
        """Floats, shape (n, *row), of int64 q of shape (n, *shape of the program's output)."""
        return self.columns.dequantize(q.reshape(len(q), -1)).reshape(len(q), *self.row)


@dataclass(frozen=True, eq=False)
class Probe:
    """A tensor of the graph as the program knows it: ``scale * q + offset`` of a node of the raw program.

    Attributes
    ----------
    tensor : str
        Name in the graph.
    node : int
    scale, offset : ndarray of float64
        Broadcastable to the node's shape.
    """

    tensor: str
    node: int
    scale: FloatArray
    offset: FloatArray


@dataclass(frozen=True, eq=False)
class QuantizedNetwork:
    """A network in integers.

    Attributes
    ----------
    encoders : tuple of TensorEncoder
        Of the graph's inputs.
    program : Program
        Without products of encrypted values, equal lookups and dead nodes; nodes have the names of the graph's nodes.
    decoders : tuple of TensorDecoder
        Of the graph's outputs.
    weight_bits : mapping of str to int
        Bits of the weights of linear operators, by the name of the graph's node.
    raw : Program or None
        As imported: the same function. `probes` refer to it.
    probes : tuple of Probe
        Tensors of the graph, for comparing them with their float values.
    """

    encoders: tuple[TensorEncoder, ...]
    program: Program
    decoders: tuple[TensorDecoder, ...]
    weight_bits: dict[str, int] = field(default_factory=dict)
    raw: Program | None = None
    probes: tuple[Probe, ...] = ()

    def __getstate__(self) -> dict[str, Any]:
        programs = {"program": to_bytes(self.program), "raw": None if self.raw is None else to_bytes(self.raw)}
        return {**self.__dict__, **programs}  # programs travel as their files, which are verified again

    def __setstate__(self, state: dict[str, Any]) -> None:
        programs = {name: None if state[name] is None else from_bytes(state[name]) for name in ("program", "raw")}
        self.__dict__.update(state, **programs)

    def quantize(self, inputs: Sequence[FloatArray]) -> list[IntArray]:
        """Codes of float inputs."""
        return [encoder.quantize(x) for encoder, x in zip(self.encoders, inputs, strict=True)]

    def dequantize(self, outputs: Sequence[IntArray]) -> list[FloatArray]:
        """Floats of the program's outputs."""
        return [decoder.dequantize(q) for decoder, q in zip(self.decoders, outputs, strict=True)]


def flat(array: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """`array` broadcast to `shape`, flattened."""
    return np.broadcast_to(array, shape).ravel()


@dataclass(frozen=True)
class LookupGroup:
    """The lookups of one node of a program.

    Attributes
    ----------
    node : int
    layer : str
        Name of the graph's node, or output, that it belongs to.
    bits : int
        Width of what is looked up: of the region, less what rounding removed.
    count : int
        Lookups per row.
    price : int
        Of all of them, in millions of operations.
    rounding : bool
        Whether they take out single bits, in exact rounding; the table is read by others.
    """

    node: int
    layer: str
    bits: int
    count: int
    price: int
    rounding: bool


def layers_of(program: Program) -> tuple[str, ...]:
    """Per node, the name of the graph's node that it was emitted for; nodes without a name count to their reader."""
    names = [node.name for node in program.nodes]
    for index in reversed(range(len(names))):
        for operand in program.nodes[index].operands:
            names[operand] = names[operand] or names[index]
    return tuple(names)


def lookup_groups(program: Program) -> list[LookupGroup]:
    """The lookups of a program, in order, with the layers they belong to."""
    layers = layers_of(program)
    return [
        LookupGroup(c.node, layers[c.node], c.bit_width, c.lookups, c.price, c.rounding) for c in lookup_counts(program)
    ]
