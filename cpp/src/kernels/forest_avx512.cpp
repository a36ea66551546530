// Forests for CPUs with AVX-512 (F, BW, DQ, VL): a mask is one register, and tables of 32 numbers are looked up in two.
#define FHELEARN_ISA avx512
#include <immintrin.h>

#include <cstring>

#include "fhelearn/kernels.hpp"

namespace fhelearn {

namespace {

std::uint32_t below(const float* node, float v) {
    const __mmask16 bits = _mm512_cmp_ps_mask(_mm512_loadu_ps(node), _mm512_set1_ps(v), _CMP_LT_OQ);
    // Points are sorted, so those below are the first ones.
    return static_cast<std::uint32_t>(__builtin_ctz(~static_cast<unsigned>(bits)));
}

std::uint32_t below(const double* node, double v) {
    const __m512d value = _mm512_set1_pd(v);
    const unsigned low = _mm512_cmp_pd_mask(_mm512_loadu_pd(node), value, _CMP_LT_OQ);
    const unsigned high = _mm512_cmp_pd_mask(_mm512_loadu_pd(node + 8), value, _CMP_LT_OQ);
    return static_cast<std::uint32_t>(__builtin_ctz(~(low | (high << 8))));
}

// ---- the first two levels of a search, 16 rows at a time ------------------------------------------------------------

// Entries `index` of 32 << kHalvings numbers.
template <int kHalvings>
__m512 look_up(const float* numbers, __m512i index) {
    if constexpr (kHalvings == 0) {
        return _mm512_permutex2var_ps(_mm512_loadu_ps(numbers), index, _mm512_loadu_ps(numbers + 16));
    } else {
        const __mmask16 upper = _mm512_test_epi32_mask(index, _mm512_set1_epi32(16 << kHalvings));
        const __m512 low = look_up<kHalvings - 1>(numbers, index);
        return _mm512_mask_mov_ps(low, upper, look_up<kHalvings - 1>(numbers + (16 << kHalvings), index));
    }
}

template <unsigned kBits>
__m512i search(const float* top, __m512 v) {
    __m512i at = _mm512_setzero_si512();
    if constexpr (kBits > 0) {
        at = search<kBits - 1>(top, v);
        const float* step = top + (1 << (kBits - 1)) - 1;
        __m512 met;
        if constexpr (kBits <= 5) {
            met = _mm512_permutexvar_ps(at, _mm512_loadu_ps(step));
        } else {
            met = look_up<static_cast<int>(kBits) - 6>(step, at);
        }
        const __mmask16 less = _mm512_cmp_ps_mask(met, v, _CMP_LT_OQ);
        const __m512i twice = _mm512_add_epi32(at, at);
        at = _mm512_mask_add_epi32(twice, less, twice, _mm512_set1_epi32(1));
    }
    return at;
}

template <unsigned kBits>
void search_all(const float* x, std::size_t n, const float* top, std::uint32_t* ranks) {
    for (std::size_t i = 0; i < n; i += 16) {
        const auto lanes = static_cast<__mmask16>(n - i < 16 ? (1u << (n - i)) - 1 : 0xFFFF);
        _mm512_mask_storeu_epi32(ranks + i, lanes, search<kBits>(top, _mm512_maskz_loadu_ps(lanes, x + i)));
    }
}

std::size_t search_top(const float* x, std::size_t n, const SearchGrid<float>& grid, std::uint32_t* ranks) {
    using Search = void (*)(const float*, std::size_t, const float*, std::uint32_t*);
    constexpr Search kSearches[] = {search_all<0>, search_all<1>, search_all<2>, search_all<3>, search_all<4>,
                                    search_all<5>, search_all<6>, search_all<7>, search_all<8>};
    kSearches[grid.top_bits](x, n, grid.top, ranks);
    return grid.count < 2 ? grid.count : 2;
}

void plane(const std::uint8_t* bytes, unsigned bit, void* mask) {
    const __m512i tested = _mm512_set1_epi8(static_cast<char>(1u << bit));
    std::uint64_t words[kMaskWords];
    for (std::size_t i = 0; i < kMaskWords; ++i) {
        words[i] = _mm512_test_epi8_mask(_mm512_loadu_si512(bytes + 64 * i), tested);
    }
    std::memcpy(mask, words, sizeof words);
}

// ---- leaves ---------------------------------------------------------------------------------------------------------

// Codes of the 64 rows of one word, as bytes.
__m512i codes_of(const std::uint32_t* planes, std::size_t n, const std::uint64_t* arena, std::size_t word) {
    __m512i code = _mm512_setzero_si512();
    for (std::size_t j = 0; j < n; ++j) {
        const __m512i bit = _mm512_set1_epi8(static_cast<char>(1u << j));
        code = _mm512_mask_add_epi8(code, arena[planes[j] + word], code, bit);
    }
    return code;
}

void codes(const std::uint32_t* planes, std::size_t n, const std::uint64_t* arena, std::uint8_t* codes) {
    for (std::size_t word = 0; word < kMaskWords; ++word) {
        _mm512_storeu_si512(codes + word * 64, codes_of(planes, n, arena, word));
    }
}

// vpermi2w looks up 64 entries at once, by the six lower planes; the planes above choose between 2**kChoices results.
template <int kChoices>
__m512i entries(const __m512i* parts, __m512i code, const __mmask32* choices) {
    if constexpr (kChoices == 0) {
        return _mm512_permutex2var_epi16(parts[0], code, parts[1]);
    } else {
        const __m512i low = entries<kChoices - 1>(parts, code, choices);
        const __m512i high = entries<kChoices - 1>(parts + (1 << kChoices), code, choices);
        return _mm512_mask_mov_epi16(low, choices[kChoices - 1], high);
    }
}

template <int kChoices>
void add_choosing(const std::uint32_t* planes, std::size_t low, const std::uint64_t* arena, const std::int16_t* table,
                  std::int16_t* sums) {
    __m512i parts[2 << kChoices];
    for (std::size_t i = 0; i < std::size_t{2} << kChoices; ++i) parts[i] = _mm512_loadu_si512(table + 32 * i);
    for (std::size_t word = 0; word < kMaskWords; ++word) {
        const __m512i code = codes_of(planes, low, arena, word);
        for (unsigned half = 0; half < 2; ++half) {
            __mmask32 choices[kChoices + 1];  // an array may not be empty
            for (int i = 0; i < kChoices; ++i) {
                choices[i] = static_cast<__mmask32>(arena[planes[6 + i] + word] >> (32 * half));
            }
            const __m256i bytes = half ? _mm512_extracti64x4_epi64(code, 1) : _mm512_castsi512_si256(code);
            std::int16_t* sum = sums + 64 * word + 32 * half;
            const __m512i found = entries<kChoices>(parts, _mm512_cvtepu8_epi16(bytes), choices);
            _mm512_storeu_si512(sum, _mm512_add_epi16(_mm512_loadu_si512(sum), found));
        }
    }
}

void add(const std::uint32_t* planes, std::size_t n, const std::uint64_t* arena, const std::int16_t* table,
         std::int16_t* sums) {
    if (n == 6) return add_choosing<0>(planes, 6, arena, table, sums);  // the constant unrolls the loop
    if (n < 6) return add_choosing<0>(planes, n, arena, table, sums);
    if (n == 7) return add_choosing<1>(planes, 6, arena, table, sums);
    return add_choosing<2>(planes, 6, arena, table, sums);
}

}  // namespace

}  // namespace fhelearn

#include "forest_loops.inl"
