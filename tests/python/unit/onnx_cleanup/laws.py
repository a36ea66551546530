"""Models to clean up, and the law that every pass obeys: the parts run one after the other are the model."""

import numpy as np
import onnx
import onnx_ir as ir
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from fhelearn.onnx.cleanup import CleanModel, Parts
from fhelearn.onnx.cleanup.graphs import name_nodes
from fhelearn.onnx.cleanup.infer_shapes import infer_shapes

NEWEST = onnx.defs.onnx_opset_version()
OPSETS = (13, 15, 18, 21, NEWEST)


def node(op_type, inputs, outputs, **attributes):
    inputs, outputs = ([names] if isinstance(names, str) else names for names in (inputs, outputs))
    return helper.make_node(op_type, inputs, outputs, name=f"{op_type}_{outputs[0]}", **attributes)


def ml_node(op_type, inputs, outputs, **attributes):
    made = node(op_type, inputs, outputs, **attributes)
    made.domain = "ai.onnx.ml"
    return made


def value(name, shape, dtype=np.float32):
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), shape)


def build(nodes, inputs, outputs, constants=(), opset=17):
    """A valid model; `inputs` and `outputs` are values or names (float32, outputs of unknown shape)."""
    outputs = [
        helper.make_tensor_value_info(out, TensorProto.FLOAT, None) if isinstance(out, str) else out for out in outputs
    ]
    initializers = [numpy_helper.from_array(np.asarray(array), name) for name, array in dict(constants).items()]
    graph = helper.make_graph(nodes, "test", inputs, outputs, initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset), helper.make_opsetid("ai.onnx.ml", 3)])
    # The newest IR version that the oldest supported onnx reads; it does not matter here.
    model.ir_version = 8
    onnx.checker.check_model(model, full_check=True)
    return model


def loaded(model):
    """The model as a pass takes it."""
    result = ir.serde.deserialize_model(model)
    name_nodes(result.graph)
    infer_shapes(result)
    return result


def applied(run, model):
    """The model after a pass over the body, and the pass's lines."""
    body = loaded(model)
    lines = run(body)
    return stored(body), lines


def stored(body):
    infer_shapes(body)
    proto = ir.serde.serialize_model(body)
    onnx.checker.check_model(proto, full_check=True)
    return proto


def op_types(model):
    return [each.op_type for each in model.graph.node]


def names(values):
    return [each.name for each in values]


def run(model, feeds):
    """All outputs by name; feeds that the model does not take are left out."""
    feeds = {name: feeds[name] for name in names(model.graph.input)}
    return dict(zip(names(model.graph.output), ReferenceEvaluator(model).run(None, feeds), strict=True))


def composed(parts, feeds):
    """What the client gets: before, body and after in turn."""
    for part in (parts.before, parts.body, parts.after):
        if part is not None:
            feeds = run(part, feeds)
    return feeds


def as_protos(parts: Parts):
    return CleanModel(*(None if p is None else stored(p) for p in (parts.before, parts.body, parts.after)), ())


def assert_equal(found, expected):
    assert list(found) == list(expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name, strict=True)


def assert_close(found, expected, bounds):
    """Equal up to `bounds`, by name; what has no bound (labels) is equal."""
    assert list(found) == list(expected)
    for name, array in expected.items():
        assert found[name].shape == array.shape, name
        assert found[name].dtype == array.dtype, name
        assert np.all(np.abs(found[name].astype(np.float64) - array) <= bounds.get(name, 0)), name


def rounding(model, feeds, unit=2.0**-24):
    """How far two evaluations of `model` can be apart, by output, that sum and round differently in each node.

    With absolute weights and inputs, and with nonlinear functions replaced by a bound that is monotone (each is
    1-Lipschitz, LogSoftmax 2-Lipschitz), the model gives the magnitude by which the relative error of every node is
    multiplied at most until the output. A sum of k products has an error of k + 1 roundings, times two evaluations.
    """
    count, constants = 0, {each.name: numpy_helper.to_array(each) for each in model.graph.initializer}
    magnitudes = onnx.ModelProto()
    magnitudes.CopyFrom(model)
    graph = magnitudes.graph
    labels = {"ArgMax", "Greater", "Less", "Equal"}
    for each in graph.node:
        shapes = [constants[name].shape for name in each.input if name in constants]
        count += 8 + max([int(np.prod(shape)) for shape in shapes], default=0)
        _bound(each, constants)
    for each in graph.initializer:
        each.CopyFrom(numpy_helper.from_array(constants[each.name], each.name))
    floats = {
        out.name for out in graph.output if out.type.tensor_type.elem_type in (TensorProto.FLOAT, TensorProto.DOUBLE)
    }
    results = run(magnitudes, {name: np.abs(x) if x.dtype.kind == "f" else x for name, x in feeds.items()})
    assert not labels & set(op_types(magnitudes)) or floats != set(names(graph.output))
    return {name: 2 * count * unit * np.max(results[name], initial=1.0) for name in floats}


def _bound(each, constants):
    """Make the node compute a bound of its magnitude."""
    for index, name in enumerate(each.input):
        if name in constants and constants[name].dtype.kind == "f":
            if each.op_type == "BatchNormalization" and index == 4:
                continue
            constants[name] = np.abs(constants[name])
            if each.op_type == "BatchNormalization" and index == 3:
                constants[name] = -constants[name]
    if each.op_type == "Constant" and each.attribute[0].HasField("t"):
        array = numpy_helper.to_array(each.attribute[0].t)
        if array.dtype.kind == "f":
            each.attribute[0].t.CopyFrom(numpy_helper.from_array(np.abs(array)))
    if each.op_type == "Sub":
        each.op_type = "Add"
    elif each.op_type in ("Relu", "Tanh", "Abs", "Neg"):
        each.op_type = "Identity"
    elif each.op_type in ("Sigmoid", "Softmax", "LogSoftmax"):
        # exp(x) - 1 >= x for x >= 0, and the magnitude is at most |x| + 1 (twice that for LogSoftmax of two or more).
        scale = 4.0 if each.op_type == "LogSoftmax" else 1.0
        each.op_type = "HardSigmoid"
        del each.attribute[:]
        each.op_type = "Elu"
        each.attribute.append(helper.make_attribute("alpha", scale))
        each.op_type = "Celu" if scale > 1 else "Elu"
