// Seeded noise of the encrypted run: the counter-based generator of ir/reference.py, on SplitMix64's mixing function
// (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014).
#pragma once

#include <cstddef>
#include <cstdint>

namespace fhelearn {

inline constexpr std::uint64_t kGolden = 0x9E3779B97F4A7C15;

inline std::uint64_t mix(std::uint64_t z) {
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB;
    return z ^ (z >> 31);
}

inline std::uint64_t node_key(std::uint64_t seed, std::size_t node) {
    return mix(seed + kGolden * (node + 1));
}

// The d-th draw (d < 16) of an element, given its row's key mix(node_key + kGolden * (row + 1)).
inline std::uint64_t draw(std::uint64_t row_key, std::size_t element, std::uint64_t d) {
    return mix(row_key + kGolden * (16 * element + d + 1));
}

// The sum of twelve 32-bit uniforms, centred: nearly normal with standard deviation 2**32.
inline std::int64_t gauss(std::uint64_t row_key, std::size_t element) {
    std::int64_t total = 0;
    for (std::uint64_t d = 0; d < 12; ++d) total += static_cast<std::int64_t>(draw(row_key, element, d) >> 32);
    return total - 6 * (std::int64_t{1} << 32);
}

// Failures of one lookup node.
class LookupFaults {
  public:
    // `stride` is the distance of the entries that the encoding can tell apart.
    LookupFaults(std::uint64_t seed, std::size_t node, double p_error, std::int64_t stride)
        : key_(node_key(seed, node)), threshold_(static_cast<std::uint64_t>(p_error * 0x1p64)), stride_(stride) {}

    std::uint64_t row_key(std::size_t row) const { return mix(key_ + kGolden * (row + 1)); }

    // How far from its index a lookup reads: 0, or one entry to either side if it fails.
    std::int64_t step(std::uint64_t row_key, std::size_t element) const {
        if (draw(row_key, element, 0) >= threshold_) return 0;
        return draw(row_key, element, 1) & 1 ? stride_ : -stride_;
    }

  private:
    std::uint64_t key_;
    std::uint64_t threshold_;
    std::int64_t stride_;
};

}  // namespace fhelearn
