"""PyTorch modules as ONNX graphs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fhelearn.exceptions import BackendUnavailableError, LoweringError, ModelFormatError
from fhelearn.onnx.forward import NumpyForward
from fhelearn.onnx.load import OLDEST_OPSET, load_model
from fhelearn.onnx.torch_export import onnx_from_torch, quiet_exporter

if TYPE_CHECKING:
    import onnx
    import torch

_NEWEST_OPSET = 20  # of the TorchScript exporter in every supported torch
_OLDEST_DYNAMO_OPSET = 18
_CHECKED_ROWS = 4


def export_torch(module: torch.nn.Module, inputs: Any, *, opset: int = 17) -> onnx.ModelProto:
    """Convert a PyTorch module, in evaluation mode, to an ONNX graph of float operators.

    Parameters
    ----------
    module : torch.nn.Module
        Of float32 or float64. Every row of its inputs must be answered independently of the others. It is not changed:
        training flags and buffers are restored, gradients are not computed.
    inputs : tensor, array, or tuple or list of them
        One per argument of ``module.forward``, each of shape (n, ...), n >= 1, axis 0 being rows. Floats become the
        module's type. The module is traced on the first row, and the graph is compared with it on the first four.
    opset : int, default=17
        Version of the ONNX operators, from 13 to 20. Operators that only torch's newer exporter knows raise it to 18.

    Returns
    -------
    onnx.ModelProto
        Inputs "input", or "input_0", "input_1", ...; outputs likewise, tuples, lists and dicts flattened in order.
        Axis 0 of inputs and outputs is "n" if the trace holds for any number of rows, else the graph takes one row
        (`get_equivalent_numpy_forward` then answers row by row).

    Raises
    ------
    BackendUnavailableError
        An ImportError: onnx or torch is not installed.
    LoweringError
        If the module is of another type, mixes rows, fails on the inputs, cannot be exported (the message holds the
        reason of each exporter), or the graph answers otherwise than the module, to half the digits of float32.
    ModelFormatError
        If a parameter or buffer holds NaN.
    TypeError
        If `module` is not a torch.nn.Module, or inputs are not numeric.
    ValueError
        If there are no inputs or no rows, the inputs differ in rows or hold NaN or infinities, or `opset` is none of
        the allowed.
    """
    _import_libraries()
    import torch

    if not isinstance(module, torch.nn.Module):
        raise TypeError(f"module must be a torch.nn.Module, got {type(module).__name__}")
    if not OLDEST_OPSET <= opset <= _NEWEST_OPSET:
        raise ValueError(f"opset must be from {OLDEST_OPSET} to {_NEWEST_OPSET}, got {opset}")
    arguments = _arguments(inputs, *_type_and_device(module))
    with quiet_exporter(), _evaluation_mode(module):
        expected = _answers(module, arguments)
        return _first_faithful(module, arguments, expected, opset)


def _import_libraries() -> None:
    try:
        for name in ("onnx", "torch"):
            import_module(name)
    except ImportError as error:
        raise BackendUnavailableError(
            f'the ONNX view of a module needs onnx and torch ({error}); install them by pip install "fhelearn[onnx]"'
        ) from error


def _type_and_device(module: torch.nn.Module) -> tuple[torch.dtype | None, torch.device | None]:
    """Type of the module's first float parameter or buffer, and device of its first; None if it has none."""
    import torch

    kind, device = None, None
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        where = f"{type(module).__name__}: {name!r}"
        if torch.nn.parameter.is_lazy(tensor):
            raise ValueError(f"{where} is not initialized yet; call the module once before exporting it")
        device = device or tensor.device
        if not (tensor.is_floating_point() or tensor.is_complex()):
            continue
        if tensor.dtype not in (torch.float32, torch.float64):
            raise LoweringError(
                f"{where} is of {tensor.dtype}; allowed are float32 and float64: convert the module by module.float()"
            )
        if bool(torch.isnan(tensor).any()):
            raise ModelFormatError(
                f"{where} holds NaN; train the module again, with a smaller learning rate for instance"
            )
        kind = kind or tensor.dtype
    return kind, device


