// Typed access to the attributes of a node that came from outside.
#pragma once

#include <algorithm>
#include <set>
#include <string>
#include <vector>

#include "fhelearn/errors.hpp"
#include "fhelearn/program.hpp"

namespace fhelearn {

// Every accessor throws ProgramError naming the node if the attribute is absent, of another type or out of range.
class AttributeReader {
  public:
    AttributeReader(const NodeSpec& spec, const std::string& label) : spec_(spec), label_(label) {}

    const IntArray& array(const std::string& name) {
        const auto& value = get<IntArray>(name, "an int64 array");
        std::int64_t size = 1;
        for (std::int64_t extent : value.shape) {
            if (extent < 1 || size > kMaxEntries / extent) fail(name, "has shape " + to_string(value.shape));
            size *= extent;
        }
        if (static_cast<std::size_t>(size) != value.data.size()) fail(name, "does not hold what its shape says");
        return value;
    }

    // A list of `count` integers in [lo, hi].
    const std::vector<std::int64_t>& integers(const std::string& name, std::size_t count, std::int64_t lo,
                                              std::int64_t hi) {
        const auto& value = get<std::vector<std::int64_t>>(name, "a list of integers");
        if (value.size() != count) {
            fail(name, "must have " + std::to_string(count) + " entries, got " + std::to_string(value.size()));
        }
        for (std::int64_t v : value) check_range(name, v, lo, hi);
        return value;
    }

    std::int64_t integer(const std::string& name, std::int64_t lo, std::int64_t hi) {
        const auto value = get<std::int64_t>(name, "an integer");
        check_range(name, value, lo, hi);
        return value;
    }

    bool boolean(const std::string& name) { return get<bool>(name, "a bool"); }

    const std::string& text(const std::string& name) { return get<std::string>(name, "a string"); }

    // A list of integers of any length.
    const std::vector<std::int64_t>& list(const std::string& name) {
        return get<std::vector<std::int64_t>>(name, "a list of integers");
    }

    // Mark as known without reading.
    void skip(const std::string& name) { used_.insert(name); }

    // Throws if an attribute was given that no accessor asked for.
    void finish() const {
        for (const auto& [name, value] : spec_.attributes) {
            if (!used_.contains(name)) fail(name, "is not an attribute of " + spec_.op);
        }
    }

    [[noreturn]] void fail(const std::string& name, const std::string& problem) const {
        throw ProgramError(label_ + ": attribute '" + name + "' " + problem);
    }

  private:
    static constexpr std::int64_t kMaxEntries = std::int64_t{1} << 32;

    template <class T>
    const T& get(const std::string& name, const char* expected) {
        const auto found = spec_.attributes.find(name);
        if (found == spec_.attributes.end()) fail(name, std::string("is missing; it must be ") + expected);
        used_.insert(name);
        const T* value = std::get_if<T>(&found->second);
        if (!value) fail(name, std::string("must be ") + expected);
        return *value;
    }

    void check_range(const std::string& name, std::int64_t value, std::int64_t lo, std::int64_t hi) const {
        if (value < lo || value > hi) {
            fail(name, "is " + std::to_string(value) + ", must lie in [" + std::to_string(lo) + ", " +
                           std::to_string(hi) + "]");
        }
    }

    const NodeSpec& spec_;
    const std::string& label_;
    std::set<std::string> used_;
};

}  // namespace fhelearn
