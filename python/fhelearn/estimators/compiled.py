"""What `compile` leaves behind: the integer program with its rim, and how to run it."""

from __future__ import annotations

import sys
import threading
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from joblib import effective_n_jobs

from fhelearn.backends.native import NativeEngine
from fhelearn.exceptions import BackendUnavailableError, OutOfRangeError, OutOfRangeWarning
from fhelearn.frontends.linear import QuantizedLinear
from fhelearn.ir import Program, cost
from fhelearn.typing import FloatArray, IntArray

MOST_EAGER_LOOKUPS = 10_000
"""Circuits of more lookups are compiled when they are first used: Concrete takes about a millisecond per lookup."""

NAMED_FEATURES = 5
"""How many features a message names before it only counts."""


@dataclass(frozen=True)
class CompileOptions:
    """Arguments of `compile` that later calls need; see there."""

    p_error: float | None = None
    global_p_error: float | None = None
    security_level: int = 128
    on_out_of_range: Literal["warn", "error"] = "warn"

    def __post_init__(self) -> None:
        if self.on_out_of_range not in ("warn", "error"):
            raise ValueError(f'on_out_of_range must be "warn" or "error", got {self.on_out_of_range!r}')


class CompiledModel(ABC):
    """A model's integer program with its options, ready to run on integers or ciphertexts.

    Pickling and copying keep the program, the encoders and the options. They drop the engine and the circuit, which are
    rebuilt when next needed, and with the circuit the keys: a secret key leaves a process only through
    ``fhe_circuit_.keys.save(path)``.

    Attributes
    ----------
    options : CompileOptions
    n_bits : object
        As the estimator had it when it was compiled.
    fitted : tuple of ndarray
        Copies of the fitted attributes and parameters it was compiled from.
    """

    def __init__(self, options: CompileOptions, n_bits: Any, fitted: Sequence[Any]) -> None:
        self.options = options
        self.n_bits = n_bits
        self.fitted = tuple(_copied(array) for array in fitted)
        self._handles: dict[str, Any] = {}
        self._lock = threading.RLock()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in ("_handles", "_lock")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _handles={}, _lock=threading.RLock())

    @property
    @abstractmethod
    def program(self) -> Program:
        """The integer program."""

    def describes(self, fitted: Sequence[Any]) -> bool:
        """Whether `fitted` are the arrays and parameters this was compiled from, bit for bit."""
        return len(fitted) == len(self.fitted) and all(
            np.array_equal(_copied(now), then) for now, then in zip(fitted, self.fitted, strict=True)
        )

    @property
    def engine(self) -> NativeEngine:
        """The C++ engine, built when first used."""
        engine: NativeEngine = self._once("engine", lambda: NativeEngine(self.program))
        return engine

    @property
    def circuit(self) -> Any:
        """The Concrete circuit, compiled when first used. Raises BackendUnavailableError where Concrete is missing."""
        return self._once("circuit", self._compile_circuit)

    def _once(self, name: str, make: Callable[[], Any]) -> Any:
        """The handle `name`, made by the first thread that asks for it."""
        with self._lock:
            if name not in self._handles:
                self._handles[name] = make()
            return self._handles[name]

    def _compile_circuit(self) -> Any:
        from fhelearn.backends.concrete import compile_program, is_available, unavailable_reason

        if not is_available():
            raise BackendUnavailableError(
                f'fhe="execute" needs concrete-python: {unavailable_reason()}; "disable" and "simulate" work without it'
            )
        return compile_program(self.program, self.circuit_options())

    def prepare_circuit(self) -> None:
        """Check the options, and compile the circuit now where Concrete is installed, so that its errors come now.

        A circuit of very many lookups, which compiles for a minute and runs for as many a row, waits until it is asked
        for.
        """
        from fhelearn.backends.concrete import is_available

        self.circuit_options()
        if is_available() and cost(self.program).total_lookups <= MOST_EAGER_LOOKUPS:
            _ = self.circuit

    def circuit_options(self) -> Any:
        """The options of the Concrete circuit, checked. Raises ValueError on a value that is not allowed."""
        from fhelearn.backends.concrete import CircuitOptions

        return CircuitOptions(
            p_error=self.options.p_error,
            global_p_error=self.options.global_p_error,
            security_level=self.options.security_level,
        )

    def execute(self, q: IntArray, *, n_jobs: int | None = None, progress: bool | None = None) -> IntArray:
        """Encrypt, run and decrypt a program of one input and output. q: int64; see :meth:`run_encrypted`."""
        return self.run_encrypted([q], n_jobs=n_jobs, progress=progress)[0]

    def run_encrypted(
        self, inputs: Sequence[IntArray], *, n_jobs: int | None = None, progress: bool | None = None
    ) -> list[IntArray]:
        """Encrypt, run and decrypt; makes keys first if there are none. `inputs`: int64, the program's inputs.

        `progress` None shows a bar for more than one row if stderr is a terminal; where there is no stderr (pythonw,
        daemons), none is shown.
        """
        many = len(inputs[0]) > 1
        show = _has_stderr() and (progress if progress is not None else many and sys.stderr.isatty())
        with self._lock:
            if self.circuit.keys is None:
                self.circuit.keygen(progress=show)
        result: list[IntArray] = self.circuit.execute(list(inputs), n_jobs=n_jobs, progress=show)
        return result


