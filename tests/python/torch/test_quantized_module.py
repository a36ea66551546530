"""Laws of quantized modules: what each step returns, and how the steps compose."""

import copy
import pickle
import warnings

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch import nn

from fhelearn.estimators.module_inputs import clear_positions
from fhelearn.exceptions import AccumulatorOverflowError, NotCompiledError, OutOfRangeWarning
from fhelearn.ir import Faults, evaluate
from fhelearn.onnx import get_equivalent_numpy_forward
from fhelearn.onnx.cleanup import CleanModel
from fhelearn.torch import QuantizedModule, build_quantized_module, compile_onnx_model, compile_torch_model
from tests.python.torch.networks import (
    APPROXIMATE,
    MODULES,
    as_tuple,
    assert_same,
    data,
    module,
    quantized,
    random_codes,
)

every_network = pytest.mark.parametrize("name", MODULES)


@every_network
def test_simulating_is_quantizing_then_running_the_program_then_dequantizing(name):
    m, x = quantized(name), data(name, seed=1)
    codes = as_tuple(m.quantize_input(*x))
    assert_same(m(*x, fhe="simulate"), m.dequantize_output(*as_tuple(m.quantized_forward(*codes))))


@every_network
@pytest.mark.parametrize("method", ["exact", "approximate"])
def test_the_engine_equals_the_reference_on_codes_from_the_whole_range(name, method):
    m = quantized(name, method=method)
    codes = random_codes(m, 40)
    assert_same(m.quantized_forward(*codes), tuple(evaluate(m.program, codes, on_overflow="wrap")))


@every_network
def test_without_encryption_the_answers_are_those_of_the_onnx_graph(name):
    m, x = quantized(name), data(name, seed=1)
    assert_same(m(*x), get_equivalent_numpy_forward(m.onnx_model)(*x))


@every_network
def test_answers_to_a_batch_are_the_answers_to_its_rows(name):
    m, x = quantized(name), data(name, rows=5, seed=1)
    together = as_tuple(m(*x, fhe="simulate"))
    alone = [as_tuple(m(*(a[i : i + 1] for a in x), fhe="simulate")) for i in range(5)]
    assert_same(together, tuple(np.concatenate(parts) for parts in zip(*alone, strict=True)))


@every_network
def test_codes_of_any_row_lie_in_the_bounds_of_the_programs_inputs(name):
    m, x = quantized(name), data(name, seed=2, spread=100.0)
    for index, codes in zip(m.program.inputs, as_tuple(m.quantize_input(*x)), strict=True):
        value = m.program.nodes[index].value
        low, high = value.bounds.to_int64()
        assert codes.dtype == np.int64
        assert codes.shape == (len(x[0]), *value.shape)
        assert (codes >= low).all()
        assert (codes <= high).all()


def test_the_error_of_a_linear_layer_is_within_the_bound_of_its_two_roundings():
    layer = nn.Linear(4, 3).double()
    x = np.random.default_rng(3).normal(size=(200, 4))
    m = build_quantized_module(layer, x, n_bits=8)
    (encoder,), (decoder,) = (m._compiled.network.quantized.encoders, m._compiled.network.quantized.decoders)
    weights = np.abs(layer.weight.detach().numpy().T)
    codes = np.abs(m.quantize_input(x).reshape(200, 4))
    step = decoder.columns.scale
    bound = (encoder.columns.scale / 2) @ weights + step / 2 * codes.sum(axis=1, keepdims=True)
    rounding = np.finfo(np.float64).eps * 64 * np.abs(m(x))
    assert (np.abs(m(x, fhe="simulate") - m(x)) <= bound + rounding).all()


def test_tensors_arrays_and_lists_are_the_same_input():
    m, (x,) = quantized("mlp"), data("mlp", seed=1)
    expected = m(x, fhe="simulate")
    for same in (torch.tensor(x), torch.tensor(x, requires_grad=True), x.astype(np.float64), x.tolist(), x[:, ::1]):
        assert_same(m(same, fhe="simulate"), expected)
    assert_same(m(np.asfortranarray(x), fhe="simulate"), expected)
    assert_same(m.forward(x, fhe="simulate", n_jobs=2, progress=False), expected)


