"""Operators that move elements: free, and exact whatever the scales."""

from __future__ import annotations

import numpy as np

from fhelearn.frontends.onnx.quantizer import Quantizer
from fhelearn.frontends.onnx.registry import GraphNode, imports
from fhelearn.frontends.onnx.values import Tensor


@imports("Reshape")
def reshape(z: Quantizer, node: GraphNode) -> Tensor:
    """0 keeps an extent (unless `allowzero`), -1 is what remains."""
    x = node.encrypted(0, "data")
    shape = [int(n) for n in node.clear(1, "the shape")]
    if not node.attributes.get("allowzero", 0):
        shape = [x.shape[i] if n == 0 else n for i, n in enumerate(shape)]
    known = int(np.prod([n for n in shape if n != -1]))
    return z.reshape(x, [int(np.prod(x.shape)) // known if n == -1 else n for n in shape])


@imports("Flatten")
def flatten(z: Quantizer, node: GraphNode) -> Tensor:
    """Two axes: those before `axis`, and the rest."""
    x = node.encrypted(0, "data")
    axis = node.attributes.get("axis", 1)
    axis += len(x.shape) if axis < 0 else 0
    return z.reshape(x, (int(np.prod(x.shape[:axis])), int(np.prod(x.shape[axis:]))))


@imports("Transpose")
def transpose(z: Quantizer, node: GraphNode) -> Tensor:
    """Axes permuted."""
    x = node.encrypted(0, "data")
    axes = tuple(node.attributes.get("perm", range(len(x.shape))[::-1]))
    return z.static(x, "transpose", lambda a: np.transpose(a, axes), axes=axes)
