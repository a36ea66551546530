"""Quantization kernels and tables: equal to NumPy float64, bit for bit."""

import numpy as np
import pytest

from fhelearn import _core
from fhelearn.exceptions import QuantizationError
from fhelearn.quantization.tables import MAX_ENTRIES, Thresholds, lookup_table


def numpy_quantize(x, scale, offset, lo, hi):
    rounded = np.rint((x - offset) / scale)
    return np.clip(rounded, lo, hi).astype(np.int64), (rounded < lo).sum(0), (rounded > hi).sum(0)


def column_parameters(rng: np.random.Generator, columns: int):
    scale = np.exp(rng.normal(0, 4, columns))
    offset = rng.normal(0, 100, columns)
    hi = 2 ** rng.integers(1, 50, columns, dtype=np.int64) - 1
    return scale, offset, np.where(rng.random(columns) < 0.5, 0, -hi), hi


@pytest.mark.parametrize("shape", [(0, 3), (1, 1), (7, 5), (1000, 30), (70_000, 3), (3, 1000)])
@pytest.mark.parametrize("num_threads", [1, 3])
def test_quantize_equals_numpy(rng: np.random.Generator, shape: tuple[int, int], num_threads: int) -> None:
    scale, offset, lo, hi = column_parameters(rng, shape[1])
    x = rng.normal(0, 1, shape) * scale * hi + offset
    ties = rng.random(shape) < 0.3  # exact halves where the scale is a power of two
    scale = np.where(rng.random(shape[1]) < 0.5, 2.0 ** np.rint(np.log2(scale)), scale)
    offset = np.where(rng.random(shape[1]) < 0.5, 0.0, offset)
    x = np.where(ties, (rng.integers(-50, 50, shape) + 0.5) * scale + offset, x)
    for got, want in zip(
        _core.quantize(x, scale, offset, lo, hi, num_threads), numpy_quantize(x, scale, offset, lo, hi), strict=True
    ):
        np.testing.assert_array_equal(got, want)


def test_quantize_rounds_half_to_even_and_takes_infinities() -> None:
    x = np.array([[-2.5], [-0.5], [0.5], [1.5], [2.5], [np.inf], [-np.inf], [5e-324], [-0.0]])
    one = np.ones(1)
    q, below, above = _core.quantize(x, one, 0 * one, np.array([-2]), np.array([9]))
    assert q.ravel().tolist() == [-2, 0, 0, 2, 2, 9, -2, 0, 0]
    assert (below.tolist(), above.tolist()) == ([1], [1])


def test_quantize_refuses_nan_by_row_and_column() -> None:
    x = np.zeros((100_000, 3))
    x[70_000, 2] = x[90_000, 0] = np.nan
    ones = np.ones(3)
    with pytest.raises(ValueError, match="x holds NaN at row 70000, column 2"):
        _core.quantize(x, ones, ones, np.zeros(3, dtype=np.int64), np.ones(3, dtype=np.int64), 3)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"x": np.zeros((2, 3), dtype=np.float32)}, TypeError, "x must be a C-contiguous float64 array with 2 axes"),
        ({"x": np.zeros((3, 2)).T}, TypeError, "not C-contiguous"),
        ({"x": np.zeros(3)}, TypeError, r"got float64 array of shape \(3,\)"),
        ({"x": [[1.0, 2.0, 3.0]]}, TypeError, "got list"),
        ({"scale": np.ones(2)}, ValueError, "scale has 2 entries, must have one per column of x: 3"),
        ({"lo": np.zeros(3)}, TypeError, "lo must be a C-contiguous int64 array"),
        ({"scale": np.array([1.0, 0.0, 1.0])}, ValueError, r"scale\[1\] is 0.0"),
        ({"scale": np.array([1.0, np.nan, 1.0])}, ValueError, r"scale\[1\] is .*nan, must be finite and positive"),
        ({"offset": np.array([np.inf, 0.0, 0.0])}, ValueError, r"offset\[0\] is inf, must be finite"),
        ({"hi": np.array([9, -1, 9])}, ValueError, r"lo\[1\] is 0, must be <= hi, which is -1"),
        ({"hi": np.full(3, 2**51)}, ValueError, r"hi\[0\] is 2251799813685248, must be within \+-2\*\*50"),
    ],
)
def test_quantize_names_bad_arguments(change: dict, error: type[Exception], message: str) -> None:
    good = {
        "x": np.zeros((2, 3)),
        "scale": np.ones(3),
        "offset": np.zeros(3),
        "lo": np.zeros(3, dtype=np.int64),
        "hi": np.full(3, 9),
    }
    assert _core.quantize(**good)[0].shape == (2, 3)
    with pytest.raises(error, match=message):
        _core.quantize(**{**good, **change})


