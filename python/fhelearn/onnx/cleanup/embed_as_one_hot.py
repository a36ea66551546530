"""Embeddings as products of one-hot rows with the table."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

import numpy as np

from fhelearn.onnx.cleanup.cut_front import leading_nodes
from fhelearn.onnx.cleanup.graphs import Maker, constant, is_float, label, static_shape

if TYPE_CHECKING:
    import onnx_ir as ir


def embed_as_one_hot(model: ir.Model) -> list[str]:
    """Replace a lookup of rows by a product, where the client knows the indices.

    ``Gather(T, i) -> MatMul(OneHot(Gather(0..n-1, i), n), T)`` for a constant float table `T` with `n` rows and rank of
    at least 2, and indices that come from inputs of the graph alone. A sum with one term that is not 0: exactly equal
    (for a table of finite numbers). The inner `Gather` makes indices positive as ONNX defines it, and refuses those out
    of range, which `OneHot` alone would turn into rows of zeros.

    Parameters
    ----------
    model : onnx_ir.Model
        With static shapes. Changed in place.

    Returns
    -------
    list of str
        One line per embedding.
    """
    leading = leading_nodes(model)
    clear = {*model.graph.inputs, *(out for node in leading for out in node.outputs)}
    lines = []
    for node in list(model.graph):
        if node.op_type == "Gather" and node.domain in ("", "ai.onnx") and node.inputs[1] in clear and _has_rows(node):
            lines.append(f"{label(node)} became a product of one-hot rows with its table")
            _replace(model, node)
    return lines


def _has_rows(node: ir.Node) -> bool:
    table, out = constant(node.inputs[0]), node.outputs[0]
    if table is None or table.ndim < 2 or static_shape(out) is None or not is_float(out):
        return False
    return node.attributes.get_int("axis", 0) in (0, -table.ndim) and bool(np.isfinite(table).all())


def _replace(model: ir.Model, node: ir.Node) -> None:
    import onnx_ir as ir

    table, indices, out = constant(node.inputs[0]), node.inputs[1], node.outputs[0]
    shape = static_shape(out)
    if table is None or indices is None or shape is None:
        return
    rows, columns = len(table), prod(table.shape[1:])
    integer, dtype = ir.DataType.INT64, ir.DataType.from_numpy(table.dtype)
    batch = shape[: len(shape) - table.ndim + 1]
    make = Maker(model, node)
    checked = make.value("Gather", "checked", [make.constant("rows", np.arange(rows)), indices], integer, batch)
    if not batch:  # OneHot wants an axis
        checked = make.value("Reshape", "list", [checked, make.constant("one", np.array([1]))], integer, (1,))
    depth = make.constant("depth", np.array(rows))
    levels = make.constant("levels", np.array([0, 1], dtype=table.dtype))
    one_hot = make.value("OneHot", "one_hot", [checked, depth, levels], dtype, (*(batch or (1,)), rows))
    flat = make.constant("table", table.reshape(rows, columns))
    result = make.value("MatMul", "product", [one_hot, flat], dtype, (*(batch or (1,)), columns))
    if table.ndim > 2 or not batch:
        dims = make.constant("shape", np.array(shape))
        result = make.value("Reshape", "reshaped", [result, dims], dtype, shape)
    out.replace_all_uses_with(result, replace_graph_outputs=True)
    model.graph.remove(node, safe=True)
    result.name = out.name
