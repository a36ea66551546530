"""What `compile` leaves of a network: clear steps at the client's side, the integer program between them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from joblib import effective_n_jobs
from numpy.typing import NDArray

from fhelearn.backends.native import NativeEngine
from fhelearn.estimators.compiled import CompiledModel, CompileOptions
from fhelearn.exceptions import AccumulatorOverflowError, LoweringError, ParametersNotFoundError, QuantizationError
from fhelearn.frontends.onnx import QuantizedNetwork, Settings, import_network
from fhelearn.frontends.onnx.network import layers_of, lookup_groups
from fhelearn.ir import Faults, Program, region_widths
from fhelearn.onnx.cleanup import CleanModel, clean
from fhelearn.onnx.forward import get_equivalent_numpy_forward
from fhelearn.typing import FloatArray, IntArray

if TYPE_CHECKING:
    import onnx


WIDEST_NATIVE_LOOKUP = 8
"""Bits of the widest lookup that Concrete encodes as one number; wider ones become residues, or have no parameters."""

_ADVISED_ROUNDING = 6


@dataclass(frozen=True, eq=False)
class NetworkModel:
    """A float model and what became of it.

    Attributes
    ----------
    model : onnx.ModelProto
        The float model.
    clean : CleanModel
        Its parts: before encryption, encrypted, after decryption.
    quantized : QuantizedNetwork
        The encrypted part in integers.
    settings : Settings or None
        How it was quantized.
    """

    model: onnx.ModelProto
    clean: CleanModel
    quantized: QuantizedNetwork
    settings: Settings | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in fields(self)}  # without cached functions

    @classmethod
    def of(
        cls,
        model: onnx.ModelProto,
        inputs: Sequence[NDArray[Any]],
        settings: Settings,
        *,
        cut: bool = True,
        quantize: Callable[..., QuantizedNetwork] = import_network,
    ) -> NetworkModel:
        """Clean and quantize a valid ONNX model.

        Parameters
        ----------
        model : onnx.ModelProto
            As `fhelearn.onnx.load_model` returns it.
        inputs : sequence of arrays, shape (n, *row), n >= 1
            Calibration rows, per input of the model.
        settings : Settings
        cut : bool
            Whether leading and trailing steps may run in the clear.
        quantize : callable
            Takes the encrypted part, its calibration rows and `settings`.

        Raises
        ------
        UnsupportedOperatorError, QuantizationError, ModelFormatError
        """
        cleaned = clean(model, cut=cut)
        _check_rows(cleaned)
        parts = cls(model, cleaned, None)  # type: ignore[arg-type]  # the encrypted part follows
        rows = parts.preprocess(inputs)
        return cls(model, cleaned, quantize(cleaned.body, rows, settings), settings)

    @cached_property
    def _before(self) -> Callable[..., Any] | None:
        return None if self.clean.before is None else get_equivalent_numpy_forward(self.clean.before)

    @cached_property
    def _after(self) -> Callable[..., Any] | None:
        return None if self.clean.after is None else get_equivalent_numpy_forward(self.clean.after)

    @cached_property
    def forward(self) -> Callable[..., Any]:
        """The float model on NumPy arrays."""
        return get_equivalent_numpy_forward(self.model)

    def preprocess(self, inputs: Sequence[NDArray[Any]]) -> list[FloatArray]:
        """What is to be quantized, per input of the encrypted part, float64."""
        outputs = inputs if self._before is None else _listed(self._before(*inputs))
        return [np.ascontiguousarray(x, dtype=np.float64) for x in outputs]

    def postprocess(self, outputs: Sequence[FloatArray]) -> list[NDArray[Any]]:
        """The model's outputs from those of the encrypted part."""
        return list(outputs) if self._after is None else _listed(self._after(*outputs))