def _arguments(inputs: Any, kind: torch.dtype | None, device: torch.device | None) -> tuple[torch.Tensor, ...]:
    import torch

    given = tuple(inputs) if isinstance(inputs, (tuple, list)) else (inputs,)
    if not given:
        raise ValueError("inputs must hold one array or tensor per argument of the module, got none")
    arguments = []
    for number, value in enumerate(given):
        array = value.detach() if isinstance(value, torch.Tensor) else np.asarray(value)
        if isinstance(array, np.ndarray):
            if array.dtype.kind not in "biuf":
                raise TypeError(f"input {number} must be numeric, got an array of {array.dtype}")
            array = torch.from_numpy(array.copy())
        if array.ndim == 0 or 0 in array.shape:
            raise ValueError(
                f"input {number} must be of shape (n, ...), n >= 1, without empty axes; got {tuple(array.shape)}"
            )
        if array.is_floating_point():
            if not bool(torch.isfinite(array).all()):
                raise ValueError(f"input {number} must be finite, but holds NaN or infinities")
            array = array.to(kind or array.dtype)
        arguments.append(array[:_CHECKED_ROWS].to(device or array.device).clone())
    if len({len(value) for value in given}) > 1:
        raise ValueError(f"all inputs must have the same number of rows, got {[len(value) for value in given]}")
    return tuple(arguments)


@contextmanager
def _evaluation_mode(module: torch.nn.Module) -> Iterator[None]:
    """Evaluate without gradients; then restore what evaluating and exporting may change."""
    import torch

    # The exporter gives every submodule the flag of the outermost.
    flags = [(part, part.training) for part in module.modules()]
    buffers = [(buffer, buffer.detach().clone()) for buffer in module.buffers()]
    try:
        module.eval()
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            yield
    finally:
        for part, training in flags:
            part.training = training
        with torch.no_grad():
            for buffer, value in buffers:
                if not torch.equal(buffer, value):
                    buffer.copy_(value)


def _answers(module: torch.nn.Module, arguments: tuple[torch.Tensor, ...]) -> list[NDArray[Any]]:
    """What the module answers to the rows one by one, concatenated; checked against its answer to all of them."""
    name = type(module).__name__
    try:
        rows = [_arrays(module(*(value[i : i + 1] for value in arguments))) for i in range(len(arguments[0]))]
    except LoweringError as error:
        raise LoweringError(f"{name}: {error}") from error
    except Exception as error:  # whatever a foreign module raises
        raise LoweringError(f"{name} fails on one row of the inputs: {_in_one_line(error)}") from error
    alone = [np.concatenate(parts) for parts in zip(*rows, strict=True)]
    try:
        together = _arrays(module(*arguments))
    except Exception:  # a module that takes one row only is exported as such
        return alone
    if reason := _difference(alone, together):
        raise LoweringError(
            f"{name}: rows of a batch influence each other ({reason} when rows are answered together instead of one by "
            "one); axis 0 of all inputs and outputs must be rows that do not depend on each other"
        )
    return alone


def _arrays(outputs: Any) -> list[NDArray[Any]]:
    arrays = [tensor.detach().cpu().numpy() for tensor in _flat(outputs)]
    if not arrays:
        raise LoweringError("the module returns no tensor")
    for number, array in enumerate(arrays):
        if array.ndim == 0:
            raise LoweringError(f"output {number} is a scalar; every output must have rows on axis 0")
    return arrays


def _flat(outputs: Any) -> Iterator[torch.Tensor]:
    import torch

    if isinstance(outputs, torch.Tensor):
        yield outputs
    elif isinstance(outputs, Mapping):
        for value in outputs.values():
            yield from _flat(value)
    elif isinstance(outputs, (tuple, list)):
        for value in outputs:
            yield from _flat(value)
    else:
        raise LoweringError(
            f"the module returns a {type(outputs).__name__}; allowed are tensors, and tuples, lists and dicts of them"
        )


def _difference(expected: Sequence[NDArray[Any]], found: Sequence[NDArray[Any]]) -> str:
    """Where `found` is not `expected` to half the digits of float32; "" if nowhere."""
    for number, (one, other) in enumerate(zip(expected, found, strict=True)):
        if one.shape != other.shape:
            return f"output {number} has shape {other.shape} instead of {one.shape}"
        a, b = one.astype(np.float64), other.astype(np.float64)
        bound = 0.0
        if one.dtype.kind == "f":
            bound = np.sqrt(np.finfo(np.float32).eps) * max(1.0, np.abs(a[np.isfinite(a)]).max(initial=0.0))
        if not np.allclose(a, b, rtol=0, atol=bound, equal_nan=True):
            return f"output {number} differs by up to {np.abs(a - b).max():.3g}"
    return ""


