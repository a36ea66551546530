"""Padding is an attribute of what reads it, exactly where that is equal."""

import numpy as np
import pytest

from fhelearn.onnx.cleanup.fuse_pad_into_conv import fuse_pad_into_conv
from tests.python.unit.onnx_cleanup.laws import OPSETS, applied, assert_equal, build, node, op_types, run, value

PADS = np.array([0, 0, 1, 0, 0, 0, 2, 1])


def padded(op_type, attributes, *, opset=17, pads=PADS, fill=None, axes=None, first=None, extra=()):
    """[first ->] Pad -> op_type on an input of shape (1, 2, 5, 6)."""
    consts = {"pads": np.asarray(pads)}
    inputs = ["x" if first is None else "f", "pads"]
    if fill is not None or axes is not None:
        consts["fill"] = np.float32(0 if fill is None else fill)
        inputs.append("fill")
    if axes is not None:
        consts["axes"] = np.asarray(axes)
        inputs.append("axes")
    nodes = [] if first is None else [node(first, "x", "f")]
    nodes.append(node("Pad", inputs, "p"))
    last = ["p"]
    if op_type == "Conv":
        consts["w"] = np.random.default_rng(5).normal(size=(3, 2, 2, 3)).astype(np.float32)
        last.append("w")
    else:
        attributes = {"kernel_shape": [2, 3], **attributes}
    nodes += [node(op_type, last, "y", **attributes), *extra]
    outputs = ["y", *(name for each in extra for name in each.output)]
    return build(nodes, [value("x", [1, 2, 5, 6])], outputs, consts, opset)


def check(model, expected, rng):
    fused, lines = applied(fuse_pad_into_conv, model)
    assert op_types(fused) == expected
    assert bool(lines) == ("Pad" not in expected)
    for scale in (1, -1):  # windows of negative values only show a padding that counts
        feeds = {"x": (scale * rng.uniform(0.5, 2, size=(1, 2, 5, 6))).astype(np.float32)}
        assert_equal(run(fused, feeds), run(model, feeds))


@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize("attributes", [{}, {"pads": [1, 1, 0, 2], "strides": [2, 1]}, {"dilations": [2, 1]}])
def test_zeros_are_fused_into_a_convolution(opset, attributes, rng):
    check(padded("Conv", attributes, opset=opset), ["Conv"], rng)


def test_axes_may_be_chosen(rng):
    check(padded("Conv", {}, opset=18, pads=[1, 2, 0, 1], axes=[-1, 2]), ["Conv"], rng)


@pytest.mark.parametrize("attributes", [{}, {"count_include_pad": 1, "pads": [1, 1, 1, 1]}, {"strides": [2, 2]}])
def test_zeros_are_fused_into_an_average_that_counts_them(attributes, rng):
    check(padded("AveragePool", attributes), ["AveragePool"], rng)


@pytest.mark.parametrize("attributes", [{"pads": [1, 1, 1, 1]}, {"ceil_mode": 1, "strides": [2, 2]}])
def test_an_average_that_would_count_other_zeros_stays(attributes, rng):
    check(padded("AveragePool", attributes), ["Pad", "AveragePool"], rng)


def test_minus_infinity_is_fused_into_a_maximum(rng):
    check(padded("MaxPool", {}, pads=[0, 0, 1, 0, 0, 0, 1, 2], fill=-np.inf), ["MaxPool"], rng)


def test_zeros_are_fused_into_a_maximum_of_values_that_are_never_negative(rng):
    check(padded("MaxPool", {}, pads=[0, 0, 1, 0, 0, 0, 1, 2], first="Relu"), ["Relu", "MaxPool"], rng)


@pytest.mark.parametrize(
    "case",
    [
        {"attributes": {}, "pads": [0, 0, 1, 0, 0, 0, 1, 1]},  # zeros and values of any sign
        {"attributes": {}, "pads": [0, 0, 1, 0, 0, 0, 2, 1], "fill": -np.inf},  # windows of padding only
        {"attributes": {"pads": [0, 1, 0, 0]}, "pads": [0, 0, 1, 0, 0, 0, 1, 1], "first": "Relu"},
    ],
)
def test_a_maximum_that_would_see_other_values_stays(case, rng):
    kinds = ([case["first"]] if "first" in case else []) + ["Pad", "MaxPool"]
    check(padded("MaxPool", **case), kinds, rng)


@pytest.mark.parametrize(
    "case",
    [
        {"fill": 1.5},
        {"pads": [0, 0, 1, 0, 0, 0, 1, 1], "attributes": {"auto_pad": "SAME_UPPER"}},
        {"pads": [1, 0, 0, 0, 0, 0, 0, 0]},
    ],
)
def test_what_a_convolution_does_not_pad_by_stays(case, rng):
    check(padded("Conv", **{"attributes": {}, **case}), ["Pad", "Conv"], rng)


def test_negative_pads_stay():
    # The reference implementation cannot run them.
    fused, lines = applied(fuse_pad_into_conv, padded("Conv", {}, pads=[0, 0, -1, 0, 0, 0, 1, 1]))
    assert op_types(fused) == ["Pad", "Conv"]
    assert lines == []


def test_padding_that_others_read_stays_for_them(rng):
    model = padded("Conv", {}, extra=[node("Neg", "p", "z")])
    fused, _ = applied(fuse_pad_into_conv, model)
    assert sorted(op_types(fused)) == ["Conv", "Neg", "Pad"]
    feeds = {"x": rng.normal(size=(1, 2, 5, 6)).astype(np.float32)}
    assert_equal(run(fused, feeds), run(model, feeds))
