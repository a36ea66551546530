"""MLIR text: types, constants and operations of the FHELinalg dialect, without any knowledge of programs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from fhelearn.ir.interval import bit_width
from fhelearn.typing import IntArray

_HEX_WIDTHS = (8, 16, 32)  # widths whose dense constants may be given as little-endian hexadecimal bytes
WIDEST_CLEAR = 63
"""Widest clear integer: the compiler extends constants to i64 and rejects those that already are."""


@dataclass(frozen=True)
class Wire:
    """An encrypted tensor in the text.

    Attributes
    ----------
    name : str
        SSA name, with ``%``.
    shape : tuple of int
        With the batch axis first.
    bit_width : int
        Width of the encoding.
    signed : bool
    shift : int
        The program's value is ``2**shift`` times what is encoded (after `round`); 0 otherwise.
    exact : bool
        Whether relabelling widens it again. False if the bits that `round` dropped, or noise shared with other
        values, are still in the ciphertext: then only a lookup can widen it.
    """

    name: str
    shape: tuple[int, ...]
    bit_width: int
    signed: bool
    shift: int = 0
    exact: bool = True

    @property
    def element(self) -> str:
        """``!FHE.eint<b>`` or ``!FHE.esint<b>``."""
        return f"!FHE.{'esint' if self.signed else 'eint'}<{self.bit_width}>"

    @property
    def type(self) -> str:
        """``tensor<2x3x!FHE.eint<b>>``."""
        return tensor_type(self.shape, self.element)


def clear_type(like: Wire) -> str:
    """Type of a clear tensor that can be added to `like`."""
    return tensor_type(like.shape, f"i{min(like.bit_width + 1, WIDEST_CLEAR)}")


def tensor_type(shape: Sequence[int], element: str) -> str:
    """``tensor<2x3xELEMENT>``; `shape` has at least one axis."""
    return f"tensor<{'x'.join(map(str, shape))}x{element}>"


def dense(array: IntArray, width: int | None = None) -> tuple[str, str]:
    """Literal and type of a clear constant.

    Parameters
    ----------
    array : integer array, at least one axis
    width : {64}, optional
        64 for lookup tables; otherwise the narrowest type the compiler accepts is chosen.

    Raises
    ------
    OverflowError
        If an entry needs more than 63 bits.
    """
    least = bit_width(min(int(array.min()), -1), max(int(array.max()), 0))
    if width is None and least > WIDEST_CLEAR:
        raise OverflowError(f"clear constants hold at most {WIDEST_CLEAR} bits, got {least}")
    width = width or next((w for w in _HEX_WIDTHS if w >= least), least)
    kind = tensor_type(array.shape, f"i{width}")
    if width in (*_HEX_WIDTHS, 64):
        return f'dense<"0x{array.astype(f"<i{width // 8}").tobytes().hex()}">', kind
    return f"dense<{array.tolist()}>", kind


@dataclass
class FunctionText:
    """Collects the body of one ``func.func``; every method appends lines and returns what they define."""

    name: str
    lines: list[str] = field(default_factory=list)
    location: str = ""
    _constants: dict[tuple[str, str], str] = field(default_factory=dict)
    _count: int = 0

    def _fresh(self) -> str:
        self._count += 1
        return f"%v{self._count}"

    def constant(self, array: IntArray, width: int | None = None) -> tuple[str, str]:
        """Name and type of a clear tensor; equal constants are emitted once."""
        return self._constant(*dense(array, width))

    def index_constant(self, array: IntArray) -> tuple[str, str]:
        """Name and type of a tensor of indices."""
        text = array.astype("<i8").tobytes().hex()
        return self._constant(f'dense<"0x{text}">', tensor_type(array.shape, "index"))

    def _constant(self, literal: str, kind: str) -> tuple[str, str]:
        known = self._constants.get((literal, kind))
        if known is None:
            known = self._constants[literal, kind] = self._fresh()
            self.lines.append(f"  {known} = arith.constant {literal} : {kind}")
        return known, kind

    def emit(self, op: str, operands: Sequence[Wire | tuple[str, str]], result: Wire, attributes: str = "") -> Wire:
        """Append ``result = op(operands) {attributes}``; `result` is given without its name."""
        parts = [(o.name, o.type) if isinstance(o, Wire) else o for o in operands]
        named = replace(result, name=self._fresh())
        names, types = ", ".join(n for n, _ in parts), ", ".join(t for _, t in parts)
        extra = f" {{{attributes}}}" if attributes else ""
        self.lines.append(f'  {named.name} = "{op}"({names}){extra} : ({types}) -> {named.type} loc("{self.location}")')
        return named

    def zeros(self, like: Wire) -> Wire:
        """Encrypted zeros of the shape and type of `like`."""
        return self.emit("FHE.zero_tensor", (), replace(like, exact=True))

    def add_clear(self, x: Wire, array: IntArray) -> Wire:
        """``x + array`` (broadcasting), in the encoding of `x`."""
        return x if not array.any() else self.emit("FHELinalg.add_eint_int", (x, self.constant(array)), x)

    def reshape(self, x: Wire, shape: tuple[int, ...]) -> Wire:
        """C-order reshape through one axis; both shapes have at least one axis."""
        flat = x
        if len(x.shape) > 1 and x.shape != shape:
            flat = replace(x, name=self._fresh(), shape=(int(np.prod(x.shape)),))
            axes = ", ".join(map(str, range(len(x.shape))))
            self.lines.append(f"  {flat.name} = tensor.collapse_shape {x.name} [[{axes}]] : {x.type} into {flat.type}")
        if flat.shape == shape:
            return flat
        full = replace(x, name=self._fresh(), shape=shape)
        axes = ", ".join(map(str, range(len(shape))))
        self.lines.append(f"  {full.name} = tensor.expand_shape {flat.name} [[{axes}]] : {flat.type} into {full.type}")
        return full

    def extract(self, x: Wire, offsets: Sequence[int], sizes: Sequence[int], strides: Sequence[int]) -> Wire:
        """A strided slice of the same rank."""
        result = replace(x, name=self._fresh(), shape=tuple(sizes))
        where = f"{list(offsets)} {list(sizes)} {list(strides)}"
        self.lines.append(f"  {result.name} = tensor.extract_slice {x.name}{where} : {x.type} to {result.type}")
        return result

    def insert(self, piece: Wire, into: Wire, offsets: Sequence[int]) -> Wire:
        """`into` with `piece` written at `offsets`."""
        result = replace(into, name=self._fresh())
        where = f"{list(offsets)} {list(piece.shape)} {[1] * len(offsets)}"
        what = f"tensor.insert_slice {piece.name} into {into.name}{where}"
        self.lines.append(f"  {result.name} = {what} : {piece.type} into {into.type}")
        return result

    def take(self, x: Wire, flat_indices: IntArray) -> Wire:
        """``x.ravel()[flat_indices]``, of the shape of `flat_indices`, which must lie inside `x`."""
        flat = self.reshape(x, (int(np.prod(x.shape)),))
        picked = replace(flat, shape=(int(flat_indices.size),))
        result = self.emit("FHELinalg.fancy_index", (flat, self.index_constant(flat_indices.ravel())), picked)
        return self.reshape(result, flat_indices.shape)

    def add_argument(self, clear: str, like: Wire) -> Wire:
        """The clear argument `clear` as an encrypted value without noise, of the shape and type of `like`."""
        return self.emit("FHELinalg.add_eint_int", (self.zeros(like), (clear, clear_type(like))), like)

    def text(self, arguments: Sequence[tuple[str, str]], results: Sequence[Wire]) -> str:
        """The whole function; arguments are names and types."""
        signature = ", ".join(f"{name}: {kind}" for name, kind in arguments)
        types = ", ".join(r.type for r in results)
        names = ", ".join(r.name for r in results)
        body = "\n".join(self.lines)
        return f"func.func @{self.name}({signature}) -> ({types}) {{\n{body}\n  return {names} : {types}\n}}"


def ints(values: Sequence[int]) -> str:
    """A list of integers as an attribute."""
    return str([int(v) for v in values])


def dense_i64(values: Sequence[int]) -> str:
    """A vector attribute."""
    return f"dense<{ints(values)}> : tensor<{len(values)}xi64>"


def module(functions: Sequence[str]) -> str:
    """Several functions under one key set."""
    return "module {\n" + "\n".join(functions) + "\n}\n"
