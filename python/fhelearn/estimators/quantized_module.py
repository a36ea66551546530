"""A network that predicts on encrypted data: what `fhelearn.torch` returns."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from fhelearn.estimators.build import _check_keywords
from fhelearn.estimators.compiled import CompileOptions
from fhelearn.estimators.compiled_network import CompiledNetwork, NetworkModel
from fhelearn.estimators.network_file import NetworkFile, read_network, write_network
from fhelearn.estimators.network_report import NetworkReport, network_report
from fhelearn.exceptions import LoweringError, NotCompiledError, QuantizationError, UnsupportedOperatorError
from fhelearn.frontends.onnx import Settings
from fhelearn.ir import Faults, Program
from fhelearn.typing import FheMode, IntArray

if TYPE_CHECKING:
    import onnx

Self = TypeVar("Self", bound="QuantizedModule")

ENCRYPTION_STATUSES = ("encrypted", "clear")


class QuantizedModule:
    """A float network with its integer program; made by the functions of `fhelearn.torch`.

    Three ways to run: ``fhe="disable"`` is the float model in NumPy, ``fhe="simulate"`` the program in the C++ engine,
    ``fhe="execute"`` the program on ciphertexts. The last two agree exactly, but for table lookups that fail (with the
    probability `p_error`) and the noise of approximate rounding, which `faults` can simulate. Rows that leave
    calibrated bounds wrap in both alike; :meth:`overflowing_rows` lists them.

    Instances can be pickled and copied. Circuit and keys stay behind: they are made again when next needed.
    """

    def __init__(self, network: NetworkModel, options: CompileOptions, *, is_compiled: bool = False) -> None:
        self._compiled = CompiledNetwork(network, options)
        self._is_compiled = is_compiled
        self._inputs = model_inputs(network.model)

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
        check_encryption_status(inputs, inputs_encryption_status)
        given = calibration if isinstance(calibration, tuple | list) else (calibration,)
        network = NetworkModel.of(model, checked_inputs(inputs, given, "the calibration data"), settings)
        _check_outputs_are_rows(network)
        return cls(network, CompileOptions())

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
        *,
        p_error: float | None = None,
        global_p_error: float | None = None,
        security_level: int = 128,
        verbose: bool = False,
    ) -> Self:
        """Make the circuit that ``fhe="execute"`` runs; where Concrete is missing, only the options are kept.

        A circuit of more than 10,000 lookups, which takes minutes to make, waits until it is used.

        Parameters
        ----------
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
        ValueError
            If an option is outside its range.
        """
        compiled = CompiledNetwork(self._compiled.network, CompileOptions(p_error, global_p_error, security_level))
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
            One per input of the model. They become the type that the model declares; values outside the range of the
            calibration rows are clipped before encryption.
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
        _check_keywords(fhe, n_jobs, progress)
        _check_faults(fhe, faults)
        inputs = checked_inputs(self._inputs, x, "forward")
        if fhe == "disable":
            return self._compiled.network.forward(*inputs)
        codes = self._compiled.encode(inputs)
        return _one_or_all(self._compiled.decode(self._run(codes, fhe, n_jobs, progress, faults)))

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
        _check_keywords(fhe, n_jobs, progress)
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
                f"dequantize_output takes {len(outputs)} arrays, one per output of the program, got {len(q)}"
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

    def report(self, *x: Any) -> NetworkReport:
        """Cost by layer, and accuracy on data.

        Parameters
        ----------
        *x : arrays or tensors, shape (n, *row), n >= 1
            Rows to compare on, as for :meth:`forward`; without, the accuracy figures are left out. Signal-to-noise
            ratios are taken from the first 128 rows that do not overflow.

        Returns
        -------
        NetworkReport
            Print it for tables.
        """
        return network_report(self._compiled, checked_inputs(self._inputs, x, "report") if x else None)

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
        write_network(NetworkFile(self._compiled.network, self._compiled.options, self._is_compiled), path)

    @classmethod
    def load(cls: type[Self], path: str | os.PathLike[str]) -> Self:
        """Read a file that :meth:`save` wrote. Nothing in it is trusted, and no code of it is run.

        Raises
        ------
        ModelFormatError, ProgramFormatError
            If the file is damaged, of a newer format, or its parts do not fit each other.
        """
        content = read_network(path)
        return cls(content.network, content.options, is_compiled=content.is_compiled)


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


# -- inputs of the model -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ModelInput:
    """What the model declares of an input.

    Attributes
    ----------
    name : str
    row : tuple of int
        Shape of a row; -1 where the model does not say.
    dtype : numpy.dtype
    """

    name: str
    row: tuple[int, ...]
    dtype: np.dtype[Any]

    def checked(self, value: Any, what: str) -> NDArray[Any]:
        """`value` as finite numbers of the declared type and shape (n, *row), n >= 1."""
        array = _array(value)
        where = f"{what}: input {self.name!r}"
        if array.dtype.kind not in "biuf":
            raise QuantizationError(f"{where} must be numeric, got dtype {array.dtype}; encode it as numbers first")
        fits = array.ndim == len(self.row) + 1 and all(
            e in (-1, n) for e, n in zip(self.row, array.shape[1:], strict=True)
        )
        expected = ", ".join(["n", *("?" if extent == -1 else str(extent) for extent in self.row)])
        if not fits:
            raise QuantizationError(
                f"{where} must have shape ({expected}), n being the number of rows, got {array.shape}; "
                "reshape it, or add the axis of rows with x[None]"
            )
        if not len(array):
            raise QuantizationError(f"{where} has no rows (shape {array.shape}); give at least one")
        return self._converted(array, where)

    def _converted(self, array: NDArray[Any], where: str) -> NDArray[Any]:
        if self.dtype.kind != "f":
            converted = array.astype(self.dtype)
            if array.dtype.kind == "f" or not np.array_equal(converted, array):
                raise QuantizationError(
                    f"{where} must hold {self.dtype} numbers, got dtype {array.dtype}; convert it with "
                    f"x.astype({self.dtype.name!r}) if no value changes by that"
                )
            return converted
        with np.errstate(over="ignore"):
            converted = array.astype(self.dtype)
        bad = ~np.isfinite(converted)
        if bad.any():
            row = int(np.argwhere(bad)[0][0])
            raise QuantizationError(
                f"{where} must be finite {self.dtype} numbers, got {array[bad][0]} in row {row} ({int(bad.sum())} such "
                "values); impute missing values and rescale large ones first"
            )
        return converted


def model_inputs(model: onnx.ModelProto) -> tuple[ModelInput, ...]:
    """What a valid model declares of its inputs. Raises LoweringError where axis 0 is not the rows."""
    from onnx.helper import tensor_dtype_to_np_dtype

    found = []
    for info in model.graph.input:
        kind = info.type.tensor_type
        dims = kind.shape.dim
        if not dims or (dims[0].HasField("dim_value") and dims[0].dim_value != 1):
            shape = tuple(dim.dim_value if dim.HasField("dim_value") else dim.dim_param or "?" for dim in dims)
            raise LoweringError(
                f"input {info.name!r} is of shape {shape}: axis 0 must be the rows, so left open or 1; export the "
                "model with a symbolic axis 0"
            )
        row = tuple(dim.dim_value if dim.HasField("dim_value") else -1 for dim in dims[1:])
        found.append(ModelInput(info.name, row, np.dtype(tensor_dtype_to_np_dtype(kind.elem_type))))
    return tuple(found)


def checked_inputs(inputs: Sequence[ModelInput], given: Sequence[Any], what: str) -> list[NDArray[Any]]:
    """Arrays of the declared types and shapes with one number of rows. Raises QuantizationError naming the input."""
    names = ", ".join(repr(source.name) for source in inputs)
    if len(given) != len(inputs):
        raise QuantizationError(f"{what}: the model takes {len(inputs)} inputs ({names}), got {len(given)} arrays")
    arrays = [source.checked(value, what) for source, value in zip(inputs, given, strict=True)]
    if len({len(array) for array in arrays}) > 1:
        rows = ", ".join(f"{source.name!r}: {len(array)}" for source, array in zip(inputs, arrays, strict=True))
        raise QuantizationError(f"{what}: all inputs must have the same number of rows, got {rows}")
    return arrays


def check_encryption_status(inputs: Sequence[ModelInput], statuses: Sequence[str] | None) -> None:
    """Raise where a status is no status, or asks for what cannot be done yet."""
    if statuses is None:
        return
    names = [source.name for source in inputs]
    if isinstance(statuses, str) or len(statuses) != len(names) or not set(statuses) <= set(ENCRYPTION_STATUSES):
        raise ValueError(
            f'inputs_encryption_status must hold "encrypted" or "clear" for each of the {len(names)} inputs '
            f"({', '.join(map(repr, names))}), got {statuses!r}"
        )
    clear = [name for name, status in zip(names, statuses, strict=True) if status == "clear"]
    if clear:
        raise UnsupportedOperatorError(
            f"inputs_encryption_status: input {', '.join(map(repr, clear))} cannot be left clear: integer programs "
            "have encrypted inputs only; encrypt it, make it a constant of the model, or compute what depends on it "
            "alone outside of the model"
        )


def _array(value: Any) -> NDArray[Any]:
    if hasattr(value, "detach"):  # a torch tensor; torch itself need not be imported to know one
        value = value.detach().cpu()
        value = (value.double() if value.is_floating_point() else value).numpy()
    return np.asarray(value)


def _check_outputs_are_rows(network: NetworkModel) -> None:
    graphs = [network.clean.body.graph, *([network.clean.after.graph] if network.clean.after else [])]
    for info in (info for graph in graphs for info in graph.output):
        shape = [dim.dim_value if dim.HasField("dim_value") else None for dim in info.type.tensor_type.shape.dim]
        if not shape or shape[0] not in (1, None):
            raise LoweringError(
                f"output {info.name!r} has shape {tuple(shape)} for one row: axis 0 must be the rows, as for inputs; "
                "keep that axis when reshaping, reducing or transposing"
            )
