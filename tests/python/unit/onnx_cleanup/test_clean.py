"""The cleaned parts, run one after the other, are the model."""

import io
import subprocess
import sys
import warnings

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from sklearn.decomposition import PCA
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, Normalizer, OneHotEncoder, StandardScaler
from torch import nn

from fhelearn.exceptions import ModelFormatError
from fhelearn.onnx import export_sklearn
from fhelearn.onnx.cleanup import PASSES, Parts, Step, clean
from tests.python.unit.onnx_cleanup.laws import (
    NEWEST,
    OPSETS,
    as_protos,
    assert_close,
    assert_equal,
    build,
    composed,
    loaded,
    names,
    node,
    op_types,
    rounding,
    run,
    value,
)
from tests.python.unit.onnx_cleanup.random_models import random_model, random_rows

# These change weights or the precision of intermediate values; all others give exactly the same.
ROUNDING = {"fuse_matmul_add", "fold_batch_normalization", "compose_linear_maps", "one_float_type"}
FOLDED = {"Constant", "ConstantOfShape", "Dropout", "Range", "Shape", "Size"}


def with_one_row(model):
    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    for each in fixed.graph.input:
        each.type.tensor_type.shape.dim[0].dim_value = 1
    del fixed.graph.value_info[:]
    return fixed


def moved(model):
    """The parts after the passes that are exactly equal only."""
    parts = Parts(loaded(model))
    for each in PASSES:
        if each.name not in ROUNDING:
            each.run(parts)
    return as_protos(parts)


def check_promises(model, cleaned):
    body = cleaned.body
    for part in (cleaned.before, body, cleaned.after):
        if part is not None:
            onnx.checker.check_model(part, full_check=True)
            assert {each.domain: each.version for each in part.opset_import} == {
                each.domain: each.version for each in model.opset_import
            }
    assert not FOLDED & set(op_types(body))
    node_names = names(body.graph.node)
    assert all(node_names)
    assert len(set(node_names)) == len(node_names)
    made = {name for each in body.graph.node for name in each.output if name}
    typed = {each.name: each.type.tensor_type for each in (*body.graph.value_info, *body.graph.output)}
    assert made <= set(typed)
    for name in made:
        assert typed[name].elem_type
        assert all(dim.HasField("dim_value") for dim in typed[name].shape.dim)
    read = {name for each in body.graph.node for name in each.input} | set(names(body.graph.output))
    assert {name for each in body.graph.node for name in each.output[:1]} <= read
    assert set(names(body.graph.initializer)) <= read
    first, last = cleaned.before or body, cleaned.after or body
    assert names(first.graph.input) == names(model.graph.input)
    assert names(last.graph.output) == names(model.graph.output)
    if cleaned.before:
        assert names(cleaned.before.graph.output) == names(body.graph.input)
    if cleaned.after:
        assert names(cleaned.after.graph.input) == names(body.graph.output)
    again = clean(body, cut=False)
    assert again.steps == ()
    assert again.body == body
    assert (again.before, again.after) == (None, None)


def check(model, rows, expected=None):
    """All promises of `clean`, and the law on each of `rows`, exact where nodes only move."""
    copy = model.SerializeToString()
    cleaned = clean(model)
    assert model.SerializeToString() == copy
    check_promises(model, cleaned)
    only_moved = moved(model)
    for feeds in rows:
        wanted = run(model, feeds) if expected is None else expected(feeds)
        assert_equal(composed(only_moved, feeds), wanted)
        assert_close(composed(cleaned, feeds), wanted, bounds_of(only_moved, feeds, wanted))
    return cleaned


def bounds_of(parts, feeds, wanted):
    """By output: the rounding of the body, passed on by what follows, and the rounding of that.

    Sigmoid, Softmax, complements and concatenations pass an error on at most as it is, LogSoftmax doubles it. They
    round no more than 16 times each, in two evaluations, relative to their arguments or results.
    """
    inputs = feeds if parts.before is None else run(parts.before, feeds)
    bounds = rounding(parts.body, inputs)
    if parts.after is None:
        return bounds
    kinds = op_types(parts.after)
    assert set(kinds) <= {"LogSoftmax", "Sigmoid", "Softmax", "Sub", "Concat", *LABELS}
    passed_on = (2 if "LogSoftmax" in kinds else 1) * max(bounds.values())
    size = 1 + max(np.abs(array).max() for array in (*run(parts.body, inputs).values(), *wanted.values()))
    own = 2 * 16 * len(kinds) * 2.0**-24 * size
    return {name: passed_on + own for name, array in wanted.items() if array.dtype.kind == "f"}


LABELS = {"ArgMax", "Cast", "Gather", "Greater", "Identity", "Squeeze"}


