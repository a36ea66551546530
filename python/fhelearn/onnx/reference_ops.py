"""Operators whose implementation in ``onnx.reference`` departs from the specification, is too coarse or too slow."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from fhelearn.exceptions import UnsupportedOperatorError

if TYPE_CHECKING:
    import onnx
    from onnx.reference import ReferenceEvaluator
    from onnx.reference.op_run import OpRun


class _Axis(NamedTuple):
    """One spatial axis of a pooling window: extents in elements, both paddings declared or derived."""

    size: int
    kernel: int
    stride: int
    dilation: int
    begin: int
    end: int
    out: int


@cache
def corrected_operators() -> tuple[type[OpRun], ...]:
    """Classes for ``ReferenceEvaluator(new_ops=...)``, each with its reason.

    A function makes them, because their base classes need onnx, which `fhelearn.onnx` does not load by itself.
    """
    return (*_univariate(), *_normalizing(), *_spatial(), *_moving())


def evaluator_of(proto: onnx.ModelProto | onnx.GraphProto, opsets: dict[str, int] | None = None) -> ReferenceEvaluator:
    """The reference implementation of a model, or of a graph with its `opsets`, with the corrected operators.

    Raises
    ------
    UnsupportedOperatorError
        If there is no implementation of an operator.
    """
    from onnx.reference import ReferenceEvaluator

    try:
        return ReferenceEvaluator(proto, opsets=opsets, new_ops=list(corrected_operators()))
    except Exception as error:  # missing implementations and attributes are met here, under several names
        raise UnsupportedOperatorError(
            f"onnx's reference implementation cannot run this graph: {reason_of(error)}; replace the operator "
            "before export"
        ) from error


def reason_of(error: BaseException) -> str:
    """The innermost cause: the reference implementation wraps it in a message about types."""
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def _univariate() -> tuple[type[OpRun], ...]:
    from onnx.reference.op_run import OpRun
    from scipy.special import erf, ndtr

    class Erf(OpRun):
        """The reference calls ``math.erf`` once per element and rounds float64 to float32."""

        op_domain = ""

        def _run(self, x: NDArray[Any]) -> tuple[NDArray[Any], ...]:
            return (erf(x).astype(x.dtype),)

    class Gelu(OpRun):
        """The reference expands it into a function around its own Erf."""

        op_domain = ""

        def _run(self, x: NDArray[Any], approximate: str = "none") -> tuple[NDArray[Any], ...]:
            if approximate == "tanh":
                inner = np.sqrt(2 / np.pi).astype(x.dtype) * (x + x.dtype.type(0.044715) * x**3)
                return ((x * (np.tanh(inner) + 1) / 2).astype(x.dtype),)
            return ((x * ndtr(x)).astype(x.dtype),)

    class HardSwish(OpRun):
        """The reference expands it into a function whose slope 1/6 is rounded to float32."""

        op_domain = ""

        def _run(self, x: NDArray[Any]) -> tuple[NDArray[Any], ...]:
            return ((x * np.clip(x / 6 + 0.5, 0, 1)).astype(x.dtype),)

    return Erf, Gelu, HardSwish


def _normalizing() -> tuple[type[OpRun], ...]:
    from onnx.reference.op_run import OpRun
    from onnx.reference.ops.op_batch_normalization import BatchNormalization_14

    class BatchNormalization(BatchNormalization_14):  # type: ignore[misc, unused-ignore]
        """In opset 13 the reference normalizes by the batch's own mean and variance, as in training."""

        op_domain = ""

    class LogSoftmax(OpRun):
        """The reference takes the logarithm of a softmax that has become 0: -inf where the answer is finite."""

        op_domain = ""

        def _run(self, x: NDArray[Any], axis: int = -1) -> tuple[NDArray[Any], ...]:
            below = x - x.max(axis=axis, keepdims=True)
            return ((below - np.log(np.exp(below).sum(axis=axis, keepdims=True))).astype(x.dtype),)

    return BatchNormalization, LogSoftmax


