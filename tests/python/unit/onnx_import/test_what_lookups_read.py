"""Lookups read what can be encrypted, whatever operators meet: at most 16 bits, whole accumulators included."""

import numpy as np
import pytest

from fhelearn.exceptions import QuantizationError
from fhelearn.frontends.onnx import Rounding, Settings
from fhelearn.frontends.onnx.network import lookup_groups
from fhelearn.frontends.onnx.settings import WIDEST_LOOKUP
from tests.python.unit.onnx_import.exactness import PROVED, agree, ints, whole_numbers
from tests.python.unit.onnx_import.graphs import build, codes, imported, node, settings, simulate, value

EVERY_BOUNDS = pytest.mark.parametrize("bounds", ["calibrated", "proved"])


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def widest(network):
    return max(group.bits for group in lookup_groups(network.program))


@EVERY_BOUNDS
@pytest.mark.parametrize("op_type", ["Mul", "Div", "Max"])
def test_accumulators_that_meet_at_the_end_of_a_model_can_be_looked_up(rng, op_type, bounds):
    weights = {name: rng.normal(size=(64, 8)).astype(np.float32) for name in ("v", "w")}
    nodes = [
        node("MatMul", ["x", "v"], "a"),
        node("MatMul", ["x", "w"], "logit"),
        node("Sigmoid", "logit", "b"),
        node(op_type, ["a", "b"], "y"),
    ]
    model = build(nodes, [value("x", (1, 64))], ["y"], weights)
    network = imported(model, [rng.normal(size=(50, 64))], settings(8, bounds=bounds))
    assert 8 < widest(network) <= WIDEST_LOOKUP
    simulate(network, codes(network, rng))


@EVERY_BOUNDS
@pytest.mark.parametrize("method", [None, "exact"])
def test_a_product_that_is_looked_up_can_be(rng, method, bounds):
    nodes = [
        node("Tanh", "x0", "a"),
        node("Sigmoid", "x1", "b"),
        node("Mul", ["a", "b"], "m"),
        node("MatMul", ["m", "w"], "y"),
    ]
    inputs = [value(name, (1, 6)) for name in ("x0", "x1")]
    model = build(nodes, inputs, ["y"], {"w": rng.normal(size=(6, 3)).astype(np.float32)})
    rounding = None if method is None else Rounding(3, method)
    network = imported(model, list(rng.normal(size=(2, 30, 6))), settings(10, bounds=bounds, rounding=rounding))
    assert widest(network) <= WIDEST_LOOKUP
    simulate(network, codes(network, rng))


@pytest.mark.parametrize("bounds", ["calibrated", "proved"])
def test_a_skip_connection_is_not_wider_than_exact_rounding_can_read(rng, bounds):
    nodes = [node("MatMul", ["x", "w"], "a"), node("Add", ["a", "x"], "s"), node("Tanh", "s", "y")]
    model = build(nodes, [value("x", (1, 5))], ["y"], {"w": rng.normal(size=(5, 5)).astype(np.float32)})
    how = settings(8, bounds=bounds, rounding=Rounding(3, "exact"), weights="per_tensor")
    network = imported(model, [4 * rng.normal(size=(20, 5))], how)
    assert widest(network) <= WIDEST_LOOKUP


@EVERY_BOUNDS
def test_a_mean_over_a_large_image_can_be_looked_up(rng, bounds):
    nodes = [node("Relu", "x", "r"), node("GlobalAveragePool", "r", "g"), node("Tanh", "g", "y")]
    model = build(nodes, [value("x", (1, 1, 32, 32))], ["y"])
    bright = np.repeat(np.linspace(0, 1, 9), 1024).reshape(9, 1, 32, 32)
    network = imported(model, [bright], settings(8, bounds=bounds))
    assert widest(network) <= WIDEST_LOOKUP
    # one lookup per element, and one for the mean: the coarser grid replaces the finer one
    assert sum(group.count for group in lookup_groups(network.program)) == 1024 + 1


