"""Law: an operator on elements is one exact table, or changes the scale; what is not exactly right is refused."""

import numpy as np
import pytest
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from fhelearn.exceptions import FhelearnError, QuantizationError, UnsupportedOperatorError
from fhelearn.ir import cost
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

SHAPE = (1, 3, 2)
F32 = np.float32


def of(array, dtype=F32):
    return np.asarray(array, dtype=dtype)


def typed(op_type, operands, result, **attributes):
    """A model of one node whose result has the operands' common shape and the type `result`."""
    names = [f"x{i}" for i in range(len(operands))]
    constants = {n: o for n, o in zip(names, operands, strict=True) if isinstance(o, np.ndarray)}
    inputs = []
    for name, operand in zip(names, operands, strict=True):
        if not isinstance(operand, np.ndarray):
            operand.name = name
            inputs.append(operand)
    return build([node(op_type, names, ["y"], **attributes)], inputs, [value("y", SHAPE, result)], constants, 21)


def in_declared_types(model, network, q):
    """The float64 of the model's answers to integers of its own types, row by row."""
    evaluator, names = ReferenceEvaluator(model), [info.name for info in model.graph.input]
    types = [helper.tensor_dtype_to_np_dtype(info.type.tensor_type.elem_type) for info in model.graph.input]
    arrays = [np.rint(x).astype(t).reshape(-1, *SHAPE) for x, t in zip(floats(network, q), types, strict=True)]
    rows = zip(*arrays, strict=True)
    return np.concatenate([evaluator.run(None, dict(zip(names, row, strict=True)))[0] for row in rows]).astype(float)


def drawn(model, rng, low=-3.0, high=3.0, rows=40, whole=False):
    """Calibration rows with the ends of the range; one per input."""
    result = []
    for info in model.graph.input:
        shape = [d.dim_value for d in info.type.tensor_type.shape.dim]
        row = shape[1:] if shape[:1] == [1] else shape
        x = rng.uniform(low, high, (rows, *row))
        x[0], x[1] = low, high
        result.append(np.rint(x) if whole else x)
    return result


def inside(network, q, expected):
    """Where the float answer lies in what the output's grid covers."""
    (decoder,) = network.decoders
    value = network.program.nodes[network.program.outputs[0]].value
    low, high = (np.asarray(b, dtype=np.float64) for b in value.bounds.broadcast(value.shape).to_int64())
    scale, offset = (a.reshape(value.shape) for a in (decoder.columns.scale, decoder.columns.offset))
    ends = (scale * low + offset).reshape(expected.shape[1:]), (scale * high + offset).reshape(expected.shape[1:])
    return np.clip(expected, *ends), scale.reshape(expected.shape[1:])


def assert_one_lookup(model, rng, **ranges):
    """On all codes, one lookup per element gives the float answer, clipped to its grid, within half a step."""
    network = imported(model, drawn(model, rng, **ranges))
    q = codes(network, rng)
    (found,), (expected,) = simulate(network, q), reference(model, floats(network, q))
    wanted, scale = inside(network, q, expected)
    assert (np.abs(found - wanted) <= scale / 2 * (1 + 1e-9)).all()
    (node_value,) = [n.value for n in network.program.nodes if n.op == "table_lookup"]
    assert sum(cost(network.program).lookups.values()) == int(np.prod(node_value.shape))
    return network


UNARY = [
    ("Abs", {}), ("Asinh", {}), ("Atan", {}), ("Ceil", {}), ("Celu", {"alpha": 0.7}), ("Cos", {}), ("Cosh", {}),
    ("Elu", {"alpha": 1.3}), ("Erf", {}), ("Exp", {}), ("Floor", {}), ("Gelu", {}), ("Gelu", {"approximate": "tanh"}),
    ("HardSigmoid", {"alpha": 0.3}), ("HardSwish", {}), ("LeakyRelu", {"alpha": 0.2}), ("Mish", {}), ("Relu", {}),
    ("Round", {}), ("Selu", {}), ("Shrink", {"lambd": 0.5, "bias": 0.2}), ("Sigmoid", {}), ("Sign", {}), ("Sin", {}),
    ("Sinh", {}), ("Softplus", {}), ("Softsign", {}), ("Tanh", {}), ("ThresholdedRelu", {"alpha": 0.5}),
]  # fmt: skip


