// Least and greatest of any stretch of an array, in logarithmic time after linear work.
#pragma once

#include <algorithm>
#include <span>
#include <vector>

#include "fhelearn/types.hpp"

namespace fhelearn {

// A tree of blocks over `values`, which must outlive it: every level holds the ranges of 32 neighbours of the level
// below, so that the index is small beside the values.
class RangeIndex {
  public:
    explicit RangeIndex(std::span<const std::int64_t> values) : values_(values) {
        for (std::size_t size = values.size(); size > kBlock; size = levels_.back().size()) {
            std::vector<Range> next((size + kBlock - 1) / kBlock);
            for (std::size_t i = 0; i < next.size(); ++i) {
                next[i] = scan(levels_.size(), i * kBlock, std::min((i + 1) * kBlock, size));
            }
            levels_.push_back(std::move(next));
        }
    }

    // Of values[first] to values[last - 1]; first < last.
    Range range(std::size_t first, std::size_t last) const {
        Range result = entry(0, first);
        for (std::size_t level = 0;; ++level, first /= kBlock, last /= kBlock) {
            if (level == levels_.size() || last - first <= 2 * kBlock) return hull(result, scan(level, first, last));
            const std::size_t inner = (first + kBlock - 1) / kBlock * kBlock, end = last / kBlock * kBlock;
            result = hull(hull(result, scan(level, first, inner)), scan(level, end, last));
            first = inner;
            last = end;
        }
    }

  private:
    static constexpr std::size_t kBlock = 32;

    static Range hull(Range a, Range b) { return {std::min(a.lo, b.lo), std::max(a.hi, b.hi)}; }

    // Level 0 is the values themselves.
    Range entry(std::size_t level, std::size_t i) const {
        return level == 0 ? Range{values_[i], values_[i]} : levels_[level - 1][i];
    }

    // The empty range, which hull() ignores, if first == last.
    Range scan(std::size_t level, std::size_t first, std::size_t last) const {
        Range result{std::numeric_limits<std::int64_t>::max(), std::numeric_limits<std::int64_t>::min()};
        for (std::size_t i = first; i < last; ++i) result = hull(result, entry(level, i));
        return result;
    }

    std::span<const std::int64_t> values_;
    std::vector<std::vector<Range>> levels_;
};

}  // namespace fhelearn
