// Forests on float rows, with exact decisions: the conditions of nodes as bits, and integer leaf values summed over
// trees. What a forest means is fixed by python/fhelearn/frontends/tree/forest.py.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "fhelearn/kernels.hpp"

namespace fhelearn {

// Categories are integers in [0, 2**24): beyond that float32 has gaps.
inline constexpr std::int64_t kMaxCategory = std::int64_t{1} << 24;

// What nodes ask, one entry per condition. A value of a row is rounded to float32 if `float32`, and becomes missing
// (NaN) if its feature is in `zero_is_missing` and its magnitude at most float32(1e-35), or if its feature has a list
// of known categories that does not name it. Then a condition is `nan_true` of a missing value, else whether the value
// is at most `threshold`, or one of the condition's categories.
struct ConditionArrays {
    std::int64_t n_features = 0;
    bool float32 = true;
    std::vector<std::int64_t> feature;
    std::vector<double> threshold;          // not NaN; ignored of categorical conditions
    std::vector<std::uint8_t> categorical;  // flags
    std::vector<std::uint8_t> nan_true;
    std::vector<std::int64_t> category_start;   // condition i has categories[category_start[i]:category_start[i + 1]],
    std::vector<std::int64_t> categories;       // ascending
    std::vector<std::uint8_t> zero_is_missing;  // one per feature, as the next two
    std::vector<std::uint8_t> has_known;
    std::vector<std::int64_t> known_start;  // as category_start
    std::vector<std::int64_t> known;        // ascending
};

class ConditionLayout;  // conditions.hpp

// Immutable after construction; encode() may be called from several threads at once.
class Conditions {
  public:
    // Throws std::invalid_argument naming array, place and value. `table` must outlive the object.
    Conditions(const ConditionArrays& arrays, const KernelTable& table);
    ~Conditions();
    Conditions(const Conditions&) = delete;
    Conditions& operator=(const Conditions&) = delete;

    std::size_t n_features() const;
    std::size_t size() const;
    const ConditionLayout& layout() const { return *layout_; }

    // x is (rows, n_features), out (rows, size) gets 1 where the condition holds, else 0; C order. T is float or
    // double. Throws std::invalid_argument naming row, feature and value if a feature that some condition takes for
    // categorical holds a number that is no integer; `out` is unspecified then.
    template <class T>
    void encode(const T* x, std::size_t rows, std::int64_t* out, std::size_t num_threads) const;

  private:
    std::unique_ptr<const ConditionLayout> layout_;
};

// Nodes of all trees one after the other, each tree root first and children after their parents.
struct ForestArrays {
    std::vector<std::int64_t> tree_starts;   // n_trees + 1; tree t has nodes tree_starts[t] up to tree_starts[t + 1]
    std::vector<std::int64_t> condition;     // -1 at leaves
    std::vector<std::int64_t> left, right;   // where the condition holds, and where not; ignored at leaves
    std::vector<std::int64_t> value;         // (n_nodes, width); ignored at inner nodes
    std::vector<std::int64_t> first_output;  // per tree, where the first column of `value` is added
    std::int64_t width = 1;
    std::int64_t n_outputs = 1;
};

class ForestPlan;  // forest_plan.hpp

// Immutable after construction; run() and apply() may be called from several threads at once.
class ForestEngine {
  public:
    // Throws std::invalid_argument naming array, place and value: indices out of range, a node with two parents, or
    // leaves whose sum might not fit 64 bits.
    ForestEngine(std::shared_ptr<const Conditions> conditions, const ForestArrays& arrays);
    ~ForestEngine();
    ForestEngine(const ForestEngine&) = delete;
    ForestEngine& operator=(const ForestEngine&) = delete;

    std::size_t n_features() const;
    std::size_t n_trees() const;
    std::size_t n_outputs() const;

    // Sums of leaf values: x (rows, n_features) to out (rows, n_outputs). Throws as Conditions::encode.
    template <class T>
    void run(const T* x, std::size_t rows, std::int64_t* out, std::size_t num_threads) const;

    // The leaf reached in each tree, counted from the tree's root: out (rows, n_trees). Throws as Conditions::encode.
    template <class T>
    void apply(const T* x, std::size_t rows, std::int32_t* out, std::size_t num_threads) const;

  private:
    std::shared_ptr<const Conditions> conditions_;
    std::unique_ptr<const ForestPlan> plan_;
};

}  // namespace fhelearn
