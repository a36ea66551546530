"""The C++ engine: runs a program on batches, exactly as the reference evaluator and as the encrypted run.

Threads. ``num_threads`` means what ``n_jobs`` means to scikit-learn: ``None`` is the default, ``-1`` all CPUs that this
process may use, a positive integer is taken as given up to ``MAX_THREADS``. The default is, in this order: what
:func:`set_num_threads` or :func:`threads` set, the environment variable ``FHELEARN_NUM_THREADS``, ``OMP_NUM_THREADS``
(which joblib's worker processes set, so that nested parallelism does not oversubscribe), the CPUs this process may use.
If threadpoolctl is installed, ``threadpool_limits(limits=...)`` limits this engine too; its `user_api` is
``"fhelearn"``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from fhelearn import _core
from fhelearn.exceptions import AccumulatorOverflowError, InputRangeError, ProgramError
from fhelearn.ir import Faults, Node, Program, RegionType, region_widths
from fhelearn.typing import IntArray, OverflowMode

MAX_THREADS = 1024
"""More threads are never started, however many a caller or the environment asks for."""


def resolve_num_threads(num_threads: int | None) -> int:
    """The number of threads that `num_threads` asks for.

    Parameters
    ----------
    num_threads : int or None
        None: the default; -1: all CPUs this process may use; positive: itself, at most ``MAX_THREADS``.

    Returns
    -------
    int
        In [1, ``MAX_THREADS``].

    Raises
    ------
    ValueError
        If it is 0, below -1 or no integer, or if ``FHELEARN_NUM_THREADS`` is no positive integer.
    """
    if num_threads is None:
        return _core.get_num_threads()
    if isinstance(num_threads, bool) or not isinstance(num_threads, int | np.integer):
        raise ValueError(f"num_threads must be None, -1 or a positive integer, got {num_threads!r}")
    if num_threads == -1:
        return _core.available_cpus()
    if num_threads < 1:
        raise ValueError(f"num_threads must be None (default), -1 (all CPUs) or a positive integer, got {num_threads}")
    return min(int(num_threads), MAX_THREADS)


def set_num_threads(num_threads: int | None) -> None:
    """Set the default number of threads of this process; None returns to the environment's.

    Raises
    ------
    ValueError
        As :func:`resolve_num_threads`.
    """
    _core.set_num_threads(0 if num_threads is None else resolve_num_threads(num_threads))


def get_num_threads() -> int:
    """The number of threads that ``num_threads=None`` means now."""
    return _core.get_num_threads()


@contextmanager
def threads(num_threads: int | None) -> Iterator[None]:
    """Set the default number of threads inside a ``with`` block, for the whole process, as torch's and OpenMP's are."""
    previous = _core.set_num_threads(0 if num_threads is None else resolve_num_threads(num_threads))
    try:
        yield
    finally:
        _core.set_num_threads(previous)


class NativeEngine:
    """A program planned for this CPU.

    Parameters
    ----------
    program : Program
        Validated a second time by the core, which proves bounds again before it relies on them.

    Raises
    ------
    ProgramError
        If the core refuses the program.

    Notes
    -----
    Immutable; :meth:`run` may be called from several Python threads at once and releases the GIL.
    """

    def __init__(self, program: Program) -> None:
        self._program = program
        try:
            self._engine = _core.Engine(node_dicts(program), [int(i) for i in program.outputs])
        except _core.ProgramError as error:
            raise ProgramError(str(error)) from None

    @property
    def program(self) -> Program:
        """The program that runs."""
        return self._program

    def run(
        self,
        inputs: Sequence[IntArray],
        *,
        num_threads: int | None = None,
        on_overflow: OverflowMode = "error",
        faults: Faults | None = None,
    ) -> list[IntArray]:
        """Run on a batch; equals ``fhelearn.ir.evaluate`` with the same arguments, bit for bit.

        Parameters
        ----------
        inputs : sequence of int64 arrays, each C-contiguous (n, *shape of the input)
            One per ``input`` node, in order, inside the declared bounds.
        num_threads : int or None
            As :func:`resolve_num_threads`. Small batches use one thread.
        on_overflow : {"error", "wrap"}, default="error"
            What a value outside calibrated bounds does: raise, or wrap as the ciphertext does.
        faults : Faults, optional
            Noise to inject; by default none.

        Returns
        -------
        list of int64 arrays, each (n, *shape of the output)

        Raises
        ------
        InputRangeError
            If an input has the wrong count, dtype, shape, layout or range.
        AccumulatorOverflowError
            If a value leaves its declared bounds; with ``on_overflow="wrap"`` only where it depends on no calibrated
            value.
        ProgramError
            If ``on_overflow="wrap"`` and a product depends on calibrated values.
        ValueError
            If `on_overflow` or `num_threads` is none of the allowed values.
        """
        noise = faults or Faults()
        try:
            return self._engine.run(
                list(inputs),
                num_threads=resolve_num_threads(num_threads),
                on_overflow=on_overflow,
                p_error=noise.p_error,
                rounding_noise=noise.rounding_noise,
                seed=noise.seed,
            )
        except _core.ProgramError as error:
            raise ProgramError(str(error)) from None
        except _core.InputRangeError as error:
            raise InputRangeError(str(error)) from None
        except _core.AccumulatorOverflowError as error:
            raise AccumulatorOverflowError(str(error)) from None

    def __repr__(self) -> str:
        return f"NativeEngine({len(self._program.nodes)} nodes, isa={_core.isa()!r})"


def node_dicts(program: Program) -> list[dict[str, Any]]:
    """The nodes as ``_core.Engine`` takes them: plain ints, strings, lists and int64 arrays."""
    regions = region_widths(program)
    return [_node_dict(node, region) for node, region in zip(program.nodes, regions, strict=True)]


def _node_dict(node: Node, region: RegionType) -> dict[str, Any]:
    lo, hi = node.value.bounds.to_int64()
    return {
        "op": node.op,
        "name": node.name,
        "operands": list(node.operands),
        "shape": list(node.value.shape),
        "lo": np.ascontiguousarray(lo).reshape(lo.shape),  # ascontiguousarray makes a scalar one-dimensional
        "hi": np.ascontiguousarray(hi).reshape(hi.shape),
        "provenance": node.value.provenance,
        "width": region.bit_width,
        "signed": region.signed,
        "attributes": _plain(node.attributes),
    }


def _plain(attributes: Mapping[str, Any]) -> dict[str, Any]:
    return {key: list(value) if isinstance(value, tuple) else value for key, value in attributes.items()}


def _register_with_threadpoolctl() -> None:
    """Let ``threadpoolctl.threadpool_limits`` reach the engine's pool, as it reaches BLAS and OpenMP."""
    try:
        from threadpoolctl import LibController, register
    except ImportError:  # optional, and older than 3.2 cannot be extended
        return

    class _Controller(LibController):  # type: ignore[misc]  # threadpoolctl ships no types
        user_api = "fhelearn"
        internal_api = "fhelearn"
        filename_prefixes = ("_core",)
        check_symbols = ("fhelearn_get_num_threads", "fhelearn_set_num_threads")

        def get_num_threads(self) -> int:
            return int(self.dynlib.fhelearn_get_num_threads())

        def set_num_threads(self, num_threads: int) -> None:
            self.dynlib.fhelearn_set_num_threads(num_threads)

        def get_version(self) -> None:
            return None

        def set_additional_attributes(self) -> None:
            pass

    register(_Controller)


_register_with_threadpoolctl()
