"""What `compile` leaves of a network: clear steps at the client's side, the integer program between them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from joblib import effective_n_jobs
from numpy.typing import NDArray

from fhelearn.backends.native import NativeEngine
from fhelearn.estimators.compiled import CompiledModel, CompileOptions
from fhelearn.exceptions import QuantizationError
from fhelearn.frontends.onnx import QuantizedNetwork, Settings, import_network
from fhelearn.ir import Program
from fhelearn.onnx.cleanup import CleanModel, clean
from fhelearn.onnx.forward import get_equivalent_numpy_forward
from fhelearn.typing import FloatArray, IntArray

if TYPE_CHECKING:
    import onnx


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
    """

    model: onnx.ModelProto
    clean: CleanModel
    quantized: QuantizedNetwork

    @classmethod
    def of(
        cls, model: onnx.ModelProto, inputs: Sequence[NDArray[Any]], settings: Settings, *, cut: bool = True
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

        Raises
        ------
        UnsupportedOperatorError, QuantizationError, ModelFormatError
        """
        cleaned = clean(model, cut=cut)
        parts = cls(model, cleaned, None)  # type: ignore[arg-type]  # the encrypted part follows
        rows = parts.preprocess(inputs)
        return cls(model, cleaned, import_network(cleaned.body, rows, settings))

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
    """

    def __init__(
        self, network: NetworkModel, options: CompileOptions, n_bits: Any = None, fitted: Sequence[Any] = ()
    ) -> None:
        super().__init__(options, n_bits, fitted)
        self.network = network

    @property
    def program(self) -> Program:
        """The integer program."""
        return self.network.quantized.program

    def encode(self, inputs: Sequence[NDArray[Any]]) -> list[IntArray]:
        """Integers of float inputs: the client's clear steps, then quantization."""
        rows = self.network.preprocess(inputs)
        for x in rows:
            if np.isnan(x).any():
                raise QuantizationError("the inputs hold NaN; impute missing values first")
        return self.network.quantized.quantize(rows)

    def simulate(self, q: Sequence[IntArray], *, n_jobs: int | None = None) -> list[IntArray]:
        """Exactly what :meth:`run_encrypted` decrypts (but for lookups that fail and approximate rounding)."""
        engine: NativeEngine = self.engine
        threads = None if n_jobs is None else effective_n_jobs(n_jobs)
        return engine.run(list(q), num_threads=threads, on_overflow="wrap")

    def decode(self, outputs: Sequence[IntArray]) -> list[NDArray[Any]]:
        """The model's outputs from the program's: dequantization, then the client's clear steps."""
        return self.network.postprocess(self.network.quantized.dequantize(outputs))


def _listed(answer: Any) -> list[NDArray[Any]]:
    return list(answer) if isinstance(answer, tuple) else [answer]
