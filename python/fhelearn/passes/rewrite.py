"""The one way passes rebuild a program: node by node, with a rule for the nodes that change."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from fhelearn.ir import Bounds, DeclaredBounds, Node, Program, ProgramBuilder

Rule: TypeAlias = Callable[[ProgramBuilder, int, Node, tuple[int, ...]], int | None]
"""``rule(builder, index, node, new operands)``: the new node's index, or None to copy the node as it is."""


def declared_bounds(node: Node) -> DeclaredBounds | None:
    """The bounds that `node` declares, to be declared again on its replacement; None if its bounds are proved."""
    value = node.value
    if value.provenance == "proved":
        return None
    return DeclaredBounds(value.bounds.lo, value.bounds.hi, value.provenance, value.reason)


def emit_within(
    builder: ProgramBuilder,
    op: str,
    *operands: int,
    declared: DeclaredBounds | None,
    name: str = "",
    **attributes: Any,
) -> int:
    """Emit a node with declared bounds that stem from the node it replaces.

    Rewritten operands may have bounds so narrow that the inferred ones lie beside the declared; then those say nothing.
    """
    if declared is not None:
        value = builder.inferred(op, *operands, **attributes)
        if value.bounds.meet(Bounds.of(declared.lo, declared.hi), value.shape) is None:
            declared = None
    return builder.emit(op, *operands, name=name, declared=declared, **attributes)


def copy_node(builder: ProgramBuilder, node: Node, operands: tuple[int, ...]) -> int:
    """Emit the same node on new operands."""
    return emit_within(builder, node.op, *operands, declared=declared_bounds(node), name=node.name, **node.attributes)


def rewrite(program: Program, rule: Rule) -> Program:
    """Rebuild `program`, replacing each node by what `rule` emits; inputs and outputs keep their order."""
    builder = ProgramBuilder()
    moved: list[int] = []
    for index, node in enumerate(program.nodes):
        operands = tuple(moved[i] for i in node.operands)
        replacement = rule(builder, index, node, operands)
        moved.append(copy_node(builder, node, operands) if replacement is None else replacement)
    return builder.build(*(moved[i] for i in program.outputs))


def live_nodes(program: Program) -> tuple[bool, ...]:
    """Per node, whether an output depends on it; inputs always count as live, because callers pass them by position."""
    live = [node.op == "input" for node in program.nodes]
    pending = list(program.outputs)
    while pending:
        index = pending.pop()
        if not live[index] or program.nodes[index].op == "input":
            live[index] = True
            pending.extend(i for i in program.nodes[index].operands if not live[i])
    return tuple(live)
