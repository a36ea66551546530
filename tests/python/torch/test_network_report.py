"""The report of a network says what the program, the circuit and the answers say."""

from collections import Counter

import numpy as np
import pytest
import torch
from torch import nn

from fhelearn.backends.concrete.lowering import lower, normalize
from fhelearn.frontends.onnx.network import lookup_groups
from fhelearn.ir import cost
from fhelearn.torch import build_quantized_module
from tests.python.torch.networks import APPROXIMATE, MODULES, as_tuple, data, module, quantized

every_network = pytest.mark.parametrize("name", MODULES)


@every_network
@pytest.mark.parametrize("method", ["exact", "approximate"])
def test_layers_share_all_lookups_of_the_program_and_their_price(name, method):
    m = quantized(name, method=method)
    report = m.report()
    assert sum(layer.lookups for layer in report.layers) == report.lookups == cost(m.program).total_lookups
    assert sum(layer.price for layer in report.layers) == report.price
    assert sum(layer.share for layer in report.layers) == pytest.approx(1.0 if report.lookups else 0.0)


@every_network
@pytest.mark.parametrize("method", ["exact", "approximate"])
def test_lookups_have_the_widths_that_the_back_end_compiles(name, method):
    program = quantized(name, method=method).program
    counted: Counter[int] = Counter()
    for group in lookup_groups(program):
        counted[group.bits] += group.count
    assert dict(counted) == dict(lower(normalize(program), 1).lookups_by_bit_width)


@every_network
def test_every_operator_of_the_encrypted_part_is_in_a_layer_or_free(name):
    m = quantized(name)
    named = {layer.name for layer in m.report().layers}
    for node in m._compiled.network.clean.body.graph.node:
        if node.op_type in ("Gemm", "MatMul", "Conv"):
            assert node.name in named


def test_layers_have_the_figures_of_the_settings():
    m = build_quantized_module(
        module("cnn"), data("cnn"), n_bits={"op_inputs": 3, "op_weights": 4}, rounding_threshold_bits=APPROXIMATE
    )
    first, second, last = m.report().layers
    assert [layer.operators for layer in (first, second, last)] == [("Conv",), ("Relu", "Flatten"), ("Gemm",)]
    assert [layer.output_shape for layer in (first, second, last)] == [(2, 2, 2), (8,), (2,)]
    assert [layer.weight_bits for layer in (first, second, last)] == [4, None, 4]
    assert (second.lookup_bits, second.lookups, second.rounding) == (5, 8, "approximate to 5 bits")
    assert last.operand_bits == 3
    assert first.bounds == "calibrated"


@pytest.mark.parametrize("name", ["mlp", "cnn", "residual", "concatenation", "two inputs"])
def test_the_ratio_at_an_output_is_that_of_the_answers(name):
    m, x = quantized(name, n_bits=6, rounding=8), data(name)
    x = tuple(np.delete(a, m.overflowing_rows(*data(name)), axis=0) for a in x)
    report = m.report(*x)
    ratios = [layer.signal_to_noise for layer in report.layers]
    for exact, got in zip(as_tuple(m(*x)), as_tuple(m(*x, fhe="simulate")), strict=True):
        exact = exact.astype(np.float64)
        expected = 10 * np.log10((exact**2).sum() / ((exact - got) ** 2).sum())
        assert any(ratio == pytest.approx(expected, rel=1e-4) for ratio in ratios if ratio is not None)


@pytest.mark.parametrize("name", [name for name in MODULES if name != "attention"])
def test_more_bits_are_less_noise_in_every_layer(name):
    x = data(name)
    coarse, fine = (build_quantized_module(module(name), x, n_bits=n_bits, margin=1.0).report(*x) for n_bits in (3, 8))
    for a, b in zip(coarse.layers, fine.layers, strict=True):
        assert a.name == b.name
        assert (a.signal_to_noise is None) == (b.signal_to_noise is None)
        assert a.signal_to_noise is None or a.signal_to_noise < b.signal_to_noise