def test_names_and_order_of_inputs_and_outputs_are_the_modules():
    m, x = quantized("two inputs"), data("two inputs", seed=1)
    assert m.input_names == ("input_0", "input_1")
    assert m.output_names == ("output_0", "output_1")
    with torch.no_grad():
        expected = module("two inputs")(*(torch.tensor(a) for a in x))
    for fhe in ("disable", "simulate"):
        answers = m(*x, fhe=fhe)
        assert isinstance(answers, tuple)
        assert [a.shape for a in answers] == [tuple(a.shape) for a in expected.values()]
    for found, wanted in zip(m(*x), expected.values(), strict=True):
        np.testing.assert_allclose(found, wanted.numpy(), rtol=0, atol=np.sqrt(np.finfo(np.float32).eps))


def test_the_clients_last_step_is_the_models_own():
    m, (x,) = quantized("classifier"), data("classifier", seed=1)
    scores = m._compiled.network.quantized.dequantize([m.quantized_forward(m.quantize_input(x))])[0]
    probabilities = m(x, fhe="simulate")
    expected = np.exp(scores - scores.max(axis=1, keepdims=True))
    expected /= expected.sum(axis=1, keepdims=True)
    assert probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities, expected, rtol=0, atol=8 * np.finfo(np.float32).eps)


def test_labels_cut_off_at_the_end_are_integers_in_every_mode():
    class Labels(nn.Module):
        def __init__(self):
            super().__init__()
            self.scores = module("mlp")

        def forward(self, x):
            return self.scores(x).argmax(1)

    (x,) = data("mlp")
    m = build_quantized_module(Labels(), x, n_bits=3, rounding_threshold_bits=5)
    assert m(x).dtype == m(x, fhe="simulate").dtype == np.int64
    np.testing.assert_array_equal(m(x, fhe="simulate"), quantized("mlp")(x, fhe="simulate").argmax(1))


def test_no_faults_are_no_change_and_equal_seeds_are_equal_faults():
    m, (x,) = quantized("mlp", method="approximate"), data("mlp", seed=1)
    assert_same(m(x, fhe="simulate", faults=Faults()), m(x, fhe="simulate"))
    noisy = Faults(p_error=0.2, rounding_noise=0.3, seed=5)
    assert_same(m(x, fhe="simulate", faults=noisy), m(x, fhe="simulate", faults=noisy))
    assert (m(x, fhe="simulate", faults=noisy) != m(x, fhe="simulate")).any()
    codes = m.quantize_input(x)
    expected = evaluate(m.program, [codes], on_overflow="wrap", faults=noisy)[0]
    assert_same(m.quantized_forward(codes, faults=noisy), expected)


def test_faults_in_another_mode_than_simulate_are_refused():
    m, (x,) = quantized("mlp"), data("mlp")
    with pytest.raises(ValueError, match='fhe="simulate"'):
        m(x, faults=Faults(p_error=0.1))
    with pytest.raises(TypeError, match="faults must be"):
        m(x, fhe="simulate", faults=0.1)


@pytest.mark.parametrize("name", ["mlp", "cnn", "two inputs"])
def test_the_rows_that_overflow_are_those_that_the_reference_refuses(name):
    m, x = quantized(name), data(name, rows=60, seed=4, spread=3.0)
    codes = as_tuple(m.quantize_input(*x))
    refused = []
    for row in range(60):
        try:
            evaluate(m.program, [q[row : row + 1] for q in codes])
        except AccumulatorOverflowError:
            refused.append(row)
    assert m.overflowing_rows(*x).tolist() == refused
    if name == "mlp":
        assert 0 < len(refused) < 60


def test_proved_bounds_never_overflow():
    m = build_quantized_module(module("mlp"), data("mlp"), n_bits=3, bounds="proved")
    assert not m.program.has_calibrated_bounds
    assert m.overflowing_rows(*data("mlp", spread=50.0)).tolist() == []
    codes = random_codes(m, 50)
    assert_same(m.quantized_forward(*codes), evaluate(m.program, codes, on_overflow="error")[0])


# -- what leaves the range of calibration ------------------------------------------------------------------------------


