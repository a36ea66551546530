"""What a tensor of an ONNX graph is during import: a clear NumPy array, or floats that stand for encrypted integers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fhelearn.typing import FloatArray, IntArray

Clear: TypeAlias = NDArray[Any]
"""Numbers that the server knows: weights, shapes, whatever follows from them."""


@dataclass(frozen=True, eq=False)
class Pole:
    """Where a composed function divides by zero.

    Attributes
    ----------
    where : str
        The graph's node.
    divisor : callable
        From the function's integers to the divisor's elements.
    whole : bool
        Whether integers are divided: their quotient by zero is no infinity, but any number.
    """

    where: str
    divisor: Callable[[NDArray[Any]], Clear]
    whole: bool


@dataclass(frozen=True, eq=False)
class Function:
    """What univariate operators of the graph make of an integer, composed.

    Attributes
    ----------
    call : callable
        From integers ``(rows, *broadcastable to the shape)`` to the tensor's elements.
    uniform : bool
        Whether it is the same function for every element.
    poles : tuple of Pole
        Divisions inside, by encrypted values.
    """

    call: Callable[[NDArray[Any]], Clear]
    uniform: bool
    poles: tuple[Pole, ...] = ()


@dataclass(frozen=True, eq=False)
class Encrypted:
    """A tensor whose every element is a function of one integer: ``scale * q + offset``, or ``function(q)``.

    Attributes
    ----------
    node : int
        The integers: a node of the program, of the tensor's shape.
    shape : tuple of int
        As in the graph, with its batch axis (of extent 1).
    scale, offset : ndarray of float64
        Of the tensor's rank, compact, broadcastable to it. A scale may be negative or zero. Without meaning beside a
        function.
    kind : str
        What ONNX says the elements are, by NumPy's letter: "f" floats, "i" integers, "b" booleans.
    function : Function or None
        None: the tensor is affine in q.
    source : str
        Name of the graph's input that this is, moved or scaled; "" for everything else.
    """

    node: int
    shape: tuple[int, ...]
    scale: FloatArray
    offset: FloatArray
    kind: str = "f"
    function: Function | None = None
    source: str = ""

    @property
    def affine(self) -> bool:
        """Whether the tensor is ``scale * q + offset``."""
        return self.function is None

    @property
    def poles(self) -> tuple[Pole, ...]:
        """Divisions by encrypted values that made the tensor."""
        return self.function.poles if self.function else ()

    @property
    def uniform(self) -> bool:
        """Whether all elements are the same function of their integers."""
        return self.function.uniform if self.function else self.scale.size == self.offset.size == 1

    def at(self, q: NDArray[Any]) -> Clear:
        """The elements for integers q, shape ``(rows, *broadcastable to shape)``, in the type that ONNX gives them."""
        if self.function is not None:
            return as_kind(self.function.call(q), self.kind)
        return as_kind(any_rank(self.scale) * q + any_rank(self.offset), self.kind)

    def mapped(self, function: Callable[[Clear], Clear], kind: str = "f") -> Encrypted:
        """`function` of every element, the same for all; nothing is emitted."""
        one = np.ones((1,) * len(self.shape))
        composed = Function(lambda q: function(self.at(q)), self.uniform, self.poles)
        return Encrypted(self.node, self.shape, one, 0 * one, kind, composed)

    def moved(self, node: int, shape: tuple[int, ...], move: Callable[[FloatArray], FloatArray]) -> Encrypted:
        """The tensor, affine or uniform, after a static operation `move` on its elements, which made `node`."""

        def moved(array: FloatArray) -> FloatArray:
            if array.size == 1:
                return array.reshape((1,) * len(shape))
            return compact(move(np.broadcast_to(array, self.shape)))

        return replace(self, node=node, shape=shape, scale=moved(self.scale), offset=moved(self.offset))


Tensor: TypeAlias = Clear | Encrypted


def any_rank(array: NDArray[Any]) -> NDArray[Any]:
    """A single number as a scalar: what is the same function for every element may be moved to fewer axes."""
    return array.reshape(()) if array.size == 1 else array


def as_kind(x: Clear, kind: str) -> Clear:
    """`x` as float64, int64 (rounded) or bool."""
    if kind == "b":
        return x if x.dtype == np.bool_ else x > 0.5
    if kind == "i":
        return x.astype(np.int64) if x.dtype.kind in "iub" else np.rint(x).astype(np.int64)
    return x.astype(np.float64, copy=False)


def kind_of(dtype: Any) -> str:
    """The kind of a NumPy dtype: "f", "i" or "b"."""
    return {"u": "i"}.get(np.dtype(dtype).kind, np.dtype(dtype).kind)


def compact(array: NDArray[Any]) -> NDArray[Any]:
    """`array` with extent 1 along every axis along which it is constant; it broadcasts to what it was."""
    for axis in range(array.ndim):
        first = np.take(array, [0], axis=axis)
        if array.shape[axis] > 1 and (array == first).all():
            array = first
    return array


def steps_of(offset: FloatArray, scale: FloatArray) -> IntArray | None:
    """``offset / scale`` as integers, or None where it is none: up to the float64 rounding that scaling both leaves."""
    if not (scale != 0).all():
        return None
    steps = offset / scale
    whole = np.rint(steps)
    exact = np.abs(steps - whole) <= 2.0**-40 * np.maximum(np.abs(whole), 1.0)
    return np.asarray(whole, dtype=np.int64) if (exact & (np.abs(whole) < 2.0**40)).all() else None


def varies_along(array: NDArray[Any]) -> tuple[int, ...]:
    """The axes along which a compact array varies."""
    return tuple(axis for axis, extent in enumerate(array.shape) if extent > 1)


def of_rank(array: Any, rank: int) -> FloatArray:
    """`array` as float64 with axes of extent 1 put in front, up to `rank` axes."""
    values = np.asarray(array, dtype=np.float64)
    return values.reshape((1,) * (rank - values.ndim) + values.shape)
