"""ONNX graphs and nodes as functions on NumPy arrays."""

import sys
import threading
import warnings
from functools import cache

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper
from onnx.numpy_helper import from_array

from fhelearn.exceptions import LoweringError, ModelFormatError, UnsupportedOperatorError
from fhelearn.onnx import export_torch, get_equivalent_numpy_forward
from fhelearn.onnx.forward import node_function
from fhelearn.onnx.reference_ops import evaluator_of
from fhelearn.onnx.rows import BatchProof
from tests.python.onnx_node_tests import CLAIMED, node_tests

OPSET = 17
# The specification leaves open whether the extent of the output or the product of extent and scale is meant.
LEFT_OPEN = {
    "test_resize_downsample_scales_cubic_align_corners",
    "test_resize_downsample_scales_linear_align_corners",
}
RANDOM = {test.name for test in node_tests() if test.name.startswith("test_training_dropout")} - {
    "test_training_dropout_zero_ratio",
    "test_training_dropout_zero_ratio_mask",
}
# It has no kernel for some types, and reduces no empty truth values.
NOT_RUN_BY_ONNXRUNTIME = (
    onnxruntime.capi.onnxruntime_pybind11_state.NotImplemented,
    onnxruntime.capi.onnxruntime_pybind11_state.RuntimeException,
)


