"""The start of a graph that works on clear inputs runs on the client."""

import numpy as np
import pytest

from fhelearn.onnx.cleanup import Parts
from fhelearn.onnx.cleanup.cut_front import cut_front
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


def model_of(rng, front, width, outputs=("y",), consts=(), opset=17, inputs=None, last=(), x=(1, 4)):
    """`front` makes "f" of shape (1, width) from "x"; a product follows."""
    consts = {"w": rng.normal(size=(width, 2)).astype(np.float32), **dict(consts)}
    nodes = [*front, node("MatMul", ["f", "w"], "y"), *last]
    return build(nodes, inputs or [value("x", x)], list(outputs), consts, opset)


def cut(model, rng, feeds_of=None):
    parts = Parts(loaded(model))
    lines = cut_front(parts)
    result = as_protos(parts)
    assert result.after is None
    for _ in range(5):
        feeds = feeds_of() if feeds_of else {"x": rng.normal(size=(1, 4)).astype(np.float32)}
        assert_equal(composed(result, feeds), run(model, feeds))
    if result.before is not None:
        assert names(result.before.graph.input) == names(model.graph.input)
        assert names(result.before.graph.output) == names(result.body.graph.input)
        assert {each.type.tensor_type.elem_type for each in result.body.graph.input} <= {1, 11}
    return result, lines


ROW = {"c": np.array([1, 2, 3, 4], np.float32)}


@pytest.mark.parametrize("opset", OPSETS)
def test_a_scaler_is_cut_and_the_report_says_where_it_runs(opset, rng):
    front = [node("Sub", ["x", "c"], "d"), node("Div", ["d", "c"], "f")]
    result, lines = cut(model_of(rng, front, 4, consts=ROW, opset=opset), rng)
    assert op_types(result.before) == ["Sub", "Div"]
    assert op_types(result.body) == ["MatMul"]
    assert lines == [
        "Sub 'Sub_d' runs on the client before encryption",
        "Div 'Div_f' runs on the client before encryption",
    ]


def test_an_imputer_is_cut(rng):
    def feeds():
        x = rng.normal(size=(1, 4)).astype(np.float32)
        x[rng.uniform(size=(1, 4)) < 0.5] = np.nan
        return {"x": x}

    front = [node("IsNaN", "x", "m"), node("Where", ["m", "c", "x"], "f")]
    result, _ = cut(model_of(rng, front, 4, consts=ROW), rng, feeds)
    assert op_types(result.before) == ["IsNaN", "Where"]


def test_an_encoder_is_cut_with_the_selection_of_its_columns(rng):
    front = [
        node("Cast", "x", "i", to=7),
        node("Gather", ["i", "first"], "a", axis=1),
        node("Gather", ["i", "second"], "b", axis=1),
        node("Equal", ["a", "categories"], "ea"),
        node("Equal", ["b", "categories"], "eb"),
        node("Concat", ["ea", "eb"], "e", axis=1),
        node("Cast", "e", "f", to=1),
    ]
    consts = {"first": np.array([0]), "second": np.array([3]), "categories": np.array([[0, 1, 2]])}

    def feeds():
        return {"x": rng.integers(0, 4, size=(1, 4)).astype(np.float32)}

    result, _ = cut(model_of(rng, front, 6, consts=consts), rng, feeds)
    assert op_types(result.body) == ["MatMul"]


@pytest.mark.parametrize("norm", ["ReduceL1", "ReduceL2", "ReduceMax"])
def test_the_normalization_of_rows_is_cut(norm, rng):
    front = [node("Abs", "x", "a"), node(norm, "a", "n", axes=[1], keepdims=1), node("Div", ["x", "n"], "f")]
    result, _ = cut(model_of(rng, front, 4), rng)
    assert op_types(result.before) == ["Abs", norm, "Div"]


def test_operators_of_onnx_ml_are_cut(rng):
    front = [
        ml_node("Scaler", "x", "s", offset=[0.5] * 4, scale=[2.0] * 4),
        ml_node("Normalizer", "s", "f", norm="L2"),
    ]
    model = model_of(rng, front, 4, outputs=[value("y", [1, 2])])
    result, _ = cut(model, rng)
    assert op_types(result.before) == ["Scaler", "Normalizer"]


