"""The end of a graph that decrypted values are enough for runs on the client."""

import numpy as np
import pytest

from fhelearn.onnx.cleanup import Parts
from fhelearn.onnx.cleanup.cut_tail import cut_tail
from tests.python.unit.onnx_cleanup.laws import (
    OPSETS,
    as_protos,
    assert_equal,
    build,
    composed,
    loaded,
    ml_node,
    names,
    node,
    op_types,
    run,
    value,
)

LABEL = value("label", [1], np.int64)


def linear(rng, out="h", source="x", width=3):
    return node("Gemm", [source, "w", "b"], out), {
        "w": rng.normal(size=(4, width)).astype(np.float32),
        "b": rng.normal(size=width).astype(np.float32),
    }


def model_of(rng, tail, outputs, consts=(), opset=17, width=3, inputs=()):
    first, weights = linear(rng, width=width)
    return build([first, *tail], [value("x", [1, 4]), *inputs], outputs, {**weights, **dict(consts)}, opset)


def cut(model, rng, extra=()):
    """The parts, checked against the model, and the lines."""
    parts = Parts(loaded(model))
    lines = cut_tail(parts)
    result = as_protos(parts)
    assert result.before is None
    for _ in range(5):
        feeds = {"x": rng.normal(size=(1, 4)).astype(np.float32), **dict(extra)}
        assert_equal(composed(result, feeds), run(model, feeds))
    if result.after is not None:
        assert names(result.after.graph.input) == names(result.body.graph.output)
        assert len(lines) == len(result.after.graph.node)
    return result, lines


@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize("op_type", ["Softmax", "LogSoftmax", "Hardmax", "Sigmoid", "Exp", "Relu", "Tanh"])
def test_one_node_is_cut_and_the_report_says_where_it_runs(op_type, opset, rng):
    result, lines = cut(model_of(rng, [node(op_type, "h", "y")], ["y"], opset=opset), rng)
    assert op_types(result.body) == ["Gemm"]
    assert op_types(result.after) == [op_type]
    assert lines == [f"{op_type} '{op_type}_y' runs on the client after decryption"]


def test_a_value_that_several_nodes_read_is_one_output_of_the_body(rng):
    tail = [
        node("Softmax", "h", "scores"),
        node("ArgMax", "h", "best", axis=1, keepdims=0),
        node("Gather", ["classes", "best"], "label"),
    ]
    result, _ = cut(model_of(rng, tail, [LABEL, "scores"], {"classes": np.array([5, 7, 9])}), rng)
    assert op_types(result.body) == ["Gemm"]
    assert names(result.body.graph.output) == ["h"]
    assert names(result.after.graph.output) == ["label", "scores"]


def test_the_complement_of_a_probability_and_their_concatenation_are_cut(rng):
    tail = [
        node("Sigmoid", "h", "p"),
        node("Sub", ["one", "p"], "q"),
        node("Concat", ["q", "p"], "scores", axis=1),
        node("Greater", ["h", "zero"], "positive"),
        node("Squeeze", ["positive", "axes"], "flat"),
        node("Cast", "flat", "label", to=7),
    ]
    consts = {"one": np.float32(1), "zero": np.float32(0), "axes": np.array([1])}
    result, _ = cut(model_of(rng, tail, [LABEL, "scores"], consts, width=1), rng)
    assert op_types(result.body) == ["Gemm"]
    assert names(result.body.graph.output) == ["h"]


@pytest.mark.parametrize("norm", ["L1", "L2", "MAX"])
def test_operators_of_onnx_ml_are_cut(norm, rng):
    tail = [
        ml_node("Normalizer", "h", "y", norm=norm),
        node("ArgMax", "y", "best", axis=1, keepdims=0),
        ml_node("LabelEncoder", "best", "label", keys_int64s=[0, 1, 2], values_int64s=[4, 5, 6]),
    ]
    result, _ = cut(model_of(rng, tail, [value("y", [1, 3]), LABEL]), rng)
    assert op_types(result.body) == ["Gemm"]


def test_two_values_meet_in_the_tail_only_if_it_needs_no_value_more_for_that(rng):
    both = [node("Sigmoid", "h", "s"), node("Tanh", "h", "t"), node("Mul", ["s", "t"], "y")]
    with_border = [node("Sigmoid", "h", "s"), node("Mul", ["s", "h"], "y")]
    for tail in (both, with_border):
        result, _ = cut(model_of(rng, tail, ["y"]), rng)
        assert op_types(result.body) == ["Gemm"]
        assert names(result.body.graph.output) == ["h"]
    more = [node("MatMul", ["h", "v"], "k"), node("Sigmoid", "k", "s"), node("Mul", ["s", "h"], "y")]
    result, lines = cut(model_of(rng, more, ["y"], {"v": np.eye(3, dtype=np.float32)}), rng)
    assert result.after is None
    assert lines == []


def test_an_affine_sum_of_two_values_is_one_output_of_the_body(rng):
    tail = [
        node("MatMul", ["h", "v"], "k"),
        node("Mul", ["h", "c"], "m"),
        node("Mul", ["k", "c"], "n"),
        node("Add", ["m", "n"], "a"),
        node("Softmax", "a", "y"),
    ]
    consts = {"v": rng.normal(size=(3, 3)).astype(np.float32), "c": np.full(3, 2, np.float32)}
    result, _ = cut(model_of(rng, tail, ["y"], consts), rng)
    assert op_types(result.after) == ["Softmax"]


