"""Batch normalization as weights of the linear node before it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fhelearn.onnx.cleanup.graphs import constant, float64, is_float, label, static_shape, unique_name

if TYPE_CHECKING:
    import onnx_ir as ir

_LINEAR = ("Conv", "ConvTranspose", "Gemm", "MatMul")


def fold_batch_normalization(model: ir.Model) -> list[str]:
    """Fold `BatchNormalization` into the linear node before it, if nobody else reads that node.

    With ``s = gamma / sqrt(variance + epsilon)`` per output channel:
    ``s (x W + b - mean) + beta -> x (W s) + (s (b - mean) + beta)``, computed in float64 and rounded once to the
    weights' type. Equal up to rounding. Weights that others share are copied.

    Parameters
    ----------
    model : onnx_ir.Model
        With inferred types. Changed in place.

    Returns
    -------
    list of str
        One line per normalization.
    """
    from onnxscript.rewriter import RewriteRule, RewriteRuleSet

    lines: list[str] = []

    def replacement(op: Any, x: ir.Value, linear: ir.Value, normalized: ir.Value, **_: Any) -> Any:
        return _folded(model.graph, op, x, linear, normalized, lines)

    rules = [RewriteRule(_pattern(op_type), replacement, _fits) for op_type in _LINEAR]
    rule_set = RewriteRuleSet(rules)
    # A normalization of a normalization is folded in the next round.
    while rule_set.apply_to_model(model):
        pass
    return lines


def _pattern(op_type: str) -> Any:
    def pattern(op: Any, x: Any) -> Any:
        inner = getattr(op, op_type)(x, _allow_other_inputs=True, _outputs=["linear"])
        return op.BatchNormalization(inner, _allow_other_inputs=True, _outputs=["normalized"])

    return pattern


def _fits(_: Any, x: ir.Value, linear: ir.Value, normalized: ir.Value, **__: Any) -> bool:
    one, two = linear.producer(), normalized.producer()
    if one is None or two is None or not is_float(x):
        return False
    if two.attributes.get_int("training_mode", 0) or len(two.outputs) != 1:
        return False
    biases = [value for value in one.inputs[2:] if value is not None]
    if any(constant(value) is None for value in (one.inputs[1], *biases, *two.inputs[1:])):
        return False
    if one.op_type == "MatMul" and len(static_shape(linear) or ()) != 2:
        return False
    return all(np.isfinite(part).all() for part in _weights(one, two))


def _weights(one: ir.Node, two: ir.Node) -> tuple[NDArray[Any], NDArray[Any]]:
    """Weights and bias of the fused node, in the type of the linear node's weights."""
    weights = constant(one.inputs[1])
    gamma, beta, mean, variance = (constant(value) for value in two.inputs[1:])
    if weights is None or gamma is None or beta is None or mean is None or variance is None:
        raise ValueError("only constant weights can be folded")
    bias = constant(one.inputs[2]) if len(one.inputs) > 2 else None
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        epsilon = two.attributes.get_float("epsilon", 1e-5)
        scale = float64(gamma) / np.sqrt(float64(variance) + epsilon)
        inner = 0.0 if bias is None else one.attributes.get_float("beta", 1.0) * float64(bias)
        scaled = float64(weights) * _along_outputs(one, scale, weights.shape)
        return scaled.astype(weights.dtype), (scale * (inner - float64(mean)) + float64(beta)).astype(weights.dtype)


def _along_outputs(node: ir.Node, scale: NDArray[np.float64], shape: tuple[int, ...]) -> NDArray[np.float64]:
    """`scale` (one per output channel) in a shape that broadcasts with the node's weights."""
    if node.op_type == "Conv":
        return scale.reshape(-1, *[1] * (len(shape) - 1))
    if node.op_type == "ConvTranspose":
        # The weights are (inputs, outputs / groups, ...), the inputs of a group being consecutive.
        groups = node.attributes.get_int("group", 1)
        rows = np.repeat(scale.reshape(groups, shape[1]), shape[0] // groups, axis=0)
        return rows.reshape(*rows.shape, *[1] * (len(shape) - 2))
    transposed = node.op_type == "Gemm" and node.attributes.get_int("transB", 0) == 1
    return scale[:, None] if transposed else scale


def _folded(
    graph: ir.Graph, op: Any, x: ir.Value, linear: ir.Value, normalized: ir.Value, lines: list[str]
) -> ir.Value | None:
    import onnx_ir as ir

    one, two = linear.producer(), normalized.producer()
    if one is None or two is None:
        return None
    weights, bias = _weights(one, two)
    lines.append(f"{label(two)} became weights of {label(one)}")
    attributes = {name: attribute for name, attribute in one.attributes.items() if name != "beta"}
    build = getattr(op, "Gemm" if one.op_type == "MatMul" else one.op_type)
    fused: ir.Value = build(
        x,
        op.initializer(ir.tensor(weights), name=unique_name(graph, f"{normalized.name}_weights")),
        op.initializer(ir.tensor(bias), name=unique_name(graph, f"{normalized.name}_bias")),
        _name=one.name,
        **attributes,
    )
    return fused
