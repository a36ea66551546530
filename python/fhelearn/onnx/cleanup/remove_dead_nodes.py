"""Remove what no output depends on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fhelearn.onnx.cleanup.graphs import label

if TYPE_CHECKING:
    import onnx_ir as ir


def remove_dead_nodes(model: ir.Model) -> list[str]:
    """Remove nodes and initializers that no output of the graph depends on.

    The outputs are exactly equal. Inputs stay, read or not.

    Parameters
    ----------
    model : onnx_ir.Model
        Changed in place.

    Returns
    -------
    list of str
        One line per node, and one for the initializers.
    """
    from onnx_ir.passes.common import RemoveUnusedNodesPass

    nodes = {node: label(node) for node in model.graph}
    constants = len(model.graph.initializers)
    RemoveUnusedNodesPass()(model)
    kept = set(model.graph)
    lines = [f"{text} fed no output" for node, text in nodes.items() if node not in kept]
    if removed := constants - len(model.graph.initializers):
        lines.append(f"{removed} initializers fed no output")
    return lines
