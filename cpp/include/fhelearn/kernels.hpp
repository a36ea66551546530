// The kernel table: plain loops over buffers, one table per instruction set, chosen once at run time.
//
// Contracts shared by all: pointers are aligned to the element; buffers of input and output do not overlap unless they
// are the same; every input buffer may be read (not used) up to kReadSlack bytes past its end; the caller has proved
// that values fit their types. Integer arithmetic is modulo 2**bits where a caller lets it wrap.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "fhelearn/types.hpp"
#include "fhelearn/window.hpp"

namespace fhelearn {

inline constexpr std::size_t kReadSlack = 64;

// x (rows, k) of `operand` elements times weights (k, m), plus a bias (m): rows of m `accumulator` elements.
struct MatmulKernel {
    const char* name;
    ScalarType operand;
    ScalarType weight;  // what the weights must fit
    ScalarType accumulator;
    // Bytes of the packed weights and bias; 64-byte aligned memory of that size goes to pack.
    std::size_t (*packed_bytes)(std::size_t k, std::size_t m);
    // `weights` (k, m) and `bias` (m, or null for zero) are in C order.
    void (*pack)(const std::int64_t* weights, const std::int64_t* bias, std::size_t k, std::size_t m, void* packed);
    void (*run)(const void* x, std::size_t rows, std::size_t k, const void* packed, std::size_t m, void* out);
};

// Loops over elements. Arithmetic kernels come for 32-bit (index 0) and 64-bit (index 1) elements.
struct ElementwiseKernels {
    using Binary = void (*)(const void* x, const void* y, void* out, std::size_t n);
    // out[i] = x[i] op constants[i % period]
    using WithConstants = void (*)(const void* x, const void* constants, std::size_t period, void* out, std::size_t n);
    using Convert = void (*)(const void* x, void* out, std::size_t n);
    // Copies int64 to a narrower type; false if some x[i] is outside [lo[i % period], hi[i % period]].
    using CheckedLoad = bool (*)(const std::int64_t* x, const std::int64_t* lo, const std::int64_t* hi,
                                 std::size_t period, void* out, std::size_t n);
    using Check = bool (*)(const void* x, const std::int64_t* lo, const std::int64_t* hi, std::size_t period,
                           std::size_t n);
    // out[i] = table[first[i % period] + x[i] - lo]; `first` is null for a single table.
    using Lookup = void (*)(const void* x, const void* table, std::int64_t lo, const std::int32_t* first,
                            std::size_t period, void* out, std::size_t n);
    using Round = void (*)(const void* x, int lsbs, void* out, std::size_t n);
    // Per row out[e] = map[e] < 0 ? fill : x[map[e]], for elements of 1, 2, 4, 8 bytes (index log2).
    using Gather = void (*)(const void* x, std::size_t x_size, const std::int32_t* map, std::int64_t fill, void* out,
                            std::size_t out_size, std::size_t rows);
    // Per row out[map[e]] = x[e].
    using Scatter = void (*)(const void* x, std::size_t x_size, const std::int32_t* map, void* out,
                             std::size_t out_size, std::size_t rows);

    Binary add[2], sub[2], multiply[2], maximum[2];
    Convert negate[2];
    WithConstants add_constant[2], multiply_constant[2];
    Round round[2];
    Scatter sum[2];  // out[map[e]] += x[e], out cleared first
    Convert convert[kScalarTypes][kScalarTypes];
    CheckedLoad checked_load[kScalarTypes];
    Check check[kScalarTypes];
    Lookup lookup[kScalarTypes][4];
    Gather gather[4];
    Scatter scatter[4];
};

// Loops of quantization; see tables.hpp for the public functions with their checks.
struct QuantizeKernels {
    // One block of rows of quantize(); false if it met NaN. lo and hi as float64, |.| < 2**51.
    bool (*quantize)(const double* x, std::size_t rows, std::size_t columns, const double* scale, const double* offset,
                     const double* lo, const double* hi, std::int64_t* q, double* below, double* above);
    void (*dequantize)(const std::int64_t* q, std::size_t rows, std::size_t columns, const double* scale,
                       const double* offset, double* x);
};

// Ops on windows of one row, 32-bit elements at index 0, 64-bit at index 1.
struct WindowKernels {
    // (channels, height, width) to (out_channels, out_height, out_width); weights of the same type as x, in the order
    // (out, in / groups, kernel height, kernel width).
    using Convolution = void (*)(const void* x, const void* weights, const Window& window, void* out);
    using Pool = void (*)(const void* x, const Window& window, void* out);

