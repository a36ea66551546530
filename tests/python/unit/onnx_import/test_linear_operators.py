import numpy as np
import pytest
import torch

from fhelearn.exceptions import UnsupportedOperatorError
from fhelearn.frontends.onnx.quantizer import weighted
from fhelearn.ir import OPS
from fhelearn.onnx import export_torch
from tests.python.unit.onnx_import.exactness import PROVED, agree, decrypts_exactly, ints, lookups, whole_numbers
from tests.python.unit.onnx_import.graphs import (
    build,
    codes,
    floats,
    imported,
    node,
    one_node,
    reference,
    settings,
    simulate,
    value,
)

SEEDS = range(16)
CALIBRATED = settings(8)


# -- Gemm and MatMul ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", SEEDS)
def test_gemm_with_integer_weights_is_exact_for_all_attributes(seed):
    rng = np.random.default_rng(seed)
    m, k, n = rng.integers(1, 6, 3).tolist()
    transposed = {"transA": int(rng.integers(0, 2)), "transB": int(rng.integers(0, 2))}
    a, b = ((k, m) if transposed["transA"] else (m, k)), ((n, k) if transposed["transB"] else (k, n))
    c = [None, (), (1,), (n,), (1, n), (m, 1), (m, n)][rng.integers(0, 7)]
    attributes = {"alpha": float(rng.choice([1, 0.5, -2, 0])), "beta": float(rng.choice([1, 0.25, -3, 0]))}
    left = bool(rng.integers(0, 2))
    encrypted, clear = (a, b) if left else (b, a)
    operands = [encrypted, ints(rng, *clear)] if left else [ints(rng, *clear), encrypted]
    if c is not None:
        operands.append(ints(rng, *c))
    model = one_node("Gemm", operands, **transposed, **attributes)
    samples = whole_numbers(rng, *(encrypted[1:] if encrypted[0] == 1 else encrypted))
    assert lookups(agree(model, [samples], rng)) == 0


@pytest.mark.parametrize("c", [(4,), (1, 4), (3, 1), (3, 4)])
def test_gemm_adds_an_encrypted_addend_without_a_lookup(c):
    rng = np.random.default_rng(1)
    w = ints(rng, 2, 4)
    w[0] = 1  # so that the step of the product divides that of the addend
    model = one_node("Gemm", [(3, 2), w, value("c", c)], alpha=0.5, beta=2.0)
    samples = [whole_numbers(rng, 3, 2), whole_numbers(rng, *(c[1:] if c[0] == 1 else c))]
    assert lookups(agree(model, samples, rng)) == 0


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ((1, 3), (3,)),
        ((1, 3), (3, 4)),
        ((2, 3), (3, 4)),
        ((1, 2, 3), (3, 4)),
        ((1, 2, 3), (1, 3, 4)),
        ((1, 2, 3), (5, 3, 4)),
        ((2, 3), (5, 3, 4)),
        ((5, 2, 3), (5, 3, 4)),
        ((5, 1, 2, 3), (4, 3, 2)),
        ((1, 2, 2, 3), (2, 1, 3, 2)),
        ((3,), (3,)),
        ((3,), (3, 4)),
        ((3,), (2, 3, 4)),
        ((2, 3, 4), (4,)),
    ],
)
@pytest.mark.parametrize("clear", ["left", "right"])
def test_matmul_with_integer_weights_is_exact_for_all_ranks(left, right, clear):
    rng = np.random.default_rng(2)
    encrypted = right if clear == "left" else left
    operands = [ints(rng, *left), right] if clear == "left" else [left, ints(rng, *right)]
    model = one_node("MatMul", operands)
    samples = whole_numbers(rng, *(encrypted[1:] if encrypted[0] == 1 else encrypted))
    assert lookups(agree(model, [samples], rng)) == 0


@pytest.mark.parametrize(
    ("left", "right"),
    [((1, 2, 3), (1, 3, 2)), ((2, 3), (3, 2)), ((3,), (3,)), ((3,), (3, 2)), ((2, 3), (3,)), ((2, 1, 2, 3), (2, 3, 1))],
)
def test_products_of_encrypted_matrices_are_exact(left, right):
    rng = np.random.default_rng(3)
    samples = [whole_numbers(rng, *(s[1:] if s[0] == 1 else s)) for s in (left, right)]
    network = agree(one_node("MatMul", [left, right]), samples, rng)
    # Two per product: floor of squares of the sum and of the difference.
    products = int(np.prod(np.matmul(np.ones(left), np.ones(right)).shape)) * 3
    assert lookups(network) == 2 * products


