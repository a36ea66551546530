// Matrix products with AVX2, exact on every input.
//
// There is no kernel for 8-bit operands. They are multiplied as 16-bit ones: vpmaddwd adds pairs of products in 32
// bits, exactly, while vpmaddubsw saturates at 16 (255 * 127 * 2 > 32767). Widening costs no step of its own: the
// planner has the step that makes an operand store it with 16 bits if its only reader is a matmul. Accumulators are
// spread over template indices, because GCC 12 spills arrays of them that it indexes in loops.
#include <immintrin.h>

#include <cstring>
#include <utility>

#include "matmul_loops.inl"
#include "tables_of.hpp"

namespace fhelearn {

namespace {

constexpr std::size_t kVectors = 2;  // vectors of accumulators per row of a tile

// ---- 16-bit times 16-bit, 32-bit accumulators -----------------------------------------------------------------------
//
// Packed in panels of 16 columns: bias (16 x int32), then for each pair of rows of the weights 16 pairs of int16. The
// odd last row is paired with zeros, which also silence the operand read past the end of its row.

constexpr std::size_t kPanel16 = 8 * kVectors;

constexpr std::size_t panel16_bytes(std::size_t k) {
    return kPanel16 * 4 + (k + 1) / 2 * kPanel16 * 4;
}

std::size_t packed16_bytes(std::size_t k, std::size_t m) {
    return (m + kPanel16 - 1) / kPanel16 * panel16_bytes(k);
}

void pack16(const std::int64_t* weights, const std::int64_t* bias, std::size_t k, std::size_t m, void* packed) {
    std::memset(packed, 0, packed16_bytes(k, m));
    for (std::size_t j = 0; j < m; ++j) {
        char* panel = static_cast<char*>(packed) + j / kPanel16 * panel16_bytes(k);
        if (bias) reinterpret_cast<std::int32_t*>(panel)[j % kPanel16] = static_cast<std::int32_t>(bias[j]);
        auto* pairs = reinterpret_cast<std::int16_t*>(panel + kPanel16 * 4);
        for (std::size_t i = 0; i < k; ++i) {
            pairs[(i / 2 * kPanel16 + j % kPanel16) * 2 + i % 2] = static_cast<std::int16_t>(weights[i * m + j]);
        }
    }
}

__m256i load(const void* p) {
    return _mm256_loadu_si256(static_cast<const __m256i*>(p));
}

// Two neighbouring int16 in every lane.
__m256i broadcast_pair(const std::int16_t* p) {
    std::int32_t pair;
    std::memcpy(&pair, p, sizeof pair);
    return _mm256_set1_epi32(pair);
}

// A tile of `Rows` rows by one panel; writes the first `columns` of each row.
template <std::size_t Rows, std::size_t... I>
void tile16(std::index_sequence<I...>, const std::int16_t* x, std::size_t k, const char* panel, std::int32_t* out,
            std::size_t m, std::size_t columns) {
    __m256i sums[] = {load(panel + 32 * (I % kVectors))...};
    const char* weights = panel + kPanel16 * 4;
    for (std::size_t i = 0; i < k; i += 2, weights += kPanel16 * 4) {
        const __m256i w[kVectors] = {load(weights), load(weights + 32)};
        ((sums[I] =
              _mm256_add_epi32(sums[I], _mm256_madd_epi16(broadcast_pair(x + I / kVectors * k + i), w[I % kVectors]))),
         ...);
    }
    std::int32_t results[Rows * kPanel16];
    ((_mm256_storeu_si256(reinterpret_cast<__m256i*>(results + 8 * I), sums[I])), ...);
    for (std::size_t r = 0; r < Rows; ++r) std::memcpy(out + r * m, results + r * kPanel16, columns * 4);
}

template <std::size_t Rows>
void rows16(std::size_t rows, const std::int16_t* x, std::size_t k, const char* panel, std::int32_t* out, std::size_t m,
            std::size_t columns) {
    if (rows == Rows) {
        tile16<Rows>(std::make_index_sequence<Rows * kVectors>{}, x, k, panel, out, m, columns);
    } else if constexpr (Rows > 1) {
        rows16<Rows - 1>(rows, x, k, panel, out, m, columns);
    }
}

void run16(const void* x, std::size_t rows, std::size_t k, const void* packed, std::size_t m, void* out) {
    constexpr std::size_t kRows = 6;  // 12 accumulators, 2 weights, 1 operand: 15 of 16 registers
    const auto* a = static_cast<const std::int16_t*>(x);
    auto* o = static_cast<std::int32_t*>(out);
    const char* panel = static_cast<const char*>(packed);
    for (std::size_t j = 0; j < m; j += kPanel16, panel += panel16_bytes(k)) {
        const std::size_t columns = m - j < kPanel16 ? m - j : kPanel16;
        for (std::size_t r = 0; r < rows; r += kRows) {
            const std::size_t height = rows - r < kRows ? rows - r : kRows;
            rows16<kRows>(height, a + r * k, k, panel, o + r * m + j, m, columns);
        }
    }
}

// ---- 32-bit times 32-bit, 64-bit accumulators -----------------------------------------------------------------------
//
// vpmuldq multiplies the low halves of 64-bit lanes. Many outputs: panels of 8 columns like above, bias then weights,
// all int64. One to three outputs, as linear models have: lanes run along k instead, so weights are stored by output.

constexpr std::size_t kPanel32 = 4 * kVectors;
constexpr std::size_t kFew = 3;

constexpr std::size_t padded(std::size_t k) {
    return (k + 3) / 4 * 4;
}

std::size_t packed32_bytes(std::size_t k, std::size_t m) {
    if (m <= kFew) return m * (1 + padded(k)) * 8;
    return (m + kPanel32 - 1) / kPanel32 * (1 + k) * kPanel32 * 8;
}

void pack32(const std::int64_t* weights, const std::int64_t* bias, std::size_t k, std::size_t m, void* packed) {
    auto* to = static_cast<std::int64_t*>(packed);
    std::memset(packed, 0, packed32_bytes(k, m));
    for (std::size_t j = 0; j < m; ++j) {
        const bool few = m <= kFew;
        std::int64_t* column = few ? to + j * (1 + padded(k)) : to + j / kPanel32 * (1 + k) * kPanel32 + j % kPanel32;
        const std::size_t step = few ? 1 : kPanel32;
        column[0] = bias ? bias[j] : 0;
        for (std::size_t i = 0; i < k; ++i) column[(1 + i) * step] = weights[i * m + j];
    }
}

// Four int32 in the low halves of four lanes. Reads past a row's end meet weights of zero.
__m256i widen(const std::int32_t* p) {
    return _mm256_cvtepi32_epi64(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}

void run_few(const std::int32_t* x, std::size_t rows, std::size_t k, const std::int64_t* packed, std::size_t m,
             std::int64_t* out) {
    for (std::size_t r = 0; r < rows; ++r, x += k, out += m) {
        for (std::size_t j = 0; j < m; ++j) {
            const std::int64_t* weights = packed + j * (1 + padded(k));
            __m256i sum = _mm256_setzero_si256();
            for (std::size_t i = 0; i < k; i += 4) {
                sum = _mm256_add_epi64(sum, _mm256_mul_epi32(widen(x + i), load(weights + 1 + i)));
            }
            const __m128i half = _mm_add_epi64(_mm256_castsi256_si128(sum), _mm256_extracti128_si256(sum, 1));
            const __m128i total = _mm_add_epi64(half, _mm_unpackhi_epi64(half, half));
            out[j] = static_cast<std::int64_t>(static_cast<std::uint64_t>(_mm_cvtsi128_si64(total)) +
                                               static_cast<std::uint64_t>(weights[0]));
        }
    }
}

template <std::size_t Rows, std::size_t... I>
void tile32(std::index_sequence<I...>, const std::int32_t* x, std::size_t k, const std::int64_t* panel,
            std::int64_t* out, std::size_t m, std::size_t columns) {
    __m256i sums[] = {load(panel + 4 * (I % kVectors))...};
    const std::int64_t* weights = panel + kPanel32;
    for (std::size_t i = 0; i < k; ++i, weights += kPanel32) {
        const __m256i w[kVectors] = {load(weights), load(weights + 4)};
        ((sums[I] =
              _mm256_add_epi64(sums[I], _mm256_mul_epi32(_mm256_set1_epi32(x[I / kVectors * k + i]), w[I % kVectors]))),
         ...);
    }
    std::int64_t results[Rows * kPanel32];
    ((_mm256_storeu_si256(reinterpret_cast<__m256i*>(results + 4 * I), sums[I])), ...);
    for (std::size_t r = 0; r < Rows; ++r) std::memcpy(out + r * m, results + r * kPanel32, columns * 8);
}

template <std::size_t Rows>
void rows32(std::size_t rows, const std::int32_t* x, std::size_t k, const std::int64_t* panel, std::int64_t* out,
            std::size_t m, std::size_t columns) {
    if (rows == Rows) {
        tile32<Rows>(std::make_index_sequence<Rows * kVectors>{}, x, k, panel, out, m, columns);
    } else if constexpr (Rows > 1) {
        rows32<Rows - 1>(rows, x, k, panel, out, m, columns);
    }
}

void run32(const void* x, std::size_t rows, std::size_t k, const void* packed, std::size_t m, void* out) {
    constexpr std::size_t kRows = 4;
    const auto* a = static_cast<const std::int32_t*>(x);
    auto* o = static_cast<std::int64_t*>(out);
    const auto* panel = static_cast<const std::int64_t*>(packed);
    if (m <= kFew) return run_few(a, rows, k, panel, m, o);
    for (std::size_t j = 0; j < m; j += kPanel32, panel += (1 + k) * kPanel32) {
        const std::size_t columns = m - j < kPanel32 ? m - j : kPanel32;
        for (std::size_t r = 0; r < rows; r += kRows) {
            const std::size_t height = rows - r < kRows ? rows - r : kRows;
            rows32<kRows>(height, a + r * k, k, panel, o + r * m + j, m, columns);
        }
    }
}

}  // namespace

namespace avx2 {

MatmulKernels matmul() {
    static constexpr MatmulKernel kKernels[] = {
        {"madd_s16_s32", ScalarType::kI16, ScalarType::kI16, ScalarType::kI32, packed16_bytes, pack16, run16},
        kLoops32,
        {"muldq_s32_s64", ScalarType::kI32, ScalarType::kI32, ScalarType::kI64, packed32_bytes, pack32, run32},
        kLoops64,
    };
    return {kKernels, sizeof kKernels / sizeof kKernels[0]};
}

}  // namespace avx2

}  // namespace fhelearn
