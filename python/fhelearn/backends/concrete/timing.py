"""How long lookups take here: one small circuit is timed once per process, the optimizer's counts give the others."""

from __future__ import annotations

import statistics
import time
from collections import deque
from collections.abc import Sequence
from functools import cache

import numpy as np

from fhelearn.backends.concrete import forks, plan
from fhelearn.ir import Program, ProgramBuilder

_CALIBRATION_LOOKUPS = 64
_CALIBRATION_BITS = 4
_KEPT = 32
_lock = forks.Lock()


class Observations:
    """How long a circuit's calls took of late: single rows and batches apart, a run's first call apart from the rest.

    A run's first call takes longest, because nothing is encrypted while the server process evaluates another.
    """

    def __init__(self) -> None:
        self._seconds: dict[tuple[bool, bool], deque[float]] = {
            (batched, first): deque(maxlen=_KEPT) for batched in (False, True) for first in (False, True)
        }

    def add(self, batched: bool, first: bool, seconds: float) -> None:
        """A call was done `seconds` after the one before, or after the start."""
        self._seconds[batched, first].append(seconds)

    def estimate(self, pieces: Sequence[plan.Piece]) -> float | None:
        """Seconds for one run of `pieces`, or None if no call of such a kind has been seen."""
        total = 0.0
        for position, piece in enumerate(pieces):
            same, other = self._seconds[piece.batched, position == 0], self._seconds[piece.batched, position != 0]
            if not same and not other:
                return None
            total += statistics.median(same or other)
        return total


def estimate(complexity: float, pieces: Sequence[plan.Piece], batch_size: int, program: Program) -> float:
    """Seconds for rows grouped into `pieces`, whose lookups take `complexity` operations per row by the optimizer."""
    with _lock:
        pace = seconds_per_operation()
    computed = sum(batch_size if piece.batched else 1 for piece in pieces)
    levelled = plan.row_milliseconds(program, {})
    fixed = computed * levelled + len(pieces) * plan.call_milliseconds({_CALIBRATION_BITS: 1})
    return computed * complexity * pace + fixed / 1000.0


@cache
def seconds_per_operation() -> float:
    """Time of 64 four-bit lookups in one call, on all cores of this machine, over the operations that they count for.

    The optimizer's count predicts times of other widths within a fifth (measured from 3 to 6 bits, and for sums that
    are rounded), which the width of what is looked up does not: rounding reads single bits of wide values.

    Takes about three seconds (key generation), once per process.
    """
    from fhelearn.backends.concrete.circuit import compile_program  # circuits import this module
    from fhelearn.backends.concrete.options import CircuitOptions

    builder = ProgramBuilder()
    x = builder.emit("input", shape=(_CALIBRATION_LOOKUPS,), lo=0, hi=2**_CALIBRATION_BITS - 1)
    y = builder.emit("table_lookup", x, lo=0, table=np.arange(2**_CALIBRATION_BITS))
    circuit = compile_program(builder.build(y), CircuitOptions(batch_size=1))
    circuit.keygen()
    sample = circuit.encrypt([np.zeros((1, _CALIBRATION_LOOKUPS), dtype=np.int64)])
    seconds = []
    for _ in range(3):  # the first call decompresses the keys
        started = time.perf_counter()
        circuit.run(sample)
        seconds.append(time.perf_counter() - started)
    fixed = plan.call_milliseconds({_CALIBRATION_BITS: 1}) / 1000.0
    return max(min(seconds[1:]) - fixed, 0.5 * min(seconds[1:])) / circuit.cost.complexity