def _first_faithful(
    module: torch.nn.Module, arguments: tuple[torch.Tensor, ...], expected: list[NDArray[Any]], opset: int
) -> onnx.ModelProto:
    """The first export that answers as the module: by the TorchScript exporter if it can, for any rows if it can."""
    flattened = _flattening(module)
    failures: dict[str, str] = {}
    for dynamo in (False, True):
        exporter = f"torch's {'dynamo' if dynamo else 'TorchScript'} exporter"
        if dynamo and find_spec("onnxscript") is None:
            failures[exporter] = "not tried, as onnxscript is not installed"
            continue
        for dynamic_rows in (True, False):
            try:
                model = _exported(flattened, arguments, len(expected), opset, dynamic_rows, dynamo)
                reason = _unfaithful(model, arguments, expected)
            except Exception as error:  # whatever tracing a foreign module, or running its graph, raises
                reason = _in_one_line(error)
            if not reason:
                return model
            failures[exporter] = reason
    reasons = "; ".join(f"{exporter}: {reason}" for exporter, reason in failures.items())
    raise LoweringError(
        f"{type(module).__name__} cannot be exported to ONNX: {reasons}; replace the operator by others that ONNX has"
    )


def _flattening(module: torch.nn.Module) -> torch.nn.Module:
    """`module` with its outputs as one flat tuple, which is all that both exporters understand alike."""
    import torch

    class Flattened(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = module
            self.training = False

        def forward(self, *arguments: torch.Tensor) -> tuple[torch.Tensor, ...]:
            return tuple(_flat(self.module(*arguments)))

    return Flattened()


def _exported(
    module: torch.nn.Module,
    arguments: tuple[torch.Tensor, ...],
    outputs: int,
    opset: int,
    dynamic_rows: bool,
    dynamo: bool,
) -> onnx.ModelProto:
    from onnx.helper import make_tensor_value_info, np_dtype_to_tensor_dtype

    names = _names("input", len(arguments))
    # One row, except that torch.export takes an extent of 1 for a constant.
    rows = 2 if dynamo and dynamic_rows else 1
    sample = tuple(value[[i % len(value) for i in range(rows)]] for value in arguments)
    model = load_model(
        onnx_from_torch(
            module,
            sample,
            input_names=names,
            output_names=_names("output", outputs),
            opset=max(opset, _OLDEST_DYNAMO_OPSET) if dynamo else opset,
            dynamic_rows=dynamic_rows,
            dynamo=dynamo,
        )
    )
    # The TorchScript exporter leaves out inputs that are not used.
    declared = {value.name: value for value in model.graph.input}
    for name, value in zip(names, sample, strict=True):
        shape = ["n" if dynamic_rows else 1, *value.shape[1:]]
        kind = np_dtype_to_tensor_dtype(value.cpu().numpy().dtype)
        declared.setdefault(name, make_tensor_value_info(name, kind, shape))
    del model.graph.input[:]
    model.graph.input.extend(declared[name] for name in names)
    return model


def _names(stem: str, count: int) -> list[str]:
    return [stem] if count == 1 else [f"{stem}_{number}" for number in range(count)]


def _unfaithful(model: onnx.ModelProto, arguments: tuple[torch.Tensor, ...], expected: list[NDArray[Any]]) -> str:
    """Why `model` is not the module, seen on one row and on several; "" if it is."""
    forward = NumpyForward(model)
    rows = len(arguments[0])
    arrays = [value.detach().cpu().numpy() for value in arguments]
    for count in (1, 2 * rows):
        found = forward(*(np.resize(array, (count, *array.shape[1:])) for array in arrays))
        outputs = found if isinstance(found, tuple) else (found,)
        wanted = []
        for array in expected:
            per_row = len(array) // rows
            wanted.append(np.resize(array, (count * per_row, *array.shape[1:])))
        if reason := _difference(wanted, outputs):
            return f"the graph answers otherwise than the module: {reason}"
    return ""


def _in_one_line(error: BaseException) -> str:
    """The innermost cause: torch's newer exporter wraps it in advice on how to debug torch."""
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
