"""Float models as ONNX graphs; knows no integers. The `onnx` package itself is loaded by the functions that need it."""

from fhelearn.onnx.export import TreeImplementation, export_sklearn
from fhelearn.onnx.export_torch import export_torch
from fhelearn.onnx.forward import get_equivalent_numpy_forward
from fhelearn.onnx.load import load_model

__all__ = ["TreeImplementation", "export_sklearn", "export_torch", "get_equivalent_numpy_forward", "load_model"]
