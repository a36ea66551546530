"""Float models as ONNX graphs; knows no integers. The `onnx` package itself is loaded by the functions that need it."""

from fhelearn.onnx.export import TreeImplementation, export_sklearn

__all__ = ["TreeImplementation", "export_sklearn"]
