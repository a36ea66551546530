"""Compute what depends on constants and shapes alone."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fhelearn.onnx.cleanup.graphs import constant, has_subgraphs, is_constant
from fhelearn.onnx.reference_ops import corrected_operators

if TYPE_CHECKING:
    import onnx_ir as ir

# Equal inputs, other outputs: these are no constants.
_RANDOM = ("Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike")


def fold_constants(model: ir.Model) -> list[str]:
    """Replace every node whose inputs are constants by its value, of whatever size.

    ``f(c1, ..., ck) -> initializer``, computed as the NumPy forward computes it, and so exactly equal to
    that. `Shape`, `Size` and what is computed from them are constants, as shapes are
    static. Afterwards no `Constant` node is left, and no node without an input that is no constant (random operators,
    control flow and sequences apart).

    Parameters
    ----------
    model : onnx_ir.Model
        With static shapes. Changed in place.

    Returns
    -------
    list of str
        One line if anything was folded, else none.
    """
    from onnx_ir.passes.common import LiftConstantsToInitializersPass
    from onnxscript import optimizer

    # onnxscript evaluates by onnx's own implementations, some of which are wrong.
    left = {*_RANDOM, *(operator.__name__ for operator in corrected_operators())}
    before = _census(model)
    optimizer.fold_constants(
        model,
        onnx_shape_inference=True,
        input_size_limit=sys.maxsize,
        output_size_limit=sys.maxsize,
        should_fold=lambda node: node.op_type not in left,
    )
    LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    # What is left: these, nodes of several outputs, and constants that are outputs of the graph.
    for node in list(model.graph):
        if node.op_type not in _RANDOM and not has_subgraphs(node) and all(map(_known, node.inputs)):
            _replace(model, node)
    folded = before - _census(model)
    return [f"{len(folded)} nodes were folded: {_types(folded)}"] if folded else []


def _census(model: ir.Model) -> set[tuple[str, str]]:
    return {(node.op_type, out.name or "") for node in model.graph for out in node.outputs[:1]}


def _types(nodes: set[tuple[str, str]]) -> str:
    return ", ".join(sorted({op_type for op_type, _ in nodes}))


def _known(value: ir.Value | None) -> bool:
    return value is None or is_constant(value)


def _replace(model: ir.Model, node: ir.Node) -> None:
    import onnx_ir as ir

    results = _evaluate(model, node)
    if results is None:
        return
    for out, result in zip(list(node.outputs), results, strict=True):
        name = out.name
        value = ir.Value(
            name=name,
            type=ir.TensorType(ir.DataType.from_numpy(result.dtype)),
            shape=ir.Shape(result.shape),
            const_value=ir.tensor(result, name=name),
        )
        out.replace_all_uses_with(value, replace_graph_outputs=True)
        model.graph.register_initializer(value)
    model.graph.remove(node, safe=True)


def _evaluate(model: ir.Model, node: ir.Node) -> list[NDArray[Any]] | None:
    """The outputs of a node of constants, None if the reference implementation does not have the operator."""
    import onnx_ir as ir
    from onnx import helper
    from onnx.reference import ReferenceEvaluator

    names = [out.name for out in node.outputs if out.name]
    if len(names) != len(node.outputs):
        return None
    feeds = {
        value.name: array for value in node.inputs if value and value.name and (array := constant(value)) is not None
    }
    graph = helper.make_graph(
        [ir.serde.serialize_node(node)],
        "constants",
        [helper.make_empty_tensor_value_info(name) for name in feeds],
        [helper.make_empty_tensor_value_info(name) for name in names],
    )
    opsets = [helper.make_opsetid(domain, version) for domain, version in model.graph.opset_imports.items()]
    try:
        proto = helper.make_model(graph, opset_imports=opsets)
        results = ReferenceEvaluator(proto, new_ops=list(corrected_operators())).run(None, feeds)
    except Exception:  # the operator is not implemented, or refuses these values: the node stays, and is reported later
        return None
    return [np.asarray(result) for result in results] if not any(isinstance(r, list) for r in results) else None
