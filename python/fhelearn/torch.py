"""PyTorch modules and ONNX models that predict on encrypted data."""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fhelearn.estimators.module_inputs import (
    CALIBRATION,
    ModelInput,
    as_array,
    calibration_arrays,
    checked_inputs,
    counted,
)
from fhelearn.estimators.quantized_module import QuantizedModule
from fhelearn.exceptions import LoweringError, QuantizationError
from fhelearn.frontends.onnx import NBits, Rounding, Settings
from fhelearn.frontends.onnx.settings import BoundsMode, Granularity
from fhelearn.onnx import export_torch, load_model
from fhelearn.quantization.grids import ObserverName

if TYPE_CHECKING:
    import onnx
    import torch

__all__ = ["QuantizedModule", "build_quantized_module", "compile_onnx_model", "compile_torch_model"]

DEFAULT_BITS: Mapping[str, int] = MappingProxyType({"op_inputs": 5, "op_weights": 7})
DEFAULT_ROUNDING: Mapping[str, Any] = MappingProxyType({"n_bits": 5, "method": "approximate"})
"""What is used unless something else is asked for. Finer weights are cheap, wider lookups are not: a CNN on digits
loses no accuracy by these, at 0.54e9 operations per lookup (6 bits for everything: as good, 1.23e9). Accumulators have
about 12 bits then: as they are no parameters exist for looking them up, and exact rounding costs a lookup per bit."""
DEFAULT_MARGIN = 0.25
"""With 0.1, 23 of 497 unseen digits overflowed an MLP calibrated on 300, with 0.2 5, with 0.3 1."""

_QUANTIZATION = ("bounds", "margin", "observer", "weights", "activations")

OnnxModel: TypeAlias = "onnx.ModelProto | bytes | str | os.PathLike[str]"


def build_quantized_module(
    model: torch.nn.Module | OnnxModel,
    torch_inputset: Any,
    *,
    n_bits: int | Mapping[str, int] = DEFAULT_BITS,
    rounding_threshold_bits: int | Mapping[str, Any] | None = DEFAULT_ROUNDING,
    bounds: BoundsMode = "calibrated",
    margin: float = DEFAULT_MARGIN,
    observer: ObserverName = "minmax",
    weights: Granularity = "per_channel",
    activations: Granularity = "per_tensor",
    inputs_encryption_status: Sequence[str] | None = None,
) -> QuantizedModule:
    """Quantize a network after training; no circuit is made, so that "disable" and "simulate" work.

    Parameters
    ----------
    model : torch.nn.Module, onnx.ModelProto, bytes of one, or path of its file
        A module is exported in evaluation mode, and not changed. Axis 0 of all inputs and outputs is rows, which do not
        depend on each other.
    torch_inputset : array or tensor, or tuple or list of them, one per input, shape (n, *row), n >= 1
        Calibration rows: finite, like those to come, a few hundred (fewer than 10: OutOfRangeWarning). Integers become
        float32 for a module that takes none.
    n_bits : int or dict, default={"op_inputs": 5, "op_weights": 7}
        Bits of activations and weights, 2 to 16; the dict may have "model_inputs" and "model_outputs" too.
    rounding_threshold_bits : int, dict or None, default={"n_bits": 5, "method": "approximate"}
        Accumulators are rounded to so many bits (2 to 8) before a lookup reads them: an int (exactly), or
        ``{"n_bits": int, "method": "exact" | "approximate"}``. Approximate rounding is nearly free, and random where an
        accumulator lies near the middle between two steps: there "execute" may answer otherwise than "simulate", which
        rounds exactly unless it is given `faults`. None rounds nothing: accumulators above 8 bits can then be
        simulated only, if bounds are calibrated, or become residues (to 16 bits), with keys of gigabytes.
    bounds : {"calibrated", "proved"}, default="calibrated"
        Accumulators hold what the calibration rows need plus `margin`, or whatever any input may need (wider, dearer).
    margin : float, default=0.25
        Part of an accumulator's observed range, 0 to 10, that is added at both ends.
    observer : {"minmax", "percentile", "mse"}, default="minmax"
        How the range of activations is chosen from data.
    weights, activations : {"per_channel", "per_tensor"}
        What has a scale of its own; by default every output channel of weights, and every tensor of activations.
    inputs_encryption_status : sequence of {"encrypted", "clear"}, default=None
        By input of the model; None encrypts all. A clear input is sent as it is: the server sees its quantized values.

    Returns
    -------
    QuantizedModule

    Raises
    ------
    UnsupportedOperatorError
        Naming all operators that cannot be encrypted.
    LoweringError, ModelFormatError, TypeError
        If the module fails on the rows, cannot be exported, mixes rows, or is no valid model; if rows are no arrays.
    QuantizationError
        A ValueError: calibration data or settings do not fit the model.
    """
    settings = Settings(
        NBits.of(n_bits), Rounding.of(rounding_threshold_bits), bounds, margin, observer, weights, activations
    )
    given = calibration_arrays(torch_inputset)
    return QuantizedModule.of(_as_onnx(model, given), given, settings, inputs_encryption_status)