def test_products_of_encrypted_matrices_of_equal_sign_are_exact():
    rng = np.random.default_rng(4)
    samples = [whole_numbers(rng, 2, 3, low=50, high=90), whole_numbers(rng, 3, 2, low=-90, high=-50)]
    agree(one_node("MatMul", [(1, 2, 3), (1, 3, 2)]), samples, rng)


def test_a_scale_per_row_is_kept_and_needs_no_lookup():
    rng = np.random.default_rng(5)
    nodes = [node("Mul", ["x", "s"], "a"), node("MatMul", ["a", "w"], "y")]
    scale = np.array([0.5, -3.0, 0.0, 7.0], np.float32).reshape(4, 1)
    model = build(nodes, [value("x", (1, 4, 3))], ["y"], {"s": scale, "w": ints(rng, 3, 5)}, opset=21)
    assert lookups(agree(model, [whole_numbers(rng, 4, 3)], rng)) == 0


def test_a_result_of_clear_weights_from_the_left_is_multiplied_from_the_right_without_a_lookup():
    rng = np.random.default_rng(6)
    nodes = [node("MatMul", ["l", "x"], "a"), node("MatMul", ["a", "r"], "y")]
    left = ints(rng, 4, 3, most=1)
    model = build(nodes, [value("x", (1, 3, 5))], ["y"], {"l": left, "r": ints(rng, 5, 2)}, opset=21)
    assert lookups(agree(model, [whole_numbers(rng, 3, 5)], rng)) == 0


@pytest.mark.parametrize("weights", ["per_channel", "per_tensor"])
def test_the_error_of_rounded_weights_is_half_a_step_per_unit_of_the_codes(weights):
    rng = np.random.default_rng(7)
    w = rng.normal(size=(6, 4)).astype(np.float32) * [1, 10, 100, 0.1]
    model = one_node("MatMul", [(1, 3, 6), w.astype(np.float32)])
    samples = rng.normal(size=(40, 3, 6))

    def bound(network, q):
        step = network.decoders[0].columns.scale.reshape(3, 4)
        return np.abs(q[0][:, 0]).sum(axis=-1, keepdims=True) * step / 2

    agree(model, [samples], rng, settings(8, bounds="proved", weights=weights), bound=bound)


def test_weights_quantized_in_training_are_taken_exactly():
    rng = np.random.default_rng(8)
    scales = np.float32([0.1, 0.037, 1.7, 0.003])
    w = ints(rng, 6, 4, most=7) * scales  # float32 rounds each product
    model = one_node("MatMul", [(1, 6), w])
    samples = whole_numbers(rng, 6, low=-8, high=7)
    network = imported(model, [samples], settings({"op_inputs": 4, "op_weights": 4}, bounds="proved"))
    q = codes(network, rng)
    (found,), (expected,) = simulate(network, q), reference(model, floats(network, q))
    np.testing.assert_allclose(found, expected, rtol=0, atol=6 * 8 * 7 * 1.7 * 2.0**-23)
    assert network.program.nodes[network.program.outputs[0]].value.bit_width <= 10


def test_small_integer_weights_are_added_to_a_skip_connection_of_another_scale_without_a_lookup():
    rng = np.random.default_rng(15)
    nodes = [node("MatMul", ["x", "w"], "a"), node("Mul", ["x", "s"], "b"), node("Add", ["a", "b"], "y")]
    w = ints(rng, 4, 4, most=1)
    w[0] = 1
    model = build(nodes, [value("x", (1, 2, 4))], ["y"], {"w": w, "s": np.float32(1.25)}, opset=21)
    assert lookups(agree(model, [whole_numbers(rng, 2, 4)], rng)) == 0


# -- Conv --------------------------------------------------------------------------------------------------------------


