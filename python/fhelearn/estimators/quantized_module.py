"""A network that predicts on encrypted data: what `fhelearn.torch` returns."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from fhelearn.estimators.build import check_keywords
from fhelearn.estimators.compiled import CompileOptions
from fhelearn.estimators.compiled_network import CompiledNetwork, NetworkModel
from fhelearn.estimators.module_inputs import (
    CALIBRATION,
    as_array,
    calibration_arrays,
    checked_inputs,
    clear_positions,
    counted,
    encryption_status,
    model_inputs,
)
from fhelearn.estimators.network_file import NetworkFile, read_network, write_network
from fhelearn.estimators.network_report import NetworkReport, network_report
from fhelearn.estimators.out_of_range import warn_of_few_rows, warn_of_rows
from fhelearn.exceptions import NotCompiledError, QuantizationError
from fhelearn.frontends.onnx import Settings
from fhelearn.ir import Faults, Program
from fhelearn.typing import FheMode, IntArray

if TYPE_CHECKING:
    import onnx

Self = TypeVar("Self", bound="QuantizedModule")


class QuantizedModule:
    """A float network with its integer program; made by the functions of `fhelearn.torch`.

    Three ways to run: ``fhe="disable"`` is the float model in NumPy, ``fhe="simulate"`` the program in the C++ engine,
    ``fhe="execute"`` the program on ciphertexts. The last two agree exactly, but for table lookups that fail (with the
    probability `p_error`) and the noise of approximate rounding, which `faults` can simulate. Rows that leave
    calibrated bounds wrap in both alike; :meth:`overflowing_rows` lists them.

    Instances can be pickled and copied. Circuit and keys stay behind: they are made again when next needed.
    """

    def __init__(
        self,
        network: NetworkModel,
        options: CompileOptions,
        *,
        is_compiled: bool = False,
        inputs_encryption_status: Sequence[str] | None = None,
    ) -> None:
        self._inputs = model_inputs(network.model)
        self._status = encryption_status(self._inputs, inputs_encryption_status)
        clear = [source.name for source, status in zip(self._inputs, self._status, strict=True) if status == "clear"]
        self._compiled = CompiledNetwork(network, options, clear_inputs=clear_positions(network.clean, clear))
        self._is_compiled = is_compiled

    @classmethod
    def of(
        cls: type[Self],
        model: onnx.ModelProto,
        calibration: Any,
        settings: Settings,
        inputs_encryption_status: Sequence[str] | None = None,
    ) -> Self:
        """Quantize a valid ONNX model; parameters and errors as of `fhelearn.torch.build_quantized_module`."""
        inputs = model_inputs(model)
        encryption_status(inputs, inputs_encryption_status)
        rows = checked_inputs(inputs, calibration_arrays(calibration), CALIBRATION)
        warn_of_few_rows(len(rows[0]))
        network = NetworkModel.of(model, rows, settings)
        return cls(network, CompileOptions(), inputs_encryption_status=inputs_encryption_status)

    def __repr__(self) -> str:
        inputs, outputs = (", ".join(map(repr, names)) for names in (self.input_names, self.output_names))
        return f"QuantizedModule({inputs} -> {outputs}; {'compiled' if self.is_compiled else 'not compiled'})"

    # -- what it is made of --------------------------------------------------------------------------------------------

    @property
    def input_names(self) -> tuple[str, ...]:
        """Names of the model's inputs, in the order of the arguments of :meth:`forward`."""
        return tuple(source.name for source in self._inputs)

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of the model's outputs, in the order of the results of :meth:`forward`."""
        return tuple(info.name for info in self.onnx_model.graph.output)

    @property
    def inputs_encryption_status(self) -> tuple[str, ...]:
        """Per input of the model, whether it is "encrypted", or "clear": sent as it is, for the server to see."""
        return self._status

    @property
    def onnx_model(self) -> onnx.ModelProto:
        """The float model."""
        return self._compiled.network.model

    @property
    def program(self) -> Program:
        """The integer program: what is encrypted of the model."""
        return self._compiled.program

    @property
    def is_compiled(self) -> bool:
        """Whether :meth:`compile` was called, so that ``fhe="execute"`` works."""
        return self._is_compiled

    @property
    def fhe_circuit(self) -> Any:
        """The Concrete circuit: keys, encryption, cost. Raises NotCompiledError before :meth:`compile`."""
        self._require_compiled()
        return self._compiled.circuit

    def compile(
        self: Self,
        *data: Any,
        p_error: float | None = None,
        global_p_error: float | None = None,
        security_level: int = 128,
        verbose: bool = False,
    ) -> Self:
        """Make the circuit that ``fhe="execute"`` runs; where Concrete is missing, only the options are kept.

        A circuit of more than 10,000 lookups, which takes minutes to make, waits until it is used.

        Parameters
        ----------
        *data
            None is taken: calibration data went to `build_quantized_module`.
        p_error : float, default=None
            Probability, in [2**-128, 1), that a table lookup goes wrong; None is 2**-40.
        global_p_error : float, default=None
            The same for a whole row; give this or `p_error`, not both.
        security_level : {128, 132}, default=128
            In bits.
        verbose : bool, default=False
            Print the report.

        Returns
        -------
        self

        Raises
        ------
        LoweringError
            If lookups are too wide, or no cryptographic parameters exist (ParametersNotFoundError); names the layers
            and what to pass instead.
        TypeError, ValueError
            If data are given; if an option is outside its range.
        """
        if data:
            raise TypeError(
                "compile takes no data, the network is quantized already: calibration data went to "
                "build_quantized_module; pass options by keyword, as in compile(p_error=0.01)"
            )
        options = CompileOptions(p_error, global_p_error, security_level)
        compiled = CompiledNetwork(self._compiled.network, options, clear_inputs=self._compiled.clear_inputs)
        compiled.prepare_circuit()
        self._compiled, self._is_compiled = compiled, True
        if verbose:
            print(self.report())
        return self

    def _require_compiled(self) -> None:
        if not self._is_compiled:
            raise NotCompiledError(
                'this QuantizedModule has no circuit yet: call compile() first ("disable" and "simulate" work without)'
            )

    # -- running it ----------------------------------------------------------------------------------------------------

    def forward(
        self,
        *x: Any,
        fhe: FheMode = "disable",
        n_jobs: int | None = None,
        progress: bool | None = None,
        faults: Faults | None = None,
    ) -> Any:
        """The model's outputs.

        Parameters
        ----------
        *x : arrays or tensors, shape (n, *row), n >= 1
            One per input of the model. They become the type that the model declares. One OutOfRangeWarning counts the
            values outside the range of the calibration rows, which are clipped before encryption, and the rows that
            leave calibrated bounds, whose answers mean nothing.
        fhe : {"disable", "simulate", "execute"}, default="disable"
            Float model, integer program, or ciphertexts.
        n_jobs : int, default=None
            Parallel jobs for "execute", threads for "simulate".
        progress : bool, default=None
            Whether "execute" shows a bar; None: for more than one row in a terminal.
        faults : fhelearn.ir.Faults, default=None
            For "simulate": failures of lookups and noise of approximate rounding, seeded, as in
            ``Faults(p_error=0.01, rounding_noise=0.1, seed=0)``. Without, neither happens.

        Returns
        -------
        ndarray, or tuple of them if the model has several outputs, shape (n, *row)
            "disable": of the model's types. Otherwise float64, or the type of the post-processing in the clear.

        Raises
        ------
        QuantizationError
            A ValueError: an input has another shape, type or number of rows than declared, or holds NaN or infinities.
        NotCompiledError
            If `fhe` is "execute" before :meth:`compile`.
        """
        check_keywords(fhe, n_jobs, progress)
        _check_faults(fhe, faults)
        inputs = checked_inputs(self._inputs, x, "forward")
        if fhe == "disable":
            return self._compiled.network.forward(*inputs)
        if fhe == "execute":
            self._require_compiled()
        quantized, rows = self._compiled.network.quantized, self._compiled.prepared(inputs)
        codes = quantized.quantize(rows)
        if fhe == "simulate" and faults is None:
            outputs, overflowing = self._compiled.simulate_counting(codes, n_jobs=n_jobs)
            warn_of_rows(quantized.encoders, rows, overflowing)
        else:
            warn_of_rows(quantized.encoders, rows, len(self._compiled.overflowing_rows(codes)))
            outputs = self._run(codes, fhe, n_jobs, progress, faults)
        return _one_or_all(self._compiled.decode(outputs))

    __call__ = forward

    def quantize_input(self, *x: Any) -> Any:
        """The integers that are encrypted: pre-processing in the clear, then quantization.

        Parameters
        ----------
        *x : arrays or tensors, shape (n, *row), n >= 1
            As for :meth:`forward`.

        Returns
        -------
        ndarray of int64, or tuple of them if the program has several inputs, shape (n, *shape of the input)
            Inside the program's input bounds. The program keeps ONNX's axis 0 of extent 1: rows of shape (1, 8, 8)
            become integers of shape (n, 1, 1, 8, 8).
        """
        return _one_or_all(self._compiled.encode(checked_inputs(self._inputs, x, "quantize_input")))

    def quantized_forward(
        self,
        *q: Any,
        fhe: FheMode = "simulate",
        n_jobs: int | None = None,
        progress: bool | None = None,
        faults: Faults | None = None,
    ) -> Any:
        """Run the program alone.

        Parameters
        ----------
        *q : ndarray of integers, shape (n, *shape of the input)
            As :meth:`quantize_input` returns them.
        fhe : {"simulate", "execute"}, default="simulate"
        n_jobs, progress, faults
            As of :meth:`forward`.

        Returns
        -------
        ndarray of int64, or tuple of them if the program has several outputs, shape (n, *shape of the output)

        Raises
        ------
        InputRangeError
            A ValueError: an input has another shape than declared, or leaves its bounds.
        """
        check_keywords(fhe, n_jobs, progress)
        _check_faults(fhe, faults)
        if fhe == "disable":
            raise ValueError('quantized_forward: fhe must be "simulate" or "execute"; forward runs the float model')
        return _one_or_all(self._run(_integers(q, "quantized_forward"), fhe, n_jobs, progress, faults))

    def dequantize_output(self, *q: Any) -> Any:
        """The model's outputs that decrypted integers stand for: dequantization, then post-processing in the clear.

        Parameters
        ----------
        *q : ndarray of integers, shape (n, *shape of the output)
            As :meth:`quantized_forward` returns them.

        Returns
        -------
        ndarray, or tuple of them if the model has several outputs
            As of :meth:`forward`.
        """
        outputs = [self.program.nodes[i].value for i in self.program.outputs]
        if len(q) != len(outputs):
            raise ValueError(
                f"dequantize_output takes {counted(len(outputs), 'array')}, one per output of the program, got {len(q)}"
            )
        integers = _integers(q, "dequantize_output")
        for position, (array, value) in enumerate(zip(integers, outputs, strict=True)):
            if array.shape[1:] != value.shape or array.shape[:1] in ((), (0,)):
                expected = ", ".join(map(str, value.shape))
                raise ValueError(
                    f"dequantize_output: array {position} must have shape (n, {expected}), n >= 1, got {array.shape}"
                )
        return _one_or_all(self._compiled.decode(integers))

    def _run(
        self, codes: Sequence[IntArray], fhe: str, n_jobs: int | None, progress: bool | None, faults: Faults | None
    ) -> list[IntArray]:
        if fhe == "simulate":
            return self._compiled.simulate(codes, n_jobs=n_jobs, faults=faults)
        self._require_compiled()
        return self._compiled.run_encrypted(codes, n_jobs=n_jobs, progress=progress)

    # -- what it costs and how good it is ------------------------------------------------------------------------------

    def report(self, *x: Any, y: Any = None) -> NetworkReport:
        """Cost by layer, and accuracy on data.

        Parameters
        ----------
        *x : arrays or tensors, shape (n, *row), n >= 1
            Rows to compare on, as for :meth:`forward`; without, the accuracy figures are left out. Signal-to-noise
            ratios are taken from the first 128 rows that do not overflow.
        y : array or tensor, shape (n, ...), default=None
            Labels or targets of the rows, for the model's first output: "accuracy" if they are integers and the output
            holds labels or a score per class on axis 1, "mean squared error" otherwise.

        Returns
        -------
        NetworkReport
            Print it for tables.
        """
        if not x:
            if y is not None:
                raise QuantizationError("report: y is compared with answers, so rows are needed too: report(x, y=y)")
            return network_report(self._compiled)
        hint = "; labels or targets are passed by keyword: report(x, y=labels)"
        inputs = checked_inputs(self._inputs, x, "report", hint if len(x) == len(self._inputs) + 1 else "")
        return network_report(self._compiled, inputs, None if y is None else as_array(y))

    def overflowing_rows(self, *x: Any) -> IntArray:
        """Which rows leave calibrated bounds, so that their results may be far off.

        Parameters
        ----------
        *x : arrays or tensors, shape (n, *row), n >= 1
            As for :meth:`forward`.

        Returns
        -------
        ndarray of int64, shape (rows that overflow,)
            Ascending. Empty with ``bounds="proved"``.
        """
        return self._compiled.overflowing_rows(
            self._compiled.encode(checked_inputs(self._inputs, x, "overflowing_rows"))
        )

    # -- files ---------------------------------------------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write model, program and options to a file, without keys; an existing file is replaced."""
        compiled = self._compiled
        write_network(NetworkFile(compiled.network, compiled.options, self._is_compiled, self._status), path)

    @classmethod
    def load(cls: type[Self], path: str | os.PathLike[str]) -> Self:
        """Read a file that :meth:`save` wrote. Nothing in it is trusted, and no code of it is run.

        Raises
        ------
        ModelFormatError, ProgramFormatError
            If the file is damaged, of a newer format, or its parts do not fit each other.
        """
        content = read_network(path)
        return cls(
            content.network,
            content.options,
            is_compiled=content.is_compiled,
            inputs_encryption_status=content.inputs_encryption_status,
        )


def _one_or_all(arrays: Sequence[NDArray[Any]]) -> Any:
    return arrays[0] if len(arrays) == 1 else tuple(arrays)


def _integers(arrays: Sequence[Any], what: str) -> list[IntArray]:
    converted = [np.asarray(array) for array in arrays]
    for position, array in enumerate(converted):
        if array.dtype.kind not in "iu":
            raise ValueError(f"{what}: array {position} must hold integers, got dtype {array.dtype}")
    return [np.asarray(array, dtype=np.int64, order="C") for array in converted]


def _check_faults(fhe: str, faults: Faults | None) -> None:
    if faults is not None and not isinstance(faults, Faults):
        raise TypeError(f"faults must be an fhelearn.ir.Faults or None, got {type(faults).__name__}")
    if faults is not None and fhe != "simulate":
        raise ValueError(f'faults are simulated only: they need fhe="simulate", got {fhe!r}')