def compile_torch_model(
    torch_model: torch.nn.Module,
    torch_inputset: Any,
    *,
    n_bits: int | Mapping[str, int] = DEFAULT_BITS,
    rounding_threshold_bits: int | Mapping[str, Any] | None = DEFAULT_ROUNDING,
    p_error: float | None = None,
    global_p_error: float | None = None,
    inputs_encryption_status: Sequence[str] | None = None,
    verbose: bool = False,
    security_level: int = 128,
    **quantization: Any,
) -> QuantizedModule:
    """Quantize a PyTorch module and make its circuit.

    Parameters
    ----------
    torch_model : torch.nn.Module
    torch_inputset, n_bits, rounding_threshold_bits, inputs_encryption_status
        As of `build_quantized_module`.
    p_error, global_p_error, security_level, verbose
        As of `QuantizedModule.compile`.
    **quantization
        `bounds`, `margin`, `observer`, `weights` and `activations` of `build_quantized_module`.

    Returns
    -------
    QuantizedModule
        Compiled.

    Raises
    ------
    LoweringError, QuantizationError, ModelFormatError, TypeError, ValueError
        As `build_quantized_module` and `QuantizedModule.compile`.
    """
    import torch

    _check_options("compile_torch_model", quantization)
    if not isinstance(torch_model, torch.nn.Module):
        raise TypeError(
            f"torch_model must be a torch.nn.Module, got {type(torch_model).__name__}; compile_onnx_model takes ONNX"
        )
    module = build_quantized_module(
        torch_model,
        torch_inputset,
        n_bits=n_bits,
        rounding_threshold_bits=rounding_threshold_bits,
        inputs_encryption_status=inputs_encryption_status,
        **quantization,
    )
    return module.compile(
        p_error=p_error, global_p_error=global_p_error, security_level=security_level, verbose=verbose
    )


def compile_onnx_model(
    onnx_model: OnnxModel,
    inputset: Any,
    *,
    n_bits: int | Mapping[str, int] = DEFAULT_BITS,
    rounding_threshold_bits: int | Mapping[str, Any] | None = DEFAULT_ROUNDING,
    p_error: float | None = None,
    global_p_error: float | None = None,
    inputs_encryption_status: Sequence[str] | None = None,
    verbose: bool = False,
    security_level: int = 128,
    **quantization: Any,
) -> QuantizedModule:
    """Quantize an ONNX model, of opset 13 or newer or converted to it, and make its circuit.

    Parameters
    ----------
    onnx_model : onnx.ModelProto, bytes of one, or path of its file
    inputset, n_bits, rounding_threshold_bits, inputs_encryption_status
        As of `build_quantized_module`.
    p_error, global_p_error, security_level, verbose
        As of `QuantizedModule.compile`.
    **quantization
        `bounds`, `margin`, `observer`, `weights` and `activations` of `build_quantized_module`.

    Returns
    -------
    QuantizedModule
        Compiled.

    Raises
    ------
    LoweringError, QuantizationError, ModelFormatError, TypeError, ValueError
        As `build_quantized_module` and `QuantizedModule.compile`.
    """
    _check_options("compile_onnx_model", quantization)
    module = build_quantized_module(
        load_model(onnx_model),
        inputset,
        n_bits=n_bits,
        rounding_threshold_bits=rounding_threshold_bits,
        inputs_encryption_status=inputs_encryption_status,
        **quantization,
    )
    return module.compile(
        p_error=p_error, global_p_error=global_p_error, security_level=security_level, verbose=verbose
    )


