"""Linear maps in a row are one."""

from itertools import product

import numpy as np
import pytest

from fhelearn.onnx.cleanup.compose_linear_maps import compose_linear_maps
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

GEMMS = [{}, {"transB": 1}, {"alpha": 0.5, "beta": 2.0}, {"beta": 0.0}]
KINDS = [("MatMul", {}), *(("Gemm", attributes) for attributes in GEMMS)]
BIASES = [None, (), (1,), (1, 1), "outputs"]


def chain(rng, maps, rows=1, opset=17, outputs=("y",), widths=(4, 3, 5, 2)):
    """A chain of linear nodes; each map is (op_type, attributes, shape of the bias)."""
    nodes, consts = [], {}
    for index, (op_type, attributes, bias) in enumerate(maps):
        shape = widths[index : index + 2]
        out = "y" if index == len(maps) - 1 else f"h{index}"
        weights = rng.normal(size=shape).astype(np.float32)
        consts[f"w{index}"] = weights.T if attributes.get("transB") else weights
        inputs = ["x" if index == 0 else f"h{index - 1}", f"w{index}"]
        if op_type == "Gemm" and bias is not None:
            consts[f"b{index}"] = rng.normal(size=shape[1:] if bias == "outputs" else bias).astype(np.float32)
            inputs.append(f"b{index}")
        nodes.append(node(op_type, inputs, out, **attributes))
    return build(nodes, [value("x", [rows, widths[0]])], list(outputs), consts, opset)


@pytest.mark.parametrize(("first", "second"), list(product(KINDS, repeat=2)))
@pytest.mark.parametrize("bias", BIASES)
def test_two_maps_become_one(first, second, bias, rng):
    model = chain(rng, [(*first, bias), (*second, "outputs")])
    fused, lines = applied(compose_linear_maps, model)
    assert op_types(fused) == ["MatMul" if first[0] == second[0] == "MatMul" else "Gemm"]
    assert len(lines) == 1
    feeds = {"x": rng.normal(size=(1, 4)).astype(np.float32)}
    assert_close(run(fused, feeds), run(model, feeds), rounding(model, feeds))


@pytest.mark.parametrize("opset", OPSETS)
def test_three_maps_become_one(opset, rng):
    model = chain(rng, [("Gemm", {}, "outputs"), ("MatMul", {}, None), ("Gemm", {"transB": 1}, (2, 1))], 2, opset)
    fused, lines = applied(compose_linear_maps, model)
    assert op_types(fused) == ["Gemm"]
    assert len(lines) == 2
    feeds = {"x": rng.normal(size=(2, 4)).astype(np.float32)}
    assert_close(run(fused, feeds), run(model, feeds), rounding(model, feeds))


def test_products_of_higher_rank_stay_products(rng):
    nodes = [node("MatMul", ["x", "a"], "h"), node("MatMul", ["h", "b"], "y")]
    consts = {"a": rng.normal(size=(4, 3)).astype(np.float32), "b": rng.normal(size=(3, 2)).astype(np.float32)}
    model = build(nodes, [value("x", [1, 5, 4])], ["y"], consts)
    fused, _ = applied(compose_linear_maps, model)
    assert op_types(fused) == ["MatMul"]
    feeds = {"x": rng.normal(size=(1, 5, 4)).astype(np.float32)}
    assert_close(run(fused, feeds), run(model, feeds), rounding(model, feeds))


def test_a_map_that_others_read_stays(rng):
    maps = [("Gemm", {}, "outputs"), ("Gemm", {}, "outputs")]
    assert op_types(applied(compose_linear_maps, chain(rng, maps, outputs=("h0", "y")))[0]) == ["Gemm", "Gemm"]


@pytest.mark.parametrize("reason", ["transposed", "encrypted weights", "encrypted bias", "constant first"])
def test_what_is_no_map_with_constant_weights_stays(reason, rng):
    square = {name: rng.normal(size=(3, 3)).astype(np.float32) for name in ("a", "b")}
    first = {
        "transposed": node("Gemm", ["x", "a"], "h", transA=1),
        "encrypted weights": node("Gemm", ["x", "z"], "h"),
        "encrypted bias": node("Gemm", ["x", "a", "z"], "h"),
        "constant first": node("MatMul", ["a", "x"], "h"),
    }[reason]
    inputs = [value("x", [3, 3]), value("z", [3, 3])]
    model = build([first, node("Gemm", ["h", "b"], "y")], inputs, ["y"], square)
    assert len(op_types(applied(compose_linear_maps, model)[0])) == 2


def test_weights_that_would_overflow_stay(rng):
    big = np.full((2, 2), 1e30, np.float32)
    nodes = [node("MatMul", ["x", "a"], "h"), node("MatMul", ["h", "a"], "y")]
    assert op_types(applied(compose_linear_maps, build(nodes, [value("x", [1, 2])], ["y"], {"a": big}))[0]) == [
        "MatMul",
        "MatMul",
    ]
