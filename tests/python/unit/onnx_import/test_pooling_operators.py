import numpy as np
import pytest
import torch

from fhelearn.exceptions import UnsupportedOperatorError
from fhelearn.ir import region_widths
from fhelearn.onnx import export_torch
from tests.python.unit.onnx_import.exactness import PROVED, agree, decrypts_exactly, ints, lookups, whole_numbers
from tests.python.unit.onnx_import.graphs import (
    build,
    codes,
    floats,
    imported,
    node,
    one_node,
    settings,
    simulate,
    value,
)

SEEDS = range(16)


def variant(rng, *, averages=False):
    """Extents and attributes of a pool, such that every window meets the data."""
    rank = int(rng.integers(1, 3))
    extents = rng.integers(5, 9, rank).tolist()
    kernel = rng.integers(1, 5, rank).tolist()
    dilations = [int(rng.integers(1, 3)) if (k - 1) * 2 + 1 <= n else 1 for k, n in zip(kernel, extents, strict=True)]
    spans = [d * (k - 1) + 1 for k, d in zip(kernel, dilations, strict=True)]
    attributes = {"kernel_shape": kernel, "dilations": dilations, "strides": rng.integers(1, 4, rank).tolist()}
    mode = rng.choice(["pads", "SAME_UPPER", "SAME_LOWER", "VALID", "NOTSET"])
    if mode == "pads":
        attributes["pads"] = [int(rng.integers(0, span // 2 + 1)) for span in spans * 2]
        attributes["ceil_mode"] = int(rng.integers(0, 2))
    else:
        attributes["auto_pad"] = str(mode)
    if averages:
        attributes["count_include_pad"] = int(rng.integers(0, 2))
    return extents, attributes


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("how", [PROVED, settings(8)], ids=["proved", "calibrated"])
def test_maxima_over_windows_are_exact(seed, how):
    rng = np.random.default_rng(seed)
    extents, attributes = variant(rng)
    model = one_node("MaxPool", [(1, 2, *extents)], **attributes)
    agree(model, [whole_numbers(rng, 2, *extents)], rng, how)


@pytest.mark.parametrize("seed", SEEDS)
def test_averages_over_windows_are_exact_and_need_no_lookup(seed):
    rng = np.random.default_rng(seed)
    extents, attributes = variant(rng, averages=True)
    model = one_node("AveragePool", [(1, 2, *extents)], **attributes)
    assert lookups(agree(model, [whole_numbers(rng, 2, *extents)], rng)) == 0


@pytest.mark.parametrize("op_type", ["AveragePool", "MaxPool"])
def test_pools_of_data_away_from_zero_pad_as_onnx_says(op_type):
    rng = np.random.default_rng(3)
    attributes = {"count_include_pad": 1} if op_type == "AveragePool" else {}
    model = one_node(op_type, [(1, 1, 5, 5)], kernel_shape=[3, 3], pads=[1, 1, 1, 1], **attributes)
    for low, high in ((100, 140), (-140, -100)):
        agree(model, [whole_numbers(rng, 1, 5, 5, low=low, high=high)], rng)


@pytest.mark.parametrize("include", [0, 1])
def test_averages_of_a_normalized_input_are_exact_though_zero_is_not_on_its_grid(include):
    rng = np.random.default_rng(4)
    nodes = [
        node("Add", ["x", "shift"], "a"),
        node("AveragePool", "a", "y", kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=include),
    ]
    shift = np.array([0.25, 0.7], np.float32).reshape(1, 2, 1, 1)
    model = build(nodes, [value("x", (1, 2, 5, 5))], ["y"], {"shift": shift}, opset=21)
    assert lookups(agree(model, [whole_numbers(rng, 2, 5, 5)], rng)) == 0


@pytest.mark.parametrize("op_type", ["GlobalAveragePool", "GlobalMaxPool"])
@pytest.mark.parametrize("extents", [(5,), (4, 3), (2, 3, 2)])
def test_global_pools_are_exact(op_type, extents):
    rng = np.random.default_rng(5)
    network = agree(one_node(op_type, [(1, 3, *extents)]), [whole_numbers(rng, 3, *extents)], rng)
    size = int(np.prod(extents))
    assert lookups(network) == (0 if op_type == "GlobalAveragePool" else 3 * (size - 1))


@pytest.mark.parametrize("p", [1, 2])
def test_p_norms_over_windows_are_within_half_a_step_of_the_output(p):
    rng = np.random.default_rng(6)
    model = one_node("LpPool", [(1, 2, 4, 4)], p=p, kernel_shape=[2, 2])
    samples = whole_numbers(rng, 2, 4, 4, low=-15, high=15)  # squares have 8 bits: their grid is exact
    samples[2] = 0
    half = 0.0 if p == 1 else 0.5
    agree(model, [samples], rng, bound=lambda network, q: half * network.decoders[0].columns.scale.max())


@pytest.mark.parametrize(
    ("extents", "attributes", "expected", "direct"),
    [
        # 8 rows of 4 pairs, then 4 x 4 pairs of these; directly 16 windows of 3 maxima: windows that share nothing.
        ((8, 8), {"kernel_shape": [2, 2], "strides": [2, 2]}, 32 + 16, 48),
        # Per row 6 pairs and 6 triples, in 8 rows, then in 6 columns.
        ((8, 8), {"kernel_shape": [3, 3]}, 8 * 12 + 6 * 12, 36 * 8),
        # 7 pairs of neighbours, which two windows share each, then 5 pairs of pairs.
        ((8,), {"kernel_shape": [4]}, 7 + 5, 5 * 3),
        ((9,), {"kernel_shape": [3], "strides": [3]}, 6, 6),
        # Of the 8 x 8 elements only 6 x 6 are in a window.
        ((8, 8), {"kernel_shape": [2, 2], "strides": [3, 3]}, 6 * 3 + 3 * 3, 27),
    ],
)
def test_maxima_cost_fewest_lookups(extents, attributes, expected, direct):
    rng = np.random.default_rng(7)
    model = one_node("MaxPool", [(1, 1, *extents)], **attributes)
    network = agree(model, [whole_numbers(rng, 1, *extents)], rng)
    assert lookups(network) <= direct
    assert lookups(network) == expected


def test_padding_of_maxima_costs_no_lookup():
    rng = np.random.default_rng(8)
    model = one_node("MaxPool", [(1, 1, 4)], kernel_shape=[3], pads=[1, 1], strides=[2])
    # Windows {0, 1} and {1, 2, 3}.
    assert lookups(agree(model, [whole_numbers(rng, 1, 4)], rng)) == 1 + 2


def test_maxima_of_channels_with_scales_of_either_sign_are_exact():
    rng = np.random.default_rng(9)
    factor = np.array([-0.5, 2.0, 0.0], np.float32).reshape(1, 3, 1, 1)
    nodes = [node("Mul", ["x", "w"], "a"), node("MaxPool", "a", "y", kernel_shape=[2, 2])]
    model = build(nodes, [value("x", (1, 3, 4, 4))], ["y"], {"w": factor}, opset=21)
    agree(model, [whole_numbers(rng, 3, 4, 4)], rng)


def test_maxima_of_sixteen_bit_inputs_are_quantized_before_they_are_compared():
    rng = np.random.default_rng(10)
    how = settings({"model_inputs": 16, "op_inputs": 6, "op_weights": 6}, bounds="proved")
    model = one_node("MaxPool", [(1, 1, 4)], kernel_shape=[2])
    samples = rng.normal(size=(50, 1, 4))
    step = np.ptp(samples) / (2**6 - 1)
    agree(model, [samples], rng, how, bound=step / 2)


def test_a_pool_that_would_be_too_wide_for_the_lookup_behind_it_is_quantized_first():
    rng = np.random.default_rng(11)
    how = settings({"model_inputs": 12, "op_inputs": 6, "op_weights": 6}, bounds="proved")
    nodes = [node("AveragePool", "x", "a", kernel_shape=[8, 8]), node("Relu", "a", "y")]
    model = build(nodes, [value("x", (1, 1, 8, 8))], ["y"], opset=21)
    network = imported(model, [rng.normal(size=(50, 1, 8, 8))], how)
    assert lookups(network) == 64 + 1
    widths = [
        network.program.nodes[n.operands[0]].value.bit_width for n in network.program.nodes if n.op == "table_lookup"
    ]
    assert max(widths) <= 16


def test_differences_of_maxima_stay_narrow_beside_the_accumulators_that_read_the_maxima():
    rng = np.random.default_rng(13)
    nodes = [
        node("MaxPool", "x", "a", kernel_shape=[2, 2], strides=[2, 2]),
        node("Conv", ["a", "w"], "b"),
        node("Relu", "b", "y"),
    ]
    w = rng.normal(size=(8, 4, 2, 2)).astype(np.float32)
    model = build(nodes, [value("x", (1, 4, 4, 4))], ["y"], {"w": w}, opset=21)
    how = settings({"model_inputs": 5, "op_inputs": 5, "op_weights": 5})
    network = imported(model, [rng.normal(size=(60, 4, 4, 4))], how)
    simulate(network, codes(network, rng))
    regions = region_widths(network.program)
    widths = {}
    for n in network.program.nodes:
        if n.op == "table_lookup":
            width = regions[n.operands[0]].bit_width
            widths[width] = widths.get(width, 0) + int(np.prod(n.value.shape))
    # 4 channels: 8 + 4 maxima and 4 copies of 5 bits read 6; the outputs read the accumulators.
    assert widths.pop(6) == 4 * (8 + 4 + 4)
    assert list(widths.values()) == [8]


@pytest.mark.parametrize(
    "module",
    [
        torch.nn.MaxPool2d(3, stride=2, padding=1, ceil_mode=True),
        torch.nn.MaxPool2d(2, dilation=2),
        torch.nn.AvgPool2d(3, stride=2, padding=1, ceil_mode=True),
        torch.nn.AvgPool2d(2, count_include_pad=False, padding=1),
        torch.nn.AdaptiveAvgPool2d(2),
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.AdaptiveMaxPool2d(1),
    ],
    ids=str,
)
def test_pools_of_torch_are_exact(module):
    rng = np.random.default_rng(12)
    samples = whole_numbers(rng, 2, 6, 6)
    network = imported(export_torch(module, samples.astype(np.float32)), [samples], PROVED)
    q = codes(network, rng)
    with torch.no_grad():
        expected = module(torch.from_numpy(floats(network, q)[0])).numpy()
    np.testing.assert_allclose(simulate(network, q)[0], expected, rtol=0, atol=2.0**-40 * 20)


@pytest.mark.parametrize(
    ("op_type", "shape", "attributes", "what"),
    [
        ("MaxPool", (1, 1, 4, 4, 4), {"kernel_shape": [2, 2, 2]}, "3 spatial axes"),
        ("AveragePool", (1, 1, 4, 4, 4), {"kernel_shape": [2, 2, 2]}, "3 spatial axes"),
        ("LpPool", (1, 1, 4), {"kernel_shape": [2], "pads": [1, 0]}, "padding"),
        ("MaxPool", (1, 1, 4), {"kernel_shape": [2], "pads": [2, 0]}, "padding only"),
    ],
)
def test_pools_that_are_not_supported_name_the_node_and_a_remedy(op_type, shape, attributes, what):
    model = one_node(op_type, [shape], **attributes)
    with pytest.raises(UnsupportedOperatorError, match=f"{op_type} '{op_type}_y0': .*{what}.*; "):
        imported(model, [ints(np.random.default_rng(0), 4, *shape[1:])])


def test_indices_of_maxima_are_not_supported():
    pool = node("MaxPool", "x", ["y", "at"], kernel_shape=[2])
    model = build([pool], [value("x", (1, 1, 4))], ["y", value("at", (1, 1, 3), np.int64)], opset=21)
    with pytest.raises(UnsupportedOperatorError, match="Indices"):
        imported(model, [ints(np.random.default_rng(0), 4, 1, 4)])


@pytest.mark.fhe
def test_maxima_with_shared_parts_and_the_convolution_behind_them_are_decrypted_exactly():
    rng = np.random.default_rng(14)
    geometry = {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}
    nodes = [node("MaxPool", "x", "a", **geometry), node("Conv", ["a", "w"], "y")]
    model = build(nodes, [value("x", (1, 1, 5, 5))], ["y"], {"w": ints(rng, 2, 1, 2, 2, most=1)}, opset=21)
    how = settings({"model_inputs": 3, "op_inputs": 3, "op_weights": 3})
    decrypts_exactly(model, [whole_numbers(rng, 1, 5, 5, low=-4, high=3)], rng, how)