@pytest.mark.parametrize("opset", OPSETS)
def test_a_sum_is_cut_only_as_part_of_a_normalization(opset, rng):
    norm = [node("Exp", "h", "e"), node("ReduceSum", ["e", "axes"], "s"), node("Div", ["e", "s"], "y")]
    plain = [node("ReduceSum", ["h", "axes"], "s"), node("Sigmoid", "s", "y")]
    consts = {"axes": np.array([1])}
    result, _ = cut(model_of(rng, norm, ["y"], consts, opset), rng)
    assert op_types(result.after) == ["Exp", "ReduceSum", "Div"]
    result, _ = cut(model_of(rng, plain, ["y"], consts, opset), rng)
    assert op_types(result.after) == ["Sigmoid"]


def test_what_combines_rows_is_not_cut(rng):
    tail = [node("ReduceLogSumExp", "h", "s", axes=[0], keepdims=1), node("Sub", ["h", "s"], "y")]
    result, lines = cut(model_of(rng, tail, ["y"]), rng)
    assert result.after is None
    assert lines == []


def test_a_square_is_a_function_of_one_value(rng):
    result, _ = cut(model_of(rng, [node("Mul", ["h", "h"], "y")], ["y"]), rng)
    # Mul alone is affine wherever one factor is constant; here none is.
    assert op_types(result.body) == ["Gemm"]
    assert op_types(result.after) == ["Mul"]


@pytest.mark.parametrize(
    "tail",
    [
        [node("Mul", ["h", "c"], "m"), node("Add", ["m", "c"], "y")],
        [node("Div", ["h", "c"], "d"), node("Reshape", ["d", "shape"], "y")],
        [node("Transpose", "h", "y")],
        [node("Gather", ["h", "columns"], "y", axis=1)],
    ],
)
def test_an_affine_end_stays(tail, rng):
    consts = {"c": np.full(3, 2, np.float32), "shape": np.array([3, 1]), "columns": np.array([2, 0])}
    result, lines = cut(model_of(rng, tail, ["y"], consts), rng)
    assert result.after is None
    assert lines == []


def test_affine_nodes_on_the_way_to_a_nonlinear_one_go_with_it(rng):
    tail = [node("Mul", ["h", "c"], "m"), node("Softmax", "m", "s"), node("Add", ["s", "c"], "y")]
    result, _ = cut(model_of(rng, tail, ["y"], {"c": np.full(3, 2, np.float32)}), rng)
    assert op_types(result.after) == ["Mul", "Softmax", "Add"]


def test_moving_elements_before_the_first_nonlinear_node_stays(rng):
    tail = [node("Reshape", ["h", "shape"], "r"), node("Softmax", "r", "y")]
    result, _ = cut(model_of(rng, tail, ["y"], {"shape": np.array([1, 1, 3])}), rng)
    assert op_types(result.body) == ["Gemm", "Reshape"]
    assert op_types(result.after) == ["Softmax"]


def test_the_border_has_rows_on_its_first_axis(rng):
    tail = [node("Reshape", ["h", "shape"], "r"), node("Softmax", "r", "s"), node("Transpose", "s", "y", perm=[1, 0])]
    result, _ = cut(model_of(rng, tail, ["y"], {"shape": np.array([3, 1])}), rng)
    assert op_types(result.body) == ["Gemm"]
    # As in Gaussian naive Bayes: the border is behind what is affine.
    tail = [
        node("MatMul", ["v", "t"], "k"),
        node("Neg", "k", "n"),
        node("Transpose", "n", "j", perm=[1, 0]),
        node("ReduceLogSumExp", "j", "l", axes=[1], keepdims=1),
        node("Sub", ["j", "l"], "y"),
    ]
    consts = {"v": np.eye(3, dtype=np.float32)}
    first = [node("Transpose", "h", "t", perm=[1, 0])]
    result, _ = cut(model_of(rng, [*first, *tail], ["y"], consts), rng)
    assert names(result.body.graph.output) == ["j"]
    assert op_types(result.after) == ["ReduceLogSumExp", "Sub"]


def test_an_output_that_the_body_computes_passes_through_in_order(rng):
    tail = [node("Softmax", "h", "p"), node("Neg", "h", "n"), node("MatMul", ["n", "v"], "z")]
    consts = {"v": rng.normal(size=(3, 2)).astype(np.float32)}
    result, _ = cut(model_of(rng, tail, ["p", "z", "h"], consts), rng)
    assert op_types(result.after) == ["Softmax"]
    assert names(result.body.graph.output) == ["z", "h"]
    assert names(result.after.graph.output) == ["p", "z", "h"]


def test_an_output_that_the_body_reads_is_not_cut(rng):
    tail = [node("Relu", "h", "r"), node("MatMul", ["r", "v"], "z"), node("Softmax", "z", "y")]
    consts = {"v": rng.normal(size=(3, 2)).astype(np.float32)}
    result, _ = cut(model_of(rng, tail, ["r", "y"], consts), rng)
    assert op_types(result.body) == ["Gemm", "Relu", "MatMul"]
    assert names(result.body.graph.output) == ["r", "z"]


def test_a_function_of_an_input_stays(rng):
    tail = [node("Softmax", "h", "y"), node("Sigmoid", "z", "s")]
    model = model_of(rng, tail, ["y", "s"], inputs=[value("z", [1, 2])])
    result, _ = cut(model, rng, {"z": np.array([[1, -1]], np.float32)})
    assert op_types(result.body) == ["Gemm", "Sigmoid"]


def test_nothing_is_cut_if_nothing_would_be_left(rng):
    nodes = [node("Sub", ["x", "c"], "d"), node("Softmax", "d", "y")]
    model = build(nodes, [value("x", [1, 4])], ["y"], {"c": np.ones(4, np.float32)})
    result, lines = cut(model, rng)
    assert result.after is None
    assert lines == []
