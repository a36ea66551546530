"""Small modules of every kind, with data for them, and their quantized forms."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from torch import nn

from fhelearn.torch import QuantizedModule, build_quantized_module

ROWS = 60
APPROXIMATE = {"n_bits": 5, "method": "approximate"}


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(4, 3), nn.Linear(3, 3)

    def forward(self, x):
        hidden = torch.relu(self.first(x))
        return self.second(hidden) + hidden


class Concatenation(nn.Module):
    def __init__(self):
        super().__init__()
        self.left, self.right, self.last = nn.Linear(4, 2), nn.Linear(4, 2), nn.Linear(4, 2)

    def forward(self, x):
        return self.last(torch.cat([torch.relu(self.left(x)), torch.sigmoid(self.right(x))], 1))


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(2, 1) for _ in range(3))

    def forward(self, x):
        return self.query(x) @ self.key(x).transpose(1, 2) @ self.value(x)


class TwoInputs(nn.Module):
    """Adds its inputs, and uses one of them twice."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 2)

    def forward(self, x, y):
        return {"sum": self.layer(x) + y, "twice": self.layer(torch.sigmoid(x)) * 2.0 + y}


class Embedding(nn.Module):
    def __init__(self):
        super().__init__()
        self.table, self.layer = nn.Embedding(7, 3), nn.Linear(6, 2)

    def forward(self, indices):
        return torch.softmax(self.layer(torch.relu(self.table(indices).flatten(1))), 1)


MODULES = {
    "mlp": lambda: nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3)),
    "classifier": lambda: nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3), nn.Softmax(1)),
    "cnn": lambda: nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8, 2)),
    "depthwise": lambda: nn.Sequential(
        nn.Conv2d(2, 2, 3, groups=2), nn.ReLU(), nn.Conv2d(2, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(8, 2)
    ),
    "residual": Residual,
    "concatenation": Concatenation,
    "attention": Attention,
    "two inputs": TwoInputs,
    "embedding": Embedding,
}
ROW_SHAPES = {"cnn": [(1, 4, 4)], "depthwise": [(2, 4, 4)], "attention": [(2, 2)], "two inputs": [(4,), (2,)]}


@cache
def module(name: str) -> nn.Module:
    """A network with seeded weights, in evaluation mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        return MODULES[name]().eval()


def data(name: str, rows: int = ROWS, seed: int = 0, spread: float = 1.0) -> tuple[np.ndarray, ...]:
    """One float32 array per input (indices for the embedding)."""
    rng = np.random.default_rng(seed)
    if name == "embedding":
        return (rng.integers(0, 7, (rows, 2)),)
    shapes = ROW_SHAPES.get(name, [(4,)])
    return tuple((spread * rng.normal(size=(rows, *shape))).astype(np.float32) for shape in shapes)


@cache
def quantized(name: str, n_bits: int = 3, rounding: int | None = 5, method: str = "exact") -> QuantizedModule:
    """A network quantized on `data(name)`; callers must not compile it."""
    threshold = None if rounding is None else {"n_bits": rounding, "method": method}
    return build_quantized_module(module(name), data(name), n_bits=n_bits, rounding_threshold_bits=threshold)


def random_codes(quantized_module: QuantizedModule, rows: int, seed: int = 1) -> list[np.ndarray]:
    """Inputs of the program drawn from the whole declared range, its ends in the first two rows."""
    rng = np.random.default_rng(seed)
    program = quantized_module.program
    codes = []
    for index in program.inputs:
        value = program.nodes[index].value
        low, high = (np.broadcast_to(end, value.shape) for end in value.bounds.to_int64())
        drawn = rng.integers(low, high, size=(rows, *value.shape), endpoint=True)
        drawn[0], drawn[1] = low, high
        codes.append(drawn)
    return codes


def as_tuple(answer) -> tuple[np.ndarray, ...]:
    """One array or several as a tuple."""
    return answer if isinstance(answer, tuple) else (answer,)


def assert_same(found, expected) -> None:
    """Equal types, shapes and bits."""
    found, expected = as_tuple(found), as_tuple(expected)
    assert [(a.dtype, a.shape) for a in found] == [(a.dtype, a.shape) for a in expected]
    assert [a.tobytes() for a in found] == [a.tobytes() for a in expected]
