"""Front end of every model that predicts through a dot product: ``scores = x @ weights + intercept``.

Notation: feature j has the float range R_j and is sent as an integer q_j of `a` bits, ``x_j = o_j + s_j q_j`` with the
step ``s_j = R_j / (2**a - 1)``. Score k is computed from integer weights ``W_jk = rint(w_jk s_j / t_k)`` with one step
t_k per score: the features' steps are folded into the weights, so that features of unlike units lose nothing. The
server returns ``A_k = sum_j W_jk q_j``, exactly; the client decodes ``t_k A_k + d_k`` in float64.

The offset d_k stays in the clear decoder, because rounding it to an integer would only lose. It is chosen so that the
decoded score equals the float score at the mean of the data given to ``compile``: with it the error is
``sum_j (w_jk s_j - t_k W_jk) (q_j - mean q_j)``, which has no bias on that data.

**How wide?** A ciphertext is 64 bits wide: the accumulator of width b, a padding bit, and below them the noise, which
the weights amplify by their Euclidean norm. Measured with concrete-python 2.11 on programs of 1 to 1000 features,
parameters exist if and only if ``b + log2(max_k ||W_k||_2)`` is at most 57.0 with p_error 2**-40 and 56.5 with the
least allowed, 2**-128, at either security level (37 + 19.2, 39 + 17.8, 40 + 16.8 and 44 + 12.6 work; 38 + 19.2,
40 + 17.3 and 46 + 12.6 do not). :data:`NOISE_BUDGET` is below all of these.

**Which split?** Rounding errors are uniform in their steps, and the weights' ones meet the deviation of q_j from its
mean, so on data like that given to ``compile`` the variance of the decoded score is

    inputs:  sum_j (w_jk s_j)**2 / 12          weights:  t_k**2 sum_j var(q_j) / 12

A bit more for the inputs quarters the first and quadruples var(q_j); the accumulator's width fixes t_k, whatever the
inputs have. For n features of equal contributions R, uniform in their ranges, that is ``n R**2 4**-a / 12`` and
``n**3 R**2 4**(a - b) / 144``: least at ``a = b/2 - log2(n)/2 + 0.9``, so 16 bits up to about a hundred features, then
fewer bits for inputs and more for weights. As the widths are integers and the noise budget couples b to the weights,
`plan` evaluates the sum for every `a` with the widest weights that fit, and takes the least.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from fhelearn.exceptions import QuantizationError
from fhelearn.ir import Program, ProgramBuilder, from_bytes, to_bytes
from fhelearn.quantization.uniform import MAX_BITS, MIN_BITS, ColumnRange, UniformDecoder, UniformEncoder
from fhelearn.typing import FloatArray, IntArray

NOISE_BUDGET = 56.0
"""Bits that the accumulator's width and the binary logarithm of the weights' Euclidean norm may take together."""

MAX_WEIGHT_BITS = 18
"""Widest weights chosen when `n_bits` is None: with 16-bit inputs of equal contributions their rounding is then a
fiftieth of the error's variance, so wider ones would only enlarge the ciphertexts."""

_VANISHING = 1e-280
"""Reach of a score that is not worth a bit; far enough from zero for reciprocals to be finite."""


@dataclass(frozen=True)
class BitWidths:
    """Bits of the inputs and of the weights, in two's complement."""

    inputs: int
    weights: int


@dataclass(frozen=True, eq=False)
class LinearMap:
    """``scores = x @ weights + intercept`` in floats.

    Attributes
    ----------
    weights : ndarray of float64, shape (n_features, n_scores)
    intercept : ndarray of float64, shape (n_scores,)
    """

    weights: FloatArray
    intercept: FloatArray

    def __post_init__(self) -> None:
        weights = np.array(self.weights, dtype=np.float64, order="C")
        intercept = np.array(self.intercept, dtype=np.float64)
        if weights.ndim != 2 or weights.size == 0 or intercept.shape != weights.shape[1:]:
            raise QuantizationError(
                "a linear map needs weights of shape (n_features, n_scores) and an intercept of "
                f"shape (n_scores,), got {weights.shape} and {intercept.shape}"
            )
        for name, array in (("weights", weights), ("intercept", intercept)):
            if not np.isfinite(array).all():
                raise QuantizationError(f"the model's {name} hold NaN or infinity (did fit diverge?)")
            array.setflags(write=False)
            object.__setattr__(self, name, array)


