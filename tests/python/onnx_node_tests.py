"""The ONNX project's own node tests, for the operators that fhelearn claims."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, TypeProto
from onnx.numpy_helper import to_array

CLAIMED = frozenset({
    "Abs", "Acos", "Acosh", "Add", "And", "ArgMax", "ArgMin", "Asin", "Asinh", "Atan", "Atanh", "AveragePool",
    "BatchNormalization", "Cast", "CastLike", "Ceil", "Celu", "Clip", "Concat", "Constant", "ConstantOfShape",
    "Conv", "ConvTranspose", "Cos", "Cosh", "DepthToSpace", "Div", "Dropout", "Elu", "Equal", "Erf", "Exp",
    "Expand", "Flatten", "Floor", "Gather", "Gelu", "Gemm", "GlobalAveragePool", "GlobalMaxPool", "Greater",
    "GreaterOrEqual", "HardSigmoid", "HardSwish", "Identity", "LeakyRelu", "Less", "LessOrEqual", "Log",
    "LogSoftmax", "MatMul", "Max", "MaxPool", "Mean", "Min", "Mish", "Mod", "Mul", "Neg", "Not", "OneHot", "Or",
    "PRelu", "Pad", "Pow", "Range", "Reciprocal", "ReduceL1", "ReduceL2", "ReduceMax", "ReduceMean", "ReduceMin",
    "ReduceSum", "ReduceSumSquare", "Relu", "Reshape", "Resize", "Round", "Selu", "Shape", "Sigmoid", "Sign", "Sin",
    "Sinh", "Size", "Slice", "Softmax", "Softplus", "Softsign", "SpaceToDepth", "Split", "Sqrt", "Squeeze", "Sub",
    "Sum", "Swish", "Tan", "Tanh", "ThresholdedRelu", "Tile", "Transpose", "Unsqueeze", "Upsample", "Where", "Xor",
})  # fmt: skip
_EXPRESSIBLE = {
    TensorProto.BOOL, TensorProto.FLOAT16, TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.INT8, TensorProto.INT16,
    TensorProto.INT32, TensorProto.INT64, TensorProto.UINT8, TensorProto.UINT16, TensorProto.UINT32, TensorProto.UINT64,
}  # fmt: skip


@dataclass(frozen=True)
class NodeTest:
    """One case: the outputs that the ONNX project recorded for a small model, and how near an answer must come."""

    name: str
    model: ModelProto
    op_types: frozenset[str]
    data_sets: tuple[tuple[tuple[NDArray, ...], tuple[NDArray, ...]], ...]
    rtol: float
    atol: float


@cache
def node_tests() -> tuple[NodeTest, ...]:
    """Every case whose operators are all claimed and whose values are tensors of NumPy's own numbers or truth values.

    The remaining data types (strings, bfloat16, 8- and 4-bit floats, 4- and 2-bit integers, sequences, optionals)
    cannot come near an encrypted circuit.
    """
    from onnx.backend.test.case.node import collect_testcases

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of NumPy, about the divisions by zero that some cases are about
        cases = collect_testcases()
    return tuple(
        NodeTest(
            case.name,
            case.model,
            frozenset(node.op_type for node in case.model.graph.node),
            tuple((_arrays(inputs), _arrays(outputs)) for inputs, outputs in case.data_sets),
            case.rtol,
            case.atol,
        )
        for case in cases
        if _expressible(case.model)
    )


def _expressible(model: ModelProto) -> bool:
    graph = model.graph
    return all(node.domain in ("", "ai.onnx") and node.op_type in CLAIMED for node in graph.node) and all(
        _is_number(value.type) for value in [*graph.input, *graph.output]
    )


def _is_number(kind: TypeProto) -> bool:
    return kind.WhichOneof("value") == "tensor_type" and kind.tensor_type.elem_type in _EXPRESSIBLE


def _arrays(values: Sequence[Any]) -> tuple[NDArray, ...]:
    return tuple(to_array(value) if isinstance(value, TensorProto) else np.asarray(value) for value in values)
