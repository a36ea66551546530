"""Move the end of a graph to the client, to run after decryption."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fhelearn.onnx.cleanup.graphs import (
    LINEAR_REDUCTIONS,
    NORMALIZATIONS,
    OTHER_REDUCTIONS,
    Parts,
    constant,
    extract,
    has_rows,
    label,
    mixes_rows,
    operands,
)

if TYPE_CHECKING:
    import onnx_ir as ir

# Affine in their one operand that is no constant: the encrypted program does these for nothing.
_AFFINE = frozenset({"Add", "Mul", "Neg", "Sub"})
_ELEMENTWISE = frozenset(
    {
        *("Abs", "Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "Binarizer", "Cast", "Ceil", "Celu", "Clip"),
        *("Cos", "Cosh", "Elu", "Erf", "Exp", "Floor", "Gelu", "HardSigmoid", "HardSwish", "Identity", "IsInf"),
        *("IsNaN", "LabelEncoder", "LeakyRelu", "Log", "Mish", "Not", "Reciprocal", "Relu", "Round", "Selu", "Shrink"),
        *("Sigmoid", "Sign", "Sin", "Sinh", "Softplus", "Softsign", "Sqrt", "Swish", "Tan", "Tanh", "ThresholdedRelu"),
        *("And", "Div", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Max", "Mean", "Min", "Mod"),
        *("OneHot", "Or", "PRelu", "Pow", "Sum", "Where", "Xor"),
    }
)
_PER_ROW = NORMALIZATIONS | OTHER_REDUCTIONS | {"ArgMax", "ArgMin", "TopK", "ZipMap"}
_MOVING = frozenset(
    {
        *("ArrayFeatureExtractor", "Concat", "Expand", "Flatten", "Gather", "Reshape", "Slice", "Squeeze"),
        *("Transpose", "Unsqueeze"),
    }
)
_TYPES = _AFFINE | _ELEMENTWISE | _PER_ROW | _MOVING | LINEAR_REDUCTIONS


def cut_tail(parts: Parts) -> list[str]:
    """Cut off the largest end of the body that decrypted values are enough for.

    ``body = after o rest``, exactly equal: nodes only move. The border are the values that the rest computes and the
    end reads, each once. Outputs of the model that the rest computes pass through `after`.

    Parameters
    ----------
    parts : Parts
        Without `after`. Changed in place.

    Returns
    -------
    list of str
        One line per node.
    """
    model = parts.body
    cut = tail_nodes(model)
    if parts.after is not None or not cut:
        return []
    read = dict.fromkeys(value for node in cut for value in operands(node) if value.producer() not in cut)
    outputs = list(model.graph.outputs)
    passed = [value for value in outputs if value.producer() not in cut]
    border = [*passed, *(value for value in read if value not in passed)]
    lines = [f"{label(node)} runs on the client after decryption" for node in cut]
    parts.after = extract(model, border, outputs)
    parts.body = extract(model, model.graph.inputs, border)
    return lines


def tail_nodes(model: ir.Model) -> dict[ir.Node, None]:
    """The nodes that `cut_tail` moves, in order: none if nothing would be left.

    The largest set such that all readers of a node belong to it, and every value from outside that a node reads has
    rows on axis 0 and begins a chain of its own: a node of the set reads it and no other value (a node that moves
    elements only where its result has no rows on axis 0). Sums and means belong to it as parts of a normalization,
    others are the encrypted program's, for nothing. Connected pieces that are affine stay, and so does what is affine
    until several values meet: the border is one value then. A node that reads an input of the graph stays as well: that
    value would have to be encrypted to be decrypted.
    """
    nodes = list(model.graph)
    if len(_largest(nodes, inputs_end=True)) == len(nodes):
        return {}
    found = _largest(nodes, inputs_end=False)
    while stay := {node for piece in _pieces(found) if all(map(_is_affine, piece)) for node in piece} or _meeting(
        [node for node in nodes if node in found]
    ):
        found = _largest([node for node in nodes if node in found - stay], inputs_end=False)
    return dict.fromkeys(node for node in nodes if node in found)


def _largest(nodes: list[ir.Node], *, inputs_end: bool) -> set[ir.Node]:
    found = {node for node in nodes if node.op_type in _TYPES and node.domain in ("", "ai.onnx", "ai.onnx.ml")}
    # Every condition is monotone in the set: taking nodes out until all hold leaves the largest set.
    while refused := [node for node in found if not _belongs(node, found, inputs_end=inputs_end)]:
        found.difference_update(refused)
    return found


def _belongs(node: ir.Node, found: set[ir.Node], *, inputs_end: bool) -> bool:
    read = operands(node)
    if not read or mixes_rows(node) or any(reader not in found for reader in _readers(node)):
        return False
    for value in read:
        if value.producer() in found or (inputs_end and value.producer() is None):
            continue
        if value.producer() is None or not has_rows(value):
            return False
        if not any(reader in found and _begins(reader) for reader in value.consumers()):
            return False
    return node.op_type not in LINEAR_REDUCTIONS or _normalizes(node, found)


def _begins(node: ir.Node) -> bool:
    """Whether the border may be in front of the node, for its sake."""
    return len(operands(node)) == 1 and not (_moves(node) and all(map(has_rows, node.outputs)))


def _normalizes(reduction: ir.Node, found: set[ir.Node]) -> bool:
    """Whether the result meets, in `found`, another function of what was reduced, or of what that is a function of."""
    behind = _behind(_readers(reduction), found, {reduction})
    before: set[ir.Value] = set()
    reached = set(operands(reduction))
    while reached:
        before |= reached
        makers = {maker for value in reached if (maker := value.producer()) in found and maker is not None}
        reached = {value for maker in makers for value in operands(maker)} - before
    beside = {reader for value in before for reader in value.consumers()}
    # All that is computed from the same values but for the reduction: not what only its own result leads to.
    return not behind.isdisjoint(_behind(beside, found, {reduction}))


def _behind(nodes: set[ir.Node], found: set[ir.Node], without: set[ir.Node]) -> set[ir.Node]:
    """Those of `nodes` in `found`, and all nodes of `found` that need them."""
    behind: set[ir.Node] = set()
    reached = (nodes & found) - without
    while reached:
        behind |= reached
        reached = ({reader for node in reached for reader in _readers(node)} & found) - without - behind
    return behind


def _meeting(found: list[ir.Node]) -> set[ir.Node]:
    """The first node where values of several origins outside of `found` meet that only affine nodes worked on."""
    made = {out for node in found for out in node.outputs}
    # By value that only affine nodes made, the values outside that it comes from.
    origins: dict[ir.Value, frozenset[ir.Value]] = {}
    for node in found:
        read = operands(node)
        if not _is_affine(node) or any(value in made and value not in origins for value in read):
            continue
        origin = frozenset().union(*(origins.get(value, {value}) for value in read))
        if len(origin) > 1:
            return {node}
        origins.update(dict.fromkeys(node.outputs, origin))
    return set()


def _readers(node: ir.Node) -> set[ir.Node]:
    return {reader for out in node.outputs for reader in out.consumers()}


def _moves(node: ir.Node) -> bool:
    return node.op_type in _MOVING


def _is_affine(node: ir.Node) -> bool:
    if node.op_type == "Div":
        return constant(node.inputs[1]) is not None
    if node.op_type == "Mul":
        return any(constant(value) is not None for value in node.inputs)
    return node.op_type in _AFFINE or _moves(node)


def _pieces(found: set[ir.Node]) -> list[set[ir.Node]]:
    """The connected components of `found`."""
    pieces, left = [], set(found)
    while left:
        piece: set[ir.Node] = set()
        reached = {left.pop()}
        while reached:
            piece |= reached
            around = {reader for node in reached for reader in _readers(node)}
            around |= {maker for node in reached for value in operands(node) if (maker := value.producer()) is not None}
            reached = (around & found) - piece
        left -= piece
        pieces.append(piece)
    return pieces
