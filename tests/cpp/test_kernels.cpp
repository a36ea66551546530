// Fast kernels against exact 128-bit sums, at the corners of their types and with tails in every dimension.
#include <cstring>

#include "check.hpp"
#include "fhelearn/kernels.hpp"
#include "programs.hpp"
#include "steps.hpp"

using namespace testing;
using fhelearn::MatmulKernel;
using fhelearn::Range;
using fhelearn::ScalarType;
using fhelearn::TypedArray;

namespace {

std::int64_t element(const void* data, ScalarType type, std::size_t i) {
    if (type == ScalarType::kI32) return static_cast<const std::int32_t*>(data)[i];
    return static_cast<const std::int64_t*>(data)[i];
}

// `corner`: every value is an end of the kernel's types, else small enough that sums fit the accumulator.
void compare(const MatmulKernel& kernel, Random& random, std::size_t rows, std::size_t k, std::size_t m, bool corner) {
    const Range x_range = fhelearn::range_of(kernel.operand), w_range = fhelearn::range_of(kernel.weight);
    Ints x(rows * k), w(k * m), bias(m);
    const auto draw = [&](Range range) {
        return corner ? (random.integer(0, 1) ? range.lo : range.hi) : random.integer(-90, 90);
    };
    for (std::int64_t& v : x) v = draw(x_range);
    for (std::int64_t& v : w) v = draw(w_range);
    for (std::int64_t& v : bias) v = random.integer(-1000, 1000);
    TypedArray packed(kernel.packed_bytes(k, m)), out(rows * m * fhelearn::size_of(kernel.accumulator));
    kernel.pack(w.data(), bias.data(), k, m, packed.data());
    kernel.run(TypedArray(x, kernel.operand).data(), rows, k, packed.data(), m, out.data());
    for (std::size_t e = 0; e < rows * m; ++e) {
        std::uint64_t sum = static_cast<std::uint64_t>(bias[e % m]);  // modulo 2**64, of which 2**32 is a divisor
        for (std::size_t i = 0; i < k; ++i) {
            sum += static_cast<std::uint64_t>(x[e / m * k + i]) * static_cast<std::uint64_t>(w[i * m + e % m]);
        }
        const auto expected =
            kernel.accumulator == ScalarType::kI32 ? static_cast<std::int32_t>(sum) : static_cast<std::int64_t>(sum);
        if (element(out.data(), kernel.accumulator, e) == expected) continue;
        check::fail(kernel.name, static_cast<int>(e), "wrong element");
        return;
    }
}

}  // namespace

TEST("matrix products equal exact sums for all shapes of tails") {
    Random random(3);
    for (const auto& table : fhelearn::supported_kernels()) {
        for (const MatmulKernel& kernel : table.matmul) {
            for (std::size_t rows : {1, 2, 5, 6, 7, 13}) {
                for (std::size_t k : {1, 2, 3, 4, 5, 31}) {
                    for (std::size_t m : {1, 2, 3, 4, 8, 9, 15, 16, 17, 33}) {
                        compare(kernel, random, rows, k, m, false);
                        compare(kernel, random, rows, k, m, true);
                    }
                }
            }
        }
    }
}

TEST("the first kernel whose types hold the product is chosen") {
    const auto& portable = fhelearn::supported_kernels().back();
    const auto name = [&](Range x, Range w, bool fits) {
        return std::string(choose_matmul(portable, x, w, fits).name);
    };
    CHECK(name({0, 255}, {-128, 127}, true) == "loops_s16_s32");
    CHECK(name({0, 65535}, {-128, 127}, true) == "loops_s32_s32");
    CHECK(name({0, 255}, {-128, 127}, false) == "loops_s32_s64");
    CHECK(name({0, std::int64_t{1} << 40}, {-128, 127}, false) == "loops_s64_s64");
    CHECK(name({0, 255}, {0, std::int64_t{1} << 40}, false) == "loops_s64_s64");
}

TEST("conversions keep every value that fits") {
    for (const auto& table : fhelearn::supported_kernels()) {
        for (std::size_t from = 0; from < fhelearn::kScalarTypes; ++from) {
            for (std::size_t to = 0; to < fhelearn::kScalarTypes; ++to) {
                const Range a = fhelearn::range_of(static_cast<ScalarType>(from)),
                            b = fhelearn::range_of(static_cast<ScalarType>(to));
                const Ints values = {std::max(a.lo, b.lo), std::min(a.hi, b.hi), 0, 1, 100};
                const TypedArray x(values, static_cast<ScalarType>(from)),
                    expected(values, static_cast<ScalarType>(to));
                TypedArray out(values.size() * 8);
                table.elementwise->convert[from][to](x.data(), out.data(), values.size());
                CHECK(std::memcmp(out.data(), expected.data(),
                                  values.size() * fhelearn::size_of(static_cast<ScalarType>(to))) == 0);
            }
        }
    }
}

TEST("range checks see a single value outside, at any place") {
    for (const auto& table : fhelearn::supported_kernels()) {
        for (std::size_t n : {1, 7, 33, 300}) {
            for (std::size_t bad = 0; bad <= n; ++bad) {
                Ints x(n, 5), lo = {5, 5, 5}, hi = {5, 5, 5};
                if (bad < n) x[bad] = bad % 2 ? 6 : INT64_MIN;
                TypedArray out(n * 8);
                const auto load = table.elementwise->checked_load[fhelearn::index_of(ScalarType::kI8)];
                CHECK(load(x.data(), lo.data(), hi.data(), 3, out.data(), n) == (bad == n));
                const auto check = table.elementwise->check[fhelearn::index_of(ScalarType::kI64)];
                CHECK(check(x.data(), lo.data(), hi.data(), 3, n) == (bad == n));
            }
        }
    }
}

TEST("the portable table is always there and unknown ones are not") {
    const auto tables = fhelearn::supported_kernels();
    CHECK(std::string(tables.back().isa) == "portable");
    CHECK(fhelearn::find_kernels(tables, "portable") == &tables.back());
    CHECK(fhelearn::find_kernels(tables, "mmx") == nullptr);
}

TEST("narrowest types hold their range, signed if equally small") {
    CHECK(fhelearn::narrowest({0, 127}) == ScalarType::kI8);
    CHECK(fhelearn::narrowest({0, 128}) == ScalarType::kU8);
    CHECK(fhelearn::narrowest({-1, 128}) == ScalarType::kI16);
    CHECK(fhelearn::narrowest({0, 65535}) == ScalarType::kU16);
    CHECK(fhelearn::narrowest({-1, 65535}) == ScalarType::kI32);
    CHECK(fhelearn::narrowest({0, std::int64_t{1} << 31}) == ScalarType::kI64);
    CHECK(fhelearn::to_string(fhelearn::Int128{INT64_MIN} * 2) == "-18446744073709551616");
    CHECK(fhelearn::to_string(Shape{3}) == "(3,)");
}
