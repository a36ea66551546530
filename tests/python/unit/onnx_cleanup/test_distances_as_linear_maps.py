"""Weighted squared distances from constants are linear in the powers of a row that the client knows."""

import numpy as np
import pytest

from fhelearn.onnx.cleanup import clean
from fhelearn.onnx.cleanup.distances_as_linear_maps import distances_as_linear_maps
from tests.python.unit.onnx_cleanup.laws import OPSETS, applied, build, composed, names, node, op_types, run, value

# Of sums of 4 terms, and of what they are computed from: a handful of roundings each.
ROUNDINGS = 64 * 2.0**-24


def model_of(rng, operator="Div", opset=17, source="x", keepdims=0):
    consts = {
        "theta": (100 + rng.normal(size=(3, 1, 4))).astype(np.float32),
        "sigma": rng.uniform(0.5, 2, size=(3, 1, 4)).astype(np.float32),
        "two": np.float32(2),
        "axes": np.array([-1]),
        "w": np.eye(4, dtype=np.float32),
    }
    nodes = [
        node("MatMul", ["x", "w"], "h"),
        node("Sub", [source, "theta"], "d"),
        node("Pow", ["d", "two"], "p"),
        node(operator, ["p", "sigma"], "q"),
        node("ReduceSum", ["q", "axes"], "s", keepdims=keepdims),
    ]
    return build(nodes[source == "x" :], [value("x", ["n", 4])], ["s"], consts, opset)


def near(rng):
    return {"x": (100 + rng.normal(size=(1, 4))).astype(np.float32)}


@pytest.mark.parametrize("keepdims", [0, 1])
@pytest.mark.parametrize("operator", ["Div", "Mul"])
@pytest.mark.parametrize("opset", OPSETS)
def test_the_sum_is_kept_even_far_from_zero(opset, operator, keepdims, rng):
    model = model_of(rng, operator, opset, keepdims=keepdims)
    result, lines = applied(distances_as_linear_maps, model)
    assert len(lines) == 1
    assert "Gemm" in op_types(result)
    for _ in range(20):
        feeds = near(rng)
        (found,), (expected,) = (list(run(each, feeds).values()) for each in (result, model))
        assert found.shape == expected.shape
        # The terms are at most 2 (|x - m| + |c - m|)^2, and x - m has the rounding of c and x, which are about 100.
        np.testing.assert_allclose(found, expected, rtol=0, atol=ROUNDINGS * (100 + 4 * 2 * 10**2))


def test_the_client_computes_the_powers_and_one_product_is_left(rng):
    model = model_of(rng)
    cleaned = clean(model)
    assert "Pow" in op_types(cleaned.before)
    assert "Pow" not in op_types(cleaned.body)
    assert len(names(cleaned.body.graph.input)) == 1
    feeds = near(rng)
    np.testing.assert_allclose(composed(cleaned, feeds)["s"], run(model, feeds)["s"], rtol=0, atol=ROUNDINGS * 900)


def test_the_distance_of_encrypted_values_stays(rng):
    _, lines = applied(distances_as_linear_maps, model_of(rng, source="h"))
    assert lines == []