@pytest.mark.parametrize("each", PASSES, ids=lambda each: each.name)
@pytest.mark.parametrize("seed", range(12))
def test_every_pass_keeps_random_models(each, seed):
    rng = np.random.default_rng(seed)
    model = random_model(rng, int(rng.choice(OPSETS)), with_casts=True)
    parts = Parts(loaded(model))
    each.run(parts)
    result = as_protos(parts)
    for _ in range(3):
        feeds = random_rows(rng)
        wanted = run(model, feeds)
        if each.name in ROUNDING:
            assert_close(composed(result, feeds), wanted, rounding(with_one_row(model), feeds))
        else:
            assert_equal(composed(result, feeds), wanted)


@pytest.mark.parametrize("each", PASSES, ids=lambda each: each.name)
@pytest.mark.parametrize("seed", range(6))
def test_every_pass_says_so_if_and_only_if_it_changes_something(each, seed):
    rng = np.random.default_rng(100 + seed)
    model = random_model(rng, NEWEST, with_casts=True)
    parts = Parts(loaded(model))
    before = as_protos(parts)
    lines = each.run(parts)
    after = as_protos(parts)
    assert bool(lines) == (
        after.before is not None
        or after.after is not None
        or op_types(before.body) != op_types(after.body)
        or names(before.body.graph.initializer) != names(after.body.graph.initializer)
    )


@pytest.mark.parametrize("with_casts", [False, True])
@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize("seed", range(20))
def test_random_models_are_the_composition_of_their_parts(opset, seed, with_casts):
    rng = np.random.default_rng((opset, seed, with_casts))
    model = random_model(rng, opset, with_casts=with_casts)
    copy = model.SerializeToString()
    cleaned = clean(model)
    assert model.SerializeToString() == copy
    check_promises(model, cleaned)
    only_moved = moved(model)
    for _ in range(3):
        feeds = random_rows(rng)
        wanted = run(model, feeds)
        assert_equal(composed(only_moved, feeds), wanted)
        assert_close(composed(cleaned, feeds), wanted, rounding(with_one_row(model), feeds))