@every_network
def test_calibration_rows_give_no_warning(name):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        quantized(name)(*data(name), fhe="simulate")
    report = quantized(name).report(*data(name))
    assert (report.clipped, report.overflow_rate) == (0, 0)


@pytest.mark.parametrize("name", ["mlp", "cnn", "two inputs"])
def test_one_warning_counts_clipped_values_and_rows_that_wrap(name):
    m, x = quantized(name), data(name, seed=4, spread=3.0)
    with pytest.warns(OutOfRangeWarning) as caught:
        m(*x, fhe="simulate")
    (warning,) = caught
    assert warning.filename == __file__
    message = str(warning.message)
    encoders = m._compiled.network.quantized.encoders
    for encoder, values in zip(encoders, m._compiled.prepared(x), strict=True):
        error = np.abs(encoder.dequantize(encoder.quantize(values)) - values).reshape(len(values), -1)
        clipped = (error > encoder.columns.scale / 2 * (1 + 1e-9)).sum()
        assert f"{clipped} of {values.size} values of input '{encoder.name}' lie outside" in message
    overflowing = len(m.overflowing_rows(*x))
    assert (f"{overflowing} of 60 rows leave the calibrated bounds" in message) == (overflowing > 0)
    assert ('bounds="proved"' in message) == (overflowing > 0)


@pytest.mark.fhe
def test_encrypted_rows_that_leave_the_range_give_the_warning_of_simulated_ones():
    layer = nn.Linear(4, 2, bias=False)
    m = build_quantized_module(layer, data("mlp"), n_bits=3).compile()
    (x,) = data("mlp", rows=6, seed=4, spread=3.0)
    with pytest.warns(OutOfRangeWarning) as simulated:
        expected = m(x, fhe="simulate")
    with pytest.warns(OutOfRangeWarning) as encrypted:
        assert_same(m(x, fhe="execute"), expected)
    assert [str(w.message) for w in encrypted] == [str(w.message) for w in simulated]


def test_values_within_half_a_step_of_the_range_are_no_news():
    m = quantized("mlp")
    columns = m._compiled.network.quantized.encoders[0].columns
    ends = np.stack([columns.minimum - 0.499 * columns.scale, columns.maximum + 0.499 * columns.scale])
    beyond = np.stack([columns.minimum - 0.501 * columns.scale, columns.maximum + 0.501 * columns.scale])
    assert (m.report(ends).clipped, m.report(beyond).clipped) == (0, 8)


def test_proved_bounds_are_only_clipped():
    m = build_quantized_module(module("mlp"), data("mlp"), n_bits=3, bounds="proved")
    with pytest.warns(OutOfRangeWarning, match=r"clipped to it; to accept them, .* those to come$"):
        m(*data("mlp", spread=50.0), fhe="simulate")


@pytest.mark.parametrize("rows", [1, 9])
def test_calibrating_on_few_rows_warns(rows):
    with pytest.warns(OutOfRangeWarning, match=f"have {rows} rows?:") as caught:
        build_quantized_module(module("mlp"), *data("mlp", rows=rows))
    assert [w.filename for w in caught if w.category is OutOfRangeWarning] == [__file__]


@pytest.mark.parametrize("name", ["mlp", "cnn"])
def test_integers_for_a_module_of_floats_are_floats(name):
    (x,) = data(name, spread=10.0)
    pixels = x.astype(np.int64)
    found, expected = (build_quantized_module(module(name), rows, n_bits=4) for rows in (pixels, pixels.astype("f4")))
    assert found.program == expected.program
    assert_same(found(pixels, fhe="simulate"), expected(pixels, fhe="simulate"))


# -- files and the circuit ---------------------------------------------------------------------------------------------


def test_onnx_models_bytes_and_files_are_the_same_model(tmp_path):
    model, x = quantized("mlp").onnx_model, data("mlp")
    path = tmp_path / "model.onnx"
    onnx.save(model, path)
    expected = quantized("mlp")(*x, fhe="simulate")
    for same in (model, model.SerializeToString(), path, str(path)):
        assert_same(build_quantized_module(same, x, n_bits=3, rounding_threshold_bits=5)(*x, fhe="simulate"), expected)


