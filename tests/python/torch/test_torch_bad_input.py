"""Bad input: each error names the input, what it got, what is allowed, and the remedy."""

import copy

import numpy as np
import onnx
import pandas as pd
import pytest
import torch
from onnx import TensorProto, helper
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import fhelearn
from fhelearn import exceptions
from fhelearn.exceptions import (
    InputRangeError,
    LoweringError,
    ModelFormatError,
    ParametersNotFoundError,
    QuantizationError,
    UnsupportedOperatorError,
)
from fhelearn.torch import build_quantized_module, compile_onnx_model, compile_torch_model
from tests.python.torch.networks import APPROXIMATE, data, module, quantized


def graph(shape, output_shape=None, op="Relu", kind=TensorProto.FLOAT):
    """A model of one node."""
    inputs = [helper.make_tensor_value_info("x", kind, shape)]
    outputs = [helper.make_tensor_value_info("y", kind, output_shape or shape)]
    nodes = [helper.make_node(op, ["x"], ["y"], name="node")]
    return helper.make_model(
        helper.make_graph(nodes, "g", inputs, outputs), opset_imports=[helper.make_opsetid("", 17)], ir_version=8
    )


def replaced(array, row, value):
    array = array.copy()
    array[row, 0] = value
    return array


ROWS = data("mlp")[0]
BAD_ROWS = {
    "another length": (ROWS[:, :3], r"must have shape \(n, 4\).*got \(60, 3\)"),
    "another rank": (ROWS[:, np.newaxis], r"must have shape \(n, 4\).*got \(60, 1, 4\)"),
    "a single row": (ROWS[0], r"must have shape \(n, 4\).*got \(4,\).*x\[None\]"),
    "a scalar": (np.float32(1.0), r"must have shape \(n, 4\).*got \(\)"),
    "no rows": (ROWS[:0], "has no rows.*at least one"),
    "NaN": (replaced(ROWS, 7, np.nan), "must be finite.*nan in row 7.*impute"),
    "infinity": (replaced(ROWS, 3, np.inf), "must be finite.*inf in row 3"),
    "beyond float32": (replaced(ROWS.astype(np.float64), 2, 1e300), r"must be finite float32.*1e\+300 in row 2"),
    "text": (np.full((3, 4), "a"), "must be numeric, got dtype <U1"),
    "objects": (np.full((3, 4), None), "must be numeric, got dtype object"),
    "complex numbers": (ROWS.astype(np.complex64), "must be numeric, got dtype complex64"),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("bad", BAD_ROWS)
@pytest.mark.parametrize("method", ["forward", "quantize_input", "report", "overflowing_rows"])
def test_rows_that_do_not_fit_name_the_input_and_what_is_expected(method, bad):
    value, message = BAD_ROWS[bad]
    with pytest.raises(QuantizationError, match=f"{method}: input 'input'.*{message}"):
        getattr(quantized("mlp"), method)(value)


@pytest.mark.parametrize("bad", BAD_ROWS)
def test_calibration_rows_that_do_not_fit_an_onnx_model_name_the_input(bad):
    value, message = BAD_ROWS[bad]
    with pytest.raises(QuantizationError, match=f"the calibration data: .*{message}"):
        build_quantized_module(quantized("mlp").onnx_model, value)


@pytest.mark.parametrize("bad", [bad for bad in BAD_ROWS if bad != "another rank"])  # which nn.Linear takes
def test_calibration_rows_that_do_not_fit_a_module_name_the_input(bad):
    value, message = BAD_ROWS[bad]
    if bad in ("another length", "a single row"):  # a module declares no shape: it says itself what is wrong
        shape = str(value.shape).replace("(", r"\(").replace(")", r"\)")
        message = f"shapes cannot be multiplied.*'input' of shape {shape} and type float32"
    elif bad == "a scalar":
        message = r"got \(\)"
    with pytest.raises((QuantizationError, LoweringError), match=f"the calibration data.*{message}|{message}"):
        build_quantized_module(module("mlp"), value)


NO_ARRAYS = {
    "rows": ROWS.tolist(),
    "rows and labels": [(row, 0) for row in ROWS],
    "frame": pd.DataFrame(ROWS),
    "data set": TensorDataset(torch.tensor(ROWS)),
    "loader": DataLoader(TensorDataset(torch.tensor(ROWS))),
    "generator": (row for row in ROWS),
    "None": None,
}


@pytest.mark.parametrize("what", NO_ARRAYS)
@pytest.mark.parametrize("kind", ["module", "graph"])
def test_calibration_data_that_are_no_arrays_are_refused(kind, what):
    with pytest.raises(TypeError, match=r"pass one array \(n, \.\.\.\) per input.*np\.stack"):
        build_quantized_module(module("mlp") if kind == "module" else quantized("mlp").onnx_model, NO_ARRAYS[what])


def test_rows_in_a_list_are_told_from_inputs():
    with pytest.raises(QuantizationError, match=r"forward\(.*\) cannot be called with 60 arrays.*np\.stack\(rows\)"):
        build_quantized_module(module("mlp"), list(ROWS))


def test_integers_that_a_module_takes_neither_way_name_both_reasons():
    with pytest.raises(LoweringError, match=r"IndexError.*as float32:.*'input' of shape \(20, 2\) and type int64"):
        build_quantized_module(module("embedding"), np.full((20, 2), 9))
    with pytest.raises(LoweringError, match=r"as float32: .*expected input.*to have 1 channels.*type uint8"):
        build_quantized_module(module("cnn"), np.zeros((20, 3, 4, 4), np.uint8))


def test_every_error_and_warning_is_exported():
    named = {name for name, value in vars(exceptions).items() if isinstance(value, type)}
    assert named <= set(fhelearn.__all__)
    assert all(getattr(fhelearn, name) is getattr(exceptions, name) for name in named)


def test_unknown_keywords_and_data_name_the_function_that_was_called():
    with pytest.raises(TypeError, match=r"compile_torch_model has no keyword 'n_bit'.*margin"):
        compile_torch_model(module("mlp"), ROWS, n_bit=3)
    with pytest.raises(TypeError, match="compile_onnx_model has no keyword 'fhe'"):
        compile_onnx_model(quantized("mlp").onnx_model, ROWS, fhe="simulate")
    with pytest.raises(TypeError, match="calibration data went to build_quantized_module"):
        quantized("mlp").compile(ROWS)


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (np.zeros(59, int), r"y must hold labels of shape \(60,\), got shape \(59,\)"),
        (np.zeros((60, 2)), r"y must hold targets of shape \(60, 3\), got shape \(60, 2\)"),
        (np.array(["a"] * 60), "dtype <U1"),
        (np.array(1), r"got shape \(\)"),
    ],
)
def test_labels_and_targets_must_fit_the_output(y, message):
    with pytest.raises(QuantizationError, match=message):
        quantized("mlp").report(ROWS, y=y)
    with pytest.raises(QuantizationError, match="rows are needed too"):
        quantized("mlp").report(y=y)