class CompiledLinear(CompiledModel):
    """A quantized linear model.

    Attributes
    ----------
    quantized : QuantizedLinear
    names : tuple of str
        Of the features, for messages.
    """

    def __init__(
        self,
        quantized: QuantizedLinear,
        options: CompileOptions,
        n_bits: Any,
        fitted: Sequence[Any],
        names: Sequence[str],
    ) -> None:
        super().__init__(options, n_bits, fitted)
        self.quantized = quantized
        self.names = tuple(names)

    @property
    def program(self) -> Program:
        """The integer program."""
        return self.quantized.program

    def encode(self, x: FloatArray, *, stacklevel: int) -> IntArray:
        """Quantize validated, prepared features; clip with a warning, or refuse, what lies outside the range.

        Features without a weight are clipped silently: they cannot change any score.
        """
        q, below, above = self.quantized.encoder.quantize_counting(x)
        weighted = self.program.nodes[-1].array("weights").any(axis=1)
        clipped = np.where(weighted, below + above, 0)
        if clipped.any():
            message = self._out_of_range(below, above, clipped, len(x))
            if self.options.on_out_of_range == "error":
                raise OutOfRangeError(f"{message}; compile(X) with data of the full range, or a larger range_margin")
            remedy = "to accept them, compile(X) with data of the full range, or a larger range_margin"
            warnings.warn(f"{message} and were clipped to it; {remedy}", OutOfRangeWarning, stacklevel=stacklevel + 1)
        return q

    def _out_of_range(self, below: IntArray, above: IntArray, clipped: IntArray, rows: int) -> str:
        columns = np.flatnonzero(clipped)
        noun = "feature" if len(columns) == 1 else "features"
        encoder = self.quantized.encoder
        parts = [
            f"{self.names[j]} ({below[j]} below {encoder.minimum[j]:.6g}, {above[j]} above {encoder.maximum[j]:.6g})"
            for j in columns[:NAMED_FEATURES]
        ]
        if len(columns) > NAMED_FEATURES:
            parts.append(f"{len(columns) - NAMED_FEATURES} more features")
        return (
            f"{int(clipped.sum())} of {rows * encoder.n_features} values in {len(columns)} {noun} lie outside the "
            f"range seen at compile: {', '.join(parts)}"
        )

    def simulate(self, q: IntArray, *, n_jobs: int | None = None) -> IntArray:
        """Exactly what :meth:`execute` decrypts, from the C++ engine. q: int64, shape (n, n_features)."""
        threads = None if n_jobs is None else effective_n_jobs(n_jobs)
        result: IntArray = self.engine.run([q], num_threads=threads)[0]
        return result

    def decode(self, q: IntArray) -> FloatArray:
        """Scores of the integers that a run returned, shape (n, n_scores)."""
        return self.quantized.decoder.dequantize(q)


def _has_stderr() -> bool:
    return sys.stderr is not None and not getattr(sys.stderr, "closed", False)


def _copied(array: Any) -> Any:
    return np.array(array.toarray() if hasattr(array, "toarray") else array)
