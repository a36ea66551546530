"""Operators that pick, join, pad and resample elements are exact, whatever the scales; interpolation nearly so."""

import numpy as np
import pytest

from fhelearn.exceptions import UnsupportedOperatorError
from fhelearn.ir import cost
from tests.python.unit.onnx_import.graphs import (
    assert_exact,
    build,
    codes,
    floats,
    imported,
    node,
    one_node,
    reference,
    samples,
    settings,
    simulate,
    value,
)
from tests.python.unit.onnx_import.test_shape_operators import ints, opset_of, shape_of, some_sign

FAR = 2**63 - 1


def rand_axis(rng, rank):
    axis = int(rng.integers(rank))
    return axis, axis - rank * int(rng.integers(2))


def slices(rng):
    """Both directions, ends counted from either side or far beyond, some axes only."""
    shape = shape_of(rng)
    axes = [int(a) for a in rng.permutation(len(shape))[: rng.integers(1, len(shape) + 1)]]
    starts, ends, steps = [], [], []
    for axis in axes:
        n = shape[axis]
        picked = sorted(int(i) for i in rng.integers(0, n, 2))
        if rng.random() < 0.5:
            starts.append(picked[0] - n * int(rng.integers(2)))
            ends.append(int(rng.choice([picked[1] + 1, FAR])))
            steps.append(int(rng.choice([1, 2, 99])))
        else:
            starts.append(int(rng.choice([picked[1], picked[1] - n, FAR if picked[1] == n - 1 else picked[1]])))
            ends.append(int(rng.choice([picked[0] - 1 - n, -FAR])))
            steps.append(-int(rng.choice([1, 2, 99])))
    operands = [shape, ints(*starts), ints(*ends), some_sign(rng, axes, len(shape)), ints(*steps)]
    return one_node("Slice", operands, opset=opset_of(rng))


def slice_of_the_first_axes(rng):
    return one_node("Slice", [(1, 4, 5), ints(0, -3), ints(FAR, FAR)], opset=opset_of(rng))


def gather(rng):
    shape = shape_of(rng)
    axis, signed = rand_axis(rng, len(shape))
    n = shape[axis]
    indices = rng.integers(-n, n, [(), (1,), (3,), (2, 2), (1, 2, 1)][int(rng.integers(5))])
    return one_node("Gather", [shape, np.asarray(indices)], axis=signed, opset=opset_of(rng))


def gather_elements(rng):
    shape = shape_of(rng)
    axis, signed = rand_axis(rng, len(shape))
    n = shape[axis]
    picked = tuple(3 if a == axis else int(rng.integers(1, e + 1)) for a, e in enumerate(shape))
    return one_node("GatherElements", [shape, rng.integers(-n, n, picked)], axis=signed, opset=opset_of(rng))


def gather_nd(rng):
    shape = (1, *shape_of(rng, 4)[1:])
    batch = int(rng.integers(3))
    depth = int(rng.integers(1, 4 - batch + 1))
    bounds = np.array(shape[batch : batch + depth])
    indices = rng.integers(-bounds, bounds, (*shape[:batch], 3, depth))
    return one_node("GatherND", [shape, indices], batch_dims=batch, opset=opset_of(rng))


def scatter_elements(rng):
    """All of the tensor, the indices distinct; some operands constant."""
    shape = shape_of(rng)
    axis, signed = rand_axis(rng, len(shape))
    picked = tuple(int(rng.integers(1, e + 1)) if a == axis else e for a, e in enumerate(shape))
    indices = np.argsort(rng.random(shape), axis=axis)[tuple(map(slice, picked))]
    updates = picked if rng.random() < 0.5 else rng.normal(size=picked).astype(np.float32)
    data = rng.normal(size=shape).astype(np.float32) if isinstance(updates, tuple) and rng.random() < 0.5 else shape
    return one_node("ScatterElements", [data, indices, updates], axis=signed, opset=opset_of(rng))


def scatter_nd(rng):
    shape = (1, *shape_of(rng, 3)[1:])
    indices = np.array([[0, int(rng.integers(-shape[1], shape[1]))]])
    updates = (1, shape[2]) if rng.random() < 0.5 else rng.normal(size=(1, shape[2])).astype(np.float32)
    return one_node("ScatterND", [shape, indices, updates], opset=opset_of(rng))


def reverse_sequence(rng):
    return one_node("ReverseSequence", [(1, 5, 2), rng.integers(1, 6, 1)], time_axis=1, batch_axis=0)


def trilu(rng):
    shape = shape_of(rng, int(rng.integers(2, 5)))
    operands = [shape] if rng.random() < 0.3 else [shape, np.array(rng.integers(-4, 5))]
    return one_node("Trilu", operands, upper=int(rng.integers(2)), opset=max(14, opset_of(rng)))


