import numpy as np
import pytest

from fhelearn.exceptions import UnsupportedOperatorError
from fhelearn.frontends.onnx.registry import ANY_REMEDY, OPERATORS, REMEDIES
from tests.python.unit.onnx_import.exactness import PROVED, agree, lookups, whole_numbers
from tests.python.unit.onnx_import.graphs import build, imported, node, one_node, settings, value

SHAPE = (3, 4, 2)
AXES = [None, [1], [-1], [1, 3], [0], [0, 1, 2, 3], [2, -3]]
LEVELLED = ("ReduceSum", "ReduceMean")
COMPARED = ("ReduceMax", "ReduceMin")
THROUGH_SQUARES = ("ReduceL1", "ReduceSumSquare")


def reduction(op_type, axes, *, opset=21, shape=SHAPE, **attributes):
    """A model of one reduction of a row of `shape`; axes are an attribute in old opsets."""
    old = opset < (13 if op_type == "ReduceSum" else 18)
    operands = [(1, *shape)]
    if axes is not None and old:
        attributes["axes"] = axes
    elif axes is not None:
        operands.append(np.array(axes, dtype=np.int64))
    return one_node(op_type, operands, opset=opset, **attributes)


@pytest.mark.parametrize("axes", AXES, ids=str)
@pytest.mark.parametrize("keepdims", [0, 1])
@pytest.mark.parametrize("op_type", LEVELLED + COMPARED + THROUGH_SQUARES)
def test_reductions_of_small_integers_are_exact(op_type, axes, keepdims):
    rng = np.random.default_rng(0)
    # Squares of up to 15 have 8 bits, so that their grid holds all of them.
    model = reduction(op_type, axes, keepdims=keepdims)
    network = agree(model, [whole_numbers(rng, *SHAPE, low=-15, high=15)], rng)
    axes = range(4) if axes is None else [a % 4 for a in axes]
    results = int(np.prod([n for a, n in enumerate((1, *SHAPE)) if a not in axes]))
    elements = int(np.prod(SHAPE))
    expected = {**dict.fromkeys(LEVELLED, 0), **dict.fromkeys(COMPARED, elements - results)}
    assert lookups(network) == expected.get(op_type, elements)


@pytest.mark.parametrize("op_type", LEVELLED + COMPARED)
@pytest.mark.parametrize("opset", [13, 17, 18])
def test_axes_are_an_attribute_in_old_opsets_and_an_input_in_new_ones(op_type, opset):
    rng = np.random.default_rng(1)
    agree(reduction(op_type, [1, 2], opset=opset, keepdims=0), [whole_numbers(rng, *SHAPE)], rng)


@pytest.mark.parametrize("op_type", LEVELLED + COMPARED + THROUGH_SQUARES)
def test_an_empty_list_of_axes_means_none_if_the_node_says_so(op_type):
    rng = np.random.default_rng(2)
    model = reduction(op_type, [], noop_with_empty_axes=1)
    samples = whole_numbers(rng, *SHAPE, low=-15, high=15)
    samples[2] = 0
    network = imported(model, [samples], PROVED)
    assert network.decoders[0].row == SHAPE
    agree(model, [samples], rng)
    agree(reduction(op_type, [], noop_with_empty_axes=0), [samples], rng)


def test_a_norm_is_within_half_a_step_of_the_output():
    rng = np.random.default_rng(3)
    samples = whole_numbers(rng, *SHAPE, low=-15, high=15)
    samples[2] = 0
    model = reduction("ReduceL2", [1, 3], keepdims=0)
    agree(model, [samples], rng, bound=lambda network, q: network.decoders[0].columns.scale.max() / 2)


def test_the_logarithm_of_a_sum_is_within_half_a_step_of_the_output():
    rng = np.random.default_rng(4)
    samples = whole_numbers(rng, *SHAPE, low=1, high=40)
    model = reduction("ReduceLogSum", [2], keepdims=1)
    agree(model, [samples], rng, bound=lambda network, q: network.decoders[0].columns.scale.max() / 2)


