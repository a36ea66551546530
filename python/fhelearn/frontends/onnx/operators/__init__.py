"""Importing this package registers every operator."""

from fhelearn.frontends.onnx.operators import elementwise, linear, shapes

__all__ = ["elementwise", "linear", "shapes"]