def model_of(nodes, inputs, outputs, constants=(), opset=OPSET, kind=TensorProto.FLOAT):
    """Inputs by name and shape; the shapes of outputs are inferred."""
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info(name, kind, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, kind, None) for name in outputs],
        [from_array(np.asarray(value), name) for name, value in dict(constants).items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    return onnx.shape_inference.infer_shapes(model)


def chain(*steps, shape=(1, 6), constants=(), opset=OPSET):
    """A graph of one input "x" and one output "y" from (operator, other inputs, attributes)."""
    names = ["x", *(f"v{number}" for number in range(1, len(steps))), "y"]
    nodes = [
        helper.make_node(op, [names[number], *others], [names[number + 1]], **attributes)
        for number, (op, others, attributes) in enumerate(steps)
    ]
    return model_of(nodes, {"x": shape}, ["y"], constants, opset)


def as_tuple(outputs):
    return outputs if isinstance(outputs, tuple) else (outputs,)


def assert_all_close(found, expected, test):
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert (one.dtype, one.shape) == (other.dtype, other.shape)
        np.testing.assert_allclose(
            one.astype(np.float64), other.astype(np.float64), rtol=test.rtol, atol=test.atol, err_msg=test.name
        )


def test_every_claimed_operator_has_node_tests():
    assert set().union(*(test.op_types for test in node_tests())) == CLAIMED


@cache
def answers(number):
    """What the forward of a node test answers to each of its data sets."""
    test = node_tests()[number]
    forward = get_equivalent_numpy_forward(test.model)
    return [as_tuple(forward(*inputs)) for inputs, _ in test.data_sets]


@pytest.mark.parametrize("operator", sorted(CLAIMED))
def test_operators_answer_as_the_onnx_project_recorded(operator):
    for number, test in enumerate(node_tests()):
        if operator in test.op_types:
            for found, (_, expected) in zip(answers(number), test.data_sets, strict=True):
                assert_all_close(found, expected, test)


def test_operators_answer_as_onnxruntime():
    compared = set()
    for number, test in enumerate(node_tests()):
        if test.name in RANDOM | LEFT_OPEN:
            continue
        try:
            session = session_of(test.model)
            expected = [session.run(None, dict(zip(named(test), inputs, strict=True))) for inputs, _ in test.data_sets]
        except NOT_RUN_BY_ONNXRUNTIME:
            continue
        for one, other in zip(answers(number), expected, strict=True):
            assert_all_close(one, other, test)
        compared |= test.op_types
    assert compared == CLAIMED


def named(test):
    return [value.name for value in test.model.graph.input]


def session_of(model):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(model.SerializeToString(), options)


@pytest.mark.parametrize("opset", [13, 14, 15, 17])
def test_batch_normalization_uses_the_trained_statistics_in_every_opset(opset):
    rng = np.random.default_rng(0)
    constants = {name: rng.uniform(1, 2, size=3).astype(np.float32) for name in "sbmv"}
    model = chain(("BatchNormalization", list("sbmv"), {}), shape=("n", 3), constants=constants, opset=opset)
    x = rng.normal(size=(8, 3)).astype(np.float32)
    s, b, m, v = constants.values()
    expected = (x - m) / np.sqrt(v + 1e-5) * s + b
    np.testing.assert_allclose(get_equivalent_numpy_forward(model)(x), expected, rtol=1e-5, atol=1e-6)


def test_log_softmax_is_finite_where_softmax_is_zero():
    x = np.array([[0, -1e4]])
    assert np.array_equal(one_node("LogSoftmax")(x)[0], x)


def test_infinite_and_undefined_values_are_no_padding():
    x = np.array([[[np.nan, 1, np.inf, 2]]])
    (average,) = one_node("AveragePool", kernel_shape=[2])(x)
    (largest,) = one_node("MaxPool", kernel_shape=[2], strides=[2])(x)
    assert np.array_equal(average, [[[np.nan, np.inf, np.inf]]], equal_nan=True)
    assert np.array_equal(largest, [[[np.nan, np.inf]]], equal_nan=True)


def one_node(operator, inputs=1, opset=20, **attributes):
    return node_function(helper.make_node(operator, [f"i{n}" for n in range(inputs)], ["o"], **attributes), opset)


def random_geometry(rng, rank):
    """Attributes of a window that fits into extents of at least 6."""
    kernel = rng.integers(1, 4, size=rank).tolist()
    attributes = {"kernel_shape": kernel, "strides": rng.integers(1, 4, size=rank).tolist()}
    if rng.random() < 0.5:
        attributes["dilations"] = rng.integers(1, 3, size=rank).tolist()
    if rng.random() < 0.7:
        attributes["pads"] = [int(rng.integers(k)) for k in kernel * 2]
    return attributes


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_pools_of_every_geometry_answer_as_onnxruntime(rank):
    rng = np.random.default_rng(rank)
    for _ in range(60):
        x = rng.normal(size=(2, 3, *rng.integers(6, 10, size=rank))).astype(np.float32)
        attributes = random_geometry(rng, rank)
        attributes["ceil_mode"] = int(rng.integers(2))
        if "dilations" not in attributes and rng.random() < 0.3:
            attributes.pop("pads", None)
            attributes.update(auto_pad=str(rng.choice(["SAME_UPPER", "SAME_LOWER", "VALID"])), ceil_mode=0)
            attributes["strides"] = [1] * rank  # onnxruntime refuses windows that leave elements out
        for operator, extra in (("MaxPool", {}), ("AveragePool", {"count_include_pad": int(rng.integers(2))})):
            model = chain((operator, [], {**attributes, **extra}), shape=x.shape, opset=19)
            (expected,) = session_of(model).run(None, {"x": x})
            (found,) = one_node(operator, opset=19, **attributes, **extra)(x)
            np.testing.assert_allclose(
                found, expected, rtol=1e-5, atol=1e-6, err_msg=f"{operator} {attributes} {extra}"
            )


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_convolutions_of_every_geometry_answer_as_onnxruntime(rank):
    rng = np.random.default_rng(rank)
    for _ in range(40):
        attributes = random_geometry(rng, rank)
        group, per_group, filters = rng.integers(1, 4, size=3).tolist()
        x = rng.normal(size=(2, group * per_group, *rng.integers(6, 9, size=rank))).astype(np.float32)
        shapes = {
            "Conv": (group * filters, per_group, *attributes["kernel_shape"]),
            "ConvTranspose": (group * per_group, filters, *attributes["kernel_shape"]),
        }
        bias = rng.normal(size=group * filters).astype(np.float32)
        for operator, shape in shapes.items():
            extra = {"output_padding": [s - 1 for s in attributes["strides"]]} if operator == "ConvTranspose" else {}
            weights = rng.normal(size=shape).astype(np.float32)
            step = (operator, ["w", "b"], {**attributes, **extra, "group": group})
            model = chain(step, shape=x.shape, constants={"w": weights, "b": bias})
            (expected,) = session_of(model).run(None, {"x": x})
            (found,) = one_node(operator, 3, OPSET, **step[2])(x, weights, bias)
            np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4, err_msg=f"{step}")