def test_execution_needs_compiling_and_simulation_does_not():
    m, (x,) = quantized("mlp"), data("mlp")
    assert not m.is_compiled
    m(x, fhe="simulate")
    for use in (lambda: m(x, fhe="execute"), lambda: m.fhe_circuit):
        with pytest.raises(NotCompiledError, match=r"call compile\(\)"):
            use()


def test_compiling_gives_the_module_that_building_gives():
    (x,) = data("mlp")
    built = build_quantized_module(module("mlp"), x, n_bits=3, rounding_threshold_bits=APPROXIMATE)
    for compiled in (
        compile_torch_model(module("mlp"), x, n_bits=3, rounding_threshold_bits=APPROXIMATE, p_error=2.0**-20),
        compile_onnx_model(built.onnx_model, x, n_bits=3, rounding_threshold_bits=APPROXIMATE, p_error=2.0**-20),
    ):
        assert compiled.is_compiled
        assert compiled.program == built.program
        assert compiled.fhe_circuit.options.p_error == 2.0**-20


def test_clear_inputs_change_neither_program_nor_answers_and_are_kept(tmp_path):
    x = data("two inputs")
    m = build_quantized_module(
        module("two inputs"),
        x,
        n_bits=3,
        rounding_threshold_bits=5,
        inputs_encryption_status=["encrypted", "clear"],
    )
    m.save(tmp_path / "module")
    for same in (m, copy.deepcopy(m), QuantizedModule.load(tmp_path / "module")):
        assert same.inputs_encryption_status == ("encrypted", "clear")
        assert same._compiled.circuit_options().clear_inputs == (1,)
        assert same.report().clear_inputs == ("input_1",)
        assert "clear inputs" in str(same.report())
        assert same.program == quantized("two inputs").program
        assert_same(same(*x, fhe="simulate"), quantized("two inputs")(*x, fhe="simulate"))


def test_what_is_made_of_clear_inputs_alone_before_encryption_is_clear():
    class Front(nn.Module):
        def forward(self, x, y, z):
            return (torch.abs(x) + torch.abs(y)) @ torch.ones(4, 2) + torch.abs(z)

    (x,), (_, z) = data("mlp"), data("two inputs")
    m = build_quantized_module(Front(), (x, x, z), n_bits=3, inputs_encryption_status=["clear", "encrypted", "clear"])
    assert m._compiled.network.clean.before is not None
    assert m._compiled.clear_inputs == (0, 2)


def test_what_is_made_of_a_clear_and_an_encrypted_input_before_encryption_is_encrypted():
    tensors = {name: helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 2]) for name in "xyztuv"}
    nodes = [
        helper.make_node("Abs", ["x"], ["t"]),
        helper.make_node("Add", ["t", "y"], ["u"]),
        helper.make_node("Neg", ["t"], ["v"]),
    ]
    before, body = (
        helper.make_model(helper.make_graph(nodes, "g", [tensors[i] for i in inputs], [tensors[o] for o in outputs]))
        for nodes, inputs, outputs in ((nodes, "xyz", "uvz"), ([], "uvz", "uvz"))
    )
    clean = CleanModel(before, body, None, ())
    expected = {"": (), "x": (1,), "y": (), "xy": (0, 1), "z": (2,), "xz": (1, 2)}
    assert {clear: clear_positions(clean, list(clear)) for clear in expected} == expected


def test_verbose_prints_the_report(capsys):
    m = build_quantized_module(module("mlp"), data("mlp"), n_bits=3, rounding_threshold_bits=APPROXIMATE)
    m.compile(verbose=True)
    assert str(m.report()) in capsys.readouterr().out


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
@pytest.mark.parametrize("name", ["classifier", "two inputs", "embedding"])
def test_copies_and_pickles_answer_bit_for_bit(name, copied):
    m, x = quantized(name), data(name, seed=1)
    m(*x, fhe="simulate")  # so that there are functions and an engine to leave behind
    twin = copied(m)
    assert twin.program == m.program
    assert_same(twin(*x, fhe="simulate"), m(*x, fhe="simulate"))
    assert_same(twin(*x), m(*x))
