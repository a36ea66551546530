// The IEEE-exact steps between floats and integers: + - * / and rounding half to even, bit-identical with NumPy
// float64. Transcendental functions are NumPy's affair: np.exp and std::exp differ in the last bit of 4.6 % of inputs.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace fhelearn {

// Bounds of quantized integers: inside +-2**50, float64 adds and rounds them exactly.
inline constexpr std::int64_t kMaxQuantized = std::int64_t{1} << 50;

// q = clip(rint((x - offset) / scale), lo, hi), column by column; x and q are (rows, columns) in C order. Adds to below
// and above, per column, the values that were clipped. Throws std::invalid_argument naming row and column if x holds
// NaN, or naming the column if a scale is not finite and positive, an offset not finite, or lo > hi or beyond 2**50.
void quantize(const double* x, std::size_t rows, std::span<const double> scale, std::span<const double> offset,
              std::span<const std::int64_t> lo, std::span<const std::int64_t> hi, std::int64_t* q,
              std::span<std::int64_t> below, std::span<std::int64_t> above, std::size_t num_threads);

// x = q * scale + offset, column by column.
void dequantize(const std::int64_t* q, std::size_t rows, std::span<const double> scale, std::span<const double> offset,
                double* x, std::size_t num_threads);

// x[c][i] = (lo + i - zero_point[c]) * scale[c] for i < size: the floats that the integers of a table's index stand
// for. x is (channels, size). Throws std::invalid_argument if an integer leaves +-2**53, beyond which float64 has gaps.
void dequantize_range(std::int64_t lo, std::size_t size, std::span<const double> scale,
                      std::span<const std::int64_t> zero_point, double* x, std::size_t num_threads);

// q[c][i] = clip(rint(y[c][i] / scale[c]) + zero_point[c], lo[c], hi[c]). y and q are (channels, size). Throws
// std::invalid_argument naming channel and entry if y holds NaN, and as quantize for the rest.
void requantize(const double* y, std::size_t size, std::span<const double> scale,
                std::span<const std::int64_t> zero_point, std::span<const std::int64_t> lo,
                std::span<const std::int64_t> hi, std::int64_t* q, std::size_t num_threads);

// Tables in run-length form: table c equals values[i] from thresholds[i] up to the next threshold of its channel, for
// starts[c] <= i < starts[c + 1]; the first threshold of each channel is `lo`.
struct Thresholds {
    std::vector<std::int64_t> starts, thresholds, values;
};

// `table` is (channels, size), entry i for index lo + i; lo + size must fit 64 bits.
Thresholds table_thresholds(const std::int64_t* table, std::size_t channels, std::size_t size, std::int64_t lo);

}  // namespace fhelearn