UNIVARIATE = {
    "Abs": {}, "Acos": {}, "Acosh": {}, "Asin": {}, "Asinh": {}, "Atan": {}, "Atanh": {}, "Ceil": {},
    "Celu": {"alpha": 0.7}, "Cos": {}, "Cosh": {}, "Elu": {"alpha": 0.7}, "Erf": {}, "Exp": {}, "Floor": {},
    "Gelu": {"approximate": "tanh"}, "HardSigmoid": {}, "HardSwish": {}, "LeakyRelu": {}, "Log": {}, "Mish": {},
    "Neg": {}, "Reciprocal": {}, "Relu": {}, "Round": {}, "Selu": {}, "Sigmoid": {}, "Sign": {}, "Sin": {}, "Sinh": {},
    "Softplus": {}, "Softsign": {}, "Sqrt": {}, "Swish": {}, "Tan": {}, "Tanh": {}, "ThresholdedRelu": {},
}  # fmt: skip
EXACT_IN_FLOAT32 = {"Ceil", "Floor", "Round", "Sign"}


@pytest.mark.parametrize("operator", UNIVARIATE)
def test_univariate_nodes_compute_in_float64(operator):
    x = np.random.default_rng(0).uniform(0.1, 0.9, size=(3, 1, 5, 7))
    x += operator == "Acosh" or operator == "ThresholdedRelu"
    function = one_node(operator, opset=onnx.defs.onnx_opset_version(), **UNIVARIATE[operator])
    (y,) = function(x)
    (single,) = function(x.astype(np.float32))
    assert (y.dtype, y.shape, single.dtype) == (np.float64, x.shape, np.float32)
    # Four roundings of float32 are enough for the conditioning of every function on this interval.
    np.testing.assert_allclose(single, y, rtol=16 * np.finfo(np.float32).eps)
    assert operator in EXACT_IN_FLOAT32 or not np.array_equal(y, y.astype(np.float32))


def test_exact_values_in_float64():
    x = np.array([-10.0, -1, 0, 0.5, 3])
    assert np.array_equal(one_node("HardSwish")(x)[0], x * np.clip(x / 6 + 0.5, 0, 1))
    np.testing.assert_allclose(
        one_node("Gelu")(x)[0], torch.nn.functional.gelu(torch.from_numpy(x)).numpy(), rtol=1e-13, atol=1e-15
    )
    np.testing.assert_allclose(one_node("Erf")(x)[0], torch.erf(torch.from_numpy(x)).numpy(), rtol=1e-15)


@pytest.mark.parametrize("operator", UNIVARIATE)
def test_univariate_nodes_call_as_many_functions_for_many_elements_as_for_few(operator):
    function = one_node(operator, opset=onnx.defs.onnx_opset_version(), **UNIVARIATE[operator])
    function(np.full(2, 0.5))  # the first call may import
    calls = []
    for size in (2, 4096):
        x = np.linspace(0.1, 0.9, size)
        events = []
        sys.setprofile(lambda frame, event, argument, events=events: events.append(event))
        try:
            function(x)
        finally:
            sys.setprofile(None)
        calls.append(len(events))
    assert calls[0] == calls[1]


def test_nodes_take_their_other_operands_in_the_type_of_the_widest():
    x = np.linspace(-1, 1, 9)
    assert np.array_equal(one_node("Mul", 2)(x, np.float32(0.5))[0], x * 0.5)
    (clipped,) = node_function(helper.make_node("Clip", ["x", "", "high"], ["y"]), OPSET)(x, None, np.float32(0.25))
    assert clipped.dtype == np.float64
    assert np.array_equal(clipped, np.minimum(x, 0.25))
    (square,) = node_function(helper.make_node("Mul", ["x", "x"], ["y"]), OPSET)(x, x)
    assert np.array_equal(square, x * x)


def test_nodes_with_several_outputs_return_all_of_them():
    node = helper.make_node("Split", ["x", "s"], ["a", "b"], axis=1)
    first, second = node_function(node, OPSET)(np.arange(6.0).reshape(2, 3), np.array([1, 2]))
    assert (first.shape, second.shape) == ((2, 1), (2, 2))


