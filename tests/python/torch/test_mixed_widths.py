"""Rounding drops the same low bits of a whole tensor: narrow parts of a concatenation must not be among them."""

import numpy as np
import pytest
import torch
from torch import nn

from fhelearn.backends.native import NativeEngine
from fhelearn.ir import evaluate
from fhelearn.testing import assert_bit_exact
from fhelearn.torch import build_quantized_module

BITS = 5


class Beside(nn.Module):
    """Sums of many terms, and a few inputs, side by side: rectified, and handed through."""

    def __init__(self) -> None:
        super().__init__()
        self.sums = nn.Linear(20, 4)
        self.last = nn.Linear(7, 7, bias=False)
        with torch.no_grad():
            self.last.weight.copy_(torch.eye(7))

    def forward(self, x, y):
        return self.last(torch.relu(torch.cat([self.sums(x), y], dim=1)))


@pytest.mark.parametrize("method", ["exact", "approximate"])
def test_rounding_costs_every_part_of_a_concatenation_one_step_of_its_own_range(method):
    torch.manual_seed(0)
    module, x, y = Beside(), torch.randn(300, 20), torch.rand(300, 3) - 0.5
    rounding = {"n_bits": BITS, "method": method}
    quantized = build_quantized_module(module, (x, y), n_bits=8, rounding_threshold_bits=rounding, margin=0.0)
    exact, got = quantized(x, y), quantized(x, y, fhe="simulate")
    inputs = np.maximum(y.numpy(), 0)
    encoder = 1 / (2**8 - 1) / 2  # half a step of the input's grid; what is read has up to a bit less than `BITS`
    rounded, answer = 1 / 2 ** (BITS - 1), np.ptp(exact) / (2**8 - 1) / 2
    assert np.abs(got[:, 4:] - inputs).max() <= encoder + rounded / 2 + answer + 2**-20
    codes = list(quantized.quantize_input(3 * x, 3 * y))
    program = quantized.program
    reference = evaluate(program, codes, on_overflow="wrap")
    assert_bit_exact(NativeEngine(program).run(codes, on_overflow="wrap"), reference, program)
