"""Random programs and the law they are tested with: every back end equals the reference, bit for bit."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from fhelearn.exceptions import ProgramError
from fhelearn.ir import OPS, DeclaredBounds, Program, ProgramBuilder, Value, check_wrappable, region_widths
from fhelearn.typing import IntArray

Generator: TypeAlias = np.random.Generator

_WIDE, _NARROW = 64, 6  # widest value, in bits, of programs for the engine and of programs that are encrypted
_EXTREME = 0.2  # part of the programs for the engine whose constants and inputs go to the ends of int64


def assert_bit_exact(actual: Sequence[IntArray], expected: Sequence[IntArray], program: Program) -> None:
    """Raise AssertionError, with the program's text, unless both hold the same arrays (dtype, shape, elements)."""
    assert len(actual) == len(expected), f"{len(actual)} outputs instead of {len(expected)}\n{program}"
    for position, (got, want) in enumerate(zip(actual, expected, strict=True)):
        kinds = f"output {position}: {got.dtype}{got.shape} instead of {want.dtype}{want.shape}\n{program}"
        assert (got.dtype, got.shape) == (want.dtype, want.shape), kinds
        different = np.argwhere(got != want)
        if different.size:
            first = tuple(int(i) for i in different[0])
            raise AssertionError(
                f"output {position} differs at {len(different)} of {got.size} places, first {first}: "
                f"{got[first]} instead of {want[first]}\n{program}"
            )


def random_inputs(program: Program, rng: Generator, n: int) -> list[IntArray]:
    """`n` rows over the whole declared range of each input, about a third of them corners.

    Returns
    -------
    list of int64 arrays, each (n, *shape)
    """
    arrays = []
    for index in program.inputs:
        value = program.nodes[index].value
        lo, hi = (np.broadcast_to(b, value.shape) for b in value.bounds.to_int64())
        uniform = rng.integers(lo, hi, size=(n, *value.shape), endpoint=True, dtype=np.int64)
        corner = np.where(rng.random((n, *value.shape)) < 0.5, lo, hi)
        pick = rng.random((n,) + (1,) * len(value.shape)) < 1 / 3
        arrays.append(np.where(pick, corner, uniform))
    return arrays


def random_program(
    rng: Generator, *, small: bool = False, must_use: str | None = None, calibrated: bool = False
) -> Program:
    """A random valid program.

    Parameters
    ----------
    rng : numpy.random.Generator
    small : bool, default=False
        Small enough to be encrypted in about a second: few elements, lookup operands of at most 6 bits.
    must_use : str, optional
        An op that the program must contain.
    calibrated : bool, default=False
        Whether some values get calibrated bounds narrower than the proved ones, so that inputs may overflow them.

    Returns
    -------
    Program
        With one or two outputs.
    """
    while True:
        program = _Sketch(rng, small, calibrated).draw(must_use)
        used = {node.op for node in program.nodes}
        if (must_use is None or must_use in used) and (not small or _is_cheap(program)):
            return program


def _is_cheap(program: Program) -> bool:
    widths = region_widths(program)
    for node in program.nodes:
        if OPS[node.op].kind == "lookup":
            extra = 1 if node.op in ("multiply", "maximum") else 0
            if any(widths[i].bit_width + extra > _NARROW for i in node.operands):
                return False
    return max(width.bit_width for width in widths) <= 16