@pytest.mark.parametrize(("op_type", "attributes"), UNARY, ids=lambda v: str(v))
def test_a_function_of_one_tensor_is_one_exact_table(op_type, attributes, rng):
    assert_one_lookup(one_node(op_type, [SHAPE], **attributes), rng)


@pytest.mark.parametrize(("op_type", "low", "high"), [
    ("Acos", -1, 1), ("Asin", -1, 1), ("Atanh", -0.9, 0.9), ("Acosh", 1, 4), ("Log", 0.1, 4), ("Sqrt", 0, 4),
    ("Reciprocal", 0.5, 4), ("Tan", -1.2, 1.2),
])  # fmt: skip
def test_functions_with_a_domain_are_exact_inside_it(op_type, low, high, rng):
    model = one_node(op_type, [SHAPE])
    network = imported(model, drawn(model, rng, low, high))
    q = codes(network, rng)
    (found,), (expected,) = simulate(network, q), reference(model, floats(network, q))
    wanted, scale = inside(network, q, expected)
    defined = ~np.isnan(expected)
    assert defined.mean() > 0.5
    assert (np.abs(found - wanted) <= scale / 2 * (1 + 1e-9))[defined].all()


@pytest.mark.parametrize("operands", [
    (SHAPE, of(-1), of(2)), (SHAPE, None, of(2)), (SHAPE, of(-1), None), (SHAPE,),
])  # fmt: skip
def test_clip_takes_any_of_its_ends(operands, rng):
    assert_one_lookup(one_node("Clip", list(operands)), rng)


@pytest.mark.parametrize(("op_type", "operands"), [
    ("PRelu", (SHAPE, of([[0.1], [0.2], [-0.5]]))), ("Pow", (SHAPE, of(2))), ("Pow", (of(2), SHAPE)),
    ("Pow", (SHAPE, of([[2], [3], [0]]))), ("Div", (SHAPE[1:], of([[[2]], [[4]]]))), ("Sub", (of([1, 2]), SHAPE)),
    ("Max", (SHAPE, of([0.5, -0.5]))), ("Min", (SHAPE, of(0.25), of([[1], [0], [-1]]))),
])  # fmt: skip
def test_constants_of_every_shape_meet_the_tensor_as_in_numpy(op_type, operands, rng):
    model = one_node(op_type, list(operands))
    network = imported(model, drawn(model, rng))
    q = codes(network, rng)
    (found,), (expected,) = simulate(network, q), reference(model, floats(network, q))
    wanted, scale = inside(network, q, expected)
    assert found.shape == expected.shape
    assert (np.abs(found - wanted) <= scale / 2 * (1 + 1e-9)).all()


@pytest.mark.parametrize(("op_type", "operands"), [
    ("Greater", [value("x", SHAPE), of([0.5, -0.5])]), ("LessOrEqual", [of(0.5), value("x", SHAPE)]),
    ("Equal", [value("x", SHAPE), of(0)]), ("Greater", [value("x", SHAPE), value("y", SHAPE)]),
    ("Equal", [value("x", SHAPE), value("y", SHAPE)]), ("LessOrEqual", [value("x", SHAPE), value("y", SHAPE)]),
])  # fmt: skip
def test_comparisons_on_a_common_grid_are_exact(op_type, operands, rng):
    model = typed(op_type, operands, np.bool_)
    network = imported(model, drawn(model, rng, -20, 20, whole=True))
    q = codes(network, rng)
    np.testing.assert_array_equal(simulate(network, q)[0], reference(model, floats(network, q))[0])


@pytest.mark.parametrize(("op_type", "operands"), [
    ("Add", (SHAPE, of([0.1, -7]))), ("Sub", (of([0.1, -7]), SHAPE)), ("Mul", (SHAPE, of([[0.1], [0], [-3]]))),
    ("Div", (SHAPE, of([3, -7]))), ("Neg", (SHAPE,)), ("Sum", (SHAPE, of([1, 2]), of(0.5))),
    ("Mean", (SHAPE, of([1, 2]), of(0.5))), ("Where", (np.array([True, False]), SHAPE, of(9))),
    ("Where", (np.array([True, False]), of([[1], [2], [3]]), SHAPE)), ("Identity", (SHAPE,)),
])  # fmt: skip
def test_affine_steps_need_no_lookup_and_are_exact(op_type, operands, rng):
    model = one_node(op_type, list(operands))
    network = imported(model, drawn(model, rng))
    q = codes(network, rng)
    np.testing.assert_allclose(simulate(network, q)[0], reference(model, floats(network, q))[0], rtol=1e-12, atol=1e-12)
    assert not cost(network.program).lookups


