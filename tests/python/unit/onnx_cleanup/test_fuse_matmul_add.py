"""A product and its bias are one Gemm, where the shapes allow it."""

import numpy as np
import pytest

from fhelearn.onnx.cleanup.fuse_matmul_add import fuse_matmul_add
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


def product(rng, x_shape, bias_shape, opset=17, *, swapped=False, outputs=("y",)):
    weights = rng.normal(size=(4, 3)).astype(np.float32)
    terms = ["b", "h"] if swapped else ["h", "b"]
    nodes = [node("MatMul", ["x", "w"], "h"), node("Add", terms, "y")]
    consts = {"w": weights, "b": rng.normal(size=bias_shape).astype(np.float32)}
    return build(nodes, [value("x", x_shape)], list(outputs), consts, opset)


@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize("bias_shape", [(3,), (1, 3), (), (1,), (1, 1)])
@pytest.mark.parametrize("swapped", [False, True])
def test_a_bias_is_fused(opset, bias_shape, swapped, rng):
    model = product(rng, [1, 4], bias_shape, opset, swapped=swapped)
    fused, lines = applied(fuse_matmul_add, model)
    assert op_types(fused) == ["Gemm"]
    assert fused.graph.node[0].name == "MatMul_h"
    assert len(lines) == 1
    feeds = {"x": rng.normal(size=(1, 4)).astype(np.float32)}
    assert_close(run(fused, feeds), run(model, feeds), rounding(model, feeds))


@pytest.mark.parametrize(("x_shape", "bias_shape"), [([1, 2, 4], (3,)), ([1, 4], (5, 3)), ([1, 4], (1, 1, 3))])
def test_other_ranks_and_biases_that_add_rows_stay(x_shape, bias_shape, rng):
    fused, lines = applied(fuse_matmul_add, product(rng, x_shape, bias_shape))
    assert op_types(fused) == ["MatMul", "Add"]
    assert lines == []


def test_a_product_that_others_read_stays(rng):
    fused, _ = applied(fuse_matmul_add, product(rng, [1, 4], (3,), outputs=("h", "y")))
    assert op_types(fused) == ["MatMul", "Add"]


def test_a_product_of_two_encrypted_values_stays(rng):
    nodes = [node("MatMul", ["x", "z"], "h"), node("Add", ["h", "b"], "y")]
    model = build(nodes, [value("x", [1, 4]), value("z", [4, 3])], ["y"], {"b": np.ones(3, np.float32)})
    assert op_types(applied(fuse_matmul_add, model)[0]) == ["MatMul", "Add"]
