"""Laws of the uniform encoder and decoder."""

import numpy as np
import pytest

from fhelearn.exceptions import QuantizationError
from fhelearn.quantization import ColumnRange, UniformDecoder, UniformEncoder

BITS = range(2, 17)


def reference(encoder, x):
    """The definition, in NumPy."""
    return np.clip(np.rint((x - encoder.offset) / encoder.scale), encoder.lo, encoder.hi).astype(np.int64)


def columns(rng, rows=200):
    """Columns of unlike scales, offsets and kinds."""
    return np.column_stack(
        [
            rng.normal(size=rows),
            rng.normal(size=rows) * 1e-12 + 3.0,
            rng.uniform(1e9, 2e9, size=rows),
            rng.integers(0, 2, size=rows),
            rng.integers(-100, 3000, size=rows),
            np.full(rows, 7.5),
            np.zeros(rows),
            -rng.exponential(size=rows) * 1e200,
        ]
    ).astype(np.float64)


@pytest.mark.parametrize("margin", [0.0, 0.1, 3.0])
@pytest.mark.parametrize("bit_width", BITS)
def test_codes_follow_the_definition_and_stay_in_their_bounds(bit_width, margin, rng):
    x = columns(rng)
    encoder = UniformEncoder.from_range(ColumnRange.of(x, margin=margin), bit_width)
    wide = x + (x - x.mean(axis=0)) * rng.uniform(-1, 9, size=x.shape)
    for values in (x, wide):
        q, below, above = encoder.quantize_counting(values)
        assert (q == reference(encoder, values)).all()
        unclipped = np.rint((values - encoder.offset) / encoder.scale)
        assert (below == (unclipped < encoder.lo).sum(axis=0)).all()
        assert (above == (unclipped > encoder.hi).sum(axis=0)).all()
    assert encoder.bit_width <= bit_width
    assert (encoder.lo >= -(2 ** (bit_width - 1))).all()
    assert (encoder.hi < 2 ** (bit_width - 1)).all()


@pytest.mark.parametrize("margin", [0.0, 0.1])
@pytest.mark.parametrize("bit_width", BITS)
def test_data_of_the_range_is_never_clipped_and_off_by_at_most_half_a_step(bit_width, margin, rng):
    x = columns(rng)
    encoder = UniformEncoder.from_range(ColumnRange.of(x, margin=margin), bit_width)
    q, below, above = encoder.quantize_counting(x)
    assert not below.any()
    assert not above.any()
    rounding = 4 * np.spacing(np.abs(x) + np.abs(encoder.offset))  # of the subtraction and the product
    assert (np.abs(encoder.dequantize(q) - x) <= encoder.scale / 2 + rounding).all()


@pytest.mark.parametrize("bit_width", BITS)
def test_integers_are_exact_as_soon_as_there_are_enough_codes(bit_width):
    x = np.arange(0, 2**bit_width, dtype=np.float64)[:, None]
    encoder = UniformEncoder.from_range(ColumnRange.of(x), bit_width)
    assert encoder.scale == 1.0
    assert (encoder.dequantize(encoder.quantize(x)) == x).all()


@pytest.mark.parametrize("bit_width", BITS)
def test_steps_of_integer_columns_are_powers_of_two_within_a_factor_of_four_of_the_finest(bit_width, rng):
    for _ in range(50):
        low = int(rng.integers(-500, 500))
        x = np.array([[low], [low + int(rng.integers(1, 2**bit_width))]], dtype=np.float64)
        columns = ColumnRange.of(x, margin=float(rng.uniform(0, 0.5)))
        encoder = UniformEncoder.from_range(columns, bit_width)
        finest = ((columns.high - columns.low) / (2**bit_width - 1))[0]
        assert finest <= encoder.scale[0] * (1 + 1e-12)
        if encoder.scale[0] <= 1 and np.log2(encoder.scale[0]) % 1 == 0:
            assert encoder.scale[0] < 4 * finest
            assert (encoder.dequantize(encoder.quantize(x)) == x).all()


