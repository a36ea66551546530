// Checks of arrays that come across the language border; their errors name array, place, value and what is allowed.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>

namespace fhelearn {

[[noreturn]] inline void fail(const std::string& what, const std::string& value, const std::string& allowed) {
    throw std::invalid_argument(what + " is " + value + ", must be " + allowed);
}

[[noreturn]] inline void fail(const std::string& what, std::int64_t value, const std::string& allowed) {
    fail(what, std::to_string(value), allowed);
}

inline std::string entry(const char* array, std::size_t index) {
    return std::string(array) + "[" + std::to_string(index) + "]";
}

inline void check_size(const char* what, std::size_t size, std::size_t expected, const char* of) {
    if (size == expected) return;
    throw std::invalid_argument(std::string(what) + " has " + std::to_string(size) + " entries, must have " +
                                std::to_string(expected) + " (" + of + ")");
}

}  // namespace fhelearn