    Convolution convolution[2];
    Pool sum_pool[2];
};

// ---- Forests: 512 rows at a time, one bit per row and question ------------------------------------------------------

inline constexpr std::size_t kForestRows = 512;
inline constexpr std::size_t kMaskWords = kForestRows / 64;  // row r is bit r % 64 of word r / 64
inline constexpr std::size_t kSearchWidth = 16;
inline constexpr std::size_t kSearchLevels = 8;

// Sorted grid points as a search tree whose nodes are kSearchWidth numbers: levels[count - 1] holds all points, each
// level above it the last number of every node below. Every level ends in at least one +infinity and is filled up with
// it to whole nodes, so that the search for any number stays inside.
//
// The first two levels (or the only one) are there once more as a binary tree, for instruction sets that can look up in
// registers: `top` holds 2**s - 1 + i, for s < top_bits and i < 2**s, the i-th number that a binary search among
// 2**top_bits - 1 numbers may meet at its step s. It may be read kSearchWidth numbers past its end.
template <class T>
struct SearchGrid {
    const T* levels[kSearchLevels];
    std::size_t count;
    const T* top;
    unsigned top_bits;  // at most 8
};

// Masks are named by the place of their first word in an arena, which is aligned to the size of a mask.
struct MaskSelect {  // out = condition ? yes : no
    std::uint32_t out, condition, yes, no;
};

struct MaskRun {  // the rows in `upto` but not in `above`
    std::uint32_t above, upto;
};

struct ForestKernels {
    // ranks[i] = number of grid points below x[i]; of NaN, `nan_rank`.
    template <class T>
    using Rank = void (*)(const T* x, std::size_t n, const SearchGrid<T>& grid, std::uint32_t nan_rank,
                          std::uint32_t* ranks);

    Rank<float> rank32;
    Rank<double> rank64;
    // Mask j < count of `masks`: the rows r with ranks[r] <= j. All ranks, kForestRows of them, are at most `count`.
    void (*compare)(const std::uint32_t* ranks, std::size_t count, std::uint64_t* masks);
    // out = the rows of any of the runs.
    void (*unite)(const MaskRun* runs, std::size_t n, std::uint32_t out, std::uint64_t* arena);
    void (*select)(const MaskSelect* selects, std::size_t n, std::uint64_t* arena);
    // codes[r] = sum over j < n <= 8 of 2**j * bit r of mask planes[j].
    void (*codes)(const std::uint32_t* planes, std::size_t n, const std::uint64_t* arena, std::uint8_t* codes);
    // sums[r] += table[code of r], modulo 2**16; a table has at least 64 entries.
    void (*add)(const std::uint32_t* planes, std::size_t n, const std::uint64_t* arena, const std::int16_t* table,
                std::int16_t* sums);
    // totals[r] += sums[r], and sums[r] = 0.
    void (*flush)(std::int16_t* sums, std::int64_t* totals);
    // out[r * n + c] = bit r of words[c], for r < rows <= 64.
    void (*expand)(const std::uint64_t* words, std::size_t n, std::size_t rows, std::int64_t* out);
};

struct KernelTable {
    const char* isa;
    const ElementwiseKernels* elementwise;
    const QuantizeKernels* quantize;
    const WindowKernels* windows;
    const ForestKernels* forests;
    std::span<const MatmulKernel> matmul;  // fastest first
};

// The table of the best instruction set of this CPU, or of the one that the environment variable FHELEARN_ISA names.
// Throws std::invalid_argument if that is unknown or not supported by this CPU.
const KernelTable& kernels();

// The table of `isa`, or null if the build or the CPU has none.
const KernelTable* find_kernels(std::span<const KernelTable> tables, const char* isa);

// Tables that this CPU can run, best first; "portable" is always there.
std::span<const KernelTable> supported_kernels();

// The first kernel whose types hold operand, weights and accumulator; the portable 64-bit kernel holds everything.
const MatmulKernel& choose_matmul(const KernelTable& table, Range operand, Range weights, bool i32_accumulator);

}  // namespace fhelearn
