"""The convolutional network on scikit-learn's digits that tests and benchmarks share."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from tests.python.torch.training import accuracy, train

N_BITS = 6
"""Bits of inputs, weights and activations that the accuracy, the lookups and the speed are stated for."""

ROUNDING = {"n_bits": 5, "method": "approximate"}
"""Accumulators are rounded to 5 bits."""


class DigitsCNN(torch.nn.Module):
    """Images (n, 1, 8, 8) in [0, 1] to logits (n, 10): 144 + 32 activations."""

    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.Conv2d(1, 4, 3)
        self.second = torch.nn.Conv2d(4, 8, 3, stride=2)
        self.last = torch.nn.Linear(32, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits."""
        hidden = torch.relu(self.second(torch.relu(self.first(x))))
        logits: torch.Tensor = self.last(hidden.flatten(1))
        return logits


@dataclass(frozen=True, eq=False)
class Digits:
    """The trained network and its data.

    Attributes
    ----------
    model : DigitsCNN
        In evaluation mode.
    x, held_out : ndarray of float32, shape (n, 1, 8, 8)
        Images in [0, 1]: 1257 for training and calibration, 540 that were never seen.
    y, held_out_y : ndarray of int64, shape (n,)
    """

    model: DigitsCNN
    x: NDArray[np.float32]
    held_out: NDArray[np.float32]
    y: NDArray[np.int64]
    held_out_y: NDArray[np.int64]

    @property
    def float_accuracy(self) -> float:
        """Of the float network on the held-out images."""
        return accuracy(self.model, self.held_out, self.held_out_y)


@cache
def trained_digits() -> Digits:
    """Train with fixed seeds, in a few seconds; once per process."""
    images, labels = load_digits(return_X_y=True)
    images = (images / 16).astype(np.float32).reshape(-1, 1, 8, 8)
    x, held_out, y, held_out_y = train_test_split(images, labels, test_size=0.3, random_state=0, stratify=labels)
    model = train(DigitsCNN, x, y, epochs=40, batch=64, learning_rate=3e-2, seed=2)
    return Digits(model, x, held_out, y, held_out_y)
