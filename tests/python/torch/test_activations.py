"""Every activation of torch is one table lookup per element, whatever operators its export is made of."""

import numpy as np
import pytest
import torch
from torch import nn

from fhelearn.backends.native import NativeEngine
from fhelearn.ir import cost, evaluate
from fhelearn.testing import assert_bit_exact
from fhelearn.torch import build_quantized_module

ACTIVATIONS = [
    nn.CELU(), nn.ELU(), nn.GELU(), nn.GELU(approximate="tanh"), nn.Hardshrink(), nn.Hardsigmoid(), nn.Hardswish(),
    nn.Hardtanh(), nn.LeakyReLU(), nn.LogSigmoid(), nn.Mish(), nn.PReLU(), nn.PReLU(5), nn.ReLU(), nn.ReLU6(),
    nn.RReLU(), nn.SELU(), nn.SiLU(), nn.Sigmoid(), nn.Softplus(), nn.Softplus(beta=2), nn.Softshrink(),
    nn.Softsign(), nn.Tanh(), nn.Tanhshrink(), nn.Threshold(0.1, 0.5),
]  # fmt: skip
HIDDEN = 5


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=str)
def test_an_activation_between_two_layers_is_one_lookup_per_element(activation):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(4, HIDDEN), nn.BatchNorm1d(HIDDEN), activation, nn.Linear(HIDDEN, 3))
    x = torch.randn(200, 4)
    quantized = build_quantized_module(module, x, n_bits=6, rounding_threshold_bits=None)
    assert cost(quantized.program).total_lookups == HIDDEN
    q = [quantized.quantize_input(3 * x)]
    reference = evaluate(quantized.program, q, on_overflow="wrap")
    assert_bit_exact(NativeEngine(quantized.program).run(q, on_overflow="wrap"), reference, quantized.program)


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=str)
def test_the_table_of_an_activation_is_the_function_itself_rounded_once(activation):
    """With a lookup per feature and nothing else, the answer is the float one within half a step of its grid."""
    module = nn.Sequential(nn.Flatten(), activation, nn.Linear(HIDDEN, HIDDEN, bias=False)).eval()
    with torch.no_grad():
        module[2].weight.copy_(torch.eye(HIDDEN))
    codes = torch.arange(-8, 8, dtype=torch.float32).repeat(HIDDEN, 1).T  # integers are exact on their grid
    with torch.no_grad():
        exact = module(codes).double().numpy()
    quantized = build_quantized_module(module, codes, n_bits=8, rounding_threshold_bits=None, bounds="proved")
    step = np.ptp(exact) / (2**8 - 1)
    got = quantized.forward(codes, fhe="simulate")
    assert np.abs(got - exact).max() <= (step / 2) * (1 + 2**-20) + 2**-20 * np.abs(exact).max()  # float32 exports
