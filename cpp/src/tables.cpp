#include "fhelearn/tables.hpp"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <mutex>
#include <stdexcept>
#include <string>

#include "fhelearn/kernels.hpp"
#include "fhelearn/parallel.hpp"

namespace fhelearn {

namespace {

constexpr std::size_t kNone = static_cast<std::size_t>(-1);

[[noreturn]] void fail(const char* what, std::size_t column, const std::string& value, const char* allowed) {
    throw std::invalid_argument(std::string(what) + "[" + std::to_string(column) + "] is " + value + ", must be " +
                                allowed);
}

void check_scales(std::span<const double> scale) {
    for (std::size_t c = 0; c < scale.size(); ++c) {
        if (!(scale[c] > 0.0) || !std::isfinite(scale[c]))
            fail("scale", c, std::to_string(scale[c]), "finite and positive");
    }
}

void check_offsets(std::span<const double> offset) {
    for (std::size_t c = 0; c < offset.size(); ++c) {
        if (!std::isfinite(offset[c])) fail("offset", c, std::to_string(offset[c]), "finite");
    }
}

void check_limit(const char* what, std::size_t column, std::int64_t value) {
    if (value < -kMaxQuantized || value > kMaxQuantized) fail(what, column, std::to_string(value), "within +-2**50");
}

void check_ranges(std::span<const std::int64_t> lo, std::span<const std::int64_t> hi) {
    for (std::size_t c = 0; c < lo.size(); ++c) {
        check_limit("lo", c, lo[c]);
        check_limit("hi", c, hi[c]);
        if (lo[c] > hi[c]) fail("lo", c, std::to_string(lo[c]), ("<= hi, which is " + std::to_string(hi[c])).c_str());
    }
}

// Rows (or entries) per chunk: about 64 Ki values, enough to hide the cost of handing them out.
std::size_t chunk_rows(std::size_t columns) {
    constexpr std::size_t kValues = 64 * 1024;
    return std::max<std::size_t>(1, kValues / std::max<std::size_t>(columns, 1));
}

// Splits [0, rows) into chunks of `chunk` and calls body(first, count).
template <class Body>
void for_row_chunks(std::size_t rows, std::size_t chunk, std::size_t num_threads, const Body& body) {
    parallel_for((rows + chunk - 1) / chunk, num_threads, [&](std::size_t index, std::size_t) {
        const std::size_t first = index * chunk;
        body(first, std::min(chunk, rows - first));
    });
}

}  // namespace

void quantize(const double* x, std::size_t rows, std::span<const double> scale, std::span<const double> offset,
              std::span<const std::int64_t> lo, std::span<const std::int64_t> hi, std::int64_t* q,
              std::span<std::int64_t> below, std::span<std::int64_t> above, std::size_t num_threads) {
    const std::size_t columns = scale.size();
    check_scales(scale);
    check_offsets(offset);
    check_ranges(lo, hi);
    const std::vector<double> low(lo.begin(), lo.end()), high(hi.begin(), hi.end());
    const auto kernel = kernels().quantize->quantize;
    std::mutex mutex;
    std::size_t first_nan = kNone;
    for_row_chunks(rows, chunk_rows(columns), num_threads, [&](std::size_t first, std::size_t count) {
        std::vector<double> under(columns), over(columns);  // counts below 2**53 are exact
        const double* from = x + first * columns;
        const bool clean = kernel(from, count, columns, scale.data(), offset.data(), low.data(), high.data(),
                                  q + first * columns, under.data(), over.data());
        std::lock_guard lock(mutex);
        if (!clean) {
            const double* nan = std::find_if(from, from + count * columns, [](double v) { return std::isnan(v); });
            first_nan = std::min(first_nan, static_cast<std::size_t>(nan - x));
        }
        for (std::size_t c = 0; c < columns; ++c) {
            below[c] += static_cast<std::int64_t>(under[c]);
            above[c] += static_cast<std::int64_t>(over[c]);
        }
    });
    if (first_nan != kNone) {
        throw std::invalid_argument("x holds NaN at row " + std::to_string(first_nan / columns) + ", column " +
                                    std::to_string(first_nan % columns) + "; impute missing values first");
    }
}

void dequantize(const std::int64_t* q, std::size_t rows, std::span<const double> scale, std::span<const double> offset,
                double* x, std::size_t num_threads) {
    const std::size_t columns = scale.size();
    const auto kernel = kernels().quantize->dequantize;
    for_row_chunks(rows, chunk_rows(columns), num_threads, [&](std::size_t first, std::size_t count) {
        kernel(q + first * columns, count, columns, scale.data(), offset.data(), x + first * columns);
    });
}

void dequantize_range(std::int64_t lo, std::size_t size, std::span<const double> scale,
                      std::span<const std::int64_t> zero_point, double* x, std::size_t num_threads) {
    constexpr std::int64_t kExact = std::int64_t{1} << 53;
    check_scales(scale);
    if (lo < -kExact || size > static_cast<std::size_t>(kExact) || lo > kExact - static_cast<std::int64_t>(size)) {
        throw std::invalid_argument("table from lo=" + std::to_string(lo) + " with " + std::to_string(size) +
                                    " entries leaves +-2**53, must stay inside");
    }
    for (std::size_t c = 0; c < zero_point.size(); ++c) check_limit("zero_point", c, zero_point[c]);
    for_row_chunks(scale.size(), chunk_rows(size), num_threads, [&](std::size_t first, std::size_t count) {
        for (std::size_t c = first; c < first + count; ++c) {
            double* out = x + c * size;
            const std::int64_t start = lo - zero_point[c];
            for (std::size_t i = 0; i < size; ++i) {
                out[i] = static_cast<double>(start + static_cast<std::int64_t>(i)) * scale[c];
            }
        }
    });
}

void requantize(const double* y, std::size_t size, std::span<const double> scale,
                std::span<const std::int64_t> zero_point, std::span<const std::int64_t> lo,
                std::span<const std::int64_t> hi, std::int64_t* q, std::size_t num_threads) {
    check_scales(scale);
    check_ranges(lo, hi);
    for (std::size_t c = 0; c < zero_point.size(); ++c) check_limit("zero_point", c, zero_point[c]);
    std::atomic<std::size_t> first_nan{kNone};
    for_row_chunks(scale.size(), chunk_rows(size), num_threads, [&](std::size_t first, std::size_t count) {
        for (std::size_t c = first; c < first + count; ++c) {
            const auto zero = static_cast<double>(zero_point[c]);
            const auto low = static_cast<double>(lo[c]), high = static_cast<double>(hi[c]);
            for (std::size_t i = c * size; i < (c + 1) * size; ++i) {
                const double rounded = std::nearbyint(y[i] / scale[c]) + zero;
                if (std::isnan(rounded)) {
                    std::size_t known = first_nan.load();
                    while (i < known && !first_nan.compare_exchange_weak(known, i)) continue;
                    q[i] = lo[c];
                    continue;
                }
                q[i] = static_cast<std::int64_t>(std::min(std::max(rounded, low), high));
            }
        }
    });
    if (const std::size_t at = first_nan.load(); at != kNone) {
        throw std::invalid_argument("y holds NaN at channel " + std::to_string(at / size) + ", entry " +
                                    std::to_string(at % size) + "; the function must be defined on the whole range");
    }
}

Thresholds table_thresholds(const std::int64_t* table, std::size_t channels, std::size_t size, std::int64_t lo) {
    Thresholds result;
    result.starts.push_back(0);
    for (std::size_t c = 0; c < channels; ++c) {
        const std::int64_t* row = table + c * size;
        for (std::size_t i = 0; i < size; ++i) {
            if (i > 0 && row[i] == row[i - 1]) continue;
            result.thresholds.push_back(lo + static_cast<std::int64_t>(i));
            result.values.push_back(row[i]);
        }
        result.starts.push_back(static_cast<std::int64_t>(result.thresholds.size()));
    }
    return result;
}

}  // namespace fhelearn