def test_dequantize_equals_numpy(rng: np.random.Generator) -> None:
    q = rng.integers(-(2**62), 2**62, (5000, 7)) >> rng.integers(0, 60, 7)
    scale, offset = rng.normal(0, 1, 7) ** 2 + 0.1, rng.normal(0, 1e6, 7)
    np.testing.assert_array_equal(_core.dequantize(q, scale, offset, 2), q * scale + offset)


# --- tables ---------------------------------------------------------------------------------------------------------


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-np.clip(x, -700.0, 700.0)))


def numpy_table(function, lo, hi, scale_in, zero_in, scale_out, zero_out, low, high):
    x = (np.arange(lo, hi + 1) - zero_in) * scale_in
    return np.clip(np.rint(function(x) / scale_out) + zero_out, low, high).astype(np.int64)


@pytest.mark.parametrize("function", [sigmoid, np.tanh, lambda x: np.maximum(x, 0.0), np.cbrt], ids=range(4))
def test_a_table_equals_numpy(function, rng: np.random.Generator) -> None:
    for _ in range(20):
        lo = int(rng.integers(-3000, 100))
        hi = lo + int(rng.integers(0, 5000))
        scale_in, scale_out = np.exp(rng.normal(-4, 2, 2))
        zero_in, zero_out = (int(v) for v in rng.integers(-50, 50, 2))
        high = int(rng.integers(1, 2**16))
        table = lookup_table(
            function,
            lo,
            hi,
            input_scale=scale_in,
            input_zero_point=zero_in,
            output_scale=scale_out,
            output_zero_point=zero_out,
            output_lo=-high,
            output_hi=high,
        )
        expected = numpy_table(function, lo, hi, scale_in, zero_in, scale_out, zero_out, -high, high)
        np.testing.assert_array_equal(table, expected)


def test_tables_per_channel_equal_numpy(rng: np.random.Generator) -> None:
    channels, lo, hi = 300, -700, 900
    scale_in, scale_out = np.exp(rng.normal(-3, 1, (2, channels)))
    zero_in, zero_out = rng.integers(-9, 9, (2, channels))
    gain, shift = rng.normal(0, 1, (2, channels, 1))
    tables = lookup_table(
        lambda x: sigmoid(gain * x + shift),
        lo,
        hi,
        input_scale=scale_in,
        input_zero_point=zero_in,
        output_scale=scale_out,
        output_zero_point=zero_out,
        output_lo=0,
        output_hi=15,
    )
    assert tables.shape == (channels, hi - lo + 1)
    column = [np.reshape(v, (channels, 1)) for v in (scale_in, zero_in, scale_out, zero_out)]
    x = (np.arange(lo, hi + 1) - column[1]) * column[0]
    expected = np.clip(np.rint(sigmoid(gain * x + shift) / column[2]) + column[3], 0, 15).astype(np.int64)
    np.testing.assert_array_equal(tables, expected)