def test_a_missing_folder_is_named_as_it_was_given(tmp_path):
    path = tmp_path / "missing" / "model"
    with pytest.raises(FileNotFoundError, match=f"cannot save to '{path}': its folder does not exist"):
        quantized("mlp").save(path)


def test_the_number_of_inputs_and_of_their_rows_must_fit():
    m, (x, y) = quantized("two inputs"), data("two inputs")
    for given, count in (((), "0 arrays"), ((x,), "1 array"), ((x, y, y), "3 arrays")):
        with pytest.raises(ValueError, match=rf"takes 2 inputs \('input_0', 'input_1'\), got {count}$"):
            m(*given)
    with pytest.raises(ValueError, match="same number of rows, got 'input_0': 60, 'input_1': 59"):
        m(x, y[1:])
    with pytest.raises(ValueError, match=r"takes 2 inputs .* got 1"):
        build_quantized_module(m.onnx_model, x)
    with pytest.raises(QuantizationError, match=r"TwoInputs\.forward\(x, y\) cannot be called with 1 array .*'y'"):
        build_quantized_module(module("two inputs"), (x,))
    with pytest.raises(QuantizationError, match="same number of rows, got 'input_0': 60, 'input_1': 59"):
        build_quantized_module(module("two inputs"), (x, y[1:]))
    with pytest.raises(QuantizationError, match=r"takes 1 input \('input'\), got 2 arrays.*report\(x, y=labels\)"):
        quantized("mlp").report(x, y)


