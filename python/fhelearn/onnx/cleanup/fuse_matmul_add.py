"""One `Gemm` for a product and its bias."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fhelearn.onnx.cleanup.graphs import constant, is_float, label, static_shape

if TYPE_CHECKING:
    import onnx_ir as ir


def fuse_matmul_add(model: ir.Model) -> list[str]:
    """Fuse a matrix product with constant weights and the constant added to it.

    ``Add(MatMul(x, W), b) -> Gemm(x, W, b)`` for float `x` of rank 2, if nobody else reads the product and adding `b`
    does not change its shape. Equal up to the order of the summation in `Gemm`.

    Parameters
    ----------
    model : onnx_ir.Model
        With static shapes. Changed in place.

    Returns
    -------
    list of str
        One line per product.
    """
    from onnxscript.rewriter import RewriteRule, RewriteRuleSet

    lines: list[str] = []

    def replacement(op: Any, x: ir.Value, weights: ir.Value, bias: ir.Value, product: ir.Value, **_: Any) -> Any:
        node = product.producer()
        if node is None:
            return None
        lines.append(f"{label(node)} and its bias became one Gemm")
        return op.Gemm(x, weights, bias, _name=node.name)

    rule = RewriteRule(_pattern, replacement, _fits)
    RewriteRuleSet([rule], commute=True).apply_to_model(model)
    return lines


def _pattern(op: Any, x: Any, weights: Any, bias: Any) -> Any:
    return op.Add(op.MatMul(x, weights, _outputs=["product"]), bias)


def _fits(_: Any, x: ir.Value, weights: ir.Value, bias: ir.Value, product: ir.Value, **__: Any) -> bool:
    matrix, vector, shape, source = constant(weights), constant(bias), static_shape(product), static_shape(x)
    if matrix is None or vector is None or shape is None or source is None or not is_float(x):
        return False
    if len(source) != 2 or matrix.ndim != 2 or vector.ndim > 2:
        return False
    # Gemm broadcasts its bias only: a bias with more rows than the product would make the product grow.
    return np.broadcast_shapes(vector.shape, shape) == shape