def _check_options(function: str, quantization: Mapping[str, Any]) -> None:
    """Refuse keywords of `function` that nothing takes, naming the function that was called."""
    for name in quantization:
        if name not in _QUANTIZATION:
            raise TypeError(
                f"{function} has no keyword {name!r}; besides those that it declares it takes "
                f"{', '.join(_QUANTIZATION)}"
            )


def _as_onnx(model: Any, inputs: Sequence[Any]) -> onnx.ModelProto:
    import onnx

    if isinstance(model, onnx.ModelProto | bytes | str | os.PathLike):
        return load_model(model)
    import torch

    if not isinstance(model, torch.nn.Module):
        raise TypeError(
            "model must be a torch.nn.Module, an onnx.ModelProto, its bytes or the path of its file, got "
            f"{type(model).__name__}"
        )
    return _exported(model, _checked_calibration(model, inputs))


def _checked_calibration(module: torch.nn.Module, given: Sequence[Any]) -> dict[str, NDArray[Any]]:
    """Calibration rows of a module, which declares no types and shapes, by the names that its inputs will have."""
    name = type(module).__name__
    try:
        signature = inspect.signature(module.forward)
    except ValueError:  # of a foreign callable
        signature = None
    try:
        _ = signature and signature.bind(*given)
    except TypeError as error:
        raise QuantizationError(
            f"{CALIBRATION}: {name}.forward{signature} cannot be called with {counted(len(given), 'array')} ({error}); "
            "pass one array (n, ...) per input: many rows are one array, np.stack(rows)"
        ) from error
    parameters = [*module.parameters(), *module.buffers()]
    kinds = [
        np.dtype(np.float64 if "float64" in str(p.dtype) else np.float32) for p in parameters if p.is_floating_point()
    ]
    names = ["input"] if len(given) == 1 else [f"input_{i}" for i in range(len(given))]
    inputs = []
    for name, value in zip(names, given, strict=True):
        array = as_array(value)
        kind = kinds[0] if kinds and array.dtype.kind == "f" else array.dtype
        inputs.append(ModelInput(name, (-1,) * max(array.ndim - 1, 0), kind))
    return dict(zip(names, checked_inputs(inputs, given, CALIBRATION), strict=True))


def _exported(module: torch.nn.Module, rows: Mapping[str, NDArray[Any]]) -> onnx.ModelProto:
    """The module's graph. Integers are tried as they are, for indices, then as floats."""
    try:
        return export_torch(module, tuple(rows.values()))
    except LoweringError as error:
        reason = str(error)
        if any(x.dtype.kind != "f" for x in rows.values()):
            try:
                return export_torch(
                    module, tuple(x if x.dtype.kind == "f" else x.astype(np.float32) for x in rows.values())
                )
            except LoweringError as other:
                reason += f"; as float32: {other}"
        if "fails on one row" not in reason:
            raise
        found = ", ".join(f"{name!r} of shape {x.shape} and type {x.dtype}" for name, x in rows.items())
        raise LoweringError(f"{reason}; {CALIBRATION} are {found}, axis 0 being rows") from error