def test_two_readers_of_one_activation_share_its_lookup_before_widths_are_planned(rng):
    """The maximum's differences share the region of the convolution's sums, and still read no more than their bits."""
    nodes = [
        node("Relu", "x", "r"),
        node("MaxPool", "r", "m", kernel_shape=[1, 2]),
        node("Conv", ["r", "w"], "y"),
    ]
    weights = rng.normal(size=(2, 1, 2, 2)).astype(np.float32)
    model = build(nodes, [value("x", (1, 1, 4, 4))], ["m", "y"], {"w": weights})
    how = settings(8, activations="per_channel")
    network = imported(model, [rng.normal(size=(30, 1, 4, 4))], how)
    assert widest(network) <= 8 + 1


@pytest.mark.parametrize("op_type", ["Relu", "Floor", "Pow", "Where"])
def test_a_function_of_an_image_may_be_flattened(rng, op_type):
    number = np.ones((1, 1, 1, 1), dtype=np.float32)
    operands = {"Pow": ["x", "two"], "Where": ["c", "x", "one"]}.get(op_type, ["x"])
    nodes = [
        *([node("Greater", ["x", "one"], "c")] if op_type == "Where" else []),
        node(op_type, operands, "r"),
        node("Reshape", ["r", "shape"], "flat"),
        node("MatMul", ["flat", "w"], "y"),
    ]
    constants = {"one": number, "two": 2 * number, "shape": np.array([1, 12]), "w": ints(rng, 12, 3)}
    used = {name for each in nodes for name in each.input}
    model = build(nodes, [value("x", (1, 3, 2, 2))], ["y"], {name: a for name, a in constants.items() if name in used})
    agree(model, [whole_numbers(rng, 3, 2, 2, low=-9, high=9)], rng, PROVED)


def test_the_bits_of_weights_are_those_that_are_left(rng):
    """Sums of 64 products of 12 bits do not fit a lookup: what the report says of the weights is what they have."""
    weights = {"w": rng.normal(size=(64, 4)).astype(np.float32)}
    model = build([node("MatMul", ["x", "w"], "a"), node("Relu", "a", "y")], [value("x", (1, 64))], ["y"], weights)
    network = imported(model, [rng.normal(size=(50, 64))], settings(12, bounds="proved"))
    (bits,) = network.weight_bits.values()
    (used,) = [each.array("weights") for each in network.program.nodes if each.op == "matmul"]
    assert bits == int(np.abs(used).max()).bit_length() + 1
    assert bits < 12


def test_an_unknown_observer_is_refused_even_where_none_observes():
    with pytest.raises(QuantizationError, match="observer must be 'minmax' or 'percentile' or 'mse', got 'median'"):
        Settings(settings(8).n_bits, observer="median")


def test_more_tables_than_memory_holds_are_refused(rng):
    """A constant per pixel behind a convolution makes a table of 16 bits per pixel."""
    nodes = [node("Conv", ["x", "w"], "h"), node("Add", ["h", "c"], "a"), node("Relu", "a", "y")]
    constants = {
        "w": rng.normal(size=(32, 32, 1, 1)).astype(np.float32),
        "c": rng.normal(size=(1, 32, 8, 8)).astype(np.float32),
    }
    model = build(nodes, [value("x", (1, 32, 8, 8))], ["y"], constants)
    with pytest.raises(QuantizationError, match=r"2048 elements differ .* at most 67108864 fit; lower n_bits"):
        imported(model, [rng.normal(size=(3, 32, 8, 8))])


@pytest.mark.parametrize("shape", [(0,), (1, 0), (1, 0, 3)])
def test_an_input_without_elements_is_refused(shape):
    model = build([node("Relu", "x", "y")], [value("x", shape)], ["y"])
    with pytest.raises(QuantizationError, match=r"input 'x' of shape .* has no elements"):
        imported(model, [np.zeros((5, *shape))])