def conv_variant(rng, *, transposed=False):
    """Extents, weights and attributes of a convolution with at least one window."""
    rank = int(rng.integers(1, 3))
    groups = int(rng.choice([1, 2, 3]))
    inputs, outputs = (groups * int(n) for n in rng.integers(1, 3, 2))
    extents, kernel = rng.integers(4, 8, rank).tolist(), rng.integers(1, 4, rank).tolist()
    dilations = [int(rng.integers(1, 3)) if 2 * (k - 1) < n else 1 for k, n in zip(kernel, extents, strict=True)]
    attributes = {"strides": rng.integers(1, 4, rank).tolist(), "dilations": dilations, "group": groups}
    pads = [int(rng.integers(0, d * (k - 1) + 1)) for k, d in zip(kernel * 2, dilations * 2, strict=True)]
    mode = rng.choice(["pads", "SAME_UPPER", "SAME_LOWER", "VALID"])
    attributes |= {"pads": pads} if mode == "pads" else {"auto_pad": str(mode)}
    shape = (inputs, outputs // groups) if transposed else (outputs, inputs // groups)
    bias = [ints(rng, outputs, most=50)] if rng.integers(0, 2) else []
    return (inputs, *extents), [ints(rng, *shape, *kernel), *bias], attributes


@pytest.mark.parametrize("seed", range(24))
@pytest.mark.parametrize("how", [PROVED, CALIBRATED], ids=["proved", "calibrated"])
def test_convolutions_with_integer_weights_are_exact_for_all_attributes(seed, how):
    rng = np.random.default_rng(seed)
    row, weights, attributes = conv_variant(rng)
    model = one_node("Conv", [(1, *row), *weights], **attributes)
    samples = whole_numbers(rng, *row, rows=60)
    if how is PROVED:
        assert lookups(agree(model, [samples], rng, how)) == 0
    else:
        network = imported(model, [samples], how)
        q = network.quantize([samples])
        np.testing.assert_allclose(
            simulate(network, q)[0], reference(model, [samples])[0], rtol=0, atol=2.0**-40 * 20 * 5 * 36
        )
        simulate(network, codes(network, rng))  # whatever leaves the calibrated bounds wraps alike


@pytest.mark.parametrize("seed", range(24))
def test_transposed_convolutions_with_integer_weights_are_exact_for_all_attributes(seed):
    rng = np.random.default_rng(seed)
    row, weights, attributes = conv_variant(rng, transposed=True)
    strides = attributes["strides"]
    if "auto_pad" not in attributes:
        attributes["output_padding"] = [int(rng.integers(0, s)) for s in strides]
    elif attributes["auto_pad"] == "VALID":
        del attributes["auto_pad"]
    model = one_node("ConvTranspose", [(1, *row), *weights], **attributes)
    assert lookups(agree(model, [whole_numbers(rng, *row)], rng)) == 0


@pytest.mark.parametrize("auto_pad", ["NOTSET", "SAME_UPPER", "SAME_LOWER"])
@pytest.mark.parametrize("output_shape", [[8, 6], [9, 7], [10, 8]])
def test_transposed_convolutions_take_the_output_shape_that_is_asked_for(auto_pad, output_shape):
    rng = np.random.default_rng(9)
    model = one_node(
        "ConvTranspose",
        [(1, 2, 3, 3), ints(rng, 2, 2, 3, 3)],
        strides=[3, 2],
        auto_pad=auto_pad,
        output_shape=output_shape,
    )
    network = agree(model, [whole_numbers(rng, 2, 3, 3)], rng)
    assert network.decoders[0].row == (2, *output_shape)


def test_the_error_of_a_convolution_is_half_a_step_per_unit_of_its_windows_codes():
    rng = np.random.default_rng(10)
    w = rng.normal(size=(4, 3, 3, 3)).astype(np.float32)
    model = one_node("Conv", [(1, 3, 6, 6), w], pads=[1, 0, 1, 2])
    ones = one_node("Conv", [(1, 3, 6, 6), np.ones_like(w)], pads=[1, 0, 1, 2])
    samples = rng.normal(size=(40, 3, 6, 6))

    def bound(network, q):
        step = network.decoders[0].columns.scale.reshape(network.decoders[0].row)
        return reference(ones, [np.abs(q[0][:, 0]).astype(np.float64)])[0] * step / 2

    agree(model, [samples], rng, bound=bound)


def test_convolutions_of_channels_with_scales_and_offsets_of_their_own_are_within_their_weights_rounding():
    rng = np.random.default_rng(11)
    s, o = (np.float32(v).reshape(3, 1, 1) for v in ([0.5, 2.0, 0.1], [1.3, -0.7, 100.0]))
    w = ints(rng, 4, 3, 3, 3)
    tail = [node("Add", ["a", "o"], "b"), node("Conv", ["b", "w"], "y", pads=[1, 1, 1, 1])]
    model = build(
        [node("Mul", ["x", "s"], "a"), *tail], [value("x", (1, 3, 5, 5))], ["y"], {"s": s, "o": o, "w": w}, opset=21
    )
    ones = one_node("Conv", [(1, 3, 5, 5), np.ones_like(w)], pads=[1, 1, 1, 1])

    def bound(network, q):
        step = network.decoders[0].columns.scale.reshape(network.decoders[0].row)
        return reference(ones, [np.abs(q[0][:, 0]).astype(np.float64)])[0] * step / 2

    assert lookups(agree(model, [whole_numbers(rng, 3, 5, 5)], rng, bound=bound)) == 0


def test_zeros_beside_data_off_the_grid_stay_exact_in_front_of_a_lookup():
    rng = np.random.default_rng(12)
    nodes = [
        node("Add", ["x", "o"], "a"),
        node("Conv", ["a", "w"], "b", pads=[1, 1, 1, 1]),
        node("Relu", "b", "y"),
    ]
    w = ints(rng, 1, 1, 3, 3)
    model = build(nodes, [value("x", (1, 1, 4, 4))], ["y"], {"o": np.float32([[[0.3]]]), "w": w}, opset=21)
    samples = whole_numbers(rng, 1, 4, 4, rows=200)
    # The data is quantized anew, then the output; both grids hold the calibration rows, which are the ones compared.
    network = imported(model, [samples], PROVED)
    (found,), (expected,) = simulate(network, network.quantize([samples])), reference(model, [samples])
    allowed = np.abs(w).sum() * (40.0 / 255) / 2 + network.decoders[0].columns.scale.max() / 2
    assert np.abs(found - expected).max() <= allowed


MODULES = [
    torch.nn.Conv1d(4, 6, 3, stride=2, padding=1, groups=2),
    torch.nn.Conv1d(4, 4, 3, dilation=2, groups=4, bias=False),
    torch.nn.Conv2d(4, 6, 3, padding="same"),
    torch.nn.Conv2d(4, 8, (3, 2), stride=(2, 1), padding=(0, 1), groups=4),
    torch.nn.Conv2d(4, 2, 3, padding=1, padding_mode="zeros", bias=False),
    torch.nn.ConvTranspose1d(4, 6, 3, stride=2, padding=1, output_padding=1),
    torch.nn.ConvTranspose2d(4, 6, 3, stride=2, groups=2),
    torch.nn.ConvTranspose2d(4, 2, (2, 3), stride=(3, 2), padding=(1, 0), dilation=2, bias=False),
]


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_convolutions_of_torch_are_exact(module):
    rng = np.random.default_rng(13)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.from_numpy(ints(rng, *parameter.shape)))
    samples = whole_numbers(rng, 4, *((6,) if "1d" in type(module).__name__ else (6, 5)))
    network = imported(export_torch(module, samples.astype(np.float32)), [samples], PROVED)
    q = codes(network, rng)
    with torch.no_grad():
        expected = module.double()(torch.from_numpy(floats(network, q)[0])).numpy()
    module.float()
    np.testing.assert_array_equal(simulate(network, q)[0], expected)


