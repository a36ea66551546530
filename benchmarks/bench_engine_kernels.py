"""The engine's kernels against NumPy's int64 and float64 arithmetic: equal results, then speed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fhelearn.backends.native import NativeEngine
from fhelearn.ir import Program, ProgramBuilder
from fhelearn.quantization import UniformEncoder
from fhelearn.typing import FloatArray, IntArray

SHAPES = [(256, 784, 256), (10_000, 64, 128), (100_000, 30, 1)]


def operands(rows: int, inner: int, columns: int) -> tuple[IntArray, IntArray]:
    """Draw inputs of 7 bits and weights of 8 bits: the widths of a quantized network."""
    rng = np.random.default_rng(0)
    return rng.integers(0, 128, (rows, inner)), rng.integers(-128, 128, (inner, columns))


def matmul(weights: IntArray) -> Program:
    builder = ProgramBuilder()
    x = builder.emit("input", shape=(weights.shape[0],), lo=0, hi=127, name="x")
    return builder.build(builder.emit("matmul", x, weights=weights))


def run_engine(engine: NativeEngine, x: IntArray) -> IntArray:
    (result,) = engine.run([x])
    return np.asarray(result)


@pytest.mark.benchmark(group="integer matmul")
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def bench_engine_matmul(shape: tuple[int, int, int], benchmark: Callable[..., Any]) -> None:
    x, weights = operands(*shape)
    result = benchmark(run_engine, NativeEngine(matmul(weights)), x)
    assert np.array_equal(result, x @ weights)


@pytest.mark.benchmark(group="integer matmul")
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def bench_numpy_int64_matmul(shape: tuple[int, int, int], benchmark: Callable[..., Any]) -> None:
    x, weights = operands(*shape)
    assert benchmark(np.matmul, x, weights).dtype == np.int64


@pytest.mark.benchmark(group="integer matmul")
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def bench_numpy_float64_matmul(shape: tuple[int, int, int], benchmark: Callable[..., Any]) -> None:
    x, weights = operands(*shape)
    result = benchmark(np.matmul, x.astype(np.float64), weights.astype(np.float64))
    assert np.array_equal(result, x @ weights)


def lookup(table: IntArray) -> Program:
    builder = ProgramBuilder()
    x = builder.emit("input", shape=(64,), lo=-8, hi=7, name="x")
    return builder.build(builder.emit("table_lookup", x, lo=-8, table=table))


@pytest.fixture
def looked_up() -> tuple[IntArray, IntArray]:
    rng = np.random.default_rng(0)
    return rng.integers(-8, 8, (10_000, 64)), rng.integers(-100, 100, 16)


@pytest.mark.benchmark(group="table lookup, 10,000 x 64")
def bench_engine_lookup(looked_up: tuple[IntArray, IntArray], benchmark: Callable[..., Any]) -> None:
    x, table = looked_up
    assert np.array_equal(benchmark(run_engine, NativeEngine(lookup(table)), x), table[x + 8])


@pytest.mark.benchmark(group="table lookup, 10,000 x 64")
def bench_numpy_lookup(looked_up: tuple[IntArray, IntArray], benchmark: Callable[..., Any]) -> None:
    x, table = looked_up
    assert benchmark(lambda: table[x + 8]).shape == x.shape


@pytest.fixture
def floats() -> tuple[FloatArray, FloatArray, FloatArray, IntArray, IntArray]:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(100_000, 30)) * np.logspace(-3, 3, 30)
    low, high = x.min(axis=0), x.max(axis=0)
    lo, hi = np.zeros(30, dtype=np.int64), np.full(30, 2**16 - 1, dtype=np.int64)
    return x, (high - low) / hi, low, lo, hi


Floats = tuple[FloatArray, FloatArray, FloatArray, IntArray, IntArray]


def quantize_by_numpy(x: FloatArray, scale: FloatArray, offset: FloatArray, lo: IntArray, hi: IntArray) -> IntArray:
    quantized: IntArray = np.clip(np.rint((x - offset) / scale), lo, hi).astype(np.int64)
    return quantized


@pytest.mark.benchmark(group="quantize, 100,000 x 30")
def bench_engine_quantize(floats: Floats, benchmark: Callable[..., Any]) -> None:
    x, scale, offset, lo, hi = floats
    quantized, below, above = benchmark(UniformEncoder(scale, offset, lo, hi).quantize_counting, x)
    assert np.array_equal(quantized, quantize_by_numpy(*floats))
    assert not below.any()
    assert not above.any()


@pytest.mark.benchmark(group="quantize, 100,000 x 30")
def bench_numpy_quantize(floats: Floats, benchmark: Callable[..., Any]) -> None:
    assert benchmark(quantize_by_numpy, *floats).shape == floats[0].shape
