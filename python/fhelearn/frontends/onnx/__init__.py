"""Front end of networks: float ONNX graphs, quantized after training, become integer programs."""

from fhelearn.frontends.onnx import operators
from fhelearn.frontends.onnx.importer import import_network
from fhelearn.frontends.onnx.linear_map import import_linear_or_network, linear_map
from fhelearn.frontends.onnx.network import QuantizedNetwork, TensorDecoder, TensorEncoder
from fhelearn.frontends.onnx.registry import OPERATORS
from fhelearn.frontends.onnx.settings import NBits, Rounding, Settings

__all__ = [
    "OPERATORS",
    "NBits",
    "QuantizedNetwork",
    "Rounding",
    "Settings",
    "TensorDecoder",
    "TensorEncoder",
    "import_linear_or_network",
    "import_network",
    "linear_map",
    "operators",
]
