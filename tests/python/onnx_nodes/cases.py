"""The ONNX project's node tests as models to encrypt: what an operator needs constant becomes a constant."""

from dataclasses import dataclass
from functools import cache

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from fhelearn.frontends.onnx.values import kind_of
from tests.python.onnx_node_tests import NodeTest, node_tests

ALL = None
"""Every input is encrypted."""

_SYMMETRIC = ("Add", "And", "Equal", "Max", "Mean", "Min", "Mul", "Or", "Sum", "Xor")
_ORDERED = ("Div", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "MatMul", "Sub")
ENCRYPTED: dict[str, tuple[tuple[int, ...] | None, ...]] = {
    **dict.fromkeys(_SYMMETRIC, (ALL, (0,))),
    **dict.fromkeys(_ORDERED, (ALL, (0,), (1,))),
    "Concat": (ALL, (0,)),
    "Gemm": ((0,), (0, 1), (0, 2), (1,)),
    "Pow": ((0,), (1,)),
    "Where": (ALL, (0,), (0, 1), (1, 2), (1,), (2,)),
}
"""Positions of the inputs that are encrypted, per variant; of any other operator it is the first alone."""

AT_THE_CLIENT = frozenset(("ArgMax", "ArgMin", "LogSoftmax", "Softmax"))
"""Operators that are cut off the end of a model and computed after decryption: tested behind an identity matrix."""

WITHOUT_DATA = frozenset(("Constant", "ConstantOfShape", "Range"))
"""Operators whose inputs are sizes: nothing is left to encrypt."""

_EXTRA_ROWS = 3
_WIDE = {TensorProto.FLOAT: TensorProto.DOUBLE, TensorProto.FLOAT16: TensorProto.DOUBLE}


@dataclass(frozen=True)
class Case:
    """A node test with some inputs encrypted.

    Attributes
    ----------
    name : str
        That of the node test, and which inputs are encrypted if there is a choice.
    op_type : str
    model : ModelProto
        Inputs that are not encrypted are initializers.
    samples : tuple of arrays (n, *shape)
        Calibration rows per input, float64; the first is the recorded one.
    test : NodeTest
    """

    name: str
    op_type: str
    model: onnx.ModelProto
    samples: tuple[NDArray, ...]
    test: NodeTest


@cache
def cases() -> tuple[Case, ...]:
    """Every node test of one node, in every variant of encrypted inputs that its operator has."""
    return tuple(case for test in single_node_tests() for case in variants(test))


@cache
def single_node_tests() -> tuple[NodeTest, ...]:
    """Node tests whose model is one node."""
    return tuple(test for test in node_tests() if len(test.model.graph.node) == 1)


def variants(test: NodeTest) -> list[Case]:
    """The cases of a node test."""
    proto = test.model.graph.node[0]
    given = [name for name in proto.input if name]
    if proto.op_type in WITHOUT_DATA or not given:
        return []
    found, seen = [], set()
    for positions in ENCRYPTED.get(proto.op_type, ((0,),)):
        chosen = range(len(proto.input)) if positions is ALL else positions
        names = tuple(dict.fromkeys(proto.input[i] for i in chosen if i < len(proto.input) and proto.input[i]))
        if names and names not in seen and (positions is ALL or len(names) == len(chosen)):
            seen.add(names)
            suffix = f"[{','.join(names)}]" if proto.op_type in ENCRYPTED else ""
            found.append(_case(test, proto.op_type, names, suffix))
    return found


def _case(test: NodeTest, op_type: str, encrypted: tuple[str, ...], suffix: str) -> Case:
    model = onnx.ModelProto()
    model.CopyFrom(test.model)
    graph = model.graph
    if op_type in AT_THE_CLIENT:
        _behind_identity(graph)
    recorded = dict(zip([info.name for info in graph.input], test.data_sets[0][0], strict=True))
    kept = [info for info in graph.input if info.name in encrypted]
    constants = [(info.name, recorded[info.name]) for info in graph.input if info.name not in encrypted]
    graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants)
    del graph.input[:]
    graph.input.extend(kept)
    rng = np.random.default_rng(len(test.name))
    samples = tuple(_rows(recorded[info.name], rng, whole=op_type == "OneHot") for info in kept)
    return Case(test.name + suffix, op_type, model, samples, test)


def _behind_identity(graph: onnx.GraphProto) -> None:
    size = graph.input[0].type.tensor_type.shape.dim[-1].dim_value
    graph.node[0].input[0] = "product"
    graph.node.insert(0, helper.make_node("MatMul", [graph.input[0].name, "identity"], ["product"]))
    graph.initializer.append(numpy_helper.from_array(np.eye(size, dtype=np.float32), "identity"))


def _rows(x: NDArray, rng: np.random.Generator, *, whole: bool) -> NDArray:
    """The recorded row (0 where it holds NaN or an infinity), and rows inside its range."""
    values = np.nan_to_num(x.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    if not x.size:
        return values[np.newaxis]
    drawn = rng.uniform(values.min(), values.max(), (_EXTRA_ROWS, *x.shape))
    if whole or kind_of(x.dtype) != "f":
        drawn = np.rint(drawn)
    return np.concatenate([values[np.newaxis], drawn])


def in_float64(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with float64 in place of narrower floats."""
    wide = onnx.ModelProto()
    wide.CopyFrom(model)
    for tensor in wide.graph.initializer:
        if tensor.data_type in _WIDE:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float64), tensor.name))
    for attribute in (a for node in wide.graph.node for a in node.attribute if a.name == "to"):
        attribute.i = _WIDE.get(attribute.i, attribute.i)
    for info in (*wide.graph.input, *wide.graph.output, *wide.graph.value_info):
        kind = info.type.tensor_type
        kind.elem_type = _WIDE.get(kind.elem_type, kind.elem_type)
    return wide


def as_declared(x: NDArray, info: onnx.ValueInfoProto) -> NDArray:
    """Floats as what the graph declares of an input: float64, integers (rounded), or true where above 0.5."""
    dtype = helper.tensor_dtype_to_np_dtype(info.type.tensor_type.elem_type)
    kind = kind_of(dtype)
    return x if kind == "f" else {"i": np.rint(x), "b": x > 0.5}[kind].astype(dtype)