def test_margins_widen_both_ends():
    x = np.array([[0.5, 4.0, 0.0], [10.5, 4.0, 0.0]])
    columns = ColumnRange.of(x, margin=0.1)
    np.testing.assert_allclose(columns.low, [-0.5, 3.6, -0.1])
    np.testing.assert_allclose(columns.high, [11.5, 4.4, 0.1])
    np.testing.assert_allclose(columns.mean, [5.5, 4.0, 0.0])
    np.testing.assert_allclose(columns.deviation, [5.0, 0.0, 0.0])
    assert columns.integers.tolist() == [False, True, True]
    encoder = UniformEncoder.from_range(columns, 8)
    np.testing.assert_allclose(encoder.minimum[0], -0.5)
    np.testing.assert_allclose(encoder.maximum[0], 11.5)


def test_a_range_of_zero_width_has_one_code():
    encoder = UniformEncoder.from_range(ColumnRange.of(np.full((3, 1), 2.5)), 8)
    assert encoder.quantize(np.array([[2.5], [1e9], [-1e9]])).tolist() == [[0], [0], [0]]
    assert encoder.minimum == encoder.maximum == 2.5


def test_nan_is_refused_by_name():
    encoder = UniformEncoder.from_range(ColumnRange.of(np.eye(3)), 8)
    with pytest.raises(ValueError, match="row 1, column 2"):
        encoder.quantize(np.array([[0.0, 0.0, 0.0], [0.0, 0.0, np.nan]]))


@pytest.mark.parametrize(
    ("x", "margin", "words"),
    [
        (np.ones((0, 2)), 0.0, "at least one row"),
        (np.ones(3), 0.0, "must have shape"),
        (np.array([[1.0, np.inf]]), 0.0, "NaN or infinity in column 1"),
        (np.array([[np.nan, 1.0]]), 0.0, "NaN or infinity in column 0"),
        (np.array([[-1e308], [1e308]]), 0.0, "range of column 0 is too wide"),
        (np.eye(2), -1.0, "margin must be a finite float >= 0, got -1.0"),
        (np.eye(2), np.inf, "margin must be"),
        (np.eye(2), "wide", "margin must be"),
    ],
)
def test_unusable_ranges_are_refused(x, margin, words):
    with pytest.raises(QuantizationError, match=words):
        ColumnRange.of(x, margin=margin)


@pytest.mark.parametrize("bit_width", [1, 17, True, 8.0, None])
def test_other_widths_are_refused(bit_width):
    with pytest.raises(QuantizationError, match="bit_width must be an int from 2 to 16"):
        UniformEncoder.from_range(ColumnRange.of(np.eye(2)), bit_width)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"scale": [0.0, 1.0]}, "scale must be positive, got 0.0 in column 0"),
        ({"scale": [1.0]}, "differ in length"),
        ({"offset": [0.0, np.nan]}, "offset must be finite, got nan in column 1"),
        ({"lo": [0, 6]}, "lo must not exceed hi, got 6 > 5 in column 1"),
        ({"hi": [[5, 5]]}, r"hi must have one entry per column \(shape \(n,\)\), got shape \(1, 2\)"),
    ],
)
def test_inconsistent_encoders_cannot_be_made(change, words):
    fields = {"scale": [1.0, 1.0], "offset": [0.0, 0.0], "lo": [0, 0], "hi": [5, 5]} | change
    with pytest.raises(QuantizationError, match=words):
        UniformEncoder(**fields)


def test_encoders_cannot_be_changed():
    encoder = UniformEncoder.from_range(ColumnRange.of(np.eye(2)), 8)
    with pytest.raises(ValueError, match="read-only"):
        encoder.scale[0] = 2.0


def test_a_decoder_multiplies_and_adds(rng):
    decoder = UniformDecoder(np.array([0.5, 1e-9]), np.array([1.0, -2.0]))
    q = rng.integers(-(2**40), 2**40, size=(20, 2))
    assert (decoder.dequantize(q) == q * decoder.scale + decoder.offset).all()
    with pytest.raises(ValueError, match=r"q must have shape \(n, 2\), got \(2,\)"):
        decoder.dequantize(q[0])
    with pytest.raises(ValueError, match="q must hold integers"):
        decoder.dequantize(q.astype(np.float64))
    with pytest.raises(QuantizationError, match="scale must be positive"):
        UniformDecoder(np.array([-1.0]), np.array([0.0]))


def test_rows_of_another_width_are_refused():
    encoder = UniformEncoder.from_range(ColumnRange.of(np.eye(3)), 8)
    with pytest.raises(ValueError, match=r"x must have shape \(n, 3\), got \(2, 4\)"):
        encoder.quantize(np.ones((2, 4)))