@pytest.mark.parametrize("nodes", [
    [node("Mul", ["x", "x"], ["y"])],
    [node("Sigmoid", ["x"], ["s"]), node("Mul", ["x", "s"], ["y"])],
    [node("Relu", ["x"], ["r"]), node("Mean", ["x", "r", "c"], ["y"])],
    [node("Relu", ["x"], ["r"]), node("Greater", ["x", "c"], ["b"]), node("Where", ["b", "r", "x"], ["y"])],
    [node("PRelu", ["x", "c"], ["p"]), node("Add", ["x", "p"], ["s"]), node("Mul", ["s", "wide"], ["y"])],
    [node("PRelu", ["x", "c"], ["p"]), node("Max", ["p", "x", "wide"], ["y"])],
])  # fmt: skip
def test_what_follows_from_the_same_integers_is_one_lookup(nodes, rng):
    constants = {"c": of([[0.1], [0.2], [-0.5]]), "wide": of(np.arange(1, 13).reshape(2, 3, 2))}
    used = {name for each in nodes for name in each.input}
    result = (2, 3, 2) if "wide" in used else SHAPE
    model = build(
        nodes, [value("x", SHAPE)], [value("y", result)], {k: v for k, v in constants.items() if k in used}, 21
    )
    assert_one_lookup(model, rng)


def test_a_tensor_and_its_transpose_are_not_the_same_integers(rng):
    nodes = [node("Transpose", ["x"], ["t"], perm=[1, 0]), node("Mul", ["x", "t"], ["y"])]
    model = build(nodes, [value("x", (3, 3))], [value("y", (3, 3))], {}, 21)
    network = imported(model, drawn(model, rng))
    q = codes(network, rng)
    (found,), (x,) = simulate(network, q), floats(network, q)
    np.testing.assert_allclose(found, x * x.transpose(0, 2, 1), rtol=1e-12, atol=1e-12)


def test_batch_normalization_of_a_function_varies_per_channel_even_after_a_transpose(rng):
    constants = {name: of(v) for name, v in (("g", [1, 2, 3]), ("b", [0, 5, 9]), ("m", [0, 1, 2]), ("v", [1, 1, 4]))}
    nodes = [
        node("Relu", ["x"], ["r"]),
        node("BatchNormalization", ["r", *constants], ["n"]),
        node("Transpose", ["n"], ["y"], perm=[0, 2, 1]),
    ]
    model = build(nodes, [value("x", SHAPE)], [value("y", (1, 2, 3))], constants, 21)
    assert_one_lookup(model, rng)


@pytest.mark.parametrize(("op_type", "operands", "attributes"), [
    ("Div", [3], {}), ("Div", [-4], {}), ("Mod", [3], {}), ("Mod", [-3], {}), ("Mod", [-3], {"fmod": 1}),
    ("Pow", [2], {}), ("BitwiseAnd", [6], {}), ("BitwiseXor", [-5], {}), ("Add", [5], {}), ("Sub", [5], {}),
    ("Mul", [-3], {}), ("Max", [2], {}), ("Equal", [2], {}), ("Greater", [2], {}), ("BitwiseNot", [], {}),
    ("Abs", [], {}),
])  # fmt: skip
@pytest.mark.parametrize("dtype", [np.int64, np.int32])
def test_integers_are_those_of_onnx(op_type, operands, attributes, dtype, rng):
    constants = [of(v, dtype) for v in operands]
    result = np.bool_ if op_type in ("Equal", "Greater") else dtype
    model = typed(op_type, [value("x", SHAPE, dtype), *constants], result, **attributes)
    network = imported(model, drawn(model, rng, -9, 9, whole=True))
    q = codes(network, rng)
    np.testing.assert_array_equal(simulate(network, q)[0], in_declared_types(model, network, q))


