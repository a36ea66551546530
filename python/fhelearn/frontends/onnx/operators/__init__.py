"""Importing this package registers every operator."""

from fhelearn.frontends.onnx.operators import elementwise, indexing, linear, pooling, reductions, shapes

__all__ = ["elementwise", "indexing", "linear", "pooling", "reductions", "shapes"]
