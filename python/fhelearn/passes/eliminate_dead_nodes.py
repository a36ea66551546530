"""Dead nodes: remove what no output depends on."""

from __future__ import annotations

from fhelearn.ir import Program, ProgramBuilder
from fhelearn.passes.rewrite import copy_node, live_nodes


def eliminate_dead_nodes(program: Program) -> Program:
    """Remove the nodes that no output depends on, except inputs.

    Guarantee: every remaining node is an input or reaches an output; outputs are unchanged for every input
    that keeps the declared bounds (checks of removed nodes go with them).
    """
    live = live_nodes(program)
    builder = ProgramBuilder()
    moved: dict[int, int] = {}
    for index, node in enumerate(program.nodes):
        if live[index]:
            moved[index] = copy_node(builder, node, tuple(moved[i] for i in node.operands))
    return builder.build(*(moved[i] for i in program.outputs))
