"""What networks cost when encrypted, on scikit-learn's digits, beside what the peer was measured at."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fhelearn.torch import QuantizedModule, build_quantized_module
from tests.python.torch.digits_cnn import N_BITS, ROUNDING, Digits, trained_digits

ROWS, SIMULATED_ROWS, CALIBRATION_ROWS = 5, 100_000, 1000
PEER = "208 to 1584 lookups, 24 to 56 s"
"""Concrete ML 1.9 on this network and machine class, by rounding. Measured before fhelearn was built; its version pins
keep it from being installed beside."""


@dataclass(frozen=True)
class Setting:
    """How the network is quantized and encrypted."""

    activation_bits: int
    weight_bits: int
    rounding: dict[str, Any]
    p_error: float = 2.0**-40


SETTINGS = (
    Setting(N_BITS, N_BITS, ROUNDING),
    Setting(5, 7, {"n_bits": 5, "method": "approximate"}),
    Setting(5, 7, {"n_bits": 4, "method": "approximate"}),
    Setting(5, 7, {"n_bits": 4, "method": "approximate"}, 1e-6),
)
"""That of the tests, the default, and two that are faster."""


@dataclass(frozen=True)
class NetworkCost:
    """One row of the table.

    Attributes
    ----------
    float_accuracy, simulated_accuracy : float
        On held-out images.
    seconds_to_program : float
        Export of the module, clean-up, quantization and the program; the median of five.
    agreement : float
        Share of the encrypted rows whose label is the simulated one.
    shown : bool
        Whether the front page shows it.
    """

    network: str
    activation_bits: int
    weight_bits: int
    rounding_bits: int
    p_error: float
    lookups: int
    bit_width: int
    complexity: float
    key_bytes: int
    input_bytes: int
    float_accuracy: float
    simulated_accuracy: float
    seconds_to_program: float
    seconds_one_row: float
    microseconds_simulated: float
    agreement: float
    peer: str
    shown: bool


def quantized(digits: Digits, setting: Setting) -> QuantizedModule:
    """The CNN's module."""
    return build_quantized_module(
        digits.model,
        digits.x[:CALIBRATION_ROWS],
        n_bits={"op_inputs": setting.activation_bits, "op_weights": setting.weight_bits},
        rounding_threshold_bits=setting.rounding,
    )


def measure(setting: Setting) -> NetworkCost:
    """Quantize, compile, run held-out rows encrypted, and simulate many."""
    digits = trained_digits()
    module = quantized(digits, setting).compile(p_error=setting.p_error)
    cost = module.fhe_circuit.cost
    labels = simulate(module, digits.held_out).argmax(axis=1)
    seconds, answers = one_by_one(module, digits.held_out[: ROWS + 1])
    many = np.resize(digits.held_out, (SIMULATED_ROWS, *digits.held_out.shape[1:]))
    return NetworkCost(
        network="CNN, 176 activations",
        activation_bits=setting.activation_bits,
        weight_bits=setting.weight_bits,
        rounding_bits=int(setting.rounding["n_bits"]),
        p_error=setting.p_error,
        lookups=cost.num_lookups,
        bit_width=max(cost.lookups_by_bit_width),
        complexity=cost.complexity,
        key_bytes=cost.evaluation_key_bytes,
        input_bytes=cost.input_bytes_per_row,
        float_accuracy=digits.float_accuracy,
        simulated_accuracy=float(np.mean(labels == digits.held_out_y)),
        seconds_to_program=timed(lambda: quantized(digits, setting), 5),
        seconds_one_row=median(seconds[1:]),
        microseconds_simulated=1e6 * timed(lambda: simulate(module, many), 7) / SIMULATED_ROWS,
        agreement=float(np.mean(answers == labels[: len(answers)])),
        peer=PEER,
        shown=setting in (SETTINGS[0], SETTINGS[2]),
    )


def one_by_one(module: QuantizedModule, rows: NDArray[Any]) -> tuple[list[float], NDArray[np.int64]]:
    """Times of single encrypted rows (the first makes keys and loads them) and their labels."""
    seconds, answers = [], []
    for i in range(len(rows)):
        start = time.perf_counter()
        answers.append(int(module.forward(rows[i : i + 1], fhe="execute").argmax()))
        seconds.append(time.perf_counter() - start)
    return seconds, np.array(answers, dtype=np.int64)


def simulate(module: QuantizedModule, rows: NDArray[Any]) -> NDArray[Any]:
    """From float rows to float logits."""
    answer: NDArray[Any] = module.forward(rows, fhe="simulate")
    return answer


def timed(run: Callable[[], Any], rounds: int) -> float:
    """Median seconds of a call."""
    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return median(seconds)


def measure_all() -> list[NetworkCost]:
    """Every setting."""
    return [measure(setting) for setting in SETTINGS]