def _spatial() -> tuple[type[OpRun], ...]:
    from onnx.reference.op_run import OpRun
    from onnx.reference.ops.op_max_pool import MaxPool as ReferenceMaxPool

    class AveragePool(OpRun):
        """The reference loops per element, takes NaN for padding, and shifts windows in ``ceil_mode``."""

        op_domain = ""

        def _run(self, x: NDArray[Any], count_include_pad: int = 0, **attributes: Any) -> tuple[NDArray[Any], ...]:
            axes = _pool_axes(x.shape[2:], **attributes)
            sums = _windows(x, axes, 0).sum(axis=tuple(range(-len(axes), 0)))
            for number, axis in enumerate(axes):
                counts = _elements_per_window(axis, bool(count_include_pad)).astype(x.dtype)
                sums = sums / counts.reshape((-1,) + (1,) * (len(axes) - 1 - number))
            return (sums.astype(x.dtype),)

    class MaxPool(ReferenceMaxPool):  # type: ignore[misc, unused-ignore]
        """The reference loops per element (which is kept for the second output, the indices)."""

        op_domain = ""

        def _run(  # type: ignore[override, unused-ignore]
            self, x: NDArray[Any], **attributes: Any
        ) -> tuple[NDArray[Any], ...]:
            geometry = {name: value for name, value in attributes.items() if name != "storage_order"}
            axes = _pool_axes(x.shape[2:], **geometry)
            lowest = np.iinfo(x.dtype).min if x.dtype.kind in "iu" else -np.inf
            y = _windows(x, axes, lowest).max(axis=tuple(range(-len(axes), 0)))
            if len(self.onnx_node.output) == 1:
                return (y,)
            reference: Any = super()
            return y, reference._run(x, **attributes)[1]

    class GlobalMaxPool(OpRun):
        """The reference takes the maximum over wrong axes unless there are two spatial ones."""

        op_domain = ""

        def _run(self, x: NDArray[Any]) -> tuple[NDArray[Any], ...]:
            return (x.max(axis=tuple(range(2, x.ndim)), keepdims=True),)

    class ConvTranspose(OpRun):
        """The reference mixes up the channels of groups, and loops per image and channel."""

        op_domain = ""

        def _run(
            self, x: NDArray[Any], weights: NDArray[Any], bias: NDArray[Any] | None = None, **attributes: Any
        ) -> tuple[NDArray[Any], ...]:
            y = _transposed_convolution(x, weights, **attributes)
            return (y if bias is None else y + bias.reshape((-1,) + (1,) * (x.ndim - 2)),)

    return AveragePool, MaxPool, GlobalMaxPool, ConvTranspose


def _moving() -> tuple[type[OpRun], ...]:
    from onnx.reference.op_run import OpRun

    class GatherElements(OpRun):
        """The reference fails on axes longer than 32, and on fewer indices than elements along the other axes."""

        op_domain = ""

        def _run(self, x: NDArray[Any], indices: NDArray[Any], axis: int = 0) -> tuple[NDArray[Any], ...]:
            near = tuple(slice(None) if a == axis % x.ndim else slice(n) for a, n in enumerate(indices.shape))
            return (np.take_along_axis(x[near], indices, axis=axis),)

    class Pad(OpRun):
        """The reference refuses negative pads, which take elements away."""

        op_domain = ""

        def _run(
            self,
            x: NDArray[Any],
            pads: NDArray[Any],
            value: NDArray[Any] | None = None,
            axes: NDArray[Any] | None = None,
            mode: str = "constant",
        ) -> tuple[NDArray[Any], ...]:
            widths = np.zeros((2, x.ndim), dtype=np.int64)
            widths[:, slice(None) if axes is None else np.ravel(axes)] = np.reshape(pads, (2, -1))
            cut = tuple(slice(-min(b, 0), max(n + min(a, 0), 0)) for b, a, n in zip(*widths, x.shape, strict=True))
            constant = {} if mode != "constant" else {"constant_values": 0 if value is None else value}
            return (np.pad(x[cut], np.maximum(widths, 0).T, mode=mode, **constant).astype(x.dtype),)  # type: ignore[call-overload]

    return GatherElements, Pad