def center_crop_pad(rng):
    return one_node("CenterCropPad", [(1, 2, 3, 4), rng.integers(1, 7, 2)], axes=[2, -1], opset=18)


def concat(rng):
    """Encrypted and constant operands."""
    shape = list(shape_of(rng))
    axis, signed = rand_axis(rng, len(shape))
    operands = []
    for number in range(int(rng.integers(1, 5))):
        each = tuple(int(rng.integers(1, 4)) if a == axis else n for a, n in enumerate(shape))
        constant = number > 0 and rng.random() < 0.4
        operands.append(rng.normal(size=each).astype(np.float32) if constant else each)
    return one_node("Concat", [operands[i] for i in rng.permutation(len(operands))], axis=signed, opset=opset_of(rng))


def pad_constant(rng):
    """Any value and number of elements, negative numbers too."""
    shape = shape_of(rng)
    rank = len(shape)
    opset = opset_of(rng)
    axes = sorted(rng.permutation(rank)[: rng.integers(1, rank + 1)]) if opset >= 18 else range(rank)
    pads = np.array([[int(rng.integers(-((shape[a] - 1) // 2), 3)) for a in axes] for _ in range(2)])
    operands = [shape, pads.reshape(-1).astype(np.int64), None]
    if rng.random() < 0.7:
        operands[2] = np.array(rng.choice([0.0, 0.3, -7.7, 1e6, -0.5]), dtype=np.float32)
    if opset >= 18:
        operands.append(some_sign(rng, axes, rank))
    elif operands[2] is None:
        operands.pop()
    return one_node("Pad", operands, opset=opset)


def pad_with_elements(rng):
    shape = shape_of(rng)
    mode = str(rng.choice(["reflect", "edge", "wrap"]))
    pads = [int(rng.integers(0, n if mode == "reflect" else 4)) for n in (*shape, *shape)]
    return one_node("Pad", [shape, ints(*pads)], mode=mode, opset=max(19, opset_of(rng)) if mode == "wrap" else 18)


CASES = (
    slices, slice_of_the_first_axes, gather, gather_elements, gather_nd, scatter_elements, scatter_nd,
    reverse_sequence, trilu, center_crop_pad, concat, pad_constant, pad_with_elements,
)  # fmt: skip


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("case", CASES)
def test_elements_move_exactly_and_without_lookups(case, seed):
    rng = np.random.default_rng(seed)
    assert cost(assert_exact(case(rng), rng).program).total_lookups == 0


@pytest.mark.parametrize("dtype", [np.int64, np.bool_])
def test_integers_and_truth_values_are_joined_and_padded_like_floats(dtype):
    constants = {"c": np.array([[1, 0, 1]]).astype(dtype), "p": ints(0, 1, 0, 0), "v": np.array(1).astype(dtype)}
    nodes = [node("Concat", ["a", "c", "b"], "j", axis=1), node("Pad", ["j", "p", "v"], "y")]
    inputs = [value("a", (1, 2), dtype), value("b", (1, 4), dtype)]
    model = build(nodes, inputs, [value("y", (1, 10), dtype)], constants, opset=18)
    assert_exact(model, np.random.default_rng(0))


def test_comparisons_are_joined_with_constants():
    nodes = [node("Greater", ["x", "t"], "g"), node("Concat", ["g", "c"], "y", axis=1)]
    constants = {"t": np.zeros((1, 1), np.float32), "c": np.array([[True, False]])}
    model = build(nodes, [value("x", (1, 3))], [value("y", (1, 5), np.bool_)], constants)
    assert_exact(model, np.random.default_rng(0))


def resize_nearest(rng, coordinates, rounding):
    shape = shape_of(rng, 4)
    attributes = {"mode": "nearest", "coordinate_transformation_mode": coordinates, "nearest_mode": rounding}
    roi = None
    if coordinates == "tf_crop_and_resize":
        roi = np.array([0, 0, *rng.uniform(-0.3, 0.4, 2), 1, 1, *rng.uniform(0.6, 1.3, 2)], dtype=np.float32)
        attributes["extrapolation_value"] = float(rng.choice([0.0, 2.5]))
    sizes = [*shape[:2], *(int(n) for n in rng.integers(1, 8, 2))]
    if rng.random() < 0.5:
        return one_node("Resize", [shape, roi, None, ints(*sizes)], opset=opset_of(rng), **attributes)
    scales = np.array([1, 1, *((n + 0.01) / e for n, e in zip(sizes[2:], shape[2:], strict=True))], dtype=np.float32)
    return one_node("Resize", [shape, roi, scales], opset=opset_of(rng), **attributes)


@pytest.mark.parametrize("rounding", ["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"])
@pytest.mark.parametrize(
    "coordinates", ["half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric", "tf_crop_and_resize"]
)
def test_nearest_elements_are_resampled_exactly(coordinates, rounding):
    for seed in range(4):
        rng = np.random.default_rng(seed)
        network = assert_exact(resize_nearest(rng, coordinates, rounding), rng)
        assert cost(network.program).total_lookups == 0


@pytest.mark.parametrize("mode", ["linear", "cubic"])
@pytest.mark.parametrize("coordinates", ["half_pixel", "align_corners", "asymmetric", "tf_crop_and_resize"])
def test_interpolation_errs_by_half_a_step_of_its_weights_at_most(coordinates, mode):
    rng = np.random.default_rng(len(coordinates))
    shape, sizes = (1, 2, 3, 4), ints(1, 2, 5, 3)
    roi = np.array([0, 0, 0.2, -0.1, 1, 1, 0.9, 1.2], np.float32) if coordinates == "tf_crop_and_resize" else None
    attributes = {"mode": mode, "coordinate_transformation_mode": coordinates}
    model = one_node("Resize", [shape, roi, None, sizes], **attributes, extrapolation_value=1.5)
    network = imported(model, samples(model, rng), settings(8, bounds="proved"))
    assert cost(network.program).total_lookups == 0
    q = codes(network, rng)
    (x,) = floats(network, q)
    (y,), (expected,) = simulate(network, q), reference(model, [x])
    units = np.stack([np.resize(row, (2, 3, 4)) for row in np.eye(12)])
    (zero,), (rows,) = reference(model, [np.zeros((1, 2, 3, 4))]), reference(model, [units])
    step = np.abs(rows - zero)[:, 0].max(axis=0) / (2**7 - 1)
    offset = network.encoders[0].columns.offset.reshape(2, 3, 4)
    bound = step / 2 * np.abs(x - offset).sum(axis=(2, 3), keepdims=True)
    assert (np.abs(y - expected) <= bound + 1e-9).all()


def test_a_tensor_is_interpolated_with_a_scale_per_channel():
    nodes = [node("Mul", ["x", "c"], "m"), node("Resize", ["m", "", "", "s"], "y", mode="linear")]
    constants = {"c": np.array([1, 1000.0]).astype(np.float32).reshape(1, 2, 1, 1), "s": ints(1, 2, 4, 4)}
    model = build(nodes, [value("x", (1, 2, 2, 2))], ["y"], constants)
    rng = np.random.default_rng(0)
    network = imported(model, samples(model, rng), settings(8, bounds="proved"))
    assert [each.op for each in network.program.nodes].count("table_lookup") == 0
    q = codes(network, rng)
    (y,), (expected,) = simulate(network, q), reference(model, floats(network, q))
    small = np.abs(expected[:, 0]).max()
    assert np.abs(y - expected)[:, 0].max() < small / 50


@pytest.mark.parametrize(
    ("op_type", "operands", "attributes", "message"),
    [
        ("Gather", [(1, 3), ints(3)], {"axis": 1}, "out of bounds"),
        ("GatherElements", [(1, 3), np.array([[-4]])], {"axis": 1}, "out of bounds"),
        (
            "Gather",
            [np.ones((1, 3), np.float32), value("", (1,), np.int64)],
            {"axis": 1},
            "depends on encrypted|constant",
        ),
        ("Pad", [(1, 3), ints(0, 0, 0, 1), np.array(np.inf, np.float32)], {}, "value is inf"),
        ("ScatterElements", [(1, 3), np.array([[0]]), (1, 1)], {"axis": 1, "reduction": "add"}, "reduction is 'add'"),
    ],
)
def test_what_is_not_possible_is_refused_by_name(op_type, operands, attributes, message):
    model = one_node(op_type, operands, **attributes, opset=18)
    with pytest.raises(UnsupportedOperatorError, match=f"{op_type} '{op_type}_y0'.*({message})"):
        imported(model, samples(model, np.random.default_rng(0)))


def test_interpolation_of_integers_is_refused_because_onnx_rounds_it():
    nodes = [
        node("Cast", "x", "i", to=7),
        node("Resize", ["i", "", "k"], "r", mode="linear"),
        node("Cast", "r", "y", to=1),
    ]
    model = build(nodes, [value("x", (1, 1, 2))], ["y"], {"k": np.array([1, 1, 2], np.float32)})
    with pytest.raises(UnsupportedOperatorError, match="Resize 'Resize_r': the data are integers"):
        imported(model, samples(model, np.random.default_rng(0)))


def test_a_tensor_without_a_batch_axis_of_one_keeps_all_its_axes():
    nodes = [node("Slice", ["x", "a", "b"], "s"), node("Concat", ["s", "x"], "y", axis=0)]
    model = build(nodes, [value("x", (3, 4))], ["y"], {"a": ints(1), "b": ints(3)})
    assert_exact(model, np.random.default_rng(0))


def test_an_axis_longer_than_the_reference_can_choose_from_is_gathered():
    indices = np.random.default_rng(0).integers(-50, 50, (1, 70))
    assert_exact(one_node("GatherElements", [(1, 50), indices], axis=1), np.random.default_rng(0))


def relu_then(*following, constants, shape):
    return build([node("Relu", "x", "r"), *following], [value("x", shape)], ["y"], constants)


@pytest.mark.parametrize("padding", [0.0, 0.37])
def test_a_padded_activation_is_convolved_as_if_the_padding_were_data(padding):
    """The padding is exact, so padding is what joining a constant is."""
    rng = np.random.default_rng(3)
    weights = rng.normal(size=(3, 2, 2, 2)).astype(np.float32)
    frame = np.full((1, 2, 1, 5), padding, dtype=np.float32)
    padded = [node("Pad", ["r", "p", "v"], "j"), node("Conv", ["j", "w"], "y")]
    joined = [node("Concat", ["f", "r", "f"], "j", axis=2), node("Conv", ["j", "w"], "y")]
    constants = {"p": ints(0, 0, 1, 0, 0, 0, 1, 0), "v": np.array(padding, np.float32), "w": weights}
    models = [
        relu_then(*padded, constants=constants, shape=(1, 2, 4, 5)),
        relu_then(*joined, constants={"f": frame, "w": weights}, shape=(1, 2, 4, 5)),
    ]
    rows = samples(models[0], rng)
    networks = [imported(model, rows) for model in models]
    q = codes(networks[0], rng)
    for found, expected in zip(*(simulate(network, q) for network in networks), strict=True):
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12 * np.abs(expected).max())


def test_rotated_features_are_read_by_a_linear_operator_without_a_lookup():
    nodes = [node("Slice", ["x", "one", "two", "one"], "s"), node("Slice", ["x", "two", "far", "one"], "t")]
    nodes += [node("Concat", ["t", "s"], "r", axis=1), node("MatMul", ["r", "w"], "y")]
    constants = {"one": ints(1), "two": ints(2), "far": ints(FAR), "w": np.eye(3, 2, dtype=np.float32)}
    model = build(nodes, [value("x", (1, 4))], ["y"], constants)
    network = imported(model, samples(model, np.random.default_rng(0)))
    assert cost(network.program).total_lookups == 0


def test_any_number_of_inputs_may_turn_out_to_need_one_scale():
    """Each import finds one of them."""
    names = [f"x{i}" for i in range(9)]
    model = build([node("Max", names, "y")], [value(name, (1, 2)) for name in names], ["y"])
    network = imported(model, samples(model, np.random.default_rng(0), rows=3))
    assert all(len(set(encoder.columns.scale)) == 1 for encoder in network.encoders)


def test_the_codes_of_integer_features_are_integers():
    model = build([node("Identity", "x", "y")], [value("x", (1, 3), np.int64)], [value("y", (1, 3), np.int64)])
    network = imported(model, [np.array([[2020.0, -4, 0], [2031, 9, 0]])])
    np.testing.assert_array_equal(network.encoders[0].columns.scale, 1)
    np.testing.assert_array_equal(network.encoders[0].columns.minimum, [2020, -4, 0])
    np.testing.assert_array_equal(network.encoders[0].columns.maximum, [2031, 9, 0])


@pytest.mark.fhe
def test_moved_elements_are_decrypted_exactly():
    from fhelearn.backends.concrete import CircuitOptions, compile_program

    nodes = [node("Pad", ["x", "p", "v"], "a"), node("Gather", ["a", "g"], "b", axis=2)]
    nodes += [
        node("Concat", ["b", "z", "b"], "c", axis=1),
        node("Trilu", "c", "d"),
        node("Resize", ["d", "", "k"], "y"),
    ]
    constants = {"p": ints(0, 1, 0, 0, 0, 2), "v": np.array(0.3, np.float32), "g": ints(3, -1, 0)}
    constants |= {"z": np.full((1, 1, 3), 7.0, np.float32), "k": np.array([1, 1, 2], np.float32)}
    model = build(nodes, [value("x", (1, 2, 2))], ["y"], constants)
    rng = np.random.default_rng(0)
    network = imported(model, samples(model, rng), settings(4))
    q = [each[:2] for each in codes(network, rng)]
    circuit = compile_program(network.program, CircuitOptions())
    circuit.keygen()
    np.testing.assert_array_equal(network.dequantize(circuit.execute(q))[0], simulate(network, q)[0])
    np.testing.assert_array_equal(simulate(network, q)[0], reference(model, floats(network, q))[0])
