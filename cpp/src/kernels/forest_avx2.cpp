// Forests for CPUs with AVX2.
#define FHELEARN_ISA avx2
#include <immintrin.h>

#include <cstring>

#include "fhelearn/kernels.hpp"

namespace fhelearn {

namespace {

std::uint32_t below(const float* node, float v) {
    const __m256 value = _mm256_set1_ps(v);
    const int low = _mm256_movemask_ps(_mm256_cmp_ps(_mm256_loadu_ps(node), value, _CMP_LT_OQ));
    const int high = _mm256_movemask_ps(_mm256_cmp_ps(_mm256_loadu_ps(node + 8), value, _CMP_LT_OQ));
    // Points are sorted, so those below are the first ones.
    return static_cast<std::uint32_t>(__builtin_ctz(~static_cast<unsigned>(low | (high << 8))));
}

std::uint32_t below(const double* node, double v) {
    const __m256d value = _mm256_set1_pd(v);
    unsigned bits = 0;
    for (unsigned i = 0; i < kSearchWidth; i += 4) {
        const __m256d four = _mm256_cmp_pd(_mm256_loadu_pd(node + i), value, _CMP_LT_OQ);
        bits |= static_cast<unsigned>(_mm256_movemask_pd(four)) << i;
    }
    return static_cast<std::uint32_t>(__builtin_ctz(~bits));
}

void plane(const std::uint8_t* bytes, unsigned bit, void* mask) {
    const __m128i to_sign = _mm_cvtsi32_si128(7 - static_cast<int>(bit));
    std::uint32_t words[kForestRows / 32];
    for (std::size_t i = 0; i < kForestRows / 32; ++i) {
        const __m256i some = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(bytes + 32 * i));
        words[i] = static_cast<std::uint32_t>(_mm256_movemask_epi8(_mm256_sll_epi16(some, to_sign)));
    }
    std::memcpy(mask, words, sizeof words);
}

void codes(const std::uint32_t* planes, std::size_t n, const std::uint64_t* arena, std::uint8_t* codes) {
    // Byte i of a register takes the byte of the mask that holds bit i, and of it bit i % 8.
    const __m256i byte_of = _mm256_setr_epi8(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1,  //
                                             2, 2, 2, 2, 2, 2, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3);
    const __m256i bit_of = _mm256_set1_epi64x(static_cast<long long>(0x8040201008040201u));
    const char* masks = reinterpret_cast<const char*>(arena);
    for (std::size_t group = 0; group < kForestRows / 32; ++group) {
        __m256i code = _mm256_setzero_si256();
        for (std::size_t j = 0; j < n; ++j) {
            std::int32_t rows;
            std::memcpy(&rows, masks + std::size_t{planes[j]} * sizeof *arena + group * sizeof rows, sizeof rows);
            const __m256i bits = _mm256_and_si256(_mm256_shuffle_epi8(_mm256_set1_epi32(rows), byte_of), bit_of);
            const __m256i value = _mm256_set1_epi8(static_cast<char>(1u << j));
            code = _mm256_or_si256(code, _mm256_and_si256(_mm256_cmpeq_epi8(bits, bit_of), value));
        }
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(codes + 32 * group), code);
    }
}

}  // namespace

}  // namespace fhelearn

#include "forest_leaves.inl"
#include "forest_loops.inl"