@pytest.mark.parametrize(
    "front",
    [
        [node("Reshape", ["x", "shape"], "f")],
        [node("Gather", ["x", "columns"], "f", axis=1)],
        [node("Concat", ["x", "x"], "g", axis=1), node("Slice", ["g", "zero", "four", "one"], "f")],
    ],
)
def test_moving_elements_alone_is_not_worth_a_cut(front, rng):
    consts = {
        "shape": np.array([1, 4]),
        "columns": np.array([3, 2, 1, 0]),
        **{name: np.array([number]) for name, number in (("zero", 0), ("four", 4), ("one", 1))},
    }
    result, lines = cut(model_of(rng, front, 4, consts=consts), rng)
    assert result.before is None
    assert lines == []


def test_the_border_is_behind_the_last_arithmetic(rng):
    front = [
        node("Mul", ["x", "c"], "m"),
        node("Concat", ["m", "m"], "f", axis=1),
    ]
    result, _ = cut(model_of(rng, front, 8, consts=ROW), rng)
    assert op_types(result.before) == ["Mul"]
    assert names(result.body.graph.input) == ["m"]


@pytest.mark.parametrize("op_type", ["Pad", "Tile", "Expand"])
def test_what_only_grows_data_is_not_cut(op_type, rng):
    sizes = {"Pad": [0, 0, 0, 4], "Tile": [1, 2], "Expand": [2, 4]}[op_type]
    width = 4 if op_type == "Expand" else 8
    front = [node("Neg", "x", "n"), node(op_type, ["n", "sizes"], "g"), node("Relu", "g", "f")]
    result, _ = cut(model_of(rng, front, width, consts={"sizes": np.array(sizes)}), rng)
    assert op_types(result.before) == ["Neg"]


def test_arithmetic_that_grows_its_operand_is_not_cut(rng):
    front = [node("Sub", ["x", "many"], "f")]
    result, _ = cut(model_of(rng, front, 4, consts={"many": rng.normal(size=(9, 4)).astype(np.float32)}), rng)
    assert result.before is None


def test_two_inputs_are_not_combined(rng):
    front = [node("Neg", "z", "n"), node("Add", ["x", "n"], "f")]
    model = model_of(rng, front, 4, inputs=[value("x", [1, 4]), value("z", [1, 4])])

    def feeds():
        return {name: rng.normal(size=(1, 4)).astype(np.float32) for name in "xz"}

    result, _ = cut(model, rng, feeds)
    assert op_types(result.before) == ["Neg"]
    assert names(result.body.graph.input) == ["x", "n"]


def test_an_input_that_the_body_reads_too_passes_through(rng):
    front = [node("Relu", "x", "r"), node("Concat", ["r", "x"], "f", axis=1)]
    result, _ = cut(model_of(rng, front, 8), rng)
    assert names(result.before.graph.output) == ["x", "r"]


def test_an_output_of_the_model_is_not_cut_off(rng):
    front = [node("Sub", ["x", "c"], "f")]
    result, lines = cut(model_of(rng, front, 4, outputs=["f", "y"], consts=ROW), rng)
    assert result.before is None
    assert lines == []


@pytest.mark.parametrize(("op_type", "to"), [("Greater", 9), ("Cast", 7)])
def test_truth_values_and_integers_cross_the_border_as_floats(op_type, to, rng):
    encoder = node("Greater", ["x", "c"], "e") if to == 9 else node("Cast", "x", "e", to=to)
    # A Cast that makes an output of the model stays, and reads "e" in its own type.
    last = [node("Cast", "e", "z", to=1), node("Cast", "z", "f", to=1)]
    model = model_of(rng, [encoder, *last], 4, outputs=["z", "y"], consts=ROW)
    result, _ = cut(model, rng)
    assert op_types(result.before)[-1] == "Cast"


def test_nothing_is_cut_if_nothing_would_be_left(rng):
    nodes = [node("Sub", ["x", "c"], "d"), node("Relu", "d", "r"), node("Identity", "r", "y")]
    result, lines = cut(build(nodes[:2], [value("x", [1, 4])], ["r"], ROW), rng)
    assert result.before is None
    assert lines == []


def test_what_combines_rows_is_not_cut(rng):
    front = [node("ReduceMax", "x", "m", axes=[0], keepdims=1), node("Sub", ["x", "m"], "f")]
    result, lines = cut(model_of(rng, front, 4), rng)
    assert result.before is None
    assert lines == []


def test_the_border_has_rows_on_its_first_axis(rng):
    front = [
        node("Neg", "x", "n"),
        node("Transpose", "n", "t", perm=[1, 0]),
        node("Exp", "t", "e"),
        node("Transpose", "e", "f", perm=[1, 0]),
    ]
    result, _ = cut(model_of(rng, front, 4), rng)
    assert op_types(result.before) == ["Neg"]