@pytest.mark.parametrize(
    ("node", "message"),
    [
        (helper.make_node("Relu", ["x"], ["y"], domain="acme"), "Relu 'y': only operators of the default domain"),
        (helper.make_node("Gelu", ["x"], ["y"], name="g"), "Gelu 'g': not an operator of opset 17"),
        (helper.make_node("Nonsense", ["x"], ["y"]), "Nonsense 'y': not an operator of opset 17"),
    ],
)
def test_nodes_that_are_no_functions_are_named(node, message):
    with pytest.raises(UnsupportedOperatorError, match=message):
        node_function(node, OPSET)


def test_nodes_name_themselves_in_their_errors():
    with pytest.raises(ValueError, match="Add 'o' takes 2 arrays, one per input, got 1"):
        one_node("Add", 2)(np.zeros(3))
    with pytest.raises(LoweringError, match="Add 'o': cannot be evaluated on these arrays: ValueError: operands could"):
        one_node("Add", 2)(np.zeros(3), np.zeros(4))


TWO = model_of(
    [helper.make_node("Add", ["a", "b"], ["s"]), helper.make_node("MatMul", ["a", "w"], ["p"])],
    {"a": ("n", 3), "b": ("n", 3)},
    ["s", "p"],
    {"w": np.ones((3, 2), dtype=np.float32)},
)


def test_inputs_come_by_position_or_by_name():
    forward = get_equivalent_numpy_forward(TWO)
    assert (forward.input_names, forward.output_names) == (("a", "b"), ("s", "p"))
    a, b = np.arange(6.0).reshape(2, 3), np.ones((2, 3), dtype=np.int32)
    for outputs in (forward(a, b), forward(a, b=b), forward(b=b, a=a)):
        assert [output.dtype for output in outputs] == [np.float32, np.float32]
        assert np.array_equal(outputs[0], a + b)
        assert np.array_equal(outputs[1], a.sum(axis=1, keepdims=True).repeat(2, axis=1))


@pytest.mark.parametrize(
    ("arrays", "named", "message"),
    [
        ([np.zeros((2, 3))], {}, "no array for input 'b'; inputs are 'a', 'b'"),
        ([np.zeros((2, 3))] * 3, {}, r"expected 2 inputs \('a', 'b'\), got 3"),
        ([np.zeros((2, 3))], {"c": np.zeros((2, 3))}, "'c' is not an input of the graph"),
        ([np.zeros((2, 3))], {"a": np.zeros((2, 3))}, "'a' is given twice"),
        ([np.zeros(3), np.zeros((2, 3))], {}, r"input 'a' must be of shape \(n, 3\), got \(3,\)"),
        (
            [np.zeros((2, 3)), np.zeros((2, 4))],
            {},
            r"input 'b' must be of shape \(n, 3\), got \(2, 4\): axis 1 must be 3",
        ),
        (
            [np.zeros((2, 3)), np.zeros((1, 3))],
            {},
            r"input 'b' must be of shape \(n, 3\), got \(1, 3\): axis 0 must be 2",
        ),
        ([np.full((2, 3), "1"), np.zeros((2, 3))], {}, "input 'a' must be float32, got <U1"),
        ([np.full((2, 3), 1j), np.zeros((2, 3))], {}, "input 'a' must be float32, got complex128"),
    ],
)
def test_wrong_inputs_are_named(arrays, named, message):
    with pytest.raises(ValueError, match=message):
        get_equivalent_numpy_forward(TWO)(*arrays, **named)


def test_integers_must_fit_the_declared_type():
    model = model_of([helper.make_node("Neg", ["x"], ["y"])], {"x": ("n",)}, ["y"], kind=TensorProto.INT8)
    forward = get_equivalent_numpy_forward(model)
    assert np.array_equal(forward(np.array([1, -3])), np.array([-1, 3], dtype=np.int8))
    for wrong in (np.array([200]), np.array([1.5])):
        with pytest.raises(ValueError, match="input 'x' must be int8"):
            forward(wrong)


