"""Operators that give the elements another shape or order: free, and exact whatever the scales.

Where an element goes is asked of ONNX's reference implementation, by running it on the elements' positions.
"""

from __future__ import annotations

from math import prod

import numpy as np

from fhelearn.exceptions import LoweringError
from fhelearn.frontends.onnx import moves
from fhelearn.frontends.onnx.quantizer import Quantizer
from fhelearn.frontends.onnx.registry import GraphNode, imports
from fhelearn.frontends.onnx.values import Clear, Encrypted, Tensor
from fhelearn.onnx.forward import node_function
from fhelearn.typing import IntArray


@imports(
    "DepthToSpace", "Expand", "Flatten", "GatherElements", "GatherND", "Reshape", "ReverseSequence",
    "Slice", "SpaceToDepth", "Split", "Squeeze", "Tile", "Unsqueeze",
)  # fmt: skip
def moving(z: Quantizer, node: GraphNode) -> list[Tensor]:
    """Any operator that only moves the elements of its first input."""
    x = node.encrypted(0, "data")
    return [moves.select(z, x, targets) for targets in moved_positions(node, positions(x))]


@imports("Transpose")
def transpose(z: Quantizer, node: GraphNode) -> Tensor:
    """Axes permuted."""
    x = node.encrypted(0, "data")
    return moves.transpose(z, x, node.attributes.get("perm", range(len(x.shape))[::-1]))


def positions(x: Encrypted) -> Clear:
    """The number of each element in C order, as float64, which the reference implementations move like data."""
    return np.arange(prod(x.shape), dtype=np.float64).reshape(x.shape)


def moved_positions(node: GraphNode, *operands: Clear) -> list[IntArray]:
    """Where the elements of each result come from: the node on `operands` in place of its first inputs."""
    results = [np.rint(result).astype(np.int64) for result in reference(node, *operands)]
    if any(not result.size for result in results):
        raise node.unsupported("a result has no elements", "leave it out")
    return results


def reference(node: GraphNode, *operands: Clear) -> tuple[Clear, ...]:
    """ONNX's reference implementation of the node on `operands` in place of its first inputs."""
    rest = [node.clear(i, f"input {i}") if node.has(i) else None for i in range(len(operands), len(node.inputs))]
    try:
        return node_function(node.proto, node.opset)(*operands, *rest)
    except LoweringError as error:
        raise node.unsupported(f"cannot be evaluated ({error})", "check its attributes and constants") from error