@dataclass(frozen=True, eq=False)
class QuantizedLinear:
    """A linear map in integers.

    Attributes
    ----------
    encoder : UniformEncoder
        Of the features.
    program : Program
        ``input -> matmul``; no lookup, every bound proved.
    decoder : UniformDecoder
        Of the scores.
    bits : BitWidths
        Of the inputs and weights as they are, at most what was asked for.
    """

    encoder: UniformEncoder
    program: Program
    decoder: UniformDecoder
    bits: BitWidths

    def __reduce__(self) -> tuple[Any, ...]:
        # A program travels as its file, which the reader verifies again.
        return _rebuild, (self.encoder, to_bytes(self.program), self.decoder, self.bits)

    @property
    def accumulator_bits(self) -> int:
        """Width of the widest value of the program, from its proved bounds."""
        return max(node.value.bit_width for node in self.program.nodes)


def _rebuild(encoder: UniformEncoder, program: bytes, decoder: UniformDecoder, bits: BitWidths) -> QuantizedLinear:
    return QuantizedLinear(encoder, from_bytes(program), decoder, bits)


def quantize_linear(linear: LinearMap, columns: ColumnRange, bits: BitWidths | None = None) -> QuantizedLinear:
    """Quantize a linear map for a range of its features.

    Parameters
    ----------
    linear : LinearMap
    columns : ColumnRange
        Of the features; what the encoder accepts unclipped.
    bits : BitWidths, optional
        None: the widths of least error that fit (see the module's text).

    Raises
    ------
    QuantizationError
        If the accumulator that `bits` need has no cryptographic parameters, or the scores overflow float64.
    """
    if bits is None:
        bits = plan(linear, columns)
    encoder = UniformEncoder.from_range(columns, bits.inputs)
    weights, step = integer_weights(linear, encoder, bits.weights)
    if required_budget(encoder, weights) > NOISE_BUDGET:
        raise QuantizationError(_too_wide(linear, columns, bits, encoder, weights))
    with np.errstate(over="ignore", invalid="ignore"):
        mean_code = (columns.mean - encoder.offset) / encoder.scale
        offset = linear.intercept + columns.mean @ linear.weights - step * (mean_code @ weights)
    if not np.isfinite(offset).all():
        raise QuantizationError(
            "the model's scores overflow float64 on the data given to compile; rescale the features"
        )
    used = BitWidths(encoder.bit_width, _width(int(weights.min()), int(weights.max())))
    return QuantizedLinear(encoder, _program(encoder, weights), UniformDecoder(step, offset), used)


def integer_weights(linear: LinearMap, encoder: UniformEncoder, weight_bits: int) -> tuple[IntArray, FloatArray]:
    """Integer weights with the features' steps folded in, and the step of each score.

    Returns
    -------
    weights : ndarray of int64, shape (n_features, n_scores)
        In [-(2**(weight_bits - 1) - 1), 2**(weight_bits - 1) - 1]; each is off by at most half a step.
    step : ndarray of float64, shape (n_scores,)
        Positive; 1 where all weights of a score vanish.
    """
    with np.errstate(over="ignore"):
        folded = linear.weights * encoder.scale[:, None]
    if not np.isfinite(folded).all():
        raise QuantizationError("a weight times the range of its feature overflows float64; rescale the features")
    largest = 2 ** (weight_bits - 1) - 1
    step = np.abs(folded).max(axis=0) / largest
    step = np.where(step < np.finfo(np.float64).tiny, 1.0, step)
    return np.rint(folded / step).astype(np.int64), step


def required_budget(encoder: UniformEncoder, weights: IntArray) -> float:
    """Width of the widest value plus log2 of the weights' largest Euclidean norm; see :data:`NOISE_BUDGET`."""
    low, high = _accumulator_bounds(encoder, weights)
    width = max(_width(low, high), encoder.bit_width)
    norm = np.sqrt((weights.astype(np.float64) ** 2).sum(axis=0).max())
    return width + float(np.log2(max(norm, 1.0)))


