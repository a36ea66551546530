"""What operators that only add, or only compare, obey on the whole declared range of their inputs."""

import numpy as np

from tests.python.unit.onnx_import.graphs import codes, floats, imported, reference, settings, simulate

PROVED = settings(8, bounds="proved")
FLOAT64 = 2.0**-40
"""Relative error of a few thousand float64 operations, generously; any wrong integer is far beyond."""


def whole_numbers(rng, *shape, rows=24, low=-20, high=20):
    """Calibration rows of integers: 8-bit grids hold them with a step of 1; the first rows are the ends."""
    x = rng.integers(low, high + 1, (rows, *shape)).astype(np.float64)
    x[0], x[1] = low, high
    return x


def ints(rng, *shape, most=5):
    """Weights that are small integers."""
    return rng.integers(-most, most + 1, shape).astype(np.float32)


def agree(model, samples, rng, how=PROVED, *, bound=0.0, rows=10):
    """The decoded outputs are the float model's on what the codes stand for, within `bound`. Returns the network.

    `bound`: a number, or a function of the network and the codes.
    """
    network = imported(model, samples, how)
    q = codes(network, rng, rows)
    found, expected = simulate(network, q), reference(model, floats(network, q))
    allowed = bound(network, q) if callable(bound) else bound
    for got, want in zip(found, expected, strict=True):
        assert got.shape == want.shape
        assert (np.abs(got - want) <= allowed + FLOAT64 * np.abs(want).max()).all()
    return network


def lookups(network):
    """Table lookups per row."""
    return sum(int(np.prod(node.value.shape)) for node in network.program.nodes if node.op == "table_lookup")


def decrypts_exactly(model, samples, rng, how):
    """One row, really encrypted, gives the integers that the simulation gives."""
    from fhelearn.backends.concrete import compile_program

    network = imported(model, samples, how)
    q = [each[:1] for each in codes(network, rng)]
    circuit = compile_program(network.program)
    circuit.keygen()
    np.testing.assert_array_equal(network.dequantize(circuit.execute(q))[0], simulate(network, q)[0])
