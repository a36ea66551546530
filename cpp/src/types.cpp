#include "fhelearn/types.hpp"

#include <algorithm>

namespace fhelearn {

namespace {

template <class T>
constexpr Range full_range() {
    return {std::numeric_limits<T>::min(), std::numeric_limits<T>::max()};
}

constexpr Range kRanges[kScalarTypes] = {full_range<std::uint8_t>(),  full_range<std::int8_t>(),
                                         full_range<std::uint16_t>(), full_range<std::int16_t>(),
                                         full_range<std::int32_t>(),  full_range<std::int64_t>()};

}  // namespace

const char* name_of(ScalarType type) {
    constexpr const char* kNames[kScalarTypes] = {"uint8", "int8", "uint16", "int16", "int32", "int64"};
    return kNames[index_of(type)];
}

Range range_of(ScalarType type) {
    return kRanges[index_of(type)];
}

bool fits(Range range, ScalarType type) {
    const Range allowed = range_of(type);
    return allowed.lo <= range.lo && range.hi <= allowed.hi;
}

ScalarType narrowest(Range range) {
    for (ScalarType type : {ScalarType::kI8, ScalarType::kU8, ScalarType::kI16, ScalarType::kU16, ScalarType::kI32}) {
        if (fits(range, type)) return type;
    }
    return ScalarType::kI64;
}

std::string to_string(const Shape& shape) {
    std::string text = "(";
    for (std::size_t axis = 0; axis < shape.size(); ++axis) {
        if (axis) text += ", ";
        text += std::to_string(shape[axis]);
    }
    text += shape.size() == 1 ? ",)" : ")";
    return text;
}

std::string to_string(Int128 value) {
    if (value == 0) return "0";
    const bool negative = value < 0;
    std::string digits;
    for (; value != 0; value /= 10) {
        const int digit = static_cast<int>(value % 10);
        digits += static_cast<char>('0' + (digit < 0 ? -digit : digit));
    }
    if (negative) digits += '-';
    std::reverse(digits.begin(), digits.end());
    return digits;
}

}  // namespace fhelearn