def test_indices_must_be_integers():
    m, (x,) = quantized("embedding"), data("embedding")
    with pytest.raises(QuantizationError, match=r"must hold int64 numbers, got dtype float64.*x\.astype\('int64'\)"):
        m(x.astype(np.float64))
    assert m(x.astype(np.int8)).tobytes() == m(x).tobytes()


def test_integers_of_another_shape_type_or_range_are_refused():
    m = quantized("mlp")
    q = m.quantize_input(ROWS)
    with pytest.raises(InputRangeError, match=r"'input'.*shape"):
        m.quantized_forward(q[:, 0, :2])
    with pytest.raises(InputRangeError, match="allowed is"):
        m.quantized_forward(q + 1000)
    with pytest.raises(ValueError, match="must hold integers, got dtype float64"):
        m.quantized_forward(q.astype(np.float64))
    with pytest.raises(ValueError, match="takes 1 array, one per output of the program, got 2"):
        m.dequantize_output(q, q)
    with pytest.raises(ValueError, match=r"must have shape \(n, 1, 3\), n >= 1, got \(60, 1, 4\)"):
        m.dequantize_output(q)
    with pytest.raises(ValueError, match="forward runs the float model"):
        m.quantized_forward(q, fhe="disable")


@pytest.mark.parametrize(
    ("keywords", "error"),
    [
        ({"fhe": "clear"}, ValueError),
        ({"fhe": 1}, ValueError),
        ({"n_jobs": 0}, ValueError),
        ({"n_jobs": 1.5}, TypeError),
    ],
)
def test_keywords_are_checked(keywords, error):
    with pytest.raises(error):
        quantized("mlp")(ROWS, **keywords)


@pytest.mark.parametrize(
    "keywords",
    [
        {"n_bits": 0},
        {"n_bits": 17},
        {"n_bits": 2.5},
        {"n_bits": {"op_inputs": 3}},
        {"n_bits": {"op_inputs": 3, "op_weights": 3, "outputs": 3}},
        {"rounding_threshold_bits": 1},
        {"rounding_threshold_bits": 9},
        {"rounding_threshold_bits": "auto"},
        {"rounding_threshold_bits": {"n_bits": 4, "method": "truncate"}},
        {"bounds": "guessed"},
        {"margin": -1},
        {"observer": "mean"},
        {"weights": "per_row"},
        {"activations": "per_row"},
    ],
)
def test_settings_outside_their_range_are_refused(keywords):
    with pytest.raises(QuantizationError, match=next(iter(keywords))):
        build_quantized_module(module("mlp"), ROWS, **keywords)


@pytest.mark.parametrize(
    "keywords", [{"p_error": 1.5}, {"p_error": 0.1, "global_p_error": 0.1}, {"security_level": 80}]
)
def test_options_of_the_circuit_outside_their_range_are_refused(keywords):
    m = build_quantized_module(module("mlp"), ROWS, n_bits=3, rounding_threshold_bits=APPROXIMATE)
    with pytest.raises(ValueError, match=next(iter(keywords))):
        m.compile(**keywords)
    assert not m.is_compiled


def test_models_of_another_kind_are_type_errors():
    for model in (3, None, [module("mlp")], nn.Linear):
        with pytest.raises(TypeError, match=r"model must be a torch\.nn\.Module"):
            build_quantized_module(model, ROWS)
    with pytest.raises(TypeError, match="compile_onnx_model takes ONNX"):
        compile_torch_model(quantized("mlp").onnx_model, ROWS)
    with pytest.raises(TypeError):
        compile_onnx_model(module("mlp"), ROWS)
    with pytest.raises(ModelFormatError):
        compile_onnx_model(b"no model", ROWS)


