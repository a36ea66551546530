"""Move the end of a graph to the client, to run after decryption."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fhelearn.onnx.cleanup.graphs import Parts, constant, extract, label, operands

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
_PER_ROW = frozenset(
    {"ArgMax", "ArgMin", "Hardmax", "LogSoftmax", "LpNormalization", "Normalizer", "Softmax", "TopK", "ZipMap"}
)
_MOVING = frozenset(
    {
        *("ArrayFeatureExtractor", "Concat", "Flatten", "Gather", "Reshape", "Slice", "Squeeze", "Transpose"),
        "Unsqueeze",
    }
)
_TYPES = _AFFINE | _ELEMENTWISE | _PER_ROW | _MOVING


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

    The largest set such that all readers of a node belong to it, and every node either reads one value that is no
    constant, or values of the set only (a node that moves elements: always the latter). Connected pieces of it that are
    affine stay. A node that reads an input of the graph stays as well: that value would have to be encrypted to be
    decrypted.
    """
    nodes = list(model.graph)
    if len(_largest(nodes, inputs_end=True)) == len(nodes):
        return {}
    found = _largest(nodes, inputs_end=False)
    worth = {node for piece in _pieces(found) if not all(map(_is_affine, piece)) for node in piece}
    return dict.fromkeys(node for node in nodes if node in worth)


def _largest(nodes: list[ir.Node], *, inputs_end: bool) -> set[ir.Node]:
    found = {node for node in nodes if node.op_type in _TYPES and node.domain in ("", "ai.onnx", "ai.onnx.ml")}
    # Every condition is monotone in the set: taking nodes out until all hold leaves the largest set.
    while refused := [node for node in found if not _belongs(node, found, inputs_end=inputs_end)]:
        found.difference_update(refused)
    return found


def _belongs(node: ir.Node, found: set[ir.Node], *, inputs_end: bool) -> bool:
    read = operands(node)
    if not read or any(reader not in found for out in node.outputs for reader in out.consumers()):
        return False
    if not inputs_end and any(value.producer() is None for value in read):
        return False
    if len(read) == 1 and not _moves(node):
        return True
    if all(value.producer() in found for value in read):
        return True
    return inputs_end and all(value.producer() in found or value.producer() is None for value in read)


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
            around = {reader for node in reached for out in node.outputs for reader in out.consumers()}
            around |= {maker for node in reached for value in operands(node) if (maker := value.producer()) is not None}
            reached = (around & found) - piece
        left -= piece
        pieces.append(piece)
    return pieces
