"""Brief, repeatable training of small networks for tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

Module = TypeVar("Module", bound=torch.nn.Module)


def train(
    make: Callable[[], Module],
    x: NDArray[np.float32],
    y: NDArray[Any],
    *,
    epochs: int,
    batch: int,
    learning_rate: float,
    loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] = torch.nn.functional.cross_entropy,
    seed: int = 0,
) -> Module:
    """A network in evaluation mode, trained by Adam with a one-cycle schedule; torch's random state is left as it was.

    One thread: the networks are too small for more, and sums keep their order, so that weights repeat.

    Parameters
    ----------
    make : callable
        Gives the network with initial weights.
    x, y : arrays, shape (n, ...)
        Inputs and targets.
    epochs, batch : int
    learning_rate : float
        The highest of the schedule.
    loss : callable
        Of outputs and targets.
    seed : int
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return _trained(make(), torch.from_numpy(x), torch.from_numpy(y), epochs, batch, learning_rate, loss)
    finally:
        torch.set_num_threads(threads)


def _trained(
    model: Module,
    x: torch.Tensor,
    y: torch.Tensor,
    epochs: int,
    batch: int,
    learning_rate: float,
    loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
) -> Module:
    optimizer = torch.optim.Adam(model.parameters(), learning_rate)
    steps = epochs * (len(x) // batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=steps)
    model.train()
    for _ in range(epochs):
        for rows in torch.randperm(len(x))[: len(x) // batch * batch].split(batch):
            optimizer.zero_grad()
            loss(model(x[rows]), y[rows]).backward()
            optimizer.step()
            schedule.step()
    return model.eval()


def answers(model: torch.nn.Module, x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Outputs of a network in evaluation mode, shape (n, ...)."""
    with torch.no_grad():
        result: NDArray[np.float32] = model(torch.from_numpy(x)).numpy()
    return result


def accuracy(model: torch.nn.Module, x: NDArray[np.float32], y: NDArray[Any]) -> float:
    """Share of rows whose largest output (axis 1) is at the label."""
    return float((answers(model, x).argmax(axis=1) == y).mean())
