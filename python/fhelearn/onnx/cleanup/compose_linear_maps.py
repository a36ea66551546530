"""One linear map for two in a row."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fhelearn.onnx.cleanup.graphs import constant, float64, is_float, label, unique_name

if TYPE_CHECKING:
    import onnx_ir as ir


def compose_linear_maps(model: ir.Model) -> list[str]:
    """Compose two products with constant weights if the first feeds only the second.

    ``(x A + a) B + b -> x (A B) + (a B + b)``, computed in float64 and rounded once to the weights' type. Equal up to
    rounding. `MatMul` twice stays `MatMul` (of any rank), everything else becomes `Gemm`.

    Parameters
    ----------
    model : onnx_ir.Model
        With inferred types. Changed in place.

    Returns
    -------
    list of str
        One line per composition.
    """
    from onnxscript.rewriter import RewriteRule, RewriteRuleSet

    lines: list[str] = []

    def replacement(op: Any, x: ir.Value, first: ir.Value, second: ir.Value, **_: Any) -> Any:
        return _composed(model.graph, op, x, first, second, lines)

    pairs = product(("MatMul", "Gemm"), repeat=2)
    rules = RewriteRuleSet([RewriteRule(_pattern(*pair), replacement, _fits) for pair in pairs])
    # A pass over the nodes composes each with its predecessor once.
    while rules.apply_to_model(model):
        pass
    return lines


def _pattern(first: str, second: str) -> Any:
    def pattern(op: Any, x: Any) -> Any:
        inner = getattr(op, first)(x, _allow_other_inputs=True, _outputs=["first"])
        return getattr(op, second)(inner, _allow_other_inputs=True, _outputs=["second"])

    return pattern


def _fits(_: Any, x: ir.Value, first: ir.Value, second: ir.Value, **__: Any) -> bool:
    nodes = first.producer(), second.producer()
    if not is_float(x) or any(node is None or _affine(node) is None for node in nodes):
        return False
    # Equal only where no entry overflows; an infinite weight has no product with another.
    return all(np.isfinite(part).all() for part in _product(first, second) if part is not None)


def _affine(node: ir.Node) -> tuple[NDArray[np.float64], NDArray[np.float64] | None] | None:
    """Weights (inputs, outputs) and bias of a linear node in float64; None if they are not constant."""
    weights = constant(node.inputs[1])
    if weights is None or weights.ndim != 2:
        return None
    if node.op_type == "MatMul":
        return float64(weights), None
    get = node.attributes.get_int
    if get("transA", 0):
        return None
    matrix = node.attributes.get_float("alpha", 1.0) * float64(weights.T if get("transB", 0) else weights)
    beta = node.attributes.get_float("beta", 1.0)
    added = node.inputs[2] if len(node.inputs) > 2 else None
    if added is None or beta == 0:
        return matrix, None
    bias = constant(added)
    return None if bias is None else (matrix, beta * float64(bias))


def _product(first: ir.Value, second: ir.Value) -> tuple[NDArray[Any], NDArray[Any] | None]:
    one, two = first.producer(), second.producer()
    before, after = (None if node is None else _affine(node) for node in (one, two))
    if before is None or after is None or one is None or (weights := constant(one.inputs[1])) is None:
        raise ValueError("only two linear maps with constant weights have a product")
    (left, inner), (right, outer) = before, after
    bias = outer
    if inner is not None:
        rows = np.broadcast_to(inner, np.broadcast_shapes(inner.shape, (left.shape[1],)))
        bias = rows @ right if outer is None else rows @ right + outer
    with np.errstate(over="ignore"):
        return (left @ right).astype(weights.dtype), None if bias is None else bias.astype(weights.dtype)


def _composed(
    graph: ir.Graph, op: Any, x: ir.Value, first: ir.Value, second: ir.Value, lines: list[str]
) -> ir.Value | None:
    import onnx_ir as ir

    one, two = first.producer(), second.producer()
    if one is None or two is None:
        return None
    weights, bias = _product(first, second)
    lines.append(f"{label(one)} and {label(two)} became one linear map")
    constants = [op.initializer(ir.tensor(weights), name=unique_name(graph, f"{second.name}_weights"))]
    if bias is not None:
        constants.append(op.initializer(ir.tensor(bias), name=unique_name(graph, f"{second.name}_bias")))
    build = op.MatMul if one.op_type == two.op_type == "MatMul" else op.Gemm
    composed: ir.Value = build(x, *constants, _name=two.name)
    return composed