def test_lookups_of_clear_data_alone_are_refused():
    class Gate(nn.Module):
        def forward(self, x, y):
            return torch.relu(x @ torch.ones(4, 2)) @ torch.ones(2, 2) + y

    m = build_quantized_module(
        Gate(),
        data("two inputs"),
        n_bits=3,
        rounding_threshold_bits=APPROXIMATE,
        inputs_encryption_status=["clear", "encrypted"],
    )
    with pytest.raises(LoweringError, match="looks up clear data only"):
        m.compile()


def test_one_input_at_least_is_encrypted():
    with pytest.raises(ValueError, match="all inputs are clear"):
        build_quantized_module(module("mlp"), ROWS, inputs_encryption_status=["clear"])


@pytest.mark.parametrize("statuses", ["encrypted", ["encrypted"], ["encrypted", "plain"], ["encrypted"] * 3])
def test_statuses_of_inputs_must_be_one_per_input(statuses):
    with pytest.raises(ValueError, match=r"each of the 2 inputs \('input_0', 'input_1'\)"):
        build_quantized_module(module("two inputs"), data("two inputs"), inputs_encryption_status=statuses)


def test_axis_0_must_be_rows():
    with pytest.raises(LoweringError, match=r"input 'x' is of shape \(3, 4\): axis 0 must be the rows"):
        build_quantized_module(graph([3, 4]), np.ones((5, 3, 4)))
    with pytest.raises(LoweringError, match="axis 0 must be the rows"):
        build_quantized_module(graph([]), np.ones(5))

    class Transposed(nn.Module):
        def forward(self, x):
            return (x @ torch.ones(4, 4)).reshape(-1, 1)

    with pytest.raises(LoweringError, match="axis 0 must be the rows"):
        build_quantized_module(Transposed(), ROWS)


def test_open_axes_other_than_the_rows_are_refused():
    with pytest.raises(ModelFormatError, match=r"'x'.*axis 1"):
        build_quantized_module(graph(["n", "length"]), np.ones((5, 4)))


def test_operators_that_cannot_be_encrypted_are_all_named():
    class Sorted(nn.Module):
        def forward(self, x):
            return torch.sort(x @ torch.eye(4))[0] @ torch.eye(4)

    with pytest.raises(UnsupportedOperatorError, match=r"TopK '.*;"):
        build_quantized_module(Sorted(), ROWS)


def test_accumulators_that_are_too_wide_name_the_layer_and_what_to_pass():
    m = build_quantized_module(module("mlp"), ROWS, n_bits=8, rounding_threshold_bits=None)
    with pytest.raises(
        ParametersNotFoundError,
        match=r"layer '/module/module\.2/Gemm' looks up 16 bits.*rounding_threshold_bits=\{\"n_bits\": 6, \"method\": "
        r"\"approximate\"\}, or a smaller n_bits",
    ):
        m.compile()
    with pytest.raises(LoweringError, match=r"looks up \d+ bits.*rounding_threshold_bits=\{"):
        compile_torch_model(module("mlp"), ROWS, n_bits=5, rounding_threshold_bits=None)
    with pytest.raises(ParametersNotFoundError, match=r"layer '.*Gemm' needs \d+ bits; pass a smaller n_bits"):
        compile_torch_model(module("mlp"), ROWS, n_bits=12, rounding_threshold_bits=APPROXIMATE)
    assert not m.is_compiled


def test_messages_on_wide_circuits_keep_the_compilers_words_to_the_cause():
    m = build_quantized_module(module("mlp"), ROWS, n_bits=8, rounding_threshold_bits=None)
    with pytest.raises(ParametersNotFoundError) as caught:
        m.compile()
    assert str(caught.value).endswith("or a smaller n_bits")
    assert isinstance(caught.value.__cause__, ParametersNotFoundError)


def test_external_data_that_is_missing_is_an_error(tmp_path):
    path = tmp_path / "model.onnx"
    onnx.save(
        copy.deepcopy(quantized("mlp").onnx_model),
        path,
        save_as_external_data=True,
        location="weights.bin",
        size_threshold=0,
    )
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(ModelFormatError, match="external data"):
        build_quantized_module(path, ROWS)