ROW_BY_ROW = {
    "mean of the rows": chain(("ReduceMean", [], {"axes": [0], "keepdims": 1})),
    "mean of all": chain(("ReduceMean", [], {"keepdims": 1})),
    "softmax along the rows": chain(("Softmax", [], {"axis": 0})),
    "transposed": chain(("Transpose", [], {"perm": [1, 0]}), ("MatMul", ["w"], {}), ("Transpose", [], {"perm": [1, 0]}),
                        constants={"w": np.ones((1, 1), dtype=np.float32)}),
    "one row for each constant": chain(("Add", ["b"], {}), constants={"b": np.ones((4, 6), dtype=np.float32)}),
    "a constant that looks like a batch": chain(("Mul", ["b"], {}), shape=(1, 1),
                                                constants={"b": np.arange(4, dtype=np.float32).reshape(4, 1)}),
    "flattened": chain(("Reshape", ["s"], {}), constants={"s": np.array([-1])}),
    "split into more rows": chain(("Reshape", ["s"], {}), constants={"s": np.array([-1, 3])}),
    "reshaped to one row": chain(("Reshape", ["s"], {}), constants={"s": np.array([1, 2, 3])}),
    "squeezed": chain(("Squeeze", [], {})),
    "rows side by side": chain(("Concat", ["x"], {"axis": 0})),
    "padded rows": chain(("Pad", ["p"], {}), constants={"p": np.array([1, 0, 0, 0])}),
    "repeated rows": chain(("Tile", ["r"], {}), constants={"r": np.array([2, 1])}),
    "running sum of the rows": chain(("CumSum", ["a"], {}), constants={"a": np.array(0)}),
    "first row": chain(("Slice", ["b", "e", "a"], {}),
                       constants={"b": np.array([0]), "e": np.array([1]), "a": np.array([0])}),
    "a row picked": chain(("Gather", ["i"], {"axis": 0}), constants={"i": np.array([0])}),
    "largest row": chain(("ArgMax", [], {"axis": 0}), ("Cast", [], {"to": 1})),
    "outer product": chain(("Unsqueeze", ["a"], {}), ("Mul", ["x"], {}), constants={"a": np.array([0])}),
    "times the other rows": chain(("Unsqueeze", ["a"], {}), ("MatMul", ["w"], {}),
                                  constants={"a": np.array([1]), "w": np.ones((4, 6, 2), dtype=np.float32)}),
}  # fmt: skip


@pytest.mark.parametrize("name", ROW_BY_ROW)
def test_graphs_for_one_row_that_would_mix_rows_are_run_row_by_row(name):
    model, x = ROW_BY_ROW[name], np.random.default_rng(0).normal(size=(4, 6)).astype(np.float32)
    x = x[:, : model.graph.input[0].type.tensor_type.shape.dim[1].dim_value]
    forward = get_equivalent_numpy_forward(model)
    expected = np.concatenate([forward(x[i : i + 1]) for i in range(4)])
    assert np.array_equal(forward(x), expected)
    assert not BatchProof(model, evaluator_of(model)).holds({"x": x})


def test_results_of_shape_are_never_taken_for_those_of_a_batch():
    nodes = [
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("Cast", ["s"], ["f"], to=1),
        helper.make_node("Gather", ["f", "zero"], ["rows"]),
        helper.make_node("Mul", ["x", "rows"], ["y"]),
    ]
    model = model_of(nodes, {"x": (1, 3)}, ["y"], {"zero": np.array([0])})
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert np.array_equal(get_equivalent_numpy_forward(model)(x), x)


class Tokens(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.first = torch.nn.Parameter(torch.ones(1, 1, 4))

    def forward(self, x):
        x = torch.cat([self.first.expand(x.shape[0], -1, -1), x], dim=1)
        return torch.matmul(x, x.transpose(1, 2)).mean(dim=2).reshape(x.shape[0], -1)


NETWORKS = {
    "mlp": (torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.BatchNorm1d(5), torch.nn.GELU()), (6,)),
    "cnn": (
        torch.nn.Sequential(
            torch.nn.Conv2d(2, 4, 3, groups=2), torch.nn.BatchNorm2d(4), torch.nn.Mish(), torch.nn.MaxPool2d(2),
            torch.nn.ConvTranspose2d(4, 2, 2), torch.nn.Upsample(scale_factor=2), torch.nn.AdaptiveAvgPool2d(1),
            torch.nn.Flatten(), torch.nn.Linear(2, 3), torch.nn.Softmax(dim=1)),
        (2, 8, 8),
    ),
    "tokens": (Tokens(), (3, 4)),
    "pixels": (torch.nn.Sequential(torch.nn.PixelShuffle(2), torch.nn.ZeroPad2d(1), torch.nn.Unfold(2)), (4, 3, 3)),
    "norms": (torch.nn.Sequential(torch.nn.LayerNorm(6), torch.nn.GLU(dim=1), torch.nn.LogSoftmax(dim=1)), (6,)),
}  # fmt: skip


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_for_one_row_are_run_on_all_rows_at_once(name):
    torch.manual_seed(0)
    network, shape = NETWORKS[name]
    x = torch.randn(7, *shape)
    model = export_torch(network, x)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    model.graph.output[0].type.tensor_type.shape.dim[0].dim_value = 1
    assert BatchProof(model, evaluator_of(model)).holds({"input": x.numpy()})
    with torch.no_grad():
        expected = network.eval()(x).numpy()
    found = get_equivalent_numpy_forward(model)(x.numpy())
    np.testing.assert_allclose(found, expected, rtol=0, atol=64 * np.finfo(np.float32).eps * np.abs(expected).max())


