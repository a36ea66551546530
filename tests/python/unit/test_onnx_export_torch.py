"""PyTorch modules as ONNX graphs."""

import logging
import os
import subprocess
import sys
import threading
import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from fhelearn.exceptions import BackendUnavailableError, LoweringError, ModelFormatError
from fhelearn.onnx import export_torch, get_equivalent_numpy_forward


class Function(nn.Module):
    """A module that applies a function to its parts and inputs."""

    def __init__(self, function, *parts):
        super().__init__()
        self.function = function
        self.parts = nn.ModuleList(parts)

    def forward(self, *inputs):
        return self.function(*self.parts, *inputs)


def attention(query, key, x):
    return torch.matmul(query(x), key(x).transpose(1, 2)) / 8**0.5


def tokens(first, x):
    return torch.cat([first.weight[None].expand(x.shape[0], -1, -1), x], dim=1)


VECTORS, SIGNALS, IMAGES = (6,), (4, 9), (4, 8, 8)
ACTIVATIONS = (
    nn.ELU, nn.Hardshrink, nn.Hardsigmoid, nn.Hardtanh, nn.Hardswish, nn.LeakyReLU, nn.LogSigmoid, nn.PReLU, nn.ReLU,
    nn.ReLU6, nn.RReLU, nn.SELU, nn.CELU, nn.GELU, nn.Sigmoid, nn.SiLU, nn.Mish, nn.Softplus, nn.Softshrink,
    nn.Softsign, nn.Tanh, nn.Tanhshrink,
)  # fmt: skip
MODULES = {
    **{kind.__name__: (kind(), VECTORS) for kind in ACTIVATIONS},
    "GELU with tanh": (nn.GELU("tanh"), VECTORS),
    "GLU": (nn.GLU(dim=1), VECTORS),
    "Softmax": (nn.Softmax(dim=1), VECTORS),
    "Conv1d": (nn.Conv1d(4, 6, 3, padding=1, dilation=2, groups=2), SIGNALS),
    "Conv2d": (nn.Conv2d(4, 6, 3, stride=2, padding=(1, 0)), IMAGES),
    "Conv2d padded with itself": (nn.Conv2d(4, 2, 3, padding=1, padding_mode="circular"), IMAGES),
    "ConvTranspose1d": (nn.ConvTranspose1d(4, 6, 3, stride=2), SIGNALS),
    "ConvTranspose2d": (nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1, groups=2), IMAGES),
    "AvgPool2d": (nn.AvgPool2d(3, 2, 1, ceil_mode=True, count_include_pad=False), IMAGES),
    "AvgPool2d with padding": (nn.AvgPool2d(3, 2, 1, ceil_mode=True), IMAGES),
    "MaxPool1d": (nn.MaxPool1d(2), SIGNALS),
    "MaxPool2d": (nn.MaxPool2d(3, 2, 1, ceil_mode=True, dilation=2), IMAGES),
    "AdaptiveAvgPool2d": (nn.AdaptiveAvgPool2d(1), IMAGES),
    "PixelShuffle": (nn.PixelShuffle(2), IMAGES),
    "Upsample": (nn.Upsample(scale_factor=2), IMAGES),
    "unfold": (Function(lambda x: functional.unfold(x, 2, stride=2)), IMAGES),
    "BatchNorm2d": (nn.Sequential(nn.BatchNorm2d(4), nn.Dropout(), nn.Flatten()), IMAGES),
    "weight norm": (nn.utils.parametrizations.weight_norm(nn.Linear(6, 2)), VECTORS),
    "attention": (Function(attention, nn.Linear(9, 8), nn.Linear(9, 8)), SIGNALS),
    "multi-head attention": (Function(lambda part, x: part(x, x, x)[0], nn.MultiheadAttention(9, 3, batch_first=True)),
                             SIGNALS),
    "class token": (Function(tokens, nn.Linear(9, 1)), SIGNALS),
    "reshape": (Function(lambda x: x.view(x.shape[0], -1)), SIGNALS),
    "identity": (nn.Identity(), VECTORS),
}  # fmt: skip


def rows_of(shape, n=5, seed=0):
    return torch.randn(n, *shape, generator=torch.Generator().manual_seed(seed))


def answers(module, *inputs):
    with torch.no_grad():
        outputs = module.eval()(*inputs)
    return [output.numpy() for output in (outputs if isinstance(outputs, tuple) else (outputs,))]


def extents(value):
    return [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]


@pytest.mark.parametrize("name", MODULES)
def test_graphs_answer_rows_never_seen_at_export_as_the_module(name):
    module, shape = MODULES[name]
    model = export_torch(module, rows_of(shape))
    assert extents(model.graph.input[0]) == ["n", *shape]
    assert extents(model.graph.output[0])[0] == "n"
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 17)]
    forward = get_equivalent_numpy_forward(model)
    for n in (1, 2, 7):
        x = rows_of(shape, n, seed=n)
        (expected,) = answers(module, x)
        bound = 64 * np.finfo(np.float32).eps * max(1, np.abs(expected).max())
        np.testing.assert_allclose(forward(x.numpy()), expected, rtol=0, atol=bound)


