// Element types of buffers, and exact integer arithmetic for bounds.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <variant>
#include <vector>

namespace fhelearn {

__extension__ typedef __int128 Int128;

// Extents without the batch axis.
using Shape = std::vector<std::int64_t>;

// A dense int64 array in C order.
struct IntArray {
    Shape shape;
    std::vector<std::int64_t> data;
};

// What a node's attribute may hold; `std::vector` is a list of ints, `IntArray` a tensor.
using Attribute = std::variant<bool, std::int64_t, std::string, std::vector<std::int64_t>, IntArray>;

// Storage of a buffer's elements. The order is used to index kernel tables.
enum class ScalarType : std::uint8_t { kU8, kI8, kU16, kI16, kI32, kI64 };
inline constexpr std::size_t kScalarTypes = 6;

constexpr std::size_t index_of(ScalarType type) {
    return static_cast<std::size_t>(type);
}

constexpr std::size_t size_of(ScalarType type) {
    constexpr std::size_t kSizes[kScalarTypes] = {1, 1, 2, 2, 4, 8};
    return kSizes[index_of(type)];
}

const char* name_of(ScalarType type);

// Inclusive interval of 64-bit integers.
struct Range {
    std::int64_t lo = 0;
    std::int64_t hi = 0;
};

Range range_of(ScalarType type);

// Whether every integer of `range` has a representation in `type`.
bool fits(Range range, ScalarType type);

// The smallest type that holds `range`; of two equally small ones the signed, because multiplication kernels take
// signed operands.
ScalarType narrowest(Range range);

// "(3, 4)", as Python prints a tuple.
std::string to_string(const Shape& shape);

// Decimal digits of a 128-bit integer.
std::string to_string(Int128 value);

}  // namespace fhelearn
