"""Multi-layer perceptrons as ONNX graphs, from their weights.

Hummingbird, which converts them too, rounds the weights to float32 and takes the larger of two labels in place of all
that apply (multilabel), and would need torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from fhelearn.typing import FloatArray

if TYPE_CHECKING:
    import onnx

_OPSET = 17
_ACTIVATIONS = {
    "identity": None,
    "relu": "Relu",
    "tanh": "Tanh",
    "logistic": "Sigmoid",
    "softmax": "Softmax",
    "exp": "Exp",
}
"""Operators of scikit-learn's activation functions; `Softmax` is over the last axis, as in ONNX by default."""


def mlp_graph(
    weights: Sequence[FloatArray], biases: Sequence[FloatArray], activation: str, last_activation: str
) -> onnx.ModelProto:
    """The graph ``f(... g(g(x W1 + b1) W2 + b2) ...)`` in float64.

    Parameters
    ----------
    weights : sequence of arrays, shapes (n_features, k1), (k1, k2), ..., (., n_outputs)
    biases : sequence of arrays, shapes (k1,), ..., (n_outputs,)
    activation, last_activation : str
        g and f: "identity", "relu", "tanh", "logistic", "softmax" or "exp".

    Returns
    -------
    onnx.ModelProto
        Opset 17, input "input" of shape (n, n_features), output "output" of shape (n, n_outputs), nodes "layer_0",
        "activation_0", "layer_1" and so on.
    """
    from onnx import TensorProto, helper, numpy_helper

    nodes, constants, name = [], [], "input"
    last = len(weights) - 1
    for i, (matrix, bias) in enumerate(zip(weights, biases, strict=True)):
        for stem, array in (("weights", matrix), ("bias", bias)):
            constants.append(numpy_helper.from_array(np.asarray(array, dtype=np.float64), f"{stem}_{i}"))
        nodes.append(helper.make_node("Gemm", [name, f"weights_{i}", f"bias_{i}"], [f"sum_{i}"], name=f"layer_{i}"))
        name = f"sum_{i}"
        function = _ACTIVATIONS[last_activation if i == last else activation]
        if function:
            nodes.append(helper.make_node(function, [name], [f"result_{i}"], name=f"activation_{i}"))
            name = f"result_{i}"
    nodes[-1].output[0] = "output"
    rows = [
        helper.make_tensor_value_info(name, TensorProto.DOUBLE, ["n", extent])
        for name, extent in (("input", weights[0].shape[0]), ("output", weights[-1].shape[1]))
    ]
    graph = helper.make_graph(nodes, "multi_layer_perceptron", rows[:1], rows[1:], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=8)
