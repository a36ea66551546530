"""Remove nodes that pass their input on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fhelearn.onnx.cleanup.graphs import bypass, constant, label

if TYPE_CHECKING:
    import onnx_ir as ir


def remove_identities(model: ir.Model) -> list[str]:
    """Remove `Identity`, `Dropout` outside training and `Cast` to the type that the value has.

    ``y = f(x), f(x) == x  ->  y = x``; exactly equal. What stays are nodes between two names that a caller knows: an
    output that is an input, or one value that is two outputs; those become `Identity`.

    Parameters
    ----------
    model : onnx_ir.Model
        With inferred types. Changed in place.

    Returns
    -------
    list of str
        One line per node.
    """
    import onnx_ir as ir

    lines = []
    for node in list(model.graph):
        if not _passes_on(node) or (source := node.inputs[0]) is None:
            continue
        line = f"{label(node)} passed its input on"
        if bypass(node, source):
            lines.append(line)
        elif node.op_type != "Identity":
            out = node.outputs[0]
            identity = ir.node("Identity", [source], name=node.name)
            renamed = identity.outputs[0]
            renamed.name, renamed.shape, renamed.type = out.name, source.shape, source.type
            model.graph.insert_after(node, identity)
            out.replace_all_uses_with(renamed, replace_graph_outputs=True)
            model.graph.remove(node, safe=True)
            lines.append(line)
    return lines


def _passes_on(node: ir.Node) -> bool:
    if node.domain not in ("", "ai.onnx"):
        return False
    if node.op_type == "Identity":
        return True
    if node.op_type == "Cast":
        source = node.inputs[0]
        return source is not None and source.dtype is not None and node.attributes["to"].as_int() == source.dtype.value
    if node.op_type != "Dropout" or any(mask.uses() or mask.is_graph_output() for mask in node.outputs[1:]):
        return False
    training = node.inputs[2] if len(node.inputs) > 2 else None
    value = constant(training)
    return training is None or (value is not None and not np.any(value))