def plan(linear: LinearMap, columns: ColumnRange) -> BitWidths:
    """The widths of least expected error among those that fit :data:`NOISE_BUDGET`; see the module's text."""
    best: tuple[float, BitWidths] | None = None
    used = linear.weights != 0
    # Errors are taken in units of what a score can reach, so that all scores count alike; vanishing ones do not count.
    with np.errstate(over="ignore"):  # refused by integer_weights
        reach = np.linalg.norm(linear.weights * (columns.high - columns.low)[:, None], axis=0)
    units = np.divide(1.0, reach, out=np.zeros_like(reach), where=reach > _VANISHING)
    for inputs in range(MAX_BITS, MIN_BITS - 1, -1):
        encoder = UniformEncoder.from_range(columns, inputs)
        fitting = _widest_weights(linear, encoder)
        if fitting is None:
            continue
        _, step, weight_bits = fitting
        from_inputs = np.linalg.norm(linear.weights * encoder.scale[:, None], axis=0)
        from_weights = step * np.linalg.norm((columns.deviation / encoder.scale)[:, None] * used, axis=0)
        error = float((np.hypot(from_inputs, from_weights) * units).max())
        if best is None or error < best[0]:
            best = error, BitWidths(inputs, weight_bits)
        if weight_bits == MAX_WEIGHT_BITS:
            break  # fewer bits for the inputs can buy nothing any more
    if best is None:
        raise QuantizationError(
            f"no widths from {MIN_BITS} bits up fit {linear.weights.shape[0]} features: select fewer features"
        )
    return best[1]


def _widest_weights(linear: LinearMap, encoder: UniformEncoder) -> tuple[IntArray, FloatArray, int] | None:
    for weight_bits in range(MAX_WEIGHT_BITS, MIN_BITS - 1, -1):
        weights, step = integer_weights(linear, encoder, weight_bits)
        if required_budget(encoder, weights) <= NOISE_BUDGET:
            return weights, step, weight_bits
    return None


def _program(encoder: UniformEncoder, weights: IntArray) -> Program:
    builder = ProgramBuilder()
    x = builder.emit("input", shape=(encoder.n_features,), lo=encoder.lo, hi=encoder.hi, name="x")
    return builder.build(builder.emit("matmul", x, weights=weights, name="scores"))


def _accumulator_bounds(encoder: UniformEncoder, weights: IntArray) -> tuple[int, int]:
    """Smallest and largest value of any score. int64 cannot wrap here: 20 bits x 16 bits x 2**24 features < 2**63."""
    positive, negative = np.maximum(weights, 0), np.minimum(weights, 0)
    low = encoder.lo @ positive + encoder.hi @ negative
    high = encoder.hi @ positive + encoder.lo @ negative
    return int(low.min()), int(high.max())


def _width(low: int, high: int) -> int:
    return max(high.bit_length(), (-low - 1).bit_length() if low < 0 else 0) + 1


def _too_wide(
    linear: LinearMap, columns: ColumnRange, bits: BitWidths, encoder: UniformEncoder, weights: IntArray
) -> str:
    width = max(_width(*_accumulator_bounds(encoder, weights)), encoder.bit_width)
    found = (
        f"n_bits: {bits.inputs}-bit inputs and {bits.weights}-bit weights over {encoder.n_features} features need "
        f"a {width}-bit accumulator, for which no cryptographic parameters exist with weights of this size "
        f"(width + log2 of the weights' norm is {required_budget(encoder, weights):.1f}, at most "
        f"{NOISE_BUDGET:.0f} is allowed)"
    )
    for smaller in range(min(bits.inputs, bits.weights, MAX_BITS), MIN_BITS - 1, -1):
        narrow = UniformEncoder.from_range(columns, smaller)
        if required_budget(narrow, integer_weights(linear, narrow, smaller)[0]) <= NOISE_BUDGET:
            return f"{found}; lower n_bits to {smaller}, or leave n_bits=None to get the widest that fit"
    return f"{found}; select fewer features"
