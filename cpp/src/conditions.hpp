// How conditions are evaluated: each feature's values become ranks among what is asked of it, ranks become masks.
#pragma once

#include <functional>
#include <span>
#include <string>
#include <vector>

#include "fhelearn/forest.hpp"

namespace fhelearn {

struct alignas(sizeof(std::uint64_t) * kMaskWords) MaskWords {
    std::uint64_t words[kMaskWords];
};

// Masks are numbered; kernels want their first word. These are the first two of every arena.
inline constexpr std::uint32_t kNoRows = 0, kAllRows = 1;

// Grid points in the form that kernels search.
template <class T>
class Search {
  public:
    Search() = default;
    explicit Search(std::vector<T> points);  // ascending

    SearchGrid<T> grid() const;

  private:
    std::vector<std::vector<T>> levels_;  // the finest first
    std::vector<T> top_;
    unsigned top_bits_ = 0;
};

constexpr std::uint32_t word_of(std::uint32_t mask) {
    return mask * static_cast<std::uint32_t>(kMaskWords);
}

// Questions to one feature that treat missing values alike. Mask first_mask + j < first_mask + size says rank <= j.
struct Column {
    enum class Kind : std::uint8_t { kNanFalse, kNanTrue, kCategorical };

    std::uint32_t feature;  // index into ConditionLayout::features
    Kind kind;
    std::uint32_t size;
    std::uint32_t first_mask;
    std::uint32_t nan_rank;  // size: no mask has it; 0: every mask
    std::vector<double> points;
    Search<float> narrow;
    Search<double> wide;
};

// What happens to a feature's values before they are compared.
struct FeatureRules {
    std::size_t index = 0;  // column of x
    bool categorical = false;
    bool zero_is_missing = false;
    bool has_known = false;
    std::vector<double> known;  // ascending

    bool any() const { return categorical || zero_is_missing || has_known; }
};

// A rank is a member if an odd number of bounds is below it; runs are the same in masks.
struct RankSet {
    std::uint32_t column;
    std::vector<std::uint32_t> bounds;
    std::vector<MaskRun> runs;
};

// Where a condition is found: its mask, and for walks its column with a limit on the rank or the index of a set.
struct Place {
    std::uint32_t mask;
    std::uint32_t column;
    std::uint32_t limit;
    std::int32_t set;  // -1: none
};

// Runs body(first row, number of rows, worker) on blocks of kForestRows rows. Throws what the first failing block
// threw, on any number of threads.
void for_blocks(std::size_t rows, std::size_t num_threads,
                const std::function<void(std::size_t first, std::size_t rows, std::size_t worker)>& body);

class ConditionLayout {
  public:
    ConditionLayout(const ConditionArrays& arrays, const KernelTable& table);

    std::size_t n_features() const { return n_features_; }
    std::size_t num_masks() const { return num_masks_; }
    std::span<const Column> columns() const { return columns_; }
    std::span<const RankSet> sets() const { return sets_; }
    std::span<const Place> places() const { return places_; }
    const ForestKernels& kernels() const { return *kernels_; }

    // Ranks of `rows` <= kForestRows rows of x, to (columns, kForestRows); `first` is the row number for messages.
    template <class T>
    void rank(const T* x, std::size_t first, std::size_t rows, std::uint32_t* ranks) const;

    // All masks of the arena, from the ranks of kForestRows rows.
    void fill_masks(const std::uint32_t* ranks, MaskWords* masks) const;

  private:
    void add_columns(const ConditionArrays& arrays);
    void add_places(const ConditionArrays& arrays);
    template <class T, class V>
    void rank_tile(const T* x, std::size_t first, std::size_t rows, std::uint32_t* ranks) const;

    std::size_t n_features_;
    bool float32_;
    const ForestKernels* kernels_;
    std::vector<FeatureRules> features_;
    std::vector<Column> columns_;
    std::vector<RankSet> sets_;
    std::vector<Place> places_;
    std::size_t num_masks_ = 0;
};

}  // namespace fhelearn
