"""Normalization over features: at a network's end and at its start the client computes it, for any number of rows."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_iris, load_wine
from sklearn.naive_bayes import BernoulliNB, ComplementNB, GaussianNB, MultinomialNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler
from torch import nn
from torch.nn import functional as F

from fhelearn.onnx import export_torch, get_equivalent_numpy_forward
from fhelearn.onnx.cleanup import clean
from fhelearn.pipeline import from_sklearn_model
from fhelearn.torch import build_quantized_module

WIDTH = 8


class Function(nn.Module):
    """A function as a module."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def root_mean_square(x):
    return x * torch.rsqrt(x.square().mean(1, keepdim=True) + 1e-5)


def layer_norm_by_hand(x):
    centred = x - x.mean(1, keepdim=True)
    return centred / torch.sqrt(centred.pow(2).mean(1, keepdim=True) + 1e-5)


def softmax_by_hand(x):
    e = torch.exp(x)
    return e / e.sum(1, keepdim=True)


NORMALIZATIONS = {
    "layer norm": lambda: nn.LayerNorm(WIDTH),
    "layer norm without weights": lambda: nn.LayerNorm(WIDTH, elementwise_affine=False),
    "layer norm by hand": lambda: Function(layer_norm_by_hand),
    "L1": lambda: Function(lambda x: F.normalize(x, p=1.0, dim=1)),
    "L2": lambda: Function(lambda x: F.normalize(x, dim=1)),
    "L2 by hand": lambda: Function(lambda x: x / (x * x).sum(1, keepdim=True).sqrt()),
    "maximum": lambda: Function(lambda x: x / x.abs().amax(1, keepdim=True)),
    "root mean square": lambda: Function(root_mean_square),
    "group norm": lambda: nn.GroupNorm(2, WIDTH),
    "instance norm": lambda: Function(lambda x: F.instance_norm(x.reshape(-1, 2, WIDTH // 2)).flatten(1)),
    "centred": lambda: Function(lambda x: x - x.mean(1, keepdim=True)),
    "softmax by hand": lambda: Function(softmax_by_hand),
    "log of a sum of exponentials": lambda: Function(lambda x: x - torch.logsumexp(x, 1, keepdim=True)),
}
LINEAR = {"Gemm", "MatMul", "Add", "Relu", "Reshape", "Flatten"}


def network(name, end):
    torch.manual_seed(0)
    normalization = NORMALIZATIONS[name]()
    for parameter in normalization.parameters():  # a fresh affine map would be the identity
        nn.init.uniform_(parameter, 0.5, 1.5)
    layers = [nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH)]
    return nn.Sequential(*([*layers, normalization] if end else [normalization, *layers])).eval()


def rows(n, seed=0):
    return np.random.default_rng(seed).normal(size=(n, WIDTH)).astype(np.float32)


def check_composition(module, opset):
    """The parts on many rows are the module; returns them."""
    model = export_torch(module, torch.from_numpy(rows(3)), opset=opset)
    cleaned = clean(model)
    parts = [get_equivalent_numpy_forward(p) for p in (cleaned.before, cleaned.body, cleaned.after) if p is not None]
    for n in (0, 1, 2, 50):
        x = found = rows(n, seed=n)
        for part in parts:
            found = part(found)
        with torch.no_grad():
            expected = module(torch.from_numpy(x)).numpy()
        assert found.shape == expected.shape
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    return cleaned


def op_types(part):
    return {node.op_type for node in part.graph.node}


@pytest.mark.parametrize("opset", [13, 17, 18])
@pytest.mark.parametrize("name", NORMALIZATIONS)
def test_a_normalization_at_the_end_runs_on_the_client(name, opset):
    cleaned = check_composition(network(name, end=True), opset)
    assert cleaned.before is None
    assert op_types(cleaned.body) <= LINEAR
    assert len(cleaned.body.graph.output) == 1
    told = [step.detail for step in cleaned.steps if step.name == "cut_tail"]
    assert told
    assert all(detail.endswith(" runs on the client after decryption") for detail in told)


@pytest.mark.parametrize("opset", [13, 17, 18])
@pytest.mark.parametrize("name", NORMALIZATIONS)
def test_a_normalization_at_the_start_runs_on_the_client(name, opset):
    cleaned = check_composition(network(name, end=False), opset)
    assert cleaned.after is None
    assert op_types(cleaned.body) <= LINEAR
    assert len(cleaned.body.graph.input) == 1
    told = [step.detail for step in cleaned.steps if step.name == "cut_front"]
    assert told
    assert all(detail.endswith(" runs on the client before encryption") for detail in told)


# Instance normalization gives tensors of another rank than the layers take, and those are quantized otherwise.
@pytest.mark.parametrize(
    ("name", "end"), [(name, end) for name in NORMALIZATIONS for end in (False, True) if end or name != "instance norm"]
)
def test_what_is_encrypted_is_the_network_without_its_normalization(name, end):
    module, x = network(name, end), rows(200)
    cleaned = clean(export_torch(module, torch.from_numpy(x)))
    normalization = get_equivalent_numpy_forward(cleaned.after if end else cleaned.before)
    layers = module[:-1] if end else module[1:]
    given = x if end else normalization(x)
    expected = build_quantized_module(layers, given).forward(given, fhe="simulate")
    if end:
        shape = [dim.dim_value for dim in cleaned.body.graph.output[0].type.tensor_type.shape.dim]
        expected = normalization(expected.reshape(-1, *shape[1:]))
    found = build_quantized_module(module, x).forward(x, fhe="simulate")
    np.testing.assert_array_equal(found, expected)


def test_pooling_and_a_skip_connection_at_the_end_stay_encrypted():
    class Skip(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)

        def forward(self, x):
            h = torch.relu(self.first(x))
            return (h + self.second(h)).mean(1, keepdim=True)

    torch.manual_seed(0)
    cleaned = check_composition(Skip().eval(), 17)
    assert cleaned.after is None


NAIVE_BAYES = {
    "GaussianNB": (StandardScaler, GaussianNB),
    "GaussianNB on [0, 1]": (MinMaxScaler, GaussianNB),
    "BernoulliNB": (StandardScaler, BernoulliNB),
    "MultinomialNB": (MinMaxScaler, MultinomialNB),
    "ComplementNB": (MinMaxScaler, ComplementNB),
}


@pytest.mark.parametrize("load", [load_iris, load_wine])
@pytest.mark.parametrize("name", NAIVE_BAYES)
def test_pipelines_with_naive_bayes_agree_with_scikit_learn(name, load):
    x, y = load(return_X_y=True)
    model = make_pipeline(*(step() for step in NAIVE_BAYES[name])).fit(x, y)
    encrypted = from_sklearn_model(model, x)
    assert np.mean(encrypted.predict(x, fhe="simulate") == model.predict(x)) >= 0.97
    probabilities = encrypted.predict_proba(x, fhe="simulate")
    assert probabilities.shape == (len(x), 3)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)