@pytest.mark.parametrize("opset", [13, 15, 18, 20])
def test_every_allowed_opset_gives_the_same_answers(opset):
    module = nn.Sequential(nn.Conv2d(4, 3, 3), nn.GELU(), nn.Flatten(), nn.LazyLinear(2))
    x = rows_of(IMAGES)
    module(x)
    model = export_torch(module, x, opset=opset)
    assert model.opset_import[0].version == opset
    np.testing.assert_allclose(get_equivalent_numpy_forward(model)(x.numpy()), answers(module, x)[0], rtol=0, atol=1e-5)


def test_float64_modules_are_exported_in_float64():
    module, x = nn.Sequential(nn.Linear(6, 3), nn.Mish()).double(), rows_of(VECTORS)
    forward = get_equivalent_numpy_forward(export_torch(module, x))
    (expected,) = answers(module, x.double())
    assert forward(x.numpy()).dtype == np.float64
    np.testing.assert_allclose(forward(x.numpy()), expected, rtol=0, atol=64 * np.finfo(np.float64).eps)


def test_inputs_and_outputs_are_named_in_order():
    def nested(a, b):
        return {"sum": a + b, "rest": (a * b, [a - b])}

    a, b = rows_of(VECTORS), rows_of(VECTORS, seed=1)
    model = export_torch(Function(nested), [a.numpy(), b])
    forward = get_equivalent_numpy_forward(model)
    assert forward.input_names == ("input_0", "input_1")
    assert forward.output_names == ("output_0", "output_1", "output_2")
    for found, expected in zip(forward(a, b), (a + b, a * b, a - b), strict=True):
        assert np.array_equal(found, expected.numpy())


def test_inputs_that_are_not_used_stay_inputs():
    model = export_torch(Function(lambda a, b: a + 1), (rows_of(VECTORS), rows_of(SIGNALS)))
    assert [extents(value) for value in model.graph.input] == [["n", 6], ["n", 4, 9]]
    assert get_equivalent_numpy_forward(model)(np.zeros((2, 6)), np.zeros((2, 4, 9))).shape == (2, 6)


def test_integer_inputs_stay_integers():
    module = nn.Embedding(12, 4)
    x = torch.arange(12).reshape(4, 3)
    np.testing.assert_array_equal(
        get_equivalent_numpy_forward(export_torch(module, x))(x.numpy()), answers(module, x)[0]
    )


def test_one_row_is_enough_to_export():
    module = nn.Sequential(nn.BatchNorm1d(6), nn.Linear(6, 2))
    assert extents(export_torch(module, rows_of(VECTORS, 1)).graph.input[0]) == ["n", 6]


class TakesOneRow(nn.Module):
    def forward(self, x):
        if len(x) != 1:
            raise RuntimeError("one row, please")
        return x.view(1, -1)


def test_modules_for_one_row_are_exported_for_one_row():
    x = rows_of(SIGNALS).numpy()
    model = export_torch(TakesOneRow(), x)
    assert extents(model.graph.input[0]) == [1, 4, 9]
    assert np.array_equal(get_equivalent_numpy_forward(model)(x), x.reshape(5, 36))


def test_operators_of_the_newer_exporter_only_are_exported_by_it(capfd):
    x = rows_of(VECTORS)
    model = export_torch(nn.Threshold(0.1, 0.2), x)
    assert model.opset_import[0].version == 18
    assert extents(model.graph.input[0])[0] == "n"
    np.testing.assert_array_equal(get_equivalent_numpy_forward(model)(x.numpy()), answers(nn.Threshold(0.1, 0.2), x)[0])
    assert "Warning" not in capfd.readouterr().err


def test_nothing_is_printed_of_a_module_that_one_exporter_fails_on(capfd):
    module = nn.utils.parametrizations.spectral_norm(nn.Linear(4, 3))
    hooks = dict(module._forward_pre_hooks)
    export_torch(module, rows_of((4,)))
    assert capfd.readouterr() == ("", "")
    assert dict(module._forward_pre_hooks) == hooks


def test_the_reasons_of_both_exporters_are_given():
    with pytest.raises(
        LoweringError, match=r"TorchScript exporter: .*bessel_j0.*; torch's dynamo exporter: .*bessel_j0"
    ):
        export_torch(Function(torch.special.bessel_j0), rows_of(VECTORS))


def test_without_onnxscript_the_newer_exporter_is_not_tried(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(LoweringError, match="dynamo exporter: not tried, as onnxscript is not installed"):
        export_torch(nn.Threshold(0.1, 0.2), rows_of(VECTORS))


def test_the_module_the_process_and_the_folder_stay_as_they_were(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    module = nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.Sequential(nn.Dropout(), nn.MultiheadAttention(4, 2)))
    module[1].eval()
    module[0].weight.requires_grad_(False)
    network = Function(lambda net, x: net[1](net[0](x)), module)
    flags = [part.training for part in network.modules()]
    state = {name: value.clone() for name, value in network.state_dict().items()}
    gradients = [parameter.requires_grad for parameter in network.parameters()]
    logger = logging.getLogger("torch.onnx")

    def process():
        return (torch.get_num_threads(), torch.is_grad_enabled(), torch.get_default_dtype(), torch.onnx.export,
                torch.get_rng_state().tolist(), logger.level, torch.backends.mha.get_fastpath_enabled(),
                torch._C._jit_is_onnx_log_enabled())  # fmt: skip

    before = process()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        export_torch(network, rows_of(VECTORS))
        with pytest.raises(LoweringError):
            export_torch(Function(lambda net, x: x.sum(), module), rows_of(VECTORS))
    assert process() == before
    assert [part.training for part in network.modules()] == flags
    assert [parameter.requires_grad for parameter in network.parameters()] == gradients
    assert all(parameter.grad is None for parameter in network.parameters())
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())
    assert os.listdir(tmp_path) == []


