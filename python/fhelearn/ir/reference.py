"""The slow reference evaluator: what a program means. Everything else must equal it bit for bit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from fhelearn.exceptions import AccumulatorOverflowError, InputRangeError
from fhelearn.ir.ops import OPS
from fhelearn.ir.program import Node, Program
from fhelearn.ir.regions import RegionType, check_wrappable, dropped_bits, may_fail, may_overflow, region_widths
from fhelearn.typing import IntArray, OverflowMode

_GOLDEN = 0x9E3779B97F4A7C15
_MASK = 2**64 - 1

_REMEDIES = {
    "calibrated": "calibrate on more data, widen the margin, or use proved bounds",
    "structural": "the inputs are not what the program's encoder gives, encode with it",
}


@dataclass(frozen=True)
class Faults:
    """Seeded noise of the encrypted run.

    Parameters
    ----------
    p_error : float, default=0.0
        Probability, in [0, 1), that a table lookup reads a neighbouring entry.
    rounding_noise : float, default=0.0
        Standard deviation of the noise at approximate rounding, as a fraction (>= 0) of the step ``2**lsbs``.
    seed : int, default=0
        In [0, 2**64). Equal seeds give equal faults in every back end.

    Raises
    ------
    ValueError
        If a parameter is outside its range.
    """

    p_error: float = 0.0
    rounding_noise: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0.0 <= self.p_error < 1.0:
            raise ValueError(f"p_error must be in [0, 1), got {self.p_error}")
        if not 0.0 <= self.rounding_noise < float("inf"):
            raise ValueError(f"rounding_noise must be finite and >= 0, got {self.rounding_noise}")
        if isinstance(self.seed, bool) or not isinstance(self.seed, int) or not 0 <= self.seed < 2**64:
            raise ValueError(f"seed must be an int in [0, 2**64), got {self.seed!r}")


def evaluate(
    program: Program, inputs: Sequence[Any], *, on_overflow: OverflowMode = "error", faults: Faults | None = None
) -> list[IntArray]:
    """Run a program on a batch.

    Parameters
    ----------
    program : Program
    inputs : sequence of int64 arrays, each (n, *shape of the input)
        One per ``input`` node, in order, inside the declared bounds.
    on_overflow : {"error", "wrap"}, default="error"
        What a value outside calibrated bounds does: raise, or wrap as the ciphertext does (SPEC.md, "Overflow").
    faults : Faults, optional
        Noise to inject; by default none.

    Returns
    -------
    list of int64 arrays, each (n, *shape of the output)

    Raises
    ------
    InputRangeError
        If an input has the wrong count, dtype, shape or range.
    AccumulatorOverflowError
        If a value leaves its declared bounds; with ``on_overflow="wrap"`` only where it depends on no calibrated value,
        and with injected lookup failures only where it depends on no lookup.
    ProgramError
        If ``on_overflow="wrap"`` and a product depends on calibrated values (SPEC.md, "Overflow").
    """
    if on_overflow not in ("error", "wrap"):
        raise ValueError(f"on_overflow must be 'error' or 'wrap', got {on_overflow!r}")
    if on_overflow == "wrap":
        check_wrappable(program)
    rows = check_inputs(program, inputs)
    run = _Run(program, rows, on_overflow, faults or Faults(), region_widths(program))
    feed = iter(inputs)
    values: list[IntArray] = []
    with np.errstate(over="ignore"):  # integer arithmetic is modulo 2**64; bounds prove that results are exact
        for index, node in enumerate(program.nodes):
            value = next(feed) if node.op == "input" else run.evaluate(index, node, [values[i] for i in node.operands])
            run.check_declared(index, node, value)
            values.append(value)
        return [run.output(i, values[i]) for i in program.outputs]


def check_inputs(program: Program, inputs: Sequence[Any]) -> int:
    """Number of rows of valid inputs; raises InputRangeError naming input, row, element, value and allowed range."""
    nodes = [program.nodes[i] for i in program.inputs]
    if len(inputs) != len(nodes):
        raise InputRangeError(f"the program takes {len(nodes)} inputs, got {len(inputs)}")
    rows = {}
    for position, (node, array) in enumerate(zip(nodes, inputs, strict=True)):
        where = f"input {position}" + (f" '{node.name}'" if node.name else "")
        shape = node.value.shape
        if not isinstance(array, np.ndarray) or array.dtype != np.int64:
            kind = array.dtype if isinstance(array, np.ndarray) else type(array).__name__
            raise InputRangeError(f"{where}: must be an int64 array, got {kind}")
        if array.shape[1:] != shape or array.ndim != len(shape) + 1:
            raise InputRangeError(f"{where}: must have shape (n, {', '.join(map(str, shape))}), got {array.shape}")
        rows[position] = len(array)
        _check_box(where, node, array)
    if len(set(rows.values())) > 1:
        raise InputRangeError(f"inputs must have one number of rows, got {list(rows.values())}")
    return next(iter(rows.values()), 1)


def _check_box(where: str, node: Node, array: IntArray) -> None:
    lo, hi = node.value.bounds.to_int64()
    outside = (array < lo) | (array > hi)
    if not outside.any():
        return
    row, *element = (int(i) for i in np.argwhere(outside)[0])
    full = node.value.bounds.broadcast(node.value.shape)
    low, high = full.lo[tuple(element)], full.hi[tuple(element)]
    raise InputRangeError(
        f"{where}: row {row}, element {tuple(element)} is {array[(row, *element)]}, allowed is [{low}, {high}]"
    )


@dataclass(frozen=True)
class _Run:
    program: Program
    rows: int
    on_overflow: OverflowMode
    faults: Faults
    regions: tuple[RegionType, ...]

    @cached_property
    def unchecked(self) -> tuple[bool, ...]:
        """Per value, whether it may leave its bounds by wrapping or by an injected failure."""
        wraps = may_overflow(self.program) if self.on_overflow == "wrap" else (False,) * len(self.program.nodes)
        fails = may_fail(self.program) if self.faults.p_error > 0 else (False,) * len(self.program.nodes)
        return tuple(a or b for a, b in zip(wraps, fails, strict=True))

    @cached_property
    def dropped(self) -> tuple[int, ...]:
        """Per value, the low bits that a lookup does not read."""
        return dropped_bits(self.program)

    def evaluate(self, index: int, node: Node, operands: list[IntArray]) -> IntArray:
        if node.op == "table_lookup":
            return self._lookup(index, node, operands[0])
        if node.op == "round" and node.attributes["method"] == "approximate" and self.faults.rounding_noise > 0:
            return self._noisy_round(index, node, operands[0])
        result: IntArray = OPS[node.op].evaluate(operands, node.attributes)
        return np.repeat(result, self.rows, axis=0) if node.op == "constant" else result

    @property
    def may_leave_tables(self) -> bool:
        """Whether wrapping or faults may bring a lookup an operand outside its bounds."""
        return self.on_overflow == "wrap" or self.faults.p_error > 0 or self.faults.rounding_noise > 0

    def check_declared(self, index: int, node: Node, value: IntArray) -> None:
        provenance = node.value.provenance
        if provenance == "proved" or self.unchecked[index]:
            return
        lo, hi = node.value.bounds.to_int64()
        outside = (value < lo) | (value > hi)
        if outside.any():
            bad = np.flatnonzero(outside.reshape(len(value), -1).any(axis=1))
            worst = value[outside][np.argmax(np.abs(value[outside].astype(np.float64)))]
            raise AccumulatorOverflowError(
                f"{self.program.label(index)}: {bad.size} of {len(value)} rows leave the {provenance} bounds "
                f"[{lo.min()}, {hi.max()}] (first row {bad[0]}, worst value {worst}); {_REMEDIES[provenance]}"
            )

    def _lookup(self, index: int, node: Node, x: IntArray) -> IntArray:
        lo, table = node.integer("lo"), node.array("table")
        last = table.shape[-1] - 1
        negated = np.zeros(x.shape, dtype=bool)
        if self.on_overflow == "wrap":
            width, signed = self.regions[node.operands[0]]
            if width < 63:  # wider regions hold every int64
                x, negated = _wrap_at_lookup(x, width, signed)
        position = _clipped_position(x, lo, last) if self.may_leave_tables else x - lo
        if self.faults.p_error > 0:
            failed = self._draw(index, x.shape, 0) < np.uint64(int(self.faults.p_error * 2.0**64))
            stride = 1 << min(self.dropped[node.operands[0]], 62)
            step = np.where(self._draw(index, x.shape, 1) & np.uint64(1), 1, -1) * min(stride, last + 1)
            position = np.clip(np.where(failed, position + step, position), 0, last)
        entry: IntArray = OPS["table_lookup"].evaluate([position], {"lo": 0, "table": table})
        return np.where(negated, -entry, entry)

    def _noisy_round(self, index: int, node: Node, x: IntArray) -> IntArray:
        lsbs = node.integer("lsbs")
        total = sum((self._draw(index, x.shape, d) >> np.uint64(32)).astype(np.int64) for d in range(12))
        gauss = (np.asarray(total) - 6 * 2**32).astype(np.float64)  # twelve uniforms: variance (2**32)**2
        deviation = self.faults.rounding_noise * 2.0**lsbs * 2.0**-32
        remainder = x & (2**lsbs - 1)
        shifted = (remainder.astype(np.float64) + gauss * deviation) * 2.0**-lsbs + 0.5
        step = np.where(remainder > 0, np.clip(np.floor(shifted), 0.0, 1.0), 0.0).astype(np.int64)
        result: IntArray = (x - remainder) + step * np.int64(2**lsbs)
        return result

    def _draw(self, node: int, shape: tuple[int, ...], d: int) -> Any:
        """64 random bits per element: a counter-based generator on the mixing function of SplitMix64.

        Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014.
        """
        key = _mix_int(self.faults.seed + _GOLDEN * (node + 1))
        rows = np.arange(1, shape[0] + 1, dtype=np.uint64)
        per_row = _mix(np.uint64(key) + np.uint64(_GOLDEN) * rows)
        size = int(np.prod(shape[1:], dtype=np.int64))
        counter = np.arange(size, dtype=np.uint64) * np.uint64(16) + np.uint64(d + 1)
        return _mix(per_row[:, np.newaxis] + np.uint64(_GOLDEN) * counter[np.newaxis]).reshape(shape)

    def output(self, index: int, value: IntArray) -> IntArray:
        width, signed = self.regions[index]
        if self.on_overflow == "wrap" and width < 63:
            return _wrap_at_output(value, width, signed)
        return np.array(value, order="C")  # a copy: an output may be an input


def _mix_int(z: int) -> int:
    z &= _MASK
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & _MASK
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB & _MASK
    return z ^ (z >> 31)


def _mix(z: Any) -> Any:
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def _clipped_position(x: IntArray, lo: int, last: int) -> IntArray:
    """``clip(x, lo, lo + last) - lo``; unsigned, because `lo + last` may lie beyond int64."""
    distance = x.astype(np.uint64) - np.uint64(lo & _MASK)
    position: IntArray = np.where(x < lo, np.uint64(0), np.minimum(distance, np.uint64(last))).astype(np.int64)
    return position


def _wrap_at_lookup(x: IntArray, width: int, signed: bool) -> tuple[IntArray, Any]:
    """The message that a lookup reads, and whether its answer is negated: the padding bit makes tables negacyclic."""
    offset = 1 << (width - 1) if signed else 0
    turned = (x + offset) & ((1 << (width + 1)) - 1)  # width + 1 <= 63: the mask is a non-negative int64
    return (turned & ((1 << width) - 1)) - offset, turned >= (1 << width)


def _wrap_at_output(x: IntArray, width: int, signed: bool) -> IntArray:
    """What decryption decodes: the message and its padding bit; a signed message's top bit is a sign of its own."""
    modulus = np.uint64(1 << (width + 1))  # unsigned: twice the modulus need not fit int64
    reduced = x.astype(np.uint64) & (modulus - np.uint64(1))
    if signed:
        less = np.where(reduced >= modulus // np.uint64(4), modulus // np.uint64(2), np.uint64(0))
        less = np.where(reduced >= modulus // np.uint64(2), modulus, less)
        reduced = reduced - less
    result: IntArray = reduced.view(np.int64)
    return result