@pytest.mark.parametrize(
    ("op_type", "operands", "what"),
    [
        ("Conv", [(1, 1, 4, 4, 4), np.ones((1, 1, 2, 2, 2), np.float32)], "3 spatial axes"),
        ("Conv", [(2, 1, 4, 4), np.ones((1, 1, 2, 2), np.float32)], "2 rows"),
        ("Conv", [(1, 1, 4, 4), (1, 1, 2, 2)], "the weights depends on encrypted data"),
        ("ConvTranspose", [(1, 1, 4, 4, 4), np.ones((1, 1, 2, 2, 2), np.float32)], "3 spatial axes"),
    ],
)
def test_convolutions_that_are_not_supported_name_the_node_and_a_remedy(op_type, operands, what):
    model = one_node(op_type, operands)
    shapes = [o[1:] if o[0] == 1 else o for o in operands if isinstance(o, tuple)]
    with pytest.raises(UnsupportedOperatorError, match=f"{op_type} '{op_type}_y0': .*{what}.*; "):
        imported(model, [np.ones((3, *shape)) for shape in shapes])


# -- how samples are computed ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("largest", [2**7, 2**40])
def test_samples_of_linear_operators_are_those_of_the_program_whatever_their_size(largest):
    rng = np.random.default_rng(14)
    x = rng.integers(-largest, largest, (7, 4, 5, 5))
    w = rng.integers(-(2**15), 2**15, (6, 2, 3, 3))
    attributes = {"weights": w, "strides": (1, 2), "dilations": (1, 1), "groups": 2}
    np.testing.assert_array_equal(weighted("conv2d", x, attributes), OPS["conv2d"].evaluate([x], attributes))
    by_matrix = {"weights": w.reshape(-1, 4)[:5]}
    np.testing.assert_array_equal(weighted("matmul", x, by_matrix), OPS["matmul"].evaluate([x], by_matrix))


@pytest.mark.fhe
@pytest.mark.parametrize("op_type", ["ConvTranspose", "MatMul"])
def test_transposed_convolutions_and_batched_products_are_decrypted_exactly(op_type):
    rng = np.random.default_rng(16)
    if op_type == "MatMul":
        row, model = (2, 2, 3), one_node("MatMul", [(1, 2, 2, 3), ints(rng, 2, 3, 2)])
    else:
        row, weights = (2, 3, 3), ints(rng, 2, 1, 2, 2)
        model = one_node("ConvTranspose", [(1, *row), weights], strides=[2, 2], output_padding=[1, 0])
    decrypts_exactly(model, [whole_numbers(rng, *row)], rng, CALIBRATED)
