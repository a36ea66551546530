"""Operators that give elements another shape or order are exact, whatever the scales, and need no lookup."""

import numpy as np
import pytest

from fhelearn.ir import cost
from tests.python.unit.onnx_cleanup.laws import OPSETS
from tests.python.unit.onnx_import.graphs import assert_exact, build, imported, node, one_node, samples, value


def ints(*values):
    return np.array(values, dtype=np.int64)


def shape_of(rng, rank=None):
    """One row of rank 1 to 4, batch axis included."""
    rank = int(rng.integers(1, 5)) if rank is None else rank
    return (1, *(int(n) for n in rng.integers(1, 5, rank - 1)))


def opset_of(rng):
    return int(rng.choice(OPSETS))


def some_sign(rng, axes, rank):
    """The axes, some counted from the end."""
    return ints(*(a - rank * int(rng.integers(2)) for a in axes))


def squeeze(rng):
    shape = list(shape_of(rng))
    axes = sorted(rng.choice(len(shape), int(rng.integers(1, len(shape) + 1)), replace=False))
    for axis in axes:
        shape[axis] = 1
    operands = [tuple(shape)] if rng.random() < 0.2 else [tuple(shape), some_sign(rng, axes, len(shape))]
    return one_node("Squeeze", operands, opset=opset_of(rng))


def unsqueeze(rng):
    shape = shape_of(rng)
    rank = len(shape) + int(rng.integers(1, 3))
    axes = rng.permutation(rank)[: rank - len(shape)]
    return one_node("Unsqueeze", [shape, some_sign(rng, axes, rank)], opset=opset_of(rng))


def expand(rng):
    shape = shape_of(rng)
    target = [int(rng.choice([1, n if n > 1 else 3])) for n in shape]
    front = [2] * int(rng.integers(2))
    return one_node("Expand", [shape, ints(*front, *target)], opset=opset_of(rng))


def tile(rng):
    shape = shape_of(rng)
    return one_node("Tile", [shape, rng.integers(1, 4, len(shape))], opset=opset_of(rng))


def reshape(rng):
    shape = shape_of(rng)
    target = list(rng.permutation(shape))
    if rng.random() < 0.5:
        target[int(rng.integers(len(target)))] = -1
    if rng.random() < 0.5:
        target = [0, -1]
        shape = shape_of(rng, 3)
    return one_node("Reshape", [shape, ints(*target)], opset=opset_of(rng))


def flatten(rng):
    shape = shape_of(rng)
    axis = int(rng.integers(-len(shape), len(shape) + 1))
    return one_node("Flatten", [shape], axis=axis, opset=opset_of(rng))


def transpose(rng):
    shape = shape_of(rng)
    attributes = {"perm": [int(a) for a in rng.permutation(len(shape))]} if rng.random() < 0.8 else {}
    return one_node("Transpose", [shape], opset=opset_of(rng), **attributes)


def depth_to_space(rng):
    block = int(rng.integers(1, 4))
    shape = (1, int(rng.integers(1, 3)) * block**2, *shape_of(rng, 3)[1:])
    mode = str(rng.choice(["DCR", "CRD"]))
    return one_node("DepthToSpace", [shape], blocksize=block, mode=mode, opset=opset_of(rng))


def space_to_depth(rng):
    block = int(rng.integers(1, 4))
    shape = (1, int(rng.integers(1, 3)), *(int(n) * block for n in shape_of(rng, 3)[1:]))
    return one_node("SpaceToDepth", [shape], blocksize=block, opset=opset_of(rng))


def split(rng):
    shape = list(shape_of(rng))
    axis = int(rng.integers(len(shape)))
    sizes = rng.integers(1, 4, int(rng.integers(1, 4)))
    shape[axis] = int(sizes.sum())
    signed = int(some_sign(rng, [axis], len(shape))[0])
    return one_node("Split", [tuple(shape), sizes], outputs=len(sizes), axis=signed, opset=opset_of(rng))


def split_evenly(rng):
    """By a number of parts, the last of which may be smaller."""
    parts, size = int(rng.integers(1, 5)), int(rng.integers(1, 4))
    extent = parts * size - int(rng.integers(size)) if parts > 1 else size
    shape = (1, 2, extent)
    if extent == parts * size and rng.random() < 0.5:
        return one_node("Split", [shape], outputs=parts, axis=2, opset=13)
    return one_node("Split", [shape], outputs=parts, axis=-1, num_outputs=parts, opset=18)


CASES = (
    squeeze, unsqueeze, expand, tile, reshape, flatten, transpose, depth_to_space, space_to_depth, split, split_evenly
)  # fmt: skip


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("case", CASES)
def test_elements_move_exactly_and_without_lookups(case, seed):
    rng = np.random.default_rng(seed)
    assert cost(assert_exact(case(rng), rng).program).total_lookups == 0


@pytest.mark.parametrize("dtype", [np.int64, np.bool_])
@pytest.mark.parametrize("case", [transpose, tile, split])
def test_integers_and_truth_values_move_like_floats(case, dtype):
    rng = np.random.default_rng(0)
    model = case(rng)
    kind = value("x", (1,), dtype).type.tensor_type.elem_type
    for info in (*model.graph.input, *model.graph.output):
        info.type.tensor_type.elem_type = kind
    assert_exact(model, rng)


def test_shape_and_size_are_known_without_the_data():
    nodes = [node("Shape", "x", "s", start=1), node("Size", "x", "n"), node("Expand", ["n", "s"], "p")]
    nodes += [
        node("Unsqueeze", ["p", "zero"], "u"),
        node("Cast", "u", "c", to=1),
        node("Concat", ["x", "c"], "y", axis=1),
    ]
    rng = np.random.default_rng(0)
    assert_exact(build(nodes, [value("x", (1, 4))], ["y"], {"zero": ints(0)}), rng)


def after_relu(*following, constants):
    nodes = [node("Relu", "x", "r"), *following]
    return build(nodes, [value("x", (1, 6))], ["y"], constants)


def test_an_activation_is_looked_up_before_copies_are_made():
    model = after_relu(node("Tile", ["r", "k"], "y"), constants={"k": ints(1, 5)})
    network = imported(model, samples(model, np.random.default_rng(0)))
    assert cost(network.program).total_lookups == 6


def test_an_activation_is_looked_up_after_elements_were_dropped():
    nodes = [node("Reshape", ["x", "k"], "a"), node("Relu", "a", "r"), node("Split", "r", ["y", "rest"], axis=1)]
    model = build(nodes, [value("x", (1, 2, 3))], ["y"], {"k": ints(1, 6)})
    network = imported(model, samples(model, np.random.default_rng(0)))
    assert cost(network.program).total_lookups == 3