class CompiledNetwork(CompiledModel):
    """A quantized network.

    Attributes
    ----------
    network : NetworkModel
    clear_inputs : tuple of int
        Positions of the program's inputs that the server may see: they travel and are evaluated in the clear.
    """

    def __init__(
        self,
        network: NetworkModel,
        options: CompileOptions,
        n_bits: Any = None,
        fitted: Sequence[Any] = (),
        *,
        clear_inputs: tuple[int, ...] = (),
    ) -> None:
        super().__init__(options, n_bits, fitted)
        self.network = network
        self.clear_inputs = clear_inputs

    @property
    def program(self) -> Program:
        """The integer program."""
        return self.network.quantized.program

    def prepared(self, inputs: Sequence[NDArray[Any]]) -> list[FloatArray]:
        """What is to be quantized of float inputs: the client's clear steps. Raises QuantizationError on NaN."""
        rows = self.network.preprocess(inputs)
        for x in rows:
            if np.isnan(x).any():
                raise QuantizationError("the inputs hold NaN; impute missing values first")
        return rows

    def encode(self, inputs: Sequence[NDArray[Any]]) -> list[IntArray]:
        """Integers of float inputs: the client's clear steps, then quantization."""
        return self.network.quantized.quantize(self.prepared(inputs))

    def simulate(
        self, q: Sequence[IntArray], *, n_jobs: int | None = None, faults: Faults | None = None
    ) -> list[IntArray]:
        """Exactly what :meth:`run_encrypted` decrypts (but for lookups that fail and approximate rounding).

        `faults` injects such failures and such noise.
        """
        engine: NativeEngine = self.engine
        threads = None if n_jobs is None else effective_n_jobs(n_jobs)
        return engine.run(list(q), num_threads=threads, on_overflow="wrap", faults=faults)

    def simulate_counting(self, q: Sequence[IntArray], *, n_jobs: int | None = None) -> tuple[list[IntArray], int]:
        """As :meth:`simulate`, and how many rows overflow; where none does, one run tells both."""
        threads = None if n_jobs is None else effective_n_jobs(n_jobs)
        try:
            return self.engine.run(list(q), num_threads=threads, on_overflow="error"), 0
        except AccumulatorOverflowError:
            return self.simulate(q, n_jobs=n_jobs), len(self.overflowing_rows(q))

    def overflowing_rows(self, q: Sequence[IntArray]) -> IntArray:
        """Which rows push an accumulator out of its calibrated bounds. Returns int64, shape (rows that do,), ascending.

        Halves of the batch are run with ``on_overflow="error"`` until every row is known.
        """
        found: list[int] = []
        pending = [range(len(q[0]))] if self.program.has_calibrated_bounds else []
        while pending:
            rows = pending.pop()
            if not rows or not self._overflows([x[rows.start : rows.stop] for x in q]):
                continue
            if len(rows) == 1:
                found.append(rows.start)
            middle = len(rows) // 2
            pending += [rows[:middle], rows[middle:]] if middle else []
        return np.array(sorted(found), dtype=np.int64)

    def _overflows(self, q: Sequence[IntArray]) -> bool:
        try:
            self.engine.run(list(q), on_overflow="error")
        except AccumulatorOverflowError:
            return True
        return False

    @property
    def has_circuit(self) -> bool:
        """Whether the Concrete circuit has been made; asking does not make it."""
        return "circuit" in self._handles

    def circuit_options(self) -> Any:
        """As of CompiledModel, with the clear inputs."""
        from fhelearn.backends.concrete import CircuitOptions

        options = self.options
        return CircuitOptions(
            p_error=options.p_error,
            global_p_error=options.global_p_error,
            security_level=options.security_level,
            clear_inputs=self.clear_inputs,
        )

    def _compile_circuit(self) -> Any:
        try:
            return super()._compile_circuit()
        except ParametersNotFoundError as error:
            raise ParametersNotFoundError(self._wide_lookups() or self._wide_values()) from error
        except LoweringError as error:
            remedy = self._wide_lookups()
            if not remedy:
                raise
            raise LoweringError(remedy) from error

    def _wide_values(self) -> str:
        """Which layer needs the most bits, and what to do."""
        regions, layers = region_widths(self.program), layers_of(self.program)
        widest = max(range(len(regions)), key=lambda i: regions[i].bit_width)
        return (
            f"values are too wide to be encrypted: layer {layers[widest]!r} needs {regions[widest].bit_width} bits; "
            "pass a smaller n_bits"
        )

    def _wide_lookups(self) -> str:
        """Which layers look up too many bits, and what to do; empty if none does."""
        wide: dict[str, int] = {}
        for group in lookup_groups(self.program):
            if group.bits > WIDEST_NATIVE_LOOKUP:
                wide[group.layer] = max(wide.get(group.layer, 0), group.bits)
        if not wide:
            return ""
        found = ", ".join(f"layer {name!r} looks up {bits} bits" for name, bits in wide.items())
        rounding = self.network.settings.rounding if self.network.settings else None
        bits = min(rounding.n_bits, _ADVISED_ROUNDING) if rounding else _ADVISED_ROUNDING
        return (
            f"accumulators are too wide to be encrypted: {found} (more than {WIDEST_NATIVE_LOOKUP} are slow or "
            f'impossible); pass rounding_threshold_bits={{"n_bits": {bits}, "method": "approximate"}}, or a smaller '
            "n_bits"
        )

    def decode(self, outputs: Sequence[IntArray]) -> list[NDArray[Any]]:
        """The model's outputs from the program's: dequantization, then the client's clear steps."""
        return self.network.postprocess(self.network.quantized.dequantize(outputs))


def _check_rows(cleaned: CleanModel) -> None:
    """Raise LoweringError where axis 0 of what goes in or comes out is not the rows: the parts run on many at once."""
    outputs = [*cleaned.body.graph.output, *(cleaned.after.graph.output if cleaned.after else ())]
    for what, infos in (("input", cleaned.body.graph.input), ("output", outputs)):
        for info in infos:
            shape = tuple(dim.dim_value for dim in info.type.tensor_type.shape.dim)
            if info.type.tensor_type.HasField("shape") and shape[:1] not in ((1,), (0,)):  # 0 is a symbolic axis
                raise LoweringError(
                    f"{what} {info.name!r} has shape {shape} for one row: axis 0 must be the rows, "
                    "everywhere; keep that axis when reshaping, reducing or transposing"
                )


def _listed(answer: Any) -> list[NDArray[Any]]:
    return list(answer) if isinstance(answer, tuple) else [answer]
