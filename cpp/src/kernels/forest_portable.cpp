// Forests for every CPU of the platform.
#define FHELEARN_ISA portable
#include <cstring>

#include "fhelearn/kernels.hpp"

namespace fhelearn {

namespace {

template <class T>
std::uint32_t below(const T* node, T v) {
    std::uint32_t count = 0;
    for (std::size_t i = 0; i < kSearchWidth; ++i) count += node[i] < v;
    return count;
}

void plane(const std::uint8_t* bytes, unsigned bit, void* mask) {
    std::uint8_t packed[kForestRows / 8];
    for (std::size_t i = 0; i < kForestRows / 8; ++i) {
        std::uint64_t eight;
        std::memcpy(&eight, bytes + 8 * i, sizeof eight);
        // The product's highest byte collects the lowest bit of each byte; no two terms meet in a bit.
        packed[i] = static_cast<std::uint8_t>((((eight >> bit) & 0x0101010101010101u) * 0x0102040810204080u) >> 56);
    }
    std::memcpy(mask, packed, sizeof packed);
}

// Bit i of the lowest byte of `bits`, as byte i.
std::uint64_t spread(std::uint64_t bits) {
    const std::uint64_t found = ((bits & 0xFF) * 0x0101010101010101u) & 0x8040201008040201u;  // byte i: 0 or 2**i
    return ((found + 0x7F7F7F7F7F7F7F7Fu) >> 7) & 0x0101010101010101u;                        // carries into bit 7
}

void codes(const std::uint32_t* planes, std::size_t n, const std::uint64_t* arena, std::uint8_t* codes) {
    for (std::size_t word = 0; word < kMaskWords; ++word) {
        for (unsigned byte = 0; byte < 8; ++byte) {
            std::uint64_t eight = 0;
            for (std::size_t j = 0; j < n; ++j) {
                eight |= spread(arena[planes[j] + word] >> (8 * byte)) << j;
            }
            std::memcpy(codes + word * 64 + byte * 8, &eight, sizeof eight);
        }
    }
}

}  // namespace

}  // namespace fhelearn

#include "forest_leaves.inl"
#include "forest_loops.inl"
