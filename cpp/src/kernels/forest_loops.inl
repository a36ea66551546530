// Forests on blocks of 512 rows, compiled once per instruction set: each including file defines FHELEARN_ISA, has its
// own flags, and has defined before, in an unnamed namespace, what is written differently for each:
//
//     below(node, v)           how many of the kSearchWidth numbers of a node are less than v, for float and double
//     plane(bytes, b, mask)    bit b of each of kForestRows bytes, as a mask
//     codes(...), add(...)     of ForestKernels
//
// and, if it has something faster than its absence below, search_top().
//
// In an unnamed namespace, for the reason given in elementwise.inl.
#include "fhelearn/kernels.hpp"
#include "tables_of.hpp"

namespace fhelearn {

namespace {

// One bit per row. Compilers split it where registers are narrower.
typedef std::uint64_t Mask __attribute__((vector_size(kForestRows / 8), may_alias));

// What selects move: each reads what the ones before have just written, and Zen 5 forwards 64-byte stores to loads so
// slowly that halves take half the time.
typedef std::uint64_t Half __attribute__((vector_size(kForestRows / 16), may_alias));

// Searches the first levels and returns how many: ranks[i] becomes the node of the next level.
template <class T>
std::size_t search_top(const T*, std::size_t n, const SearchGrid<T>&, std::uint32_t* ranks) {
    for (std::size_t i = 0; i < n; ++i) ranks[i] = 0;
    return 0;
}

template <class T>
void rank(const T* x, std::size_t n, const SearchGrid<T>& grid, std::uint32_t nan_rank, std::uint32_t* ranks) {
    const std::size_t done = search_top(x, n, grid, ranks);
    for (std::size_t i = 0; done < grid.count && i < n; ++i) {
        std::uint32_t node = ranks[i];
        for (std::size_t level = done; level < grid.count; ++level) {
            const T* numbers = grid.levels[level] + std::size_t{node} * kSearchWidth;
            node = node * static_cast<std::uint32_t>(kSearchWidth) + below(numbers, x[i]);
        }
        ranks[i] = node;
    }
    // NOLINTNEXTLINE(misc-redundant-expression): only NaN differs from itself
    for (std::size_t i = 0; i < n; ++i) ranks[i] = x[i] == x[i] ? ranks[i] : nan_rank;
}

Mask& at(std::uint64_t* arena, std::uint32_t word) {
    return *reinterpret_cast<Mask*>(arena + word);
}

// Doubles, per bit of the ranks, the masks of the lower bits: with the new bit clear a row is at most j if its lower
// bits are; with the new bit set it exceeds every j without it. Two operations per mask, whatever the number of rows
// in one.
void compare(const std::uint32_t* ranks, std::size_t count, std::uint64_t* masks) {
    Mask* m = reinterpret_cast<Mask*>(masks);
    std::uint8_t bytes[kForestRows];
    std::size_t known = 0;  // masks of the lower bits: 2**bits - 1, less only for the highest bit
    for (unsigned bit = 0; known < count; ++bit) {
        if (bit % 8 == 0) {
            for (std::size_t r = 0; r < kForestRows; ++r) bytes[r] = static_cast<std::uint8_t>(ranks[r] >> bit);
        }
        Mask clear;
        plane(bytes, bit % 8, &clear);
        clear = ~clear;
        const std::size_t more = known < count - known - 1 ? known : count - known - 1;
        for (std::size_t j = 0; j < more; ++j) m[known + 1 + j] = clear | m[j];
        m[known] = clear;
        for (std::size_t j = 0; j < known; ++j) m[j] &= clear;
        known += 1 + more;
    }
}

void unite(const MaskRun* runs, std::size_t n, std::uint32_t out, std::uint64_t* arena) {
    Mask united = {};
    for (std::size_t i = 0; i < n; ++i) united |= at(arena, runs[i].upto) & ~at(arena, runs[i].above);
    at(arena, out) = united;
}

Half& half_at(std::uint64_t* arena, std::uint32_t word) {
    return *reinterpret_cast<Half*>(arena + word);
}

void select(const MaskSelect* selects, std::size_t n, std::uint64_t* arena) {
    for (std::size_t i = 0; i < n; ++i) {
        const MaskSelect& s = selects[i];
        for (std::uint32_t word = 0; word < kMaskWords; word += sizeof(Half) / 8) {
            const Half no = half_at(arena, s.no + word);
            half_at(arena, s.out + word) =
                no ^ (half_at(arena, s.condition + word) & (half_at(arena, s.yes + word) ^ no));
        }
    }
}

void flush(std::int16_t* sums, std::int64_t* totals) {
    for (std::size_t r = 0; r < kForestRows; ++r) totals[r] += sums[r];
    for (std::size_t r = 0; r < kForestRows; ++r) sums[r] = 0;
}

void expand(const std::uint64_t* words, std::size_t n, std::size_t rows, std::int64_t* out) {
    for (std::size_t r = 0; r < rows; ++r, out += n) {
        for (std::size_t c = 0; c < n; ++c) out[c] = static_cast<std::int64_t>((words[c] >> r) & 1);
    }
}

constexpr ForestKernels kForests = {
    .rank32 = rank<float>,
    .rank64 = rank<double>,
    .compare = compare,
    .unite = unite,
    .select = select,
    .codes = codes,
    .add = add,
    .flush = flush,
    .expand = expand,
};

}  // namespace

namespace FHELEARN_ISA {

const ForestKernels& forests() {
    return kForests;
}

}  // namespace FHELEARN_ISA

}  // namespace fhelearn
