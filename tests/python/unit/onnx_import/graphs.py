"""Small ONNX models as encrypted programs, and what every one of them obeys."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from fhelearn.backends.native import NativeEngine
from fhelearn.frontends.onnx import NBits, Settings, import_network
from fhelearn.frontends.onnx.values import as_kind, kind_of
from fhelearn.ir import evaluate
from fhelearn.onnx.cleanup import clean
from fhelearn.onnx.reference_ops import corrected_operators
from tests.python.unit.onnx_cleanup.laws import build, node, value

__all__ = [
    "assert_exact",
    "build",
    "codes",
    "floats",
    "imported",
    "node",
    "one_node",
    "reference",
    "samples",
    "settings",
    "simulate",
    "value",
]


def settings(n_bits=8, **options):
    return Settings(NBits.of(n_bits), **options)


def one_node(op_type, operands, *, opset=21, outputs=1, **attributes):
    """A model of one node. Operands: a shape (float32 input), a value (input), an array (constant), None (left out).

    Inputs are called x0, x1, ... by the position of the operand, outputs y0, y1, ...
    """
    inputs, constants, names = [], {}, []
    for position, operand in enumerate(operands):
        name = f"x{position}"
        if isinstance(operand, np.ndarray):
            constants[name] = operand
        elif isinstance(operand, tuple):
            inputs.append(value(name, operand))
        elif operand is not None:
            operand.name = name
            inputs.append(operand)
        names.append("" if operand is None else name)
    results = [f"y{i}" for i in range(outputs)]
    return build([node(op_type, names, results, **attributes)], inputs, results, constants, opset)


def imported(model, samples, how=None):
    """The model as a QuantizedNetwork; samples: per input, (n, *row), where a row lacks a leading axis of extent 1."""
    return import_network(clean(model, cut=False).body, samples, settings() if how is None else how)


def codes(network, rng, rows=20):
    """Integers from the whole declared range of every input, its ends included."""
    result = []
    for encoder in network.encoders:
        low, high = (np.broadcast_to(b, encoder.shape) for b in (_flat(encoder, "lo"), _flat(encoder, "hi")))
        drawn = rng.integers(low, high + 1, (rows, *encoder.shape))
        result.append(np.concatenate([drawn, low[None], high[None]]).astype(np.int64))
    return result


def _flat(encoder, name):
    return getattr(encoder.columns, name).reshape(encoder.shape)


def floats(network, q):
    """The floats that the codes of the inputs stand for."""
    return [encoder.dequantize(each) for encoder, each in zip(network.encoders, q, strict=True)]


def simulate(network, q):
    """The decoded outputs; the engine's integers are those of the reference evaluator, bit for bit."""
    expected = evaluate(network.program, q, on_overflow="wrap")
    found = NativeEngine(network.program).run(q, on_overflow="wrap")
    for one, other in zip(expected, found, strict=True):
        np.testing.assert_array_equal(other, one)
    return network.dequantize(found)


def samples(model, rng, rows=12):
    """Calibration rows for every input; float features differ in scale and offset."""
    result = []
    for info in model.graph.input:
        shape = [d.dim_value for d in info.type.tensor_type.shape.dim]
        row = shape[1:] if shape[:1] == [1] else shape
        kind = kind_of(helper.tensor_dtype_to_np_dtype(info.type.tensor_type.elem_type))
        drawn = rng.normal(size=(rows, *row)) * rng.uniform(0.5, 3, row) + rng.uniform(-3, 3, row)
        result.append({"f": drawn, "i": np.rint(2 * drawn), "b": drawn > 0}[kind].astype(np.float64))
    return result


def assert_exact(model, rng, how=None):
    """Encrypted, the model gives exactly what it gives in float64 on the floats that the codes stand for."""
    network = imported(model, samples(model, rng), how)
    q = codes(network, rng)
    for found, expected in zip(simulate(network, q), reference(model, floats(network, q)), strict=True):
        np.testing.assert_array_equal(found, expected)
    return network


def reference(model, inputs):
    """All outputs of the float model, row by row and in float64; shapes as those of `simulate`."""
    evaluator = ReferenceEvaluator(_in_float64(model), new_ops=list(corrected_operators()))
    infos = model.graph.input
    shapes = [[d.dim_value for d in info.type.tensor_type.shape.dim] for info in infos]
    kinds = [helper.tensor_dtype_to_np_dtype(info.type.tensor_type.elem_type).kind for info in infos]
    arrays = [
        as_kind(x, kind_of(kind)).reshape(len(x), *shape) for x, shape, kind in zip(inputs, shapes, kinds, strict=True)
    ]
    names = [info.name for info in infos]
    rows = [evaluator.run(None, dict(zip(names, row, strict=True))) for row in zip(*arrays, strict=True)]
    results = [np.stack([np.asarray(row[k], dtype=np.float64) for row in rows]) for k in range(len(rows[0]))]
    single = all(shape[:1] == [1] for shape in shapes)
    return [y[:, 0] if single and y.ndim > 1 and y.shape[1] == 1 else y for y in results]


def _in_float64(model):
    """The model with float64 wherever it says float32: constants, casts and types."""
    wide = onnx.ModelProto()
    wide.CopyFrom(model)
    for tensor in wide.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float64), tensor.name))
    for each in wide.graph.node:
        for attribute in each.attribute:
            if attribute.type == onnx.AttributeProto.TENSOR and attribute.t.data_type == TensorProto.FLOAT:
                array = numpy_helper.to_array(attribute.t).astype(np.float64)
                attribute.t.CopyFrom(numpy_helper.from_array(array))
            if each.op_type == "Cast" and attribute.name == "to" and attribute.i == TensorProto.FLOAT:
                attribute.i = TensorProto.DOUBLE
    for info in (*wide.graph.input, *wide.graph.output, *wide.graph.value_info):
        if info.type.tensor_type.elem_type == TensorProto.FLOAT:
            info.type.tensor_type.elem_type = TensorProto.DOUBLE
    return wide