@every_network
def test_rates_and_errors_are_those_of_the_answers(name):
    m, x = quantized(name), data(name, seed=4, spread=2.0)
    report = m.report(*x)
    assert report.rows == len(x[0])
    assert report.overflow_rate == len(m.overflowing_rows(*x)) / len(x[0])
    for output, exact, got in zip(m.output_names, as_tuple(m(*x)), as_tuple(m(*x, fhe="simulate")), strict=True):
        assert report.max_errors[output] == np.abs(exact.astype(np.float64) - got).max()
        if exact.ndim == 2:
            assert report.label_agreement[output] == (exact.argmax(1) == got.argmax(1)).mean()


def test_labels_are_compared_with_the_column_of_the_largest_score():
    m, (x,) = quantized("mlp"), data("mlp")
    y = np.random.default_rng(0).integers(0, 3, len(x))
    for labels in (y, torch.tensor(y), y[:, np.newaxis]):
        report = m.report(x, y=labels)
        assert report.metric == "accuracy"
        assert report.metric_float == (m(x).argmax(1) == y).mean()
        assert report.metric_quantized == (m(x, fhe="simulate").argmax(1) == y).mean()


def test_targets_are_compared_by_mean_squared_error():
    m, (x,) = quantized("mlp"), data("mlp")
    y = np.random.default_rng(0).normal(size=(len(x), 3))
    report = m.report(x, y=y)
    assert report.metric == "mean squared error"
    assert report.metric_float == pytest.approx(((m(x) - y) ** 2).mean(), rel=1e-6)
    assert report.metric_quantized == pytest.approx(((m(x, fhe="simulate") - y) ** 2).mean(), rel=1e-6)


def test_outputs_of_labels_have_agreement_and_accuracy_but_no_error():
    class Labels(nn.Module):
        def forward(self, x):
            return module("mlp")(x).argmax(1)

    (x,) = data("mlp")
    m = build_quantized_module(Labels(), x, n_bits=3, rounding_threshold_bits=5)
    report = m.report(x, y=m(x))
    assert report.max_errors == {}
    assert report.label_agreement == {"output": (m(x) == m(x, fhe="simulate")).mean()}
    assert (report.metric_float, report.metric_quantized) == (1.0, report.label_agreement["output"])
    assert "max error" not in str(report)


def test_the_bits_of_exact_rounding_say_nothing_on_the_width_of_the_table():
    exact, approximate = (quantized("mlp", n_bits=5, rounding=4, method=m).report() for m in ("exact", "approximate"))
    assert [a.lookup_bits for a in exact.layers] == [b.lookup_bits for b in approximate.layers]
    assert exact.lookups > approximate.lookups


def test_an_affine_network_is_printed_without_an_empty_table():
    m = build_quantized_module(nn.Flatten(), data("cnn"), n_bits=5)
    assert m.report().layers == ()
    assert "SNR" not in str(m.report())


def test_figures_of_data_and_circuit_are_missing_without_them():
    report = quantized("mlp").report()
    assert report.rows is report.overflow_rate is report.max_errors is report.complexity is None
    assert all(layer.signal_to_noise is None for layer in report.layers)


def test_a_compiled_module_reports_its_circuit():
    m = build_quantized_module(module("mlp"), data("mlp"), n_bits=3, rounding_threshold_bits=APPROXIMATE)
    assert m.compile(p_error=2.0**-20).report().complexity == m.fhe_circuit.cost.complexity
    assert m.report().p_error <= 2.0**-20
    assert m.report().lookups == m.fhe_circuit.cost.num_lookups


def test_printing_shows_every_layer_and_what_runs_on_the_client():
    m = quantized("embedding")
    text = str(m.report(*data("embedding")))
    for layer in m.report().layers:
        assert layer.name in text
    assert "Softmax '/module/Softmax' runs on the client after decryption" in text
    assert "runs on the client before encryption" in text