class Counting(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        self.calls += 1
        return x * 2


def test_buffers_that_a_module_changes_are_restored():
    module = Counting()
    export_torch(module, rows_of(VECTORS))
    assert module.calls == 0


def test_threads_may_export_at_the_same_time():
    module, x = nn.Linear(6, 2), rows_of(VECTORS)
    expected, graphs = export_torch(module, x).SerializeToString(), []
    workers = [
        threading.Thread(target=lambda: graphs.append(export_torch(module, x).SerializeToString())) for _ in range(4)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert graphs == [expected] * 4


def one_row_by_its_sign(x):
    if len(x) != 1:
        raise RuntimeError("one row, please")
    return x * 2 if x[0, 0] > 0 else -x


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x: x - x.mean(dim=0), "rows of a batch influence each other"),
        (lambda x: x.sum(), "output 0 is a scalar; every output must have rows on axis 0"),
        (lambda x: (x, None), "the module returns a NoneType"),
        (lambda x: [], "the module returns no tensor"),
        (lambda x: x @ torch.zeros(5, 2), "fails on one row of the inputs: RuntimeError"),
        (one_row_by_its_sign, "TorchScript exporter: the graph answers otherwise than the module: output 0 differs by"),
    ],
)
def test_modules_without_a_faithful_graph_are_refused(function, message):
    x = rows_of(VECTORS)
    x[:, 0] = torch.tensor([1.0, -1, 1, -1, 1])
    with pytest.raises(LoweringError, match=f"^Function.*{message}"):
        export_torch(Function(function), x)


def poisoned(name, value):
    module = nn.Sequential(nn.Linear(6, 3), nn.BatchNorm1d(3))
    with torch.no_grad():
        module.state_dict()[name].flatten()[0] = value
    return module


@pytest.mark.parametrize("name", ["0.weight", "0.bias", "1.running_var"])
def test_parameters_that_are_no_numbers_are_named(name):
    with pytest.raises(ModelFormatError, match=f"Sequential: '{name}' holds NaN"):
        export_torch(poisoned(name, np.nan), rows_of(VECTORS))


@pytest.mark.parametrize(
    ("module", "inputs", "error", "message"),
    [
        (lambda x: x, rows_of(VECTORS), TypeError, r"module must be a torch\.nn\.Module, got function"),
        (nn.Linear, rows_of(VECTORS), TypeError, r"module must be a torch\.nn\.Module, got type"),
        (nn.ReLU(), (), ValueError, "inputs must hold one array or tensor per argument of the module, got none"),
        (nn.ReLU(), rows_of(VECTORS, 0), ValueError, r"input 0 must be of shape \(n, \.\.\.\), n >= 1.* got \(0, 6\)"),
        (nn.ReLU(), np.float32(1), ValueError, r"input 0 must be of shape .* got \(\)"),
        (nn.ReLU(), np.array([["a"]]), TypeError, "input 0 must be numeric, got an array of <U1"),
        (nn.ReLU(), np.array([[np.nan]]), ValueError, "input 0 must be finite"),
        (
            nn.Bilinear(6, 6, 1),
            (rows_of(VECTORS), rows_of(VECTORS, 4)),
            ValueError,
            r"same number of rows, got \[5, 4\]",
        ),
        (nn.LazyLinear(2), rows_of(VECTORS), ValueError, "'weight' is not initialized yet; call the module once"),
        (nn.Linear(6, 2).half(), rows_of(VECTORS), LoweringError, r"is of torch\.float16; .* module\.float\(\)"),
    ],
)
def test_bad_arguments_are_named(module, inputs, error, message):
    with pytest.raises(error, match=message):
        export_torch(module, inputs)


@pytest.mark.parametrize("opset", [12, 21])
def test_opsets_beyond_the_exporter_are_refused(opset):
    with pytest.raises(ValueError, match=f"opset must be from 13 to 20, got {opset}"):
        export_torch(nn.ReLU(), rows_of(VECTORS), opset=opset)


def test_without_the_libraries_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(BackendUnavailableError, match=r'pip install "fhelearn\[onnx\]"'):
        export_torch(nn.ReLU(), rows_of(VECTORS))


def test_importing_the_function_loads_no_library():
    code = (
        "import sys; from fhelearn.onnx import export_torch, load_model, get_equivalent_numpy_forward\n"
        "print([name for name in ('onnx', 'torch', 'scipy') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