class _Sketch:
    """Grows a program by trying random ops on random earlier values; what does not verify is dropped."""

    def __init__(self, rng: Generator, small: bool, calibrated: bool) -> None:
        self.rng, self.small, self.calibrated = rng, small, calibrated
        self.builder = ProgramBuilder()
        self.cap = _NARROW if small else _WIDE
        self.side = 3 if small else 5
        self.extreme = not small and bool(rng.random() < _EXTREME)

    def draw(self, must_use: str | None) -> Program:
        for _ in range(int(self.rng.integers(1, 3))):
            self._input()
        names = [name for name in OPS if name != "input"]
        steps = int(self.rng.integers(2, 5 if self.small else 12))
        forced = int(self.rng.integers(steps))
        for step in range(steps):
            self._try(must_use if must_use and must_use != "input" and step == forced else str(self.rng.choice(names)))
        count = len(self.builder.nodes)
        outputs = {count - 1, int(self.rng.integers(count))} if self.rng.random() < 0.3 else {count - 1}
        chosen = sorted(outputs)
        return self.builder.build(*chosen, *(chosen[:1] if self.rng.random() < 0.1 else []))

    def _integer(self, lo: int, hi: int) -> int:
        return int(self.rng.integers(lo, hi, endpoint=True))

    def _array(self, lo: int, hi: int, shape: tuple[int, ...]) -> IntArray:
        if self.extreme and lo < 0 and self.rng.random() < 0.3:
            reach = 2 ** self._integer(20, 62)
            lo, hi = -reach, reach - 1
        return self.rng.integers(lo, hi, size=shape, endpoint=True, dtype=np.int64)

    def _input(self) -> None:
        rank = self._integer(0 if self.rng.random() < 0.2 else 1, 3)
        shape = tuple(self._integer(1, self.side) for _ in range(rank))
        bits = self._integer(1, 3 if self.small else 63 if self.extreme else 16)
        low = 0 if self.rng.random() < 0.5 else -(2 ** (bits - 1))
        lo: Any = low
        hi: Any = low + 2**bits - 1
        if self.rng.random() < 0.3:  # bounds of their own for each element
            lo = np.asarray(self.rng.integers(low, hi, size=shape, endpoint=True, dtype=np.int64))
            hi = np.asarray(self.rng.integers(lo, hi, size=shape, endpoint=True, dtype=np.int64))
        self.builder.emit("input", shape=shape, lo=lo, hi=hi, name=f"x{len(self.builder.nodes)}")

    def _operand(self) -> int:
        return self._integer(0, len(self.builder.nodes) - 1)

    def _try(self, op: str) -> None:
        operand = self._operand()
        operands = [operand]
        if op == "constant":
            operands = []
        elif op in ("add", "sub", "multiply", "maximum"):
            shape = self.builder.value(operand).shape
            same = [i for i in range(len(self.builder.nodes)) if self.builder.value(i).shape == shape]
            operands.append(int(self.rng.choice(same)))
        elif op == "concatenate":
            operands = [operand, *(self._operand() for _ in range(self._integer(0, 2)))]
        first = self.builder.value(operand)
        try:
            attributes = _ATTRIBUTES.get(op, _none)(self, first)
            trial = ProgramBuilder(list(self.builder.nodes))
            value = trial.value(trial.emit(op, *operands, **attributes))
        except ProgramError:
            return
        if value.bit_width > self.cap or value.size > (12 if self.small else 4000):
            return
        declared = self._declared(op, operands, value)
        trial = ProgramBuilder(list(self.builder.nodes))
        try:
            trial.emit(op, *operands, declared=declared, name=f"n{len(trial.nodes)}", **attributes)
            check_wrappable(trial.build(len(trial.nodes) - 1))
        except ProgramError:  # a product of wrapped values
            return
        self.builder = trial

    def _declared(self, op: str, operands: Sequence[int], value: Value) -> DeclaredBounds | None:
        lo, hi = value.bounds.minimum, value.bounds.maximum
        if op == "sub" and operands[0] == operands[1]:
            return DeclaredBounds(0, 0, "structural", "a value less itself is zero")
        if not self.calibrated or op in ("input", "constant") or hi - lo < 4 or self.rng.random() < 0.5:
            return None
        keep = (hi - lo) // self._integer(2, 4)
        low = np.clip(value.bounds.lo, lo + (hi - lo - keep) // 2, None)
        inside = (value.bounds.hi >= low) & (low >= value.bounds.lo)
        high = np.where(inside, np.minimum(value.bounds.hi, np.maximum(low, hi - keep // 2)), value.bounds.hi)
        low = np.where(inside, low, value.bounds.lo)
        return DeclaredBounds(low, high, "calibrated", "random")

    # --- attributes, one method per op that has some ---

    def matmul(self, x: Value) -> Mapping[str, Any]:
        reach = 2 if self.small else int(self.rng.choice([3, 127, 40000]))
        return {"weights": self._array(-reach, reach, (x.shape[-1] if x.shape else 1, self._integer(1, self.side)))}

    def _conv(self, x: Value, rank: int) -> Mapping[str, Any]:
        channels = x.shape[0] if x.shape else 1
        groups = int(self.rng.choice([g for g in range(1, channels + 1) if channels % g == 0]))
        kernel = tuple(self._integer(1, 2 if self.small else 3) for _ in range(rank))
        reach = 1 if self.small else int(self.rng.choice([2, 127]))
        return {
            "weights": self._array(-reach, reach, (groups * self._integer(1, 2), channels // groups, *kernel)),
            "strides": [self._integer(1, 2) for _ in range(rank)],
            "dilations": [self._integer(1, 2) for _ in range(rank)],
            "groups": groups,
        }

    def conv2d(self, x: Value) -> Mapping[str, Any]:
        return self._conv(x, 2)

    def conv1d(self, x: Value) -> Mapping[str, Any]:
        return self._conv(x, 1)

    def sum_pool2d(self, _: Value) -> Mapping[str, Any]:
        return {"kernel": [self._integer(1, 2), self._integer(1, 2)], "strides": [self._integer(1, 2)] * 2}

    def _partial_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """A random shape that broadcasts to `shape`."""
        kept = tuple(d if self.rng.random() < 0.6 else 1 for d in shape)
        return kept[self._integer(0, len(kept)) :]

    def add_constant(self, x: Value) -> Mapping[str, Any]:
        reach = 3 if self.small else 1000
        return {"value": self._array(-reach, reach, self._partial_shape(x.shape))}

    def multiply_constant(self, x: Value) -> Mapping[str, Any]:
        reach = 2 if self.small else 50
        return {"value": self._array(-reach, reach, self._partial_shape(x.shape))}

    def sum(self, x: Value) -> Mapping[str, Any]:
        axes = [i for i in range(len(x.shape)) if self.rng.random() < 0.6]
        return {"axes": axes, "keepdims": bool(self.rng.random() < 0.5)}

    def table_lookup(self, x: Value) -> Mapping[str, Any]:
        lo = x.bounds.minimum - self._integer(0, 2)
        size = x.bounds.maximum - lo + 1 + self._integer(0, 2)
        if size > 2**12:
            raise ProgramError("wider than tables are drawn")
        reach = 2 ** self._integer(1, 3 if self.small else 20)
        low = 0 if self.rng.random() < 0.5 else -reach
        return {"lo": lo, "table": self._array(low, reach - 1, (*self._partial_shape(x.shape), size))}

    def round(self, x: Value) -> Mapping[str, Any]:
        noisy = not self.small and self.rng.random() < 0.4
        lsbs = self._integer(1, min(max(x.bit_width - 1, 1), 12))
        return {"lsbs": lsbs, "method": "approximate" if noisy else "exact"}

    def constant(self, _: Value) -> Mapping[str, Any]:
        shape = tuple(self._integer(1, self.side) for _ in range(self._integer(1, 2)))
        return {"value": self._array(-3, 3, shape)}

    def reshape(self, x: Value) -> Mapping[str, Any]:
        shape = (x.size,) if self.rng.random() < 0.4 else (*x.shape[::-1], 1)
        return {"shape": shape}

    def transpose(self, x: Value) -> Mapping[str, Any]:
        return {"axes": [int(i) for i in self.rng.permutation(len(x.shape))]}

    def concatenate(self, x: Value) -> Mapping[str, Any]:
        return {"axis": self._integer(0, max(len(x.shape) - 1, 0))}

    def slice(self, x: Value) -> Mapping[str, Any]:
        starts = [self._integer(0, d - 1) for d in x.shape]
        stops = [self._integer(s + 1, d) for s, d in zip(starts, x.shape, strict=True)]
        return {"starts": starts, "stops": stops, "steps": [self._integer(1, 2) for _ in x.shape]}

    def gather(self, x: Value) -> Mapping[str, Any]:
        axis = self._integer(0, max(len(x.shape) - 1, 0))
        return {"axis": axis, "indices": self._array(0, (x.shape[axis] if x.shape else 1) - 1, (self._integer(1, 4),))}

    def pad(self, x: Value) -> Mapping[str, Any]:
        before, after = ([self._integer(0, 1) for _ in x.shape] for _ in range(2))
        return {"before": before, "after": after, "value": int(self._array(-1, 1, ()))}

    def broadcast(self, x: Value) -> Mapping[str, Any]:
        shape = tuple(self._integer(1, 3) if d == 1 else d for d in x.shape)
        return {"shape": (self._integer(1, 2), *shape) if self.rng.random() < 0.5 else shape}


def _none(_: _Sketch, __: Value) -> Mapping[str, Any]:
    return {}


_ATTRIBUTES: Mapping[str, Callable[[_Sketch, Value], Mapping[str, Any]]] = {
    name: getattr(_Sketch, name) for name in OPS if hasattr(_Sketch, name)
}
