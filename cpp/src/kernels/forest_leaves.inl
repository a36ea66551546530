// Tables of leaves by plain loads, after codes() of ForestKernels: for instruction sets that have nothing better. In an
// unnamed namespace, for the reason given in elementwise.inl.
#include "fhelearn/kernels.hpp"

namespace fhelearn {

namespace {

void add(const std::uint32_t* planes, std::size_t n, const std::uint64_t* arena, const std::int16_t* table,
         std::int16_t* sums) {
    std::uint8_t at[kForestRows];
    codes(planes, n, arena, at);
    for (std::size_t r = 0; r < kForestRows; ++r) sums[r] = static_cast<std::int16_t>(sums[r] + table[at[r]]);
}

}  // namespace

}  // namespace fhelearn
