"""The state of an import: the program so far, its integers on the calibration rows, and lookups between grids."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from math import prod
from typing import Any

import numpy as np

from fhelearn.exceptions import QuantizationError
from fhelearn.frontends.onnx.reading import Reading, narrow
from fhelearn.frontends.onnx.settings import WIDEST_LOOKUP, Settings
from fhelearn.frontends.onnx.values import Clear, Encrypted, compact, of_rank, varies_along
from fhelearn.ir import OPS, DeclaredBounds, Program, ProgramBuilder, RegionType, region_widths
from fhelearn.quantization.grids import Grid, observe
from fhelearn.quantization.tables import lookup_table
from fhelearn.typing import FloatArray, IntArray

WIDEST_TABLE = 20
"""Bits of the widest accumulator that gets a table (only up to 16 can be encrypted)."""

_MOST_ENTRIES = 2**26
"""Of all tables of a node: half a gigabyte."""

_NUMBERS_AT_ONCE = 2**22
"""Size of the matrix that a convolution of samples is unrolled to."""

_SLACK_BITS = 4
"""A linear operator reads its operand as it is if that is at most this much wider than asked for: sums of pooling or of
skip connections are; wider ones are quantized anew by a lookup."""


@dataclass(frozen=True)
class Plan:
    """What an earlier import of the same graph found.

    Attributes
    ----------
    uniform_inputs : frozenset of str
        Inputs that need one scale for all elements.
    widths : mapping of (name, op, int) to RegionType
        Type of the region of a value that is looked up, by the graph's node that it was emitted for, its op, and its
        number among those.
    narrow : bool
        Whether every accumulator must fit a lookup, because one that seemed to reach outputs only shares a region with
        a lookup, or is read by one.
    """

    uniform_inputs: frozenset[str] = frozenset()
    widths: Mapping[tuple[str, str, int], RegionType] = field(default_factory=dict)
    narrow: bool = False


class ReplanError(Exception):
    """The import cannot go on as planned; import again by another plan."""

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        self.plan = plan


@dataclass
class Quantizer:
    """Emits the program of a graph; the modules beside this one hold what it emits for linear and binary operators.

    Attributes
    ----------
    settings : Settings
    plan : Plan
    name : str
        The graph's node that is being imported.
    exact : set of int
        Nodes that are never rounded: their integers are codes of pairs, or differences that are compared with 0.
    maxima : set of int
        Nodes whose regions hold differences that lookups read: an accumulator there would widen them.
    """

    settings: Settings
    plan: Plan = field(default_factory=Plan)
    name: str = ""
    builder: ProgramBuilder = field(default_factory=ProgramBuilder)
    weight_bits: dict[int, int] = field(default_factory=dict)
    exact: set[int] = field(default_factory=set)
    maxima: set[int] = field(default_factory=set)
    _samples: list[IntArray] = field(default_factory=list)
    _keys: list[tuple[str, str, int]] = field(default_factory=list)
    _counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    _copies: dict[int, int] = field(default_factory=dict)
    _lookups: dict[tuple[Any, ...], Encrypted] = field(default_factory=dict)
    _readings: dict[tuple[int, bool], Reading] = field(default_factory=dict)
    _tables: dict[tuple[int, tuple[int, ...], bytes], int] = field(default_factory=dict)
    _broadcasts: dict[tuple[int, tuple[int, ...]], int] = field(default_factory=dict)

    # -- the program ---------------------------------------------------------------------------------------------------

    def input(self, samples: IntArray, lo: IntArray, hi: IntArray) -> int:
        """Emit an input of the samples' shape ``(n, *shape)``."""
        return self._append(self.builder.emit("input", shape=samples.shape[1:], lo=lo, hi=hi, name=self.name), samples)

    def emit(self, op: str, *operands: int, declared: DeclaredBounds | None = None, **attributes: Any) -> int:
        """Emit a node, named after the graph's node, and compute its integers on the calibration rows."""
        node = self.builder.emit(op, *operands, declared=declared, name=self.name, **attributes)
        kept = self.builder.nodes[node].attributes
        samples = [self._samples[i] for i in operands]
        by_weights = "weights" in kept
        return self._append(node, weighted(op, samples[0], kept) if by_weights else OPS[op].evaluate(samples, kept))

    def constant(self, value: IntArray) -> int:
        """Emit a constant."""
        node = self.builder.emit("constant", value=value, name=self.name)
        return self._append(node, np.broadcast_to(value, (self.rows, *value.shape)))

    def _append(self, node: int, samples: IntArray) -> int:
        kind = self.name, self.builder.nodes[node].op
        self._keys.append((*kind, self._counts[kind]))
        self._counts[kind] += 1
        self._samples.append(samples)
        return node

    @property
    def rows(self) -> int:
        """Number of calibration rows."""
        return len(self._samples[0])

    def integers(self, node: int) -> IntArray:
        """The integers of a node on the calibration rows, shape (n, *shape)."""
        return self._samples[node]

    def floats(self, x: Encrypted) -> Clear:
        """The elements of a tensor on the calibration rows, shape (n, *shape)."""
        return np.broadcast_to(x.at(self._samples[x.node]), (self.rows, *x.shape))

    def bits(self, node: int) -> int:
        """Width of a node's value."""
        return self.builder.value(node).bit_width

    def next_plan(self, program: Program) -> Plan | None:
        """What the next import must know, or None if every lookup reads as few bits as it was meant to."""
        regions = region_widths(program)
        wide = {
            self._keys[base]: regions[base]
            for (base, _), reading in self._readings.items()
            if regions[base].bit_width - reading.dropped > reading.bits
        }
        widths = {**self.plan.widths, **wide}
        return replace(self.plan, widths=widths) if widths != self.plan.widths else None

    # -- static operations ---------------------------------------------------------------------------------------------

    def static(self, x: Encrypted, op: str, move: Callable[[FloatArray], FloatArray], **attributes: Any) -> Encrypted:
        """Apply a static op of the program; `move` is the same on arrays of the tensor's shape."""
        if not x.affine and not x.uniform:
            x = self.lookup(x, self.settings.n_bits.op_inputs)
        node = self.emit(op, x.node, **attributes)
        if x.node in self.maxima:
            self.maxima.add(node)
        return x.moved(node, self.builder.value(node).shape, move)

    def reshape(self, x: Encrypted, shape: Sequence[int]) -> Encrypted:
        """The same elements in another shape, C order."""
        shape = tuple(int(n) for n in shape)
        if shape == x.shape:
            return x
        return self.static(x, "reshape", lambda a: a.reshape(shape), shape=shape)

    def broadcast(self, x: Encrypted, shape: Sequence[int]) -> Encrypted:
        """NumPy's broadcasting to a shape of the same or a higher rank; functions stay what they are.

        Tensors of one node stay tensors of one node, so that they can be composed afterwards.
        """
        shape = tuple(int(n) for n in shape)
        if shape == x.shape:
            return x
        key = (x.node, shape)
        if key not in self._broadcasts:
            self._broadcasts[key] = self.emit("broadcast", x.node, shape=shape)
        scale, offset = (of_rank(a, len(shape)) for a in (x.scale, x.offset))
        return replace(x, node=self._broadcasts[key], shape=shape, scale=scale, offset=offset)

    # -- lookups -------------------------------------------------------------------------------------------------------

    def operand(self, x: Encrypted, axes: Sequence[int] = (), *, bits: int | None = None) -> Encrypted:
        """`x` as an affine tensor of few bits whose scale varies along `axes` only: itself, or quantized by a lookup.

        Raises
        ------
        ReplanError
            If `x` is an input with a scale per element.
        """
        bits = self.settings.n_bits.op_inputs if bits is None else bits
        fits = x.affine and set(varies_along(x.scale)) <= set(axes)
        if x.source and x.affine:
            if fits:
                return x
            if x.source not in self.plan.uniform_inputs:
                raise ReplanError(replace(self.plan, uniform_inputs=self.plan.uniform_inputs | {x.source}))
        if fits and self.bits(x.node) <= bits + _SLACK_BITS:
            return self._apart(x)
        return self.lookup(x, bits, axes if self.settings.activations == "per_channel" else ())

    def _apart(self, x: Encrypted) -> Encrypted:
        """The affine tensor `x`; maxima are looked up as they are, so that their differences stay narrow."""
        if x.node not in self.maxima:
            return x
        if x.node not in self._copies:
            self._copies[x.node] = self.tabulated(x.node, lambda q: q)
        return replace(x, node=self._copies[x.node])

    def tabulated(self, node: int, function: Callable[[Clear], Clear]) -> int:
        """A function, with integers as values, of a node's integers, which are looked up as they are: never rounded."""
        shape = self.builder.value(node).shape
        one = np.ones((1,) * len(shape))
        most = np.full(one.shape, 2**40)
        integers = Encrypted(node, shape, one, 0 * one)
        return self.lookup_on(integers.mapped(function), Grid(one, 0 * one, -most, most), rounded=False).node

    def lookup(self, x: Encrypted, bits: int, axes: Sequence[int] = ()) -> Encrypted:
        """`x` quantized to `bits` on a grid chosen from calibration data, by one lookup per element."""
        key = (id(x), bits, tuple(axes))
        if key not in self._lookups:
            observed = self.finite(x)
            one = np.ones((1,) * len(x.shape))
            truth = Grid(one, 0 * one, 0 * one.astype(np.int64), one.astype(np.int64))  # whatever was seen
            grid = truth if x.kind == "b" else observe(observed, bits, axes, observer=self.settings.observer)
            self._lookups[key] = self.lookup_on(x, grid)
            self._lookups[(*key, "keep alive")] = x  # ids are unique among living objects only
        return self._lookups[key]

    def lookup_on(self, x: Encrypted, grid: Grid, *, rounded: bool = True) -> Encrypted:
        """`x` quantized on a given grid, by one lookup per element; `rounded` as the settings say, or read as it is."""
        reading = self._reading(x.node, rounded and x.node not in self.exact)
        bounds = self.builder.value(reading.node).bounds
        lo, hi = bounds.minimum, bounds.maximum
        if not self.plan.narrow and (reading.widest > WIDEST_LOOKUP or hi - lo >= 2**WIDEST_TABLE):
            raise ReplanError(replace(self.plan, narrow=True, widths={}))
        if hi - lo >= 2**WIDEST_TABLE:
            raise QuantizationError(
                f"{self.name}: a lookup would read {bounds.bit_width} bits, at most {WIDEST_TABLE} can be simulated "
                "and 16 encrypted; set rounding_threshold_bits, lower n_bits, or use bounds='calibrated'"
            )
        step = 2**reading.dropped  # what lies between its multiples is never read
        q = reading.original(np.arange(lo, hi + 1, step, dtype=np.int64).reshape(-1, *(1,) * len(x.shape)))
        self._refuse_many_tables(x, grid, q[:1], hi - lo + 1)
        with np.errstate(all="ignore"):
            values = np.array(x.at(q), dtype=np.float64)
            self._refuse_poles(x, reading, q, values)
            values = self._defined(values)
        inner = np.broadcast_shapes(values.shape[1:], grid.scale.shape)
        flat = np.broadcast_to(values, (len(values), *inner)).reshape(len(values), -1).T
        spread: dict[str, Any] = {
            name: np.broadcast_to(array, inner).ravel()
            for name, array in (("output_scale", grid.scale), ("output_lo", grid.lo), ("output_hi", grid.hi))
        }
        offset = np.broadcast_to(grid.offset, inner).reshape(-1, 1)
        table = lookup_table(lambda _: flat - offset, 0, len(q) - 1, **spread).reshape(*inner, -1)
        table = np.repeat(table, step, axis=-1)[..., : hi - lo + 1]
        if table.shape[:-1] == (1,) * len(inner):
            table = table.reshape(-1)
        # Equal lookups would be shared at last, and their regions be one: the plan must know.
        key = reading.node, table.shape, sha256(table.tobytes()).digest()
        if key not in self._tables:
            self._tables[key] = self.emit("table_lookup", reading.node, lo=lo, table=table)
        node = self._tables[key]
        return Encrypted(node, x.shape, compact(grid.scale), compact(grid.offset), x.kind)

    def _refuse_many_tables(self, x: Encrypted, grid: Grid, q: IntArray, entries: int) -> None:
        """Raise QuantizationError if a table of so many entries for every element that differs does not fit memory."""
        with np.errstate(all="ignore"):
            tables = prod(np.broadcast_shapes(np.shape(x.at(q))[1:], grid.scale.shape))
        if tables * entries > _MOST_ENTRIES:
            raise QuantizationError(
                f"{self.name}: {tables} elements differ in what is looked up, and need a table of {entries} entries "
                f"each, at most {_MOST_ENTRIES} fit; lower n_bits, or let constants vary by channel only"
            )

    def _reading(self, node: int, rounded: bool) -> Reading:
        """How lookups read a node; emitted once."""
        key = node, rounded
        if key not in self._readings:
            region = self.plan.widths.get(self._keys[node])
            self._readings[key] = narrow(self, node, region, self.settings.rounding if rounded else None)
        return self._readings[key]

    def finite(self, x: Encrypted) -> FloatArray:
        """The elements on the calibration rows as floats. Raises QuantizationError if one is none.

        At the edge of a function's domain, rounding to the grid may have led out of it: half a step beside then counts.
        """
        with np.errstate(all="ignore"):
            values = np.array(self.floats(x), dtype=np.float64)
            for step in (-0.5, 0.5):
                lost = np.isnan(values)
                if lost.any():
                    beside = np.broadcast_to(x.at(self._samples[x.node] + step), values.shape)
                    values = np.where(lost, beside, values)
        bad = ~np.isfinite(values)
        if bad.any():
            row = int(np.argwhere(bad)[0][0])
            raise QuantizationError(
                f"{self.name}: gives {values[bad][0]} on calibration row {row} (division by 0, or a function outside "
                "of its domain); keep its argument inside the domain for all rows, for instance by Clip or by adding a "
                "constant"
            )
        return values

    def _refuse_poles(self, x: Encrypted, reading: Reading, q: IntArray, values: FloatArray) -> None:
        """Raise QuantizationError if an integer that the bounds of what is read allow leads to a division by 0."""
        for pole in x.poles:
            bad = (np.asarray(pole.divisor(q)) == 0) & (pole.whole | ~np.isfinite(values))
            if not bad.any():
                continue
            ends = self.builder.value(reading.node).bounds.broadcast(x.shape).to_int64()
            low, high = (reading.original(end) for end in ends)
            if (bad & (q >= low) & (q <= high)).any():
                raise QuantizationError(
                    f"{pole.where}: the encrypted divisor can be 0; keep it away from 0 for every input that can be "
                    "encrypted, for instance by Clip, or by adding a constant to something that is never negative"
                )

    def _defined(self, values: FloatArray) -> FloatArray:
        """`values` (integers, *elements), the nearest number where a function gives NaN, where no row is."""
        bad = np.isnan(values)
        if not bad.any():
            return values
        flat = values.reshape(len(values), -1)
        index = np.arange(len(flat))
        for column in flat.T:
            known = np.flatnonzero(~np.isnan(column))
            if not known.size:
                raise QuantizationError(f"{self.name}: is defined for none of the values that its argument can take")
            right = np.minimum(np.searchsorted(known, index), len(known) - 1)
            left = np.maximum(right - 1, 0)
            nearer_left = np.abs(known[left] - index) < np.abs(known[right] - index)
            column[:] = column[np.where(nearer_left, known[left], known[right])]
        return flat.reshape(values.shape)

    # -- accumulators --------------------------------------------------------------------------------------------------

    def observed(self, samples: IntArray, axes: Sequence[int]) -> tuple[IntArray, IntArray]:
        """Least and greatest integer on calibration rows plus the margin, varying along `axes` of the element only."""
        rest = (0, *(a + 1 for a in range(samples.ndim - 1) if a not in axes))
        low, high = samples.min(axis=rest, keepdims=True)[0], samples.max(axis=rest, keepdims=True)[0]
        extra = np.ceil((high - low) * self.settings.margin).astype(np.int64)
        return low - extra, high + extra

    def settle(self, node: int, axes: Sequence[int], top: int = 0) -> tuple[int, IntArray]:
        """Centre a sum, per position along `axes`, and (if calibrated bounds are wanted) declare its observed range.

        Returns
        -------
        node : int
            The sum less the returned integers.
        centre : ndarray of int64
            To be added again; broadcastable. `top` is kept free at the upper end of the range, for rounding up.
        """
        value = self.builder.value(node)
        shape = [n if axis in axes else 1 for axis, n in enumerate(value.shape)]
        low, high = (np.asarray(b) for b in value.bounds.broadcast(value.shape).to_int64())
        rest = tuple(a for a in range(len(shape)) if a not in axes)
        low, high = low.min(axis=rest, keepdims=True), high.max(axis=rest, keepdims=True)
        declared = None
        if self.settings.bounds == "calibrated":
            seen_low, seen_high = self.observed(self.integers(node), axes)
            low, high = np.maximum(low, seen_low), np.minimum(high, seen_high)
        centre = (low + high + top + 1) // 2
        if self.settings.bounds == "calibrated":
            reason = f"seen on {self.rows} calibration rows, plus {self.settings.margin:.3g} of the range at both ends"
            declared = DeclaredBounds(low - centre, high - centre, "calibrated", reason)
        settled = self.emit("add_constant", node, declared=declared, value=-centre.reshape(shape))
        return settled, centre.reshape(shape)

    def narrowed(self, x: Encrypted) -> Encrypted:
        """An affine tensor whose integers are a sum, centred and declared to be what was seen, if that saves bits."""
        if self.settings.bounds != "calibrated":
            return x
        axes = varies_along(x.scale)
        low, high = self.observed(self.integers(x.node), axes)
        if int(high.max() - low.min()).bit_length() >= self.bits(x.node):
            return x
        node, centre = self.settle(x.node, axes)
        return replace(x, node=node, offset=compact(x.offset + x.scale * centre), source="")

    def total(self, x: Encrypted, axes: Sequence[int], *, keepdims: bool, feeds_lookup: bool = True) -> Encrypted:
        """The sum over axes."""

        def summed(x: Encrypted) -> Encrypted:
            node = self.emit("sum", x.node, axes=tuple(sorted(axes)), keepdims=keepdims)
            times = np.prod([x.shape[a] // x.offset.shape[a] for a in axes])
            scale, offset = x.scale, x.offset.sum(axis=tuple(axes), keepdims=True) * float(times)
            if not keepdims:
                scale, offset = (np.squeeze(a, axis=tuple(axes)) for a in (scale, offset))
            return Encrypted(node, self.builder.value(node).shape, compact(scale), compact(offset), x.kind)

        return self.summed(x, axes, summed, feeds_lookup=feeds_lookup)

    def summed(
        self, x: Encrypted, axes: Sequence[int], sums: Callable[[Encrypted], Encrypted], *, feeds_lookup: bool = True
    ) -> Encrypted:
        """``sums(x)``, which adds integers along `axes`: of `x` as it is, if it is affine and has one scale there.

        Otherwise, and if the sums would be wider than what a lookup can read and one `feeds_lookup`, `x` is quantized
        first, to as many bits fewer as they are too wide. Booleans are added as numbers.
        """
        given = x
        kept = [a for a in range(len(x.shape)) if a not in axes]
        if not x.affine or set(varies_along(x.scale)) & set(axes):
            x = self.operand(x, kept)
        if x.kind == "b":
            x = replace(x, kind="i")
        result = self.narrowed(sums(x))
        excess = self.bits(result.node) - WIDEST_LOOKUP
        if feeds_lookup and excess > 0:
            fewer = max(min(self.settings.n_bits.op_inputs, self.bits(x.node) - excess), 1)
            x = self.lookup(given, fewer, kept if self.settings.activations == "per_channel" else ())
            x = replace(x, kind=result.kind)
            result = self.narrowed(sums(x))
        if x.node in self.maxima:
            self.maxima.add(result.node)
        return result


def weighted(op: str, x: IntArray, attributes: Mapping[str, Any]) -> IntArray:
    """A linear op with weights on samples (n, *shape), n >= 1: by float64 where every sum is exact, as it is faster."""
    weights = attributes["weights"].astype(np.float64)
    summed = (0,) if op == "matmul" else tuple(range(1, weights.ndim))
    largest = np.abs(weights).sum(axis=summed).max() * np.abs(x.astype(np.float64)).max()
    if largest >= 2.0**53:
        return np.asarray(OPS[op].evaluate([x], attributes))
    size = x[0].size * (1 if op == "matmul" else int(np.prod(weights.shape[2:])))
    rows = max(_NUMBERS_AT_ONCE // size, 1)
    exact = {**attributes, "weights": weights}
    parts = (OPS[op].evaluate([x[i : i + rows].astype(np.float64)], exact) for i in range(0, len(x), rows))
    return np.concatenate([part.astype(np.int64) for part in parts])
