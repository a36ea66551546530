"""Simulation of a convolutional network on 100,000 images, against torch's own forward in the clear, and its import."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from benchmarks.networks import SETTINGS, quantized
from fhelearn.torch import QuantizedModule
from tests.python.torch.digits_cnn import Digits, trained_digits

ROWS = 100_000
GROUP = f"CNN on digits (144 + 32 activations), {ROWS:,} images"
IMPORT = "CNN on digits: from the torch module to the integer program"


@pytest.fixture(scope="module")
def compiled() -> tuple[Digits, QuantizedModule, NDArray[np.float32]]:
    digits = trained_digits()
    return digits, quantized(digits, SETTINGS[0]), np.resize(digits.held_out, (ROWS, 1, 8, 8))


@pytest.mark.benchmark(group=GROUP)
def bench_fhelearn_simulates_a_network(
    benchmark: Callable[..., Any], compiled: tuple[Digits, QuantizedModule, NDArray[np.float32]]
) -> None:
    digits, module, rows = compiled
    logits = benchmark(module.forward, rows, fhe="simulate")
    accuracy = (logits[: len(digits.held_out)].argmax(axis=1) == digits.held_out_y).mean()
    assert accuracy >= digits.float_accuracy - 0.01


@pytest.mark.benchmark(group=GROUP)
def bench_engine_runs_a_network(
    benchmark: Callable[..., Any], compiled: tuple[Digits, QuantizedModule, NDArray[np.float32]]
) -> None:
    _, module, rows = compiled
    codes = module.quantize_input(rows)
    outputs = benchmark(module.quantized_forward, codes, fhe="simulate")
    assert np.array_equal(module.dequantize_output(outputs[:100]), module.forward(rows[:100], fhe="simulate"))


@pytest.mark.benchmark(group=GROUP)
def bench_torch_runs_a_network_in_the_clear(
    benchmark: Callable[..., Any], compiled: tuple[Digits, QuantizedModule, NDArray[np.float32]]
) -> None:
    digits, _, rows = compiled
    images = torch.from_numpy(rows)
    with torch.no_grad():
        logits = benchmark(digits.model, images)
    assert (logits[: len(digits.held_out)].argmax(1).numpy() == digits.held_out_y).mean() == digits.float_accuracy


@pytest.mark.benchmark(group=IMPORT)
def bench_fhelearn_imports_a_network(
    benchmark: Callable[..., Any], compiled: tuple[Digits, QuantizedModule, NDArray[np.float32]]
) -> None:
    digits, module, _ = compiled
    assert benchmark(quantized, digits, SETTINGS[0]).program == module.program


@pytest.mark.benchmark(group=IMPORT)
def bench_torch_exports_a_network(
    benchmark: Callable[..., Any], compiled: tuple[Digits, QuantizedModule, NDArray[np.float32]]
) -> None:
    from fhelearn.onnx import export_torch

    digits, _, _ = compiled
    assert benchmark(export_torch, digits.model, digits.x[:2]).graph.node
