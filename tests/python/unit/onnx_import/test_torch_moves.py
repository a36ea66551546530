"""What torch's exporter makes of functions that move elements is imported, and exact."""

import numpy as np
import pytest
import torch

from fhelearn.ir import cost
from fhelearn.onnx import export_torch
from tests.python.unit.onnx_import.graphs import assert_exact

F = torch.nn.functional


class Applied(torch.nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, *inputs):
        return self.function(*inputs)


def with_constant(x, y):
    return torch.cat([x, y, torch.full_like(x, 0.3)], 1)


def with_a_column_set(x):
    y = x.clone()
    y[:, 1] = 0.5
    return y


def picked(x):
    return torch.gather(x, 1, torch.tensor([[0, 1, 1]]).expand(x.shape[0], -1))


CASES = {
    "unfold": (torch.nn.Unfold((2, 3), padding=1, stride=2), [(2, 5, 6)]),
    "dilated unfold": (lambda x: F.unfold(x, 2, dilation=2), [(2, 5, 6)]),
    "windows": (lambda x: x.unfold(1, 3, 2), [(8,)]),
    "constant pad": (lambda x: F.pad(x, (1, 2, 0, 1), value=0.7), [(2, 5, 6)]),
    "reflect pad": (lambda x: F.pad(x, (1, 2, 0, 1), mode="reflect"), [(2, 5, 6)]),
    "replicate pad": (lambda x: F.pad(x, (1, 2, 0, 1), mode="replicate"), [(2, 5, 6)]),
    "circular pad": (lambda x: F.pad(x, (1, 2, 0, 1), mode="circular"), [(2, 5, 6)]),
    "negative pad": (lambda x: F.pad(x, (-1, 2), value=0.7), [(2, 5)]),
    "cat": (with_constant, [(2, 5), (3, 5)]),
    "stack": (lambda x, y: torch.stack([x, y], -1), [(4,), (4,)]),
    "chunk": (lambda x: torch.chunk(x, 3, 1), [(7,)]),
    "split": (lambda x: x.split([1, 4, 2], 1), [(7,)]),
    "interpolate by a factor": (lambda x: F.interpolate(x, scale_factor=2, mode="nearest"), [(2, 3, 4)]),
    "interpolate to a size": (lambda x: F.interpolate(x, size=(5, 7), mode="nearest"), [(2, 3, 4)]),
    "pixel shuffle": (torch.nn.PixelShuffle(2), [(8, 2, 3)]),
    "pixel unshuffle": (torch.nn.PixelUnshuffle(2), [(2, 4, 6)]),
    "flip": (lambda x: x.flip(1, 2), [(4, 3)]),
    "roll": (lambda x: x.roll(1, -1), [(4, 3)]),
    "tril": (lambda x: x.tril(), [(4, 4)]),
    "repeat": (lambda x: x.repeat(1, 2, 3), [(4, 3)]),
    "repeat_interleave": (lambda x: x.repeat_interleave(2, 1), [(4, 3)]),
    "index": (lambda x: x[:, [0, 2], [1, 0]], [(4, 3)]),
    "gather": (picked, [(4,)]),
    "assignment": (with_a_column_set, [(4,)]),
    "permute": (lambda x: x.permute(0, 2, 1).flatten(1).unflatten(1, (2, -1)), [(4, 3)]),
}


@pytest.mark.parametrize("name", CASES)
def test_a_torch_function_that_moves_elements_is_exact_and_free(name):
    function, shapes = CASES[name]
    rng = np.random.default_rng(0)
    inputs = tuple(rng.normal(size=(3, *shape)).astype(np.float32) for shape in shapes)
    model = export_torch(Applied(function), inputs if len(inputs) > 1 else inputs[0])
    for info in model.graph.input:
        info.type.tensor_type.shape.dim[0].dim_value = 1
    assert cost(assert_exact(model, rng).program).total_lookups == 0