@pytest.mark.parametrize("operands", [1, 2])
def test_integers_wrap_around_as_their_type_does(operands, rng):
    inputs = [value("x", SHAPE, np.uint8) for _ in range(operands)]
    model = typed("Sub", [*inputs, *[of(5, np.uint8)] * (2 - operands)], np.uint8)
    network = imported(model, drawn(model, rng, 0, 9, whole=True))
    q = codes(network, rng)
    np.testing.assert_array_equal(simulate(network, q)[0], in_declared_types(model, network, q))


@pytest.mark.parametrize("to", [TensorProto.BOOL, TensorProto.INT64, TensorProto.INT8, TensorProto.UINT8])
def test_casts_of_floats_truncate_wrap_and_compare_as_onnx_does(to, rng):
    model = typed("Cast", [value("x", SHAPE)], helper.tensor_dtype_to_np_dtype(to), to=to)
    network = imported(model, drawn(model, rng, 0 if to == TensorProto.UINT8 else -3, 3))
    q = codes(network, rng)
    np.testing.assert_array_equal(simulate(network, q)[0], reference(model, floats(network, q))[0])


@pytest.mark.parametrize("source", [np.int32, np.bool_])
def test_casts_to_floats_are_free(source, rng):
    model = typed("Cast", [value("x", SHAPE, source)], np.float32, to=TensorProto.FLOAT)
    network = imported(model, drawn(model, rng, 0, 1, whole=True))
    assert not cost(network.program).lookups
    q = codes(network, rng)
    np.testing.assert_array_equal(simulate(network, q)[0], reference(model, floats(network, q))[0])


@pytest.mark.parametrize(("op_type", "operands", "low"), [
    ("Reciprocal", [SHAPE], -1.0), ("Div", [of(1), SHAPE], -1.0), ("Pow", [SHAPE, of(-1)], -1.0),
    ("Log", [SHAPE], -1.0), ("Sqrt", [SHAPE], -1.0),
])  # fmt: skip
def test_a_division_by_zero_or_leaving_the_domain_on_calibration_rows_is_an_error(op_type, operands, low):
    model = one_node(op_type, operands)
    x = np.full((3, *SHAPE[1:]), low)
    x[1], x[2] = 0, 1
    with pytest.raises(QuantizationError, match="by Clip"):
        imported(model, [x])


@pytest.mark.parametrize("operands", [[of(1), SHAPE], [SHAPE, SHAPE]])
def test_a_division_by_zero_beyond_the_calibration_rows_is_an_error(operands):
    model = one_node("Div", operands)
    x = np.full((3, *SHAPE[1:]), -7.0)
    x[1], x[2] = 8, 5
    samples = [x for info in model.graph.input]
    with pytest.raises(QuantizationError, match="divisor can be 0"):
        imported(model, samples, settings({"model_inputs": 4, "op_inputs": 4, "op_weights": 4}))


def test_a_division_by_zero_that_is_not_chosen_is_no_error(rng):
    nodes = [
        node("Reciprocal", ["x"], ["r"]), node("Equal", ["x", "zero"], ["b"]), node("Where", ["b", "zero", "r"], ["y"]),
    ]  # fmt: skip
    model = build(nodes, [value("x", SHAPE)], [value("y", SHAPE)], {"zero": of(0)}, 21)
    assert_one_lookup(model, rng, low=-8, high=8, whole=True)


@pytest.mark.parametrize(("op_type", "operands", "message"), [
    ("Div", [SHAPE, of([0, 1])], "divisor holds 0"), ("Pow", [SHAPE, SHAPE], "both operands are encrypted"),
    ("Mod", [SHAPE, SHAPE], "fmod is 0"), ("PRelu", [SHAPE, SHAPE], "depends on encrypted data"),
    ("Clip", [SHAPE, ()], "depends on encrypted data"),
])  # fmt: skip
def test_what_cannot_be_exact_is_refused(op_type, operands, message, rng):
    model = one_node(op_type, operands)
    with pytest.raises(UnsupportedOperatorError, match=message):
        imported(model, drawn(model, rng))


@pytest.mark.parametrize("to", [TensorProto.BFLOAT16, TensorProto.FLOAT8E4M3FN, TensorProto.INT4])
def test_casts_to_types_that_numpy_lacks_are_refused(to, rng):
    model = typed("Cast", [value("x", SHAPE)], helper.tensor_dtype_to_np_dtype(to), to=to)
    with pytest.raises(FhelearnError):
        imported(model, drawn(model, rng))
