"""Data that small networks learn in a second."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

TRAINING_ROWS, HELD_OUT_ROWS = 1024, 1000

Floats = NDArray[np.float32]
Labels = NDArray[np.int64]


def share_of_right_classes(outputs: Floats, y: NDArray[np.generic]) -> float:
    """How often the largest output along axis 1 is at the label; labels may be per row or per pixel."""
    return float((outputs.argmax(axis=1) == y).mean())


@dataclass(frozen=True, eq=False)
class Task:
    """Training and held-out data.

    Attributes
    ----------
    x, held_out : ndarray of float32, shape (n, *row)
    y, held_out_y : arrays, shape (n, ...)
        Targets of the loss; what `score` compares with.
    loss : callable
        Of outputs and targets, as torch has it.
    score : callable
        Accuracy in [0, 1] of outputs.
    """

    x: Floats
    held_out: Floats
    y: NDArray[np.generic]
    held_out_y: NDArray[np.generic]
    loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] = torch.nn.functional.cross_entropy
    score: Callable[[Floats, NDArray[np.generic]], float] = share_of_right_classes


def gratings(channels: int = 3, noise: float = 1.4) -> Task:
    """Stripes of four directions and any phase, shape (channels, 8, 8); which direction is to be told."""
    rng = np.random.default_rng(11)
    n = TRAINING_ROWS + HELD_OUT_ROWS
    y = rng.integers(0, 4, n)
    angle = y * np.pi / 4
    row, column = np.mgrid[:8, :8]
    along = np.multiply.outer(np.cos(angle), column) + np.multiply.outer(np.sin(angle), row)
    waves = np.sin(2 * np.pi * along / 4 + rng.uniform(0, 2 * np.pi, (n, 1, 1)))
    x = rng.uniform(0.5, 1, (n, channels, 1, 1)) * waves[:, np.newaxis] + rng.normal(0, noise, (n, channels, 8, 8))
    return _split(x, y)


clear_gratings = partial(gratings, noise=0.8)
grey_gratings = partial(gratings, channels=1, noise=0.5)
clear_grey_gratings = partial(gratings, channels=1, noise=0.3)


def waves() -> Task:
    """Sines of four frequencies and any phase in two channels, shape (2, 32); which frequency is to be told."""
    rng = np.random.default_rng(12)
    n = TRAINING_ROWS + HELD_OUT_ROWS
    y = rng.integers(0, 4, n)
    period = np.array([3.0, 4.5, 7.0, 12.0])[y][:, np.newaxis]
    phase = 2 * np.pi * (np.arange(32) / period + rng.uniform(0, 1, (n, 1)))
    x = np.stack([np.sin(phase), np.cos(phase)], axis=1) + rng.normal(0, 0.6, (n, 2, 32))
    return _split(x, y)


def _prototypes(classes: int, size: int) -> NDArray[np.float64]:
    """Smooth random images, shape (classes, size, size)."""
    rng = np.random.default_rng(13)
    coarse = rng.normal(0, 1, (classes, size // 2, size // 2))
    return np.kron(coarse, np.ones((1, 2, 2)))


def patterns() -> Task:
    """Eight fixed images under noise, shape (1, 12, 12); which one is to be told."""
    rng = np.random.default_rng(14)
    y = rng.integers(0, 8, TRAINING_ROWS + HELD_OUT_ROWS)
    x = _prototypes(8, 12)[y][:, np.newaxis]
    return _split(x + rng.normal(0, 2.0, x.shape), y)


def noisy_patterns() -> Task:
    """Eight fixed images under noise, shape (1, 8, 8); the image is to be given, scored by which it is nearest to."""
    rng = np.random.default_rng(15)
    prototypes = _prototypes(8, 8)[:, np.newaxis].astype(np.float32)
    clean = prototypes[rng.integers(0, 8, TRAINING_ROWS + HELD_OUT_ROWS)]

    def nearest(x: NDArray[np.generic]) -> Labels:
        return np.square(x[:, np.newaxis] - prototypes).sum(axis=(2, 3, 4)).argmin(axis=1)  # type: ignore[no-any-return]

    def score(outputs: Floats, y: NDArray[np.generic]) -> float:
        return float((nearest(outputs) == nearest(y)).mean())

    noisy = clean + rng.normal(0, 1.2, clean.shape)
    return _split(noisy, clean, torch.nn.functional.mse_loss, score)


def blobs() -> Task:
    """A bright square somewhere in noise, shape (1, 8, 8); its pixels are to be told, labels (8, 8)."""
    rng = np.random.default_rng(16)
    n = TRAINING_ROWS + HELD_OUT_ROWS
    low = rng.integers(0, 5, (n, 2, 1))
    inside = (np.arange(8) >= low) & (np.arange(8) < low + 4)
    y = (inside[:, 0, :, np.newaxis] & inside[:, 1, np.newaxis, :]).astype(np.int64)
    x = 2.0 * y[:, np.newaxis] + rng.normal(0, 0.8, (n, 1, 8, 8))
    return _split(x, y)


def _split(
    x: NDArray[np.float64],
    y: NDArray[np.generic],
    loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] = torch.nn.functional.cross_entropy,
    score: Callable[[Floats, NDArray[np.generic]], float] = share_of_right_classes,
) -> Task:
    x = x.astype(np.float32)
    return Task(x[:TRAINING_ROWS], x[TRAINING_ROWS:], y[:TRAINING_ROWS], y[TRAINING_ROWS:], loss, score)