def _pool_axes(
    sizes: Sequence[int],
    kernel_shape: Sequence[int],
    auto_pad: str | None = None,
    ceil_mode: int | None = None,
    dilations: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> list[_Axis]:
    rank = len(sizes)
    pads, strides, dilations = pads or [0] * 2 * rank, strides or [1] * rank, dilations or [1] * rank
    axes = []
    for i, (size, kernel, stride, dilation) in enumerate(zip(sizes, kernel_shape, strides, dilations, strict=True)):
        span = (kernel - 1) * dilation + 1
        begin, end = (pads[i], pads[rank + i]) if auto_pad in (None, "", "NOTSET") else (0, 0)
        if auto_pad in ("SAME_UPPER", "SAME_LOWER"):
            out = -(-size // stride)
            total = max(0, (out - 1) * stride + span - size)
            begin = total // 2 if auto_pad == "SAME_UPPER" else total - total // 2
            end = total - begin
        else:
            room = size + begin + end - span
            out = (-(-room // stride) if ceil_mode else room // stride) + 1
            if ceil_mode and (out - 1) * stride >= size + begin:
                out -= 1  # no window may start in the padding at the end
        axes.append(_Axis(size, kernel, stride, dilation, begin, end, out))
    return axes


def _windows(x: NDArray[Any], axes: Sequence[_Axis], fill: float) -> NDArray[Any]:
    """View of shape (n, channels, *out, *kernel) on `x` padded with `fill`."""
    reach = [(axis.out - 1) * axis.stride + (axis.kernel - 1) * axis.dilation + 1 for axis in axes]
    after = [max(0, end - axis.size - axis.begin) for end, axis in zip(reach, axes, strict=True)]
    widths = [(0, 0), (0, 0), *((axis.begin, extra) for axis, extra in zip(axes, after, strict=True))]
    padded = np.pad(x, widths, constant_values=fill)
    spans = tuple((axis.kernel - 1) * axis.dilation + 1 for axis in axes)
    views: NDArray[Any] = sliding_window_view(padded, spans, axis=tuple(range(2, x.ndim)))  # type: ignore[call-overload, unused-ignore]
    starts = tuple(slice(0, (axis.out - 1) * axis.stride + 1, axis.stride) for axis in axes)
    return views[(slice(None), slice(None), *starts, *(slice(None, None, axis.dilation) for axis in axes))]


def _elements_per_window(axis: _Axis, padding_counts: bool) -> NDArray[np.int64]:
    starts = np.arange(axis.out)[:, np.newaxis] * axis.stride - axis.begin
    positions = starts + np.arange(axis.kernel) * axis.dilation
    low, high = (-axis.begin, axis.size + axis.end) if padding_counts else (0, axis.size)
    counts: NDArray[np.int64] = ((positions >= low) & (positions < high)).sum(axis=1)
    return counts


def _transposed_convolution(
    x: NDArray[Any],
    weights: NDArray[Any],
    auto_pad: str | None = None,
    dilations: Sequence[int] | None = None,
    group: int = 1,
    kernel_shape: Sequence[int] | None = None,
    output_padding: Sequence[int] | None = None,
    output_shape: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> NDArray[Any]:
    """Every input element adds its multiple of the kernel to the output, from which the padding is cut off."""
    rank, kernel = x.ndim - 2, weights.shape[2:]
    strides, dilations = strides or [1] * rank, dilations or [1] * rank
    extra, pads = output_padding or [0] * rank, pads or [0] * 2 * rank
    full = [
        (size - 1) * stride + (k - 1) * dilation + 1
        for size, stride, k, dilation in zip(x.shape[2:], strides, kernel, dilations, strict=True)
    ]
    out = [full[i] + extra[i] - pads[i] - pads[rank + i] for i in range(rank)]
    begin = list(pads[:rank])
    if output_shape or auto_pad in ("SAME_UPPER", "SAME_LOWER"):
        out = list(output_shape[-rank:] if output_shape else (s * n for s, n in zip(strides, x.shape[2:], strict=True)))
        totals = [max(0, full[i] + extra[i] - out[i]) for i in range(rank)]
        begin = [total // 2 if auto_pad == "SAME_UPPER" else total - total // 2 for total in totals]
    elif auto_pad == "VALID":
        out, begin = [size + more for size, more in zip(full, extra, strict=True)], [0] * rank
    n, channels = x.shape[:2]
    grouped = x.reshape(n, group, channels // group, -1)
    # Kernel positions first, so that each is one matrix per group.
    taps = np.moveaxis(weights.reshape(group, channels // group, weights.shape[1], *kernel), (0, 1, 2), (-3, -2, -1))
    filters = weights.shape[1] * group
    buffer = np.zeros((n, filters, *(max(f, o + b) for f, o, b in zip(full, out, begin, strict=True))), dtype=x.dtype)
    for position in itertools.product(*map(range, kernel)):
        share = np.matmul(taps[position].transpose(0, 2, 1), grouped).reshape(n, filters, *x.shape[2:])
        target = tuple(
            slice(k * dilation, k * dilation + (size - 1) * stride + 1, stride)
            for k, dilation, size, stride in zip(position, dilations, x.shape[2:], strides, strict=True)
        )
        buffer[(slice(None), slice(None), *target)] += share
    return buffer[(slice(None), slice(None), *(slice(b, b + o) for b, o in zip(begin, out, strict=True)))]