class Mlp(nn.Sequential):
    def __init__(self):
        super().__init__(
            nn.Linear(6, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Dropout(), nn.Linear(5, 4, bias=False), nn.Linear(4, 3),
            nn.Softmax(dim=1),
        )  # fmt: skip

    shape = (6,)


class Cnn(nn.Sequential):
    def __init__(self):
        super().__init__(
            nn.ZeroPad2d((1, 0, 2, 1)), nn.Conv2d(2, 3, 3, padding=1, bias=False), nn.BatchNorm2d(3), nn.ReLU(),
            nn.MaxPool2d(2), nn.Conv2d(3, 4, 2), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(24, 3),
            nn.LogSoftmax(dim=1),
        )  # fmt: skip

    shape = (2, 6, 5)


class Residual(nn.Module):
    shape = (2, 4, 4)

    def __init__(self):
        super().__init__()
        self.one = nn.Sequential(nn.Conv2d(2, 2, 3, padding=1), nn.BatchNorm2d(2), nn.ReLU())
        self.two = nn.Sequential(nn.Conv2d(2, 2, 3, padding=1), nn.BatchNorm2d(2))
        self.up = nn.Sequential(nn.ConvTranspose2d(2, 4, 2, groups=2), nn.BatchNorm2d(4))
        self.last = nn.Linear(100, 2)

    def forward(self, x):
        x = self.one(x)
        x = torch.relu(x + self.two(x))
        return torch.sigmoid(self.last(self.up(x).flatten(1)))


class Embedding(nn.Module):
    shape = (3,)

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(7, 4)
        self.last = nn.Sequential(nn.Linear(12, 5), nn.Tanh(), nn.Linear(5, 2), nn.Softmax(dim=1))

    def forward(self, ids):
        return self.last(self.table(ids).flatten(1))


class TwoHeads(nn.Module):
    shape = (5,)

    def __init__(self):
        super().__init__()
        self.body, self.head, self.other = nn.Linear(5, 4), nn.Linear(4, 3), nn.Linear(4, 2)

    def forward(self, x):
        hidden = torch.relu(self.body(x))
        logits = self.head(hidden)
        return torch.softmax(logits, 1), logits.argmax(1), hidden, self.other(hidden)


def exported(module, rng, opset):
    torch.manual_seed(int(rng.integers(1 << 30)))
    network = module().eval()
    for each in network.modules():
        if isinstance(each, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.uniform_(each.running_var, 0.5, 2)
            for parameter in (each.running_mean, each.weight, each.bias):
                nn.init.normal_(parameter)
    rows = [torch_row(module, rng) for _ in range(4)]
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network, (torch.from_numpy(rows[0]["x"]),), file, dynamo=False, input_names=["x"], opset_version=opset,
            dynamic_axes={"x": {0: "n"}}, do_constant_folding=False, training=torch.onnx.TrainingMode.PRESERVE,
        )  # fmt: skip
    return onnx.load_from_string(file.getvalue()), rows


def torch_row(module, rng):
    if module is Embedding:
        return {"x": rng.integers(0, 7, size=(1, *module.shape))}
    return {"x": rng.normal(size=(1, *module.shape)).astype(np.float32)}


BODIES = {
    Mlp: ["Gemm", "Relu", "Gemm"],
    Cnn: ["Conv", "Relu", "MaxPool", "Conv", "Relu", "Flatten", "Gemm"],
    Residual: ["Conv", "Relu", "Conv", "Add", "Relu", "ConvTranspose", "Flatten", "Gemm"],
    Embedding: ["MatMul", "Flatten", "Gemm", "Tanh", "Gemm"],
    TwoHeads: ["Gemm", "Relu", "Gemm", "Gemm"],
}


@pytest.mark.parametrize("module", BODIES, ids=lambda module: module.__name__)
@pytest.mark.parametrize("opset", [13, 17, 20])
def test_networks_of_torch_are_the_composition_of_their_parts(module, opset, rng):
    model, rows = exported(module, rng, opset)
    cleaned = check(model, rows)
    assert op_types(cleaned.body) == BODIES[module]


def test_an_embedding_refuses_indices_out_of_range(rng):
    model, _ = exported(Embedding, rng, 17)
    for ids in ([[0, 7, 1]], [[-8, 0, 0]]):
        with pytest.raises(IndexError):
            composed(clean(model), {"x": np.array(ids)})


def classes(rng, n=60, kinds=3):
    X = rng.normal(size=(n, 5))
    return X, rng.permutation(np.arange(n) % kinds)


PIPELINES = {
    "pca": lambda: make_pipeline(StandardScaler(), PCA(3), LogisticRegression()),
    "normalized": lambda: make_pipeline(SimpleImputer(), Normalizer(), MinMaxScaler(), LogisticRegression()),
    "network": lambda: make_pipeline(StandardScaler(), MLPClassifier((4, 3), max_iter=10)),
    "tanh network": lambda: MLPClassifier((4,), activation="tanh", max_iter=10),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kinds", [2, 3])
@pytest.mark.parametrize("name", PIPELINES)
def test_classifiers_are_the_composition_of_their_parts(name, kinds, dtype, rng):
    X, y = classes(rng, kinds=kinds)
    model = export_sklearn(PIPELINES[name]().fit(X, y), X.astype(dtype))
    cleaned = check(model, [{"input": row[None].astype(dtype)} for row in X[:10]], with_label_axis(model))
    assert not {"Cast", "Softmax", "Sigmoid", "ArgMax", "Sub", "Div", "Where"} & set(op_types(cleaned.body)) - {
        "Sigmoid" if name == "network" else ""
    }
    if "network" not in name:
        assert op_types(cleaned.body) == ["Gemm"]


@pytest.mark.filterwarnings("ignore")
def test_regressors_are_the_composition_of_their_parts(rng):
    X = rng.integers(0, 3, size=(40, 3)).astype(np.float64)
    y = rng.normal(size=40)
    model = export_sklearn(make_pipeline(OneHotEncoder(), LinearRegression()).fit(X, y), X)
    cleaned = check(model, [{"input": row[None]} for row in X[:10]], with_label_axis(model))
    assert op_types(cleaned.body) == ["Gemm"]
    X = rng.normal(size=(40, 3))
    model = export_sklearn(
        make_pipeline(StandardScaler(), MLPRegressor(hidden_layer_sizes=(4,), max_iter=10)).fit(X, y), X
    )
    cleaned = check(model, [{"input": row[None]} for row in X[:10]], with_label_axis(model))
    assert op_types(cleaned.body) == ["Gemm", "Relu", "Gemm"]


def with_label_axis(model):
    """What the model answers for one row, with the label's axis, which Hummingbird declares and squeezes away."""

    def answer(feeds):
        return {name: out.reshape(-1) if name == "label" else out for name, out in run(model, feeds).items()}

    return answer


def test_models_with_several_inputs_and_outputs_keep_their_names_and_order(rng):
    nodes = [
        node("Sub", ["a", "mean"], "scaled"),
        node("MatMul", ["scaled", "w"], "left"),
        node("MatMul", ["b", "w"], "right"),
        node("Add", ["left", "right"], "sum"),
        node("Relu", "sum", "hidden"),
        node("MatMul", ["hidden", "w"], "logits"),
        node("Softmax", "logits", "p"),
        node("Identity", "logits", "copy"),
    ]
    consts = {"mean": np.ones(3, np.float32), "w": rng.normal(size=(3, 3)).astype(np.float32)}
    inputs = [value(name, ["n", 3]) for name in ("unused", "b", "a")]
    model = build(nodes, inputs, ["copy", "p", "sum", "logits"], consts)
    rows = [{name: rng.normal(size=(1, 3)).astype(np.float32) for name in ("unused", "b", "a")} for _ in range(3)]
    cleaned = check(model, rows)
    assert names(cleaned.body.graph.input) == ["b", "scaled"]
    assert names(cleaned.body.graph.output) == ["sum", "logits"]
    assert op_types(cleaned.body) == ["MatMul", "MatMul", "Add", "Relu", "MatMul"]


def test_outputs_that_are_inputs_are_not_lost(rng):
    weights = {"w": rng.normal(size=(2, 2)).astype(np.float32)}
    nodes = [node("MatMul", ["x", "w"], "h"), node("Identity", "x", "y"), node("Softmax", "h", "p")]
    model = build(nodes, [value("x", ["n", 2])], ["y", "p", "h"], weights)
    cleaned = check(model, [{"x": rng.normal(size=(1, 2)).astype(np.float32)}])
    assert op_types(cleaned.body) == ["MatMul", "Identity"]


def test_steps_say_where_each_node_runs(rng):
    nodes = [node("Sub", ["x", "c"], "d"), node("MatMul", ["d", "w"], "h"), node("Softmax", "h", "y")]
    consts = {"c": np.ones(3, np.float32), "w": np.ones((3, 2), np.float32)}
    steps = clean(build(nodes, [value("x", ["n", 3])], ["y"], consts)).steps
    assert Step("cut_tail", "Softmax 'Softmax_y' runs on the client after decryption") in steps
    assert Step("cut_front", "Sub 'Sub_d' runs on the client before encryption") in steps


def test_without_cutting_the_body_is_the_whole_model(rng):
    nodes = [node("Sub", ["x", "c"], "d"), node("MatMul", ["d", "w"], "h"), node("Softmax", "h", "y")]
    consts = {"c": np.ones(3, np.float32), "w": np.ones((3, 2), np.float32)}
    cleaned = clean(build(nodes, [value("x", ["n", 3])], ["y"], consts), cut=False)
    assert cleaned.before is None
    assert cleaned.after is None
    assert op_types(cleaned.body) == ["Sub", "MatMul", "Softmax"]


def test_initializers_that_are_listed_as_inputs_are_constants():
    model = build([node("Add", ["x", "c"], "y")], [value("x", [1, 3])], ["y"], {"c": np.ones(3, np.float32)})
    model.graph.input.append(value("c", [3]))
    assert names(clean(model).body.graph.input) == ["x"]


def test_functions_are_inlined():
    model = build([node("Relu", "x", "y")], [value("x", [1, 3])], ["y"])
    body = [helper.make_node("Neg", ["a"], ["b"]), helper.make_node("Relu", ["b"], ["c"])]
    opsets = [helper.make_opsetid("", 17)]
    model.functions.append(helper.make_function("mine", "Flip", ["a"], ["c"], body, opsets))
    model.graph.node[0].op_type, model.graph.node[0].domain = "Flip", "mine"
    model.opset_import.append(helper.make_opsetid("mine", 1))
    assert op_types(clean(model).body) == ["Neg", "Relu"]


def test_lengths_other_than_the_rows_must_be_numbers():
    model = build([node("Relu", "x", "y")], [value("x", ["n", "m"])], ["y"])
    with pytest.raises(ModelFormatError, match="input 'x': the length of axis 1 must be a number, got m"):
        clean(model)


def test_shapes_that_depend_on_values_are_all_named():
    nodes = [node("Cast", "x", "b", to=9), node("Compress", ["x", "b"], "c"), node("MatMul", ["c", "w"], "y")]
    model = build([*nodes[:2], node("Relu", "c", "y")], [value("x", [3])], [value("y", ["m"])])
    with pytest.raises(ModelFormatError, match=r"'c' of Compress 'Compress_c'.*'y' of Relu 'Relu_y'"):
        clean(model, cut=False)


def test_importing_loads_neither_onnx_nor_torch():
    heavy = ("onnx", "onnx_ir", "onnxscript", "torch")
    code = f"import fhelearn.onnx.cleanup, sys; print([name for name in {heavy} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_large_weights_are_folded(rng):
    weights = rng.normal(size=(600, 600)).astype(np.float32)
    transposed = [
        helper.make_node("Constant", [], ["w"], value=numpy_helper.from_array(weights)),
        node("Transpose", "w", "wt"),
        node("MatMul", ["x", "wt"], "y"),
    ]
    cleaned = clean(build(transposed, [value("x", ["n", 600])], ["y"]))
    assert op_types(cleaned.body) == ["MatMul"]
    np.testing.assert_array_equal(numpy_helper.to_array(cleaned.body.graph.initializer[0]), weights.T)