def test_outputs_without_rows_are_refused_for_many_rows_only():
    model = chain(("ReduceSum", [], {"keepdims": 0}))
    forward = get_equivalent_numpy_forward(model)
    assert forward(np.ones((1, 6))) == 6
    with pytest.raises(ValueError, match="output 'y' is a scalar, so the answers to 2 rows cannot be concatenated"):
        forward(np.ones((2, 6)))


def test_inputs_must_have_the_same_number_of_rows():
    model = model_of([helper.make_node("Add", ["a", "b"], ["y"])], {"a": (1, 3), "b": (1, 3)}, ["y"])
    with pytest.raises(ValueError, match=r"same number of rows .*'a': 2, 'b': 1"):
        get_equivalent_numpy_forward(model)(np.zeros((2, 3)), np.zeros((1, 3)))


@pytest.mark.parametrize("name", ROW_BY_ROW)
def test_no_rows_have_answers_of_the_same_shape_but_for_the_rows(name):
    model = ROW_BY_ROW[name]
    forward = get_equivalent_numpy_forward(model)
    columns = model.graph.input[0].type.tensor_type.shape.dim[1].dim_value
    assert forward(np.zeros((0, columns))).shape == (0, *forward(np.zeros((1, columns))).shape[1:])


def test_axes_that_the_graph_fixes_to_more_than_one_row_stay_fixed():
    forward = get_equivalent_numpy_forward(chain(("Relu", [], {}), shape=(2, 3)))
    with pytest.raises(ValueError, match=r"input 'x' must be of shape \(2, 3\), got \(3, 3\): axis 0 must be 2"):
        forward(np.zeros((3, 3)))


def test_graphs_that_cannot_be_evaluated_are_refused_with_the_reason():
    model = model_of([helper.make_node("Identity", ["x"], ["y"])], {"x": ("n",)}, ["y"])
    model.graph.input[0].type.CopyFrom(helper.make_sequence_type_proto(helper.make_tensor_type_proto(1, ["n"])))
    model.graph.output[0].type.CopyFrom(model.graph.input[0].type)
    with pytest.raises(ModelFormatError, match="input 'x' is not a tensor"):
        get_equivalent_numpy_forward(model)
    mismatched = chain(("Reshape", ["s"], {}), shape=("n", 3), constants={"s": np.array([-1, 2])})
    with pytest.raises(LoweringError, match="cannot be evaluated on these arrays: ValueError: cannot reshape"):
        get_equivalent_numpy_forward(mismatched)(np.zeros((1, 3)))


def test_no_warnings_are_given_and_the_model_stays_as_it_was():
    model = chain(("Log", [], {}), ("Exp", [], {}), ("Softplus", [], {}))
    before = model.SerializeToString()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        y = get_equivalent_numpy_forward(model)(np.array([[-1, 0, 1, np.inf, 1e30, np.nan]]))
    assert np.isnan(y[0, 0])
    assert model.SerializeToString() == before


def test_threads_may_call_one_function_at_the_same_time():
    forward = get_equivalent_numpy_forward(ROW_BY_ROW["mean of all"])
    x = np.arange(60.0).reshape(10, 6)
    expected, answers = forward(x), []
    workers = [threading.Thread(target=lambda: answers.append(forward(x))) for _ in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(answers) == 8
    assert all(np.array_equal(answer, expected) for answer in answers)
