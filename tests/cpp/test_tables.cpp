#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <stdexcept>

#include "check.hpp"
#include "fhelearn/kernels.hpp"
#include "fhelearn/tables.hpp"

namespace {

using Ints = std::vector<std::int64_t>;
using Doubles = std::vector<double>;

struct Quantized {
    Ints q, below, above;
};

Quantized quantize(const Doubles& x, const Doubles& scale, const Doubles& offset, const Ints& lo, const Ints& hi,
                   std::size_t threads = 1) {
    Quantized result{Ints(x.size()), Ints(scale.size()), Ints(scale.size())};
    fhelearn::quantize(x.data(), x.size() / scale.size(), scale, offset, lo, hi, result.q.data(), result.below,
                       result.above, threads);
    return result;
}

}  // namespace

TEST("rounding is half to even and clipping is counted") {
    const Doubles x = {-2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 3.4999999999999996, 3.5, 1e300, -INFINITY};
    const Quantized got = quantize(x, {1.0}, {0.0}, {-2}, {3});
    CHECK((got.q == Ints{-2, -2, 0, 0, 2, 2, 3, 3, 3, -2}));
    CHECK((got.below == Ints{1} && got.above == Ints{2}));  // -2.5 rounds to -2, which is not clipped
}

TEST("random columns equal nearbyint and clip on every number of threads") {
    std::mt19937_64 random(5);
    const std::size_t rows = 40000, columns = 7;
    Doubles x(rows * columns), scale(columns), offset(columns);
    Ints lo(columns), hi(columns);
    for (std::size_t c = 0; c < columns; ++c) {
        scale[c] = std::ldexp(1.0 + static_cast<double>(random() % 1000) / 1000, static_cast<int>(random() % 12) - 6);
        offset[c] = static_cast<double>(random() % 1000) / 7;
        hi[c] = (std::int64_t{1} << (4 * c + 4)) - 1;
        lo[c] = c % 2 ? -hi[c] : 0;
    }
    std::normal_distribution<double> normal(0.0, 1e4);
    for (double& v : x) v = normal(random);
    const Quantized one = quantize(x, scale, offset, lo, hi), three = quantize(x, scale, offset, lo, hi, 3);
    Ints below(columns), above(columns);
    for (std::size_t i = 0; i < x.size(); ++i) {
        const std::size_t c = i % columns;
        const double exact = std::nearbyint((x[i] - offset[c]) / scale[c]);
        below[c] += exact < static_cast<double>(lo[c]);
        above[c] += exact > static_cast<double>(hi[c]);
        const double clipped = std::min(std::max(exact, static_cast<double>(lo[c])), static_cast<double>(hi[c]));
        if (one.q[i] != static_cast<std::int64_t>(clipped))
            check::fail(__FILE__, static_cast<int>(i), "quantize differs");
    }
    CHECK(one.below == below && one.above == above);
    CHECK(three.q == one.q && three.below == below && three.above == above);
}

TEST("the widest bounds are still exact") {
    const std::int64_t end = fhelearn::kMaxQuantized;
    const Doubles x = {static_cast<double>(end), static_cast<double>(end) - 0.5, -static_cast<double>(end) - 1, 0.5};
    CHECK((quantize(x, {1.0}, {0.0}, {-end}, {end}).q == Ints{end, end, -end, 0}));
}

TEST("NaN and bad parameters are named") {
    CHECK_THROWS(std::invalid_argument, "x holds NaN at row 1, column 0; impute missing values first",
                 quantize({1, 2, NAN, 3, NAN, 4}, {1, 1}, {0, 0}, {0, 0}, {9, 9}));
    CHECK_THROWS(std::invalid_argument, "scale[1] is 0.0", quantize({1, 2}, {1, 0}, {0, 0}, {0, 0}, {9, 9}));
    CHECK_THROWS(std::invalid_argument, "offset[0] is inf", quantize({1}, {1}, {INFINITY}, {0}, {9}));
    CHECK_THROWS(std::invalid_argument, "lo[0] is 2, must be <= hi, which is 1", quantize({1}, {1}, {0}, {2}, {1}));
    CHECK_THROWS(std::invalid_argument, "hi[0] is 9223372036854775807", quantize({1}, {1}, {0}, {2}, {INT64_MAX}));
}

TEST("dequantize multiplies and adds without contraction") {
    const Ints q = {3, -7, 1000003, 1};
    const Doubles scale = {0.1, 1.0 / 3}, offset = {0.7, -1e-3};
    Doubles x(q.size());
    fhelearn::dequantize(q.data(), 2, scale, offset, x.data(), 1);
    for (std::size_t i = 0; i < q.size(); ++i) {
        volatile double product = static_cast<double>(q[i]) * scale[i % 2];
        CHECK(x[i] == product + offset[i % 2]);
    }
}

TEST("a table's index range becomes floats and floats become its entries") {
    Doubles x(2 * 5);
    fhelearn::dequantize_range(-2, 5, Doubles{0.5, 2.0}, Ints{0, 1}, x.data(), 1);
    CHECK((x == Doubles{-1, -0.5, 0, 0.5, 1, -6, -4, -2, 0, 2}));
    Ints q(x.size());
    fhelearn::requantize(x.data(), 5, Doubles{0.4, 4.0}, Ints{1, 0}, Ints{-1, -1}, Ints{3, 9}, q.data(), 2);
    CHECK((q == Ints{-1, 0, 1, 2, 3, -1, -1, 0, 0, 0}));  // -6/4 and -2/4 round to even, -2 is clipped
    x[7] = NAN;
    CHECK_THROWS(
        std::invalid_argument, "y holds NaN at channel 1, entry 2",
        fhelearn::requantize(x.data(), 5, Doubles{0.4, 4.0}, Ints{1, 0}, Ints{-1, -1}, Ints{3, 9}, q.data(), 2));
    CHECK_THROWS(std::invalid_argument, "leaves +-2**53",
                 fhelearn::dequantize_range(INT64_MAX - 1, 5, Doubles{0.5, 2.0}, Ints{0, 1}, x.data(), 1));
}

TEST("thresholds are where entries change") {
    const Ints table = {4, 4, 5, 5, 4, 9, 9, 9, 9, 9};
    const auto got = fhelearn::table_thresholds(table.data(), 2, 5, -2);
    CHECK((got.starts == Ints{0, 3, 4}));
    CHECK((got.thresholds == Ints{-2, 0, 2, -2}));
    CHECK((got.values == Ints{4, 5, 4, 9}));
}
