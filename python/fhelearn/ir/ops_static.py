"""Sources (inputs, constants) and operations that only move elements: free when encrypted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fhelearn.exceptions import ProgramError
from fhelearn.ir.interval import Bounds
from fhelearn.ir.op_spec import Attributes, OpSpec
from fhelearn.ir.ops_levelled import broadcasts_to, monotone_bounds
from fhelearn.ir.program import Value


def _checked_shape(shape: Any) -> tuple[int, ...]:
    if any(type(d) is not int or d < 1 for d in shape):
        raise ProgramError(f"shape must hold positive integers, got {tuple(shape)}")
    return tuple(shape)


def _input_shape(_: Sequence[Value], a: Attributes) -> tuple[int, ...]:
    shape = _checked_shape(a["shape"])
    if any(isinstance(a[k], np.ndarray) and not broadcasts_to(a[k].shape, shape) for k in ("lo", "hi")):
        raise ProgramError(f"lo and hi must broadcast to shape {shape}")
    return shape


def _input_bounds(_: Sequence[Value], a: Attributes) -> Bounds:
    return Bounds.of(a["lo"], a["hi"])


def _no_evaluation(_: Sequence[Any], a: Attributes) -> Any:
    raise ProgramError("inputs are given by the caller, not evaluated")


def _constant_shape(_: Sequence[Value], a: Attributes) -> tuple[int, ...]:
    return _checked_shape(a["value"].shape)


def _constant_bounds(_: Sequence[Value], a: Attributes) -> Bounds:
    value = a["value"].astype(object)
    return Bounds(value, value)


def _constant(_: Sequence[Any], a: Attributes) -> Any:
    return a["value"][np.newaxis]  # one row; the evaluator repeats it for the batch


def _reshape_shape(operands: Sequence[Value], a: Attributes) -> tuple[int, ...]:
    shape = _checked_shape(a["shape"])
    if int(np.prod(shape, dtype=object)) != operands[0].size:
        raise ProgramError(f"shape {shape} does not hold the {operands[0].size} elements of {operands[0].shape}")
    return shape


def _reshape(operands: Sequence[Any], a: Attributes) -> Any:
    x = operands[0]
    return x.reshape(x.shape[0], *a["shape"])


def _transpose_shape(operands: Sequence[Value], a: Attributes) -> tuple[int, ...]:
    shape, axes = operands[0].shape, a["axes"]
    if sorted(axes) != list(range(len(shape))):
        raise ProgramError(f"axes must be a permutation of the {len(shape)} axes of shape {shape}, got {axes}")
    return tuple(shape[axis] for axis in axes)


def _transpose(operands: Sequence[Any], a: Attributes) -> Any:
    return operands[0].transpose(0, *(axis + 1 for axis in a["axes"]))


def _axis(a: Attributes, shape: tuple[int, ...]) -> int:
    axis: int = a["axis"]
    if not 0 <= axis < len(shape):
        raise ProgramError(f"axis must be in [0, {len(shape) - 1}] (the batch axis does not count), got {axis}")
    return axis


def _concatenate_shape(operands: Sequence[Value], a: Attributes) -> tuple[int, ...]:
    first = operands[0].shape
    axis = _axis(a, first)
    for x in operands:
        if len(x.shape) != len(first) or any(
            d != e for i, (d, e) in enumerate(zip(x.shape, first, strict=True)) if i != axis
        ):
            raise ProgramError(f"operands must agree but on axis {axis}, got {[v.shape for v in operands]}")
    return (*first[:axis], sum(x.shape[axis] for x in operands), *first[axis + 1 :])


def _concatenate(operands: Sequence[Any], a: Attributes) -> Any:
    return np.concatenate(list(operands), axis=a["axis"] + 1)


def _slice_shape(operands: Sequence[Value], a: Attributes) -> tuple[int, ...]:
    shape = operands[0].shape
    starts, stops, steps = a["starts"], a["stops"], a["steps"]
    if not len(starts) == len(stops) == len(steps) == len(shape):
        raise ProgramError(f"starts, stops and steps must have one entry for each of the {len(shape)} axes")
    for axis, (start, stop, step) in enumerate(zip(starts, stops, steps, strict=True)):
        if not 0 <= start < stop <= shape[axis] or step < 1:
            raise ProgramError(
                f"axis {axis}: need 0 <= start < stop <= {shape[axis]} and step >= 1, got {start}:{stop}:{step}"
            )
    return tuple((stop - start - 1) // step + 1 for start, stop, step in zip(starts, stops, steps, strict=True))


def _slice(operands: Sequence[Any], a: Attributes) -> Any:
    cuts = (slice(*cut) for cut in zip(a["starts"], a["stops"], a["steps"], strict=True))
    return operands[0][(slice(None), *cuts)]


def _gather_shape(operands: Sequence[Value], a: Attributes) -> tuple[int, ...]:
    shape, indices = operands[0].shape, a["indices"]
    axis = _axis(a, shape)
    if indices.ndim != 1 or not indices.size or indices.min() < 0 or indices.max() >= shape[axis]:
        raise ProgramError(f"indices must be a non-empty vector in [0, {shape[axis] - 1}] along axis {axis}")
    return (*shape[:axis], int(indices.size), *shape[axis + 1 :])


def _gather(operands: Sequence[Any], a: Attributes) -> Any:
    return np.take(operands[0], a["indices"], axis=a["axis"] + 1)


def _pad_shape(operands: Sequence[Value], a: Attributes) -> tuple[int, ...]:
    shape, before, after = operands[0].shape, a["before"], a["after"]
    if not len(before) == len(after) == len(shape) or any(v < 0 for v in (*before, *after)):
        raise ProgramError(f"before and after must have one entry >= 0 for each of the {len(shape)} axes")
    return tuple(d + b + e for d, b, e in zip(shape, before, after, strict=True))


def _pad(operands: Sequence[Any], a: Attributes) -> Any:
    x = operands[0]
    extents = (b + d + e for b, d, e in zip(a["before"], x.shape[1:], a["after"], strict=True))
    padded = np.full((x.shape[0], *extents), a["value"], dtype=x.dtype)  # np.pad would put int64 among Python integers
    padded[(slice(None), *(slice(b, b + d) for b, d in zip(a["before"], x.shape[1:], strict=True)))] = x
    return padded


def _broadcast_shape(operands: Sequence[Value], a: Attributes) -> tuple[int, ...]:
    shape = _checked_shape(a["shape"])
    if not broadcasts_to(operands[0].shape, shape):
        raise ProgramError(f"operand shape {operands[0].shape} does not broadcast to {shape}")
    return shape


def _broadcast(operands: Sequence[Any], a: Attributes) -> Any:
    x, shape = operands[0], a["shape"]
    aligned = x.reshape(x.shape[0], *(1,) * (len(shape) + 1 - x.ndim), *x.shape[1:])
    return np.broadcast_to(aligned, (x.shape[0], *shape))


SOURCES: tuple[OpSpec, ...] = (
    OpSpec(
        "input",
        "source",
        (0, 0),
        {"shape": "ints", "lo": "bound", "hi": "bound"},
        _input_shape,
        _input_bounds,
        _no_evaluation,
    ),
    OpSpec("constant", "source", (0, 0), {"value": "array"}, _constant_shape, _constant_bounds, _constant),
)


def _moved_bounds(evaluate: Any) -> Any:
    """Bound rule of an op that only moves elements: one box for all stays one box for all."""
    full = monotone_bounds(evaluate)

    def bounds(operands: Sequence[Value], a: Attributes) -> Bounds:
        first = operands[0].bounds
        uniform = first.lo.ndim == 0 and all(x.bounds.lo.ndim == 0 and x.bounds == first for x in operands)
        return first if uniform else full(operands, a)

    return bounds


def _static(name: str, attributes: Any, shape: Any, evaluate: Any, arity: tuple[int, int] = (1, 1)) -> OpSpec:
    rule = monotone_bounds(evaluate) if name == "pad" else _moved_bounds(evaluate)
    return OpSpec(name, "static", arity, attributes, shape, rule, evaluate)


SPECS: tuple[OpSpec, ...] = (
    _static("reshape", {"shape": "ints"}, _reshape_shape, _reshape),
    _static("transpose", {"axes": "ints"}, _transpose_shape, _transpose),
    _static("concatenate", {"axis": "int"}, _concatenate_shape, _concatenate, (1, 2**16)),
    _static("slice", {"starts": "ints", "stops": "ints", "steps": "ints"}, _slice_shape, _slice),
    _static("gather", {"axis": "int", "indices": "array"}, _gather_shape, _gather),
    _static("pad", {"before": "ints", "after": "ints", "value": "int"}, _pad_shape, _pad),
    _static("broadcast", {"shape": "ints"}, _broadcast_shape, _broadcast),
)