def test_a_constant_function_and_a_single_entry_are_tables() -> None:
    assert lookup_table(lambda x: 2.5, 3, 3, output_lo=0, output_hi=9).tolist() == [2]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lo": 5, "hi": 4}, "bounds are empty: lo=5 > hi=4"),
        ({"hi": MAX_ENTRIES}, "round the accumulator first"),
        ({"lo": 2**53 - 1, "hi": 2**53}, r"^hi is 9007199254740992, must be an integer in \[-9007199254740991, 9007"),
        ({"lo": -(2**53), "hi": 0}, "^lo is -9007199254740992, must be an integer in"),
        ({"lo": 2**70, "hi": 2**70 + 1}, "^lo is 1180591620717411303424, must be an integer in"),
        ({"lo": 0.7, "hi": 3.9}, "^lo is 0.7, must be an integer in"),
        ({"hi": np.float64(7)}, r"^hi is .*7.0.*, must be an integer in"),
        ({"hi": True}, "^hi is True, must be an integer in"),
        ({"hi": "7"}, "^hi is '7', must be an integer in"),
        ({"num_threads": -1}, r"^num_threads is -1, must be an integer in \[0, 2147483647\]"),
        ({"num_threads": 2**70}, "^num_threads is 1180591620717411303424, must be an integer in"),
        ({"input_scale": 0.0}, "^input_scale is 0.0, must be a finite positive number"),
        ({"input_scale": "a"}, "^input_scale is 'a', must be a finite positive number"),
        ({"input_scale": 1j}, "^input_scale is 1j, must be a finite positive number"),
        ({"output_scale": [1.0, np.nan]}, r"^output_scale\[1\] is nan, must be a finite positive number"),
        ({"output_scale": np.inf}, "^output_scale is inf, must be"),
        ({"output_scale": 10**400}, "^output_scale is 10+, must be a finite positive number"),
        ({"output_scale": [[1.0], [1.0, 2.0]]}, r"^output_scale\[0\] is \[1.0\], must be a finite positive number"),
        ({"input_scale": [1.0, 2.0], "output_scale": [1.0, 2.0, 3.0]}, "one entry per channel"),
        ({"input_scale": np.ones((2, 2))}, "one entry per channel"),
        ({"output_zero_point": 0.5}, "^output_zero_point is 0.5, must be an integer in"),
        (
            {"output_zero_point": 2**64 - 5},
            r"^output_zero_point is 18446744073709551611, must be .* \[-11258999",
        ),
        (
            {"output_zero_point": np.uint64(2**64 - 5)},
            "^output_zero_point is .*18446744073709551611.*, must be",
        ),
        ({"input_zero_point": [0, 2**51]}, r"^input_zero_point\[1\] is 2251799813685248, must be an integer in"),
        ({"output_hi": 2**70}, "^output_hi is 1180591620717411303424, must be an integer in"),
        ({"output_lo": [True]}, r"^output_lo\[0\] is True, must be an integer in"),
        ({"output_lo": 9, "output_hi": 8}, "^output_lo is 9, must be <= output_hi, which is 8"),
        ({"output_lo": [0, 9], "output_hi": [8, 8]}, r"^output_lo\[1\] is 9, must be <= output_hi, which is 8"),
        ({"function": lambda x: x + 1j}, "function returned dtype complex128, must return real numbers"),
        ({"function": lambda x: "abc"}, "function returned dtype <U3, must return real numbers"),
        ({"function": lambda x: x * np.nan}, "holds NaN at channel 0, entry 0"),
        ({"function": lambda x: np.zeros(3)}, r"function returned shape \(3,\) for an argument of shape \(1, 8\)"),
    ],
)
def test_tables_that_make_no_sense_are_refused(change: dict, message: str) -> None:
    arguments = {"function": np.abs, "lo": 0, "hi": 7, "output_lo": 0, "output_hi": 7}
    assert lookup_table(**arguments).tolist() == list(range(8))
    with pytest.raises(QuantizationError, match=message):
        lookup_table(**{**arguments, **change})


def test_thresholds_are_the_same_tables(rng: np.random.Generator) -> None:
    for _ in range(50):
        channels, size, lo = (int(v) for v in rng.integers([1, 1, -100], [9, 200, 100]))
        table = np.sort(rng.integers(0, 4, (channels, size)), axis=1)
        table[::2] = rng.integers(0, 2, table[::2].shape)  # tables need not be monotone
        runs = Thresholds.of(table, lo)
        np.testing.assert_array_equal(runs.to_table(), table)
        assert runs.channels == channels
        for c in range(channels):
            own = slice(runs.starts[c], runs.starts[c + 1])
            assert runs.thresholds[own][0] == lo
            assert (np.diff(runs.thresholds[own]) > 0).all()
            assert (np.diff(runs.values[own]) != 0).all()
            x = rng.integers(lo, lo + size, 100)
            found = runs.values[own][np.searchsorted(runs.thresholds[own], x, side="right") - 1]
            np.testing.assert_array_equal(found, table[c, x - lo])


def test_thresholds_need_a_table() -> None:
    for wrong in (np.zeros(3), np.zeros((1, 1, 1), dtype=np.int64), np.zeros((0,), dtype=np.int64), [1, 2]):
        with pytest.raises(QuantizationError, match="table must be a non-empty int64 array"):
            Thresholds.of(wrong, 0)
    for lo in (2**63 - 3, 2**70, -(2**63) - 1, 0.5):
        with pytest.raises(QuantizationError, match=r"^lo is .*, must be an integer in"):
            Thresholds.of(np.array([7, 7, 8]), lo)
    assert Thresholds.of(np.array([7, 7, 8]), 2**63 - 4).to_table().tolist() == [[7, 7, 8]]
    assert Thresholds.of(np.array([7, 7, 8]), 5).thresholds.tolist() == [5, 7]