def test_a_log_sum_exp_is_within_the_steps_of_its_two_lookups():
    rng = np.random.default_rng(5)
    samples = rng.uniform(0.0, 2.0, (60, 4))
    samples[0], samples[1] = 0.0, 2.0
    how = settings({"model_inputs": 8, "op_inputs": 8, "op_weights": 8, "model_outputs": 8}, bounds="proved")
    # The exponentials are off by half a step each, their sum by `error`; it is at least 4, so that the logarithm is off
    # by -log(1 - error / 4) at most.
    error = 4 * (np.exp(2.0) - 1) / 255 / 2
    step = (np.log(4 * np.exp(2.0)) - np.log(4)) / 255
    agree(
        reduction("ReduceLogSumExp", [1], shape=(4,)),
        [samples],
        rng,
        how,
        bound=-np.log1p(-error / 4) + step / 2 * 1.01,
    )


@pytest.mark.parametrize("exclusive", [0, 1])
@pytest.mark.parametrize("reverse", [0, 1])
@pytest.mark.parametrize("axis", [1, 2, -1])
def test_running_sums_are_exact_and_need_no_lookup(exclusive, reverse, axis):
    rng = np.random.default_rng(6)
    model = one_node("CumSum", [(1, *SHAPE), np.array(axis)], exclusive=exclusive, reverse=reverse)
    assert lookups(agree(model, [whole_numbers(rng, *SHAPE)], rng)) == 0


@pytest.mark.parametrize("op_type", LEVELLED + COMPARED)
def test_columns_with_scales_of_their_own_are_reduced_on_a_common_grid(op_type):
    rng = np.random.default_rng(7)
    samples = rng.normal(size=(50, 5)) * [1.0, 10.0, 0.1, 3.0, 7.0]
    agree(reduction(op_type, [1], shape=(5,)), [samples], rng)


@pytest.mark.parametrize("op_type", COMPARED)
def test_extremes_of_a_function_are_those_of_its_quantized_values(op_type):
    rng = np.random.default_rng(8)
    nodes = [node("Tanh", "x", "a"), node(op_type, ["a", "axes"], "y", keepdims=0)]
    model = build(nodes, [value("x", (1, 6))], ["y"], {"axes": np.array([1])}, opset=21)
    samples = rng.uniform(-2, 2, (60, 6))
    samples[0], samples[1] = -2, 2
    step = 2 * np.tanh(2.0) / 255
    network = agree(model, [samples], rng, bound=step / 2 * 1.01)
    assert lookups(network) == 6 + 5


def test_a_sum_too_wide_for_the_lookup_behind_it_is_of_quantized_elements():
    rng = np.random.default_rng(9)
    how = settings({"model_inputs": 14, "op_inputs": 6, "op_weights": 6}, bounds="proved")
    nodes = [node("ReduceSum", ["x", "axes"], "a"), node("Relu", "a", "y")]
    model = build(nodes, [value("x", (1, 16))], ["y"], {"axes": np.array([1])}, opset=21)
    network = imported(model, [rng.normal(size=(50, 16))], how)
    assert lookups(network) == 16 + 1
    wide = [
        network.program.nodes[n.operands[0]].value.bit_width for n in network.program.nodes if n.op == "table_lookup"
    ]
    assert max(wide) <= 16


def test_a_mean_of_integers_is_not_supported_because_onnx_rounds_it():
    mean = node("ReduceMean", "x", "y", axes=[1])
    model = build([mean], [value("x", (1, 4), np.int64)], [value("y", (1, 1), np.int64)], opset=17)
    with pytest.raises(UnsupportedOperatorError, match="integers; cast it to floats"):
        imported(model, [np.ones((3, 4))])


@pytest.mark.parametrize("op_type", ["Softmax", "LogSoftmax", "ArgMax", "Hardmax", "ReduceProd"])
def test_operators_that_cannot_be_encrypted_name_a_remedy_of_their_own(op_type):
    model = build(
        [node(op_type, "x", "a"), node("Cast", "a", "b", to=1), node("Relu", "b", "y")],
        [value("x", (1, 4))],
        ["y"],
        opset=17,
    )
    with pytest.raises(UnsupportedOperatorError) as caught:
        imported(model, [np.ones((3, 4))])
    assert f"{op_type} '{op_type}_a'" in str(caught.value)
    assert REMEDIES[op_type] in str(caught.value)
    assert ANY_REMEDY not in str(caught.value)


def test_no_operator_has_both_a_handler_and_a_remedy():
    assert not set(OPERATORS) & set(REMEDIES)
