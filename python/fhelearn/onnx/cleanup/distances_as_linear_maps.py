"""Weighted squared distances as linear maps of powers, which the client computes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fhelearn.onnx.cleanup.cut_front import leading_nodes
from fhelearn.onnx.cleanup.graphs import Maker, constant, float64, is_float, label, mixes_rows, static_shape

if TYPE_CHECKING:
    import onnx_ir as ir


@dataclass(frozen=True, eq=False)
class _Distance:
    """``sum over f of weights[..., f] * (x[f] - centres[..., f])**2``, `x` one row of shape (1, features)."""

    x: ir.Value
    weights: NDArray[np.float64]
    centres: NDArray[np.float64]

    def linear(self, dtype: np.dtype[Any]) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        """Middle m, weights of ``[t, t**2]`` with ``t = x - m``, and bias, one per distance."""
        features = self.weights.shape[-1]
        weights, centres = (array.reshape(-1, features) for array in (self.weights, self.centres))
        with np.errstate(all="ignore"):
            middle = centres.mean(axis=0).astype(dtype)
            moved = centres - float64(middle)
            matrix = np.concatenate([-2 * weights * moved, weights], axis=1).T
            return middle, matrix.astype(dtype), (weights * moved**2).sum(axis=1).astype(dtype)


def distances_as_linear_maps(model: ir.Model) -> list[str]:
    """Replace sums of weighted squared differences from constants by a product, where the client knows the row.

    ``sum w (x - c)**2 -> Gemm([t, t**2])`` with ``t = x - m`` and `m` the mean of the centres, so that large features
    far from zero do not cancel. Equal up to rounding, computed in float64 and rounded once to the weights' type.
    Gaussian naive Bayes is such a sum per class, and needs no lookup then.

    Parameters
    ----------
    model : onnx_ir.Model
        With static shapes. Changed in place.

    Returns
    -------
    list of str
        One line per sum.
    """
    leading = leading_nodes(model)
    clear = {*model.graph.inputs, *(out for node in leading for out in node.outputs)}
    lines = []
    for node in list(model.graph):
        distance = _distance(node)
        if distance is not None and distance.x in clear:
            lines.append(f"{label(node)} of squared differences became a linear map of powers")
            _replace(model, node, distance)
    return lines


def _distance(node: ir.Node) -> _Distance | None:
    """The distance that `node` sums up over the last axis; None if it is none."""
    total = node.inputs[0] if node.op_type == "ReduceSum" and len(node.inputs) == 2 else None
    shape, axes = static_shape(total), constant(node.inputs[1]) if total is not None else None
    if total is None or not shape or axes is None or axes.tolist() not in ([-1], [len(shape) - 1]) or mixes_rows(node):
        return None
    weights = np.ones(shape)
    maker = _only_for(total, node)
    if maker is not None and maker.op_type in ("Div", "Mul") and (factor := constant(maker.inputs[1])) is not None:
        with np.errstate(all="ignore"):
            weights = weights * float64(factor) if maker.op_type == "Mul" else weights / float64(factor)
        maker = _only_for(maker.inputs[0], maker)
    exponent = constant(maker.inputs[1]) if maker is not None and maker.op_type == "Pow" else None
    if maker is None or exponent is None or exponent.size != 1 or exponent.item() != 2:
        return None
    difference = _only_for(maker.inputs[0], maker)
    if difference is None or difference.op_type != "Sub" or (centres := constant(difference.inputs[1])) is None:
        return None
    x = difference.inputs[0]
    fits = weights.shape == shape == static_shape(difference.outputs[0])
    if x is None or not is_float(x) or static_shape(x) != (1, shape[-1]) or not fits:
        return None
    found = _Distance(x, weights, np.broadcast_to(float64(centres), shape))
    # Equal only where no weight overflows.
    return found if x.dtype and all(np.isfinite(part).all() for part in found.linear(x.dtype.numpy())) else None


def _only_for(value: ir.Value | None, reader: ir.Node) -> ir.Node | None:
    """What makes `value`, if nobody but `reader` reads it."""
    if value is None or value.is_graph_output() or set(value.consumers()) != {reader}:
        return None
    return value.producer()


def _replace(model: ir.Model, node: ir.Node, distance: _Distance) -> None:
    out = node.outputs[0]
    dtype, shape = distance.x.dtype, static_shape(out)
    if dtype is None or shape is None:
        return
    middle, weights, bias = distance.linear(dtype.numpy())
    features, count = len(middle), len(bias)
    make = Maker(model, node)
    wide = (1, 2 * features)
    twice = make.value("Concat", "twice", [distance.x, distance.x], dtype, wide, axis=1)
    centred = make.value("Sub", "centred", [twice, make.constant("middle", np.tile(middle, 2))], dtype, wide)
    exponents = make.constant("exponents", np.repeat([1.0, 2.0], features).astype(middle.dtype))
    powers = make.value("Pow", "powers", [centred, exponents], dtype, wide)
    linear = [powers, make.constant("weights", weights), make.constant("bias", bias)]
    result = make.value("Gemm", "product", linear, dtype, (1, count))
    if shape != (1, count):
        result = make.value("Reshape", "reshaped", [result, make.constant("shape", np.array(shape))], dtype, shape)
    out.replace_all_uses_with(result, replace_graph_outputs=True)
    model.graph.remove(node, safe=True)
    result.name = out.name
