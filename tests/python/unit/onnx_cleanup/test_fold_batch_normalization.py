"""Batch normalization is weights of the linear node before it."""

import numpy as np
import pytest

from fhelearn.onnx.cleanup.fold_batch_normalization import fold_batch_normalization
from tests.python.unit.onnx_cleanup.laws import (
    OPSETS,
    applied,
    assert_close,
    build,
    node,
    op_types,
    rounding,
    run,
    value,
)

# op_type, attributes, shapes of input, weights and bias
LINEAR = [
    ("Conv", {}, (1, 3, 5, 5), (4, 3, 2, 2), (4,)),
    ("Conv", {}, (1, 3, 5, 5), (4, 3, 2, 2), None),
    ("Conv", {"group": 2, "strides": [2]}, (1, 4, 7), (6, 2, 3), (6,)),
    ("ConvTranspose", {}, (1, 3, 4, 4), (3, 5, 2, 2), (5,)),
    ("ConvTranspose", {"group": 2}, (1, 4, 4), (4, 3, 2), None),
    ("Gemm", {}, (1, 4), (4, 3), (3,)),
    ("Gemm", {"transB": 1, "alpha": 0.5, "beta": 2.0}, (1, 4), (3, 4), (1, 3)),
    ("Gemm", {"transA": 1}, (4, 2), (4, 3), ()),
    ("Gemm", {"beta": 3.0}, (1, 4), (4, 3), None),
    ("MatMul", {}, (1, 4), (4, 3), None),
]


def normalization(rng, channels):
    return {
        "gamma": rng.normal(size=channels).astype(np.float32),
        "beta": rng.normal(size=channels).astype(np.float32),
        "mean": rng.normal(size=channels).astype(np.float32),
        "variance": rng.uniform(0.5, 2, size=channels).astype(np.float32),
    }


def normalized(rng, op_type, attributes, x, weights, bias, opset=17, outputs=("y",), epsilon=1e-3):
    consts = {"w": rng.normal(size=weights).astype(np.float32)}
    if bias is not None:
        consts["b"] = rng.normal(size=bias).astype(np.float32)
    first = node(op_type, ["x", *consts], "h", **attributes)
    probe = build([first], [value("x", x)], ["h"], consts, opset)
    channels = probe.graph.output[0].type.tensor_type.shape.dim[1].dim_value
    consts |= normalization(rng, channels)
    second = node("BatchNormalization", ["h", "gamma", "beta", "mean", "variance"], "y", epsilon=epsilon)
    return build([first, second], [value("x", x)], list(outputs), consts, opset)


@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize("linear", LINEAR, ids=lambda linear: linear[0])
def test_it_is_folded(linear, opset, rng):
    model = normalized(rng, *linear, opset=opset)
    folded, lines = applied(fold_batch_normalization, model)
    assert op_types(folded) == ["Gemm" if linear[0] == "MatMul" else linear[0]]
    assert len(lines) == 1
    feeds = {"x": rng.normal(size=linear[2]).astype(np.float32)}
    assert_close(run(folded, feeds), run(model, feeds), rounding(model, feeds))


def test_two_convolutions_with_the_same_weights_get_their_own(rng):
    consts = {"w": rng.normal(size=(3, 3, 1, 1)).astype(np.float32)}
    nodes, inner = [], "x"
    for index in range(2):
        mine = {f"{name}{index}": array for name, array in normalization(rng, 3).items()}
        nodes += [
            node("Conv", [inner, "w"], f"h{index}"),
            node("BatchNormalization", [f"h{index}", *mine], f"n{index}"),
            node("Relu", f"n{index}", f"r{index}"),
        ]
        consts |= mine
        inner = f"r{index}"
    model = build(nodes, [value("x", [1, 3, 2, 2])], ["r1"], consts)
    folded, _ = applied(fold_batch_normalization, model)
    assert op_types(folded) == ["Conv", "Relu", "Conv", "Relu"]
    feeds = {"x": rng.normal(size=(1, 3, 2, 2)).astype(np.float32)}
    assert_close(run(folded, feeds), run(model, feeds), rounding(model, feeds))


def test_two_normalizations_in_a_row_are_both_folded(rng):
    one, two = ({f"{name}{index}": a for name, a in normalization(rng, 3).items()} for index in range(2))
    nodes = [
        node("Gemm", ["x", "w"], "h"),
        node("BatchNormalization", ["h", *one], "n"),
        node("BatchNormalization", ["n", *two], "y"),
    ]
    consts = {"w": rng.normal(size=(4, 3)).astype(np.float32), **one, **two}
    model = build(nodes, [value("x", [1, 4])], ["y"], consts)
    folded, _ = applied(fold_batch_normalization, model)
    assert op_types(folded) == ["Gemm"]
    feeds = {"x": rng.normal(size=(1, 4)).astype(np.float32)}
    assert_close(run(folded, feeds), run(model, feeds), rounding(model, feeds))


def test_a_linear_node_that_others_read_stays(rng):
    model = normalized(rng, *LINEAR[0], outputs=("h", "y"))
    assert op_types(applied(fold_batch_normalization, model)[0]) == ["Conv", "BatchNormalization"]


def test_a_variance_without_inverse_stays(rng):
    model = normalized(rng, *LINEAR[5], epsilon=0.0)
    for each in model.graph.initializer:
        if each.name == "variance":
            each.raw_data = np.zeros(3, np.float32).tobytes()
    assert op_types(applied(fold_batch_normalization, model)[0]) == ["Gemm", "BatchNormalization"]


def test_normalization_in_training_stays(rng):
    consts = {"w": rng.normal(size=(4, 3)).astype(np.float32), **normalization(rng, 3)}
    inputs = ["h", "gamma", "beta", "mean", "variance"]
    nodes = [
        node("Gemm", ["x", "w"], "h"),
        node("BatchNormalization", inputs, ["y", "m", "v"], training_mode=1),
    ]
    model = build(nodes, [value("x", [1, 4])], ["y"], consts)
    assert op_types(applied(fold_batch_normalization, model)[0]) == ["Gemm", "BatchNormalization"]
