"""Models to clean up, and the law that every pass obeys: the parts run one after the other are the model."""

import numpy as np
import onnx
import onnx_ir as ir
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from fhelearn.onnx.cleanup import CleanModel, Parts
from fhelearn.onnx.cleanup.batch import fix_batch
from fhelearn.onnx.cleanup.graphs import name_nodes
from fhelearn.onnx.cleanup.infer_shapes import infer_shapes
from fhelearn.onnx.reference_ops import corrected_operators

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
    """A valid model; `inputs` and `outputs` are values or names of float32 whose shape onnx infers."""
    outputs = [
        helper.make_tensor_value_info(out, TensorProto.FLOAT, None) if isinstance(out, str) else out for out in outputs
    ]
    initializers = [numpy_helper.from_array(np.asarray(array), name) for name, array in dict(constants).items()]
    graph = helper.make_graph(nodes, "test", inputs, outputs, initializers)
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", opset), helper.make_opsetid("ai.onnx.ml", 3)]
    )
    # The newest IR version that the oldest supported onnx reads; it does not matter here.
    model.ir_version = 8
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    for out, typed in zip(model.graph.output, inferred.graph.output, strict=True):
        if not out.type.tensor_type.HasField("shape"):
            out.CopyFrom(typed)
    onnx.checker.check_model(model, full_check=True)
    return model


def loaded(model):
    """The model as a pass takes it."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    result = ir.serde.deserialize_model(copy)
    fix_batch(result)
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
    return dict(
        zip(
            names(model.graph.output),
            ReferenceEvaluator(model, new_ops=list(corrected_operators())).run(None, feeds),
            strict=True,
        )
    )


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

    With absolute inputs and weights, and nonlinear functions replaced by a monotone bound of their magnitude and of the
    error that they pass on (all of them are 1-Lipschitz), the model gives what the relative errors of its nodes are
    multiplied by at most until the output. A sum of k products has k + 1 roundings; a node rounds at most 8 times more;
    there are two evaluations.
    """
    constants = {each.name: numpy_helper.to_array(each) for each in model.graph.initializer}
    magnitudes = onnx.ModelProto()
    magnitudes.CopyFrom(model)
    roundings = 0
    for each in magnitudes.graph.node:
        roundings += 8 + max([constants[name].size for name in each.input if name in constants], default=0)
        _bound(each, constants)
    constants["one"] = np.float32(1)
    del magnitudes.graph.initializer[:]
    magnitudes.graph.initializer.extend(numpy_helper.from_array(np.asarray(a), name) for name, a in constants.items())
    results = run(magnitudes, {name: np.abs(x) if x.dtype.kind == "f" else x for name, x in feeds.items()})
    return {
        name: 2 * roundings * unit * np.max(array, initial=0)
        for name, array in results.items()
        if array.dtype.kind == "f"
    }


def _bound(each, constants):
    """Make a node compute a bound of its magnitude."""
    for index, name in enumerate(each.input):
        if name in constants and constants[name].dtype.kind == "f":
            position = (each.op_type, index)
            if position != ("BatchNormalization", 4):  # the variance divides
                constants[name] = np.abs(constants[name])
            if position == ("BatchNormalization", 3):  # the mean is subtracted
                constants[name] = -constants[name]
    if each.op_type == "Sub":
        each.op_type = "Add"
    elif each.op_type in ("Relu", "Tanh", "Abs", "Neg"):
        each.op_type = "Identity"
    elif each.op_type in ("Sigmoid", "Softmax"):
        each.op_type = "Sum"
        each.input.append("one")
        del each.attribute[:]
