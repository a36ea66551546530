"""Inputs of a float network: what it declares of them, checked, and which of them are encrypted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fhelearn.exceptions import LoweringError, QuantizationError
from fhelearn.onnx.cleanup import CleanModel

if TYPE_CHECKING:
    import onnx

ENCRYPTION_STATUSES = ("encrypted", "clear")

CALIBRATION = "the calibration data"


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
        array = as_array(value)
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


def checked_inputs(inputs: Sequence[ModelInput], given: Sequence[Any], what: str, hint: str = "") -> list[NDArray[Any]]:
    """Arrays of the declared types and shapes with one number of rows. Raises QuantizationError naming the input.

    `hint` ends the message where another number of arrays is given.
    """
    names = ", ".join(repr(source.name) for source in inputs)
    if len(given) != len(inputs):
        raise QuantizationError(
            f"{what}: the model takes {counted(len(inputs), 'input')} ({names}), got "
            f"{counted(len(given), 'array')}{hint}"
        )
    arrays = [source.checked(value, what) for source, value in zip(inputs, given, strict=True)]
    if len({len(array) for array in arrays}) > 1:
        rows = ", ".join(f"{source.name!r}: {len(array)}" for source, array in zip(inputs, arrays, strict=True))
        raise QuantizationError(f"{what}: all inputs must have the same number of rows, got {rows}")
    return arrays


def encryption_status(inputs: Sequence[ModelInput], given: Sequence[str] | None) -> tuple[str, ...]:
    """The status of every input. Raises ValueError where it is no status, or no input is encrypted."""
    names = [source.name for source in inputs]
    if given is None:
        return ("encrypted",) * len(names)
    if isinstance(given, str) or len(given) != len(names) or not set(given) <= set(ENCRYPTION_STATUSES):
        raise ValueError(
            f'inputs_encryption_status must hold "encrypted" or "clear" for each of the {counted(len(names), "input")} '
            f"({', '.join(map(repr, names))}), got {given!r}"
        )
    if "encrypted" not in given:
        raise ValueError(
            "inputs_encryption_status: all inputs are clear, so nothing is encrypted; encrypt at least one"
        )
    return tuple(given)


def clear_positions(clean: CleanModel, clear: Sequence[str]) -> tuple[int, ...]:
    """Which inputs of the encrypted part are made of clear inputs of the model alone."""
    secret = {info.name for info in (clean.before or clean.body).graph.input}.difference(clear)
    for node in clean.before.graph.node if clean.before else ():
        if _reads(node) & secret:
            secret |= set(node.output)
    return tuple(i for i, info in enumerate(clean.body.graph.input) if clear and info.name not in secret)


def _reads(node: onnx.NodeProto) -> set[str]:
    """Names that a node or a node inside of its subgraphs reads."""
    graphs = [attribute.g for attribute in node.attribute if attribute.HasField("g")]
    return {*node.input}.union(*(_reads(inner) for graph in graphs for inner in graph.node))


def counted(number: int, noun: str) -> str:
    """The number with its noun, as in "1 input" and "2 inputs"."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def calibration_arrays(given: Any) -> tuple[Any, ...]:
    """What is given for calibration, one array or tensor per input.

    Raises
    ------
    TypeError
        If something is neither: rows in a list, a frame, a data set, or what loads one in batches.
    """
    arrays = tuple(given) if isinstance(given, tuple | list) else (given,)
    for array in arrays:
        if not hasattr(array, "__array__") or hasattr(array, "columns"):
            where = "a list or tuple of entries of type " if array is not given else ""
            raise TypeError(
                f"{CALIBRATION}: pass one array (n, ...) per input, n being the number of rows, got "
                f"{where}{type(array).__name__}; rows in a list become one array by np.stack(rows), a frame by "
                "frame.to_numpy(), a DataLoader's batches by torch.cat"
            )
    return arrays


def as_array(value: Any) -> NDArray[Any]:
    """An array, tensor or nested list as an array in memory."""
    if hasattr(value, "detach"):  # a torch tensor; torch itself need not be imported to know one
        value = value.detach().cpu()
        value = (value.double() if value.is_floating_point() else value).numpy()
    return np.asarray(value)
