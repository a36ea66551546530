#include "conditions.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <map>
#include <mutex>
#include <stdexcept>
#include <type_traits>

#include "array_checks.hpp"
#include "fhelearn/parallel.hpp"

namespace fhelearn {

namespace {

// What LightGBM takes for zero (kZeroThreshold of its meta.h).
constexpr double kZeroThreshold = 1e-35F;

// Rows whose values stay in the nearest cache while each feature takes its turn.
constexpr std::size_t kTileRows = 128;

// `starts` divides `values` into ascending lists of categories.
void check_lists(const char* starts_name, const std::vector<std::int64_t>& starts, const char* name,
                 const std::vector<std::int64_t>& values) {
    const auto end = static_cast<std::int64_t>(values.size());
    if (starts.front() != 0) fail(entry(starts_name, 0), std::to_string(starts.front()), "0");
    if (starts.back() != end) {
        fail(entry(starts_name, starts.size() - 1), std::to_string(starts.back()),
             "the length of " + std::string(name) + ", " + std::to_string(end));
    }
    for (std::size_t i = 0; i + 1 < starts.size(); ++i) {
        const std::int64_t first = starts[i], last = starts[i + 1];
        if (last < first || last > end) {
            fail(entry(starts_name, i + 1), std::to_string(last),
                 "in [" + std::to_string(first) + ", " + std::to_string(end) + "]");
        }
        for (auto j = static_cast<std::size_t>(first); j < static_cast<std::size_t>(last); ++j) {
            if (values[j] < 0 || values[j] >= kMaxCategory) {
                fail(entry(name, j), std::to_string(values[j]), "a category in [0, 2**24)");
            }
            if (j > static_cast<std::size_t>(first) && values[j] <= values[j - 1]) {
                fail(entry(name, j), std::to_string(values[j]),
                     "greater than the category before, " + std::to_string(values[j - 1]));
            }
        }
    }
}

void check(const ConditionArrays& a) {
    if (a.n_features < 0) fail("n_features", std::to_string(a.n_features), "at least 0");
    const auto features = static_cast<std::size_t>(a.n_features);
    const std::size_t size = a.feature.size();
    constexpr std::size_t kMost = std::numeric_limits<std::int32_t>::max() / 4;  // masks are numbered with 32 bits
    if (size > kMost || a.categories.size() > kMost) {
        fail("the number of conditions or categories", std::to_string(std::max(size, a.categories.size())),
             "at most " + std::to_string(kMost));
    }
    check_size("threshold", a.threshold.size(), size, "one per condition");
    check_size("categorical", a.categorical.size(), size, "one per condition");
    check_size("nan_true", a.nan_true.size(), size, "one per condition");
    check_size("category_start", a.category_start.size(), size + 1, "one per condition, and the end");
    check_size("zero_is_missing", a.zero_is_missing.size(), features, "one per feature");
    check_size("has_known", a.has_known.size(), features, "one per feature");
    check_size("known_start", a.known_start.size(), features + 1, "one per feature, and the end");
    check_lists("category_start", a.category_start, "categories", a.categories);
    check_lists("known_start", a.known_start, "known", a.known);
    for (std::size_t i = 0; i < size; ++i) {
        if (a.feature[i] < 0 || a.feature[i] >= a.n_features) {
            fail(entry("feature", i), std::to_string(a.feature[i]), "in [0, " + std::to_string(a.n_features) + ")");
        }
        if (!a.categorical[i] && std::isnan(a.threshold[i])) fail(entry("threshold", i), "NaN", "a number");
    }
}

// The greatest float that is at most v: floats compare with it as they do with v.
float round_down(double v) {
    const auto nearest = static_cast<float>(v);
    return nearest > v ? std::nextafter(nearest, -std::numeric_limits<float>::infinity()) : nearest;
}

Column::Kind kind_of(const ConditionArrays& a, std::size_t condition) {
    if (a.categorical[condition]) return Column::Kind::kCategorical;
    return a.nan_true[condition] ? Column::Kind::kNanTrue : Column::Kind::kNanFalse;
}

// Calls body(s, e) for every run s, s + 1, ..., e of condition's categories.
template <class Body>
void for_runs(const ConditionArrays& a, std::size_t condition, const Body& body) {
    const auto end = static_cast<std::size_t>(a.category_start[condition + 1]);
    for (auto i = static_cast<std::size_t>(a.category_start[condition]); i < end;) {
        const std::int64_t first = a.categories[i];
        std::int64_t last = first;
        for (++i; i < end && a.categories[i] == last + 1; ++i) ++last;
        body(first, last);
    }
}

std::uint32_t position_in(const std::vector<double>& points, double point) {
    return static_cast<std::uint32_t>(std::lower_bound(points.begin(), points.end(), point) - points.begin());
}

RankSet set_of(const ConditionArrays& a, std::size_t condition, std::uint32_t index, const Column& column) {
    RankSet set{index, {}, {}};
    for_runs(a, condition, [&](std::int64_t first, std::int64_t last) {
        set.bounds.push_back(position_in(column.points, static_cast<double>(first - 1)));
        set.bounds.push_back(position_in(column.points, static_cast<double>(last)));
    });
    // The last mask of such a column holds all values but the missing, whose rank is one more.
    if (a.nan_true[condition]) set.bounds.insert(set.bounds.end(), {column.size - 1, column.size});
    for (std::size_t i = 0; i < set.bounds.size(); i += 2) {
        const std::uint32_t upto = set.bounds[i + 1];
        set.runs.push_back({word_of(column.first_mask + set.bounds[i]),
                            word_of(upto < column.size ? column.first_mask + upto : kAllRows)});
    }
    return set;
}

// v after the rules of its feature, NaN if missing.
template <class V>
V ruled(V v, const FeatureRules& rules) {
    constexpr V kMissing = std::numeric_limits<V>::quiet_NaN();
    if (rules.zero_is_missing && std::fabs(v) <= static_cast<V>(kZeroThreshold)) return kMissing;
    if (rules.has_known && !std::binary_search(rules.known.begin(), rules.known.end(), static_cast<double>(v))) {
        return kMissing;
    }
    return v;
}

// Applies them to `values` of rows from `first`; given[i * stride] are the numbers before rounding, for messages.
template <class T, class V>
void apply_rules(const FeatureRules& rules, std::size_t first, std::span<V> values, const T* given,
                 std::size_t stride) {
    for (std::size_t i = 0; i < values.size(); ++i) {
        const V v = values[i] = ruled(values[i], rules);
        if (!rules.categorical || std::isnan(v) || (std::isfinite(v) && v == std::floor(v))) continue;
        throw std::invalid_argument("x: row " + std::to_string(first + i) + ", feature " + std::to_string(rules.index) +
                                    " is " + std::to_string(given[i * stride]) +
                                    "; categories must be integers (NaN where missing): encode the feature first");
    }
}

}  // namespace

template <class T>
Search<T>::Search(std::vector<T> points) {
    constexpr T kEnd = std::numeric_limits<T>::infinity();
    for (std::vector<T> level = std::move(points);;) {
        level.resize((level.size() / kSearchWidth + 1) * kSearchWidth, kEnd);
        std::vector<T> above;
        for (std::size_t i = kSearchWidth - 1; i < level.size(); i += kSearchWidth) above.push_back(level[i]);
        levels_.push_back(std::move(level));
        if (above.size() == 1) break;
        level = std::move(above);
    }
    const std::vector<T>& numbers = levels_[levels_.size() - std::min<std::size_t>(levels_.size(), 2)];
    const auto finite =
        static_cast<std::size_t>(std::lower_bound(numbers.begin(), numbers.end(), kEnd) - numbers.begin());
    top_bits_ = static_cast<unsigned>(std::bit_width(finite));
    for (unsigned step = 0; step < top_bits_; ++step) {
        const std::size_t span = std::size_t{1} << (top_bits_ - step);
        for (std::size_t i = 0; i < std::size_t{1} << step; ++i) {
            const std::size_t met = i * span + span / 2 - 1;
            top_.push_back(met < finite ? numbers[met] : kEnd);
        }
    }
    top_.resize(top_.size() + kSearchWidth, kEnd);
}

template <class T>
SearchGrid<T> Search<T>::grid() const {
    SearchGrid<T> grid{};
    grid.count = levels_.size();
    grid.top = top_.data();
    grid.top_bits = top_bits_;
    for (std::size_t i = 0; i < grid.count; ++i) grid.levels[i] = levels_[grid.count - 1 - i].data();
    return grid;
}

ConditionLayout::ConditionLayout(const ConditionArrays& arrays, const KernelTable& table)
    : n_features_(0), float32_(arrays.float32), kernels_(table.forests) {
    check(arrays);
    n_features_ = static_cast<std::size_t>(arrays.n_features);
    add_columns(arrays);
    add_places(arrays);
}

void ConditionLayout::add_columns(const ConditionArrays& a) {
    std::map<std::pair<std::size_t, Column::Kind>, std::vector<double>> asked;  // also groups the columns of a feature
    for (std::size_t i = 0; i < a.feature.size(); ++i) {
        std::vector<double>& points = asked[{static_cast<std::size_t>(a.feature[i]), kind_of(a, i)}];
        if (!a.categorical[i]) {
            points.push_back(a.threshold[i]);
            continue;
        }
        for_runs(a, i, [&](std::int64_t first, std::int64_t last) {
            points.push_back(static_cast<double>(first - 1));
            points.push_back(static_cast<double>(last));
        });
    }
    num_masks_ = kAllRows + 1;
    for (auto& [key, points] : asked) {
        const auto& [feature, kind] = key;
        if (features_.empty() || features_.back().index != feature) {
            FeatureRules rules{feature, false, a.zero_is_missing[feature] != 0, a.has_known[feature] != 0, {}};
            if (rules.has_known)
                rules.known.assign(a.known.begin() + a.known_start[feature],
                                   a.known.begin() + a.known_start[feature + 1]);
            features_.push_back(std::move(rules));
        }
        features_.back().categorical |= kind == Column::Kind::kCategorical;
        std::sort(points.begin(), points.end());
        points.erase(std::unique(points.begin(), points.end()), points.end());
        const std::size_t size = points.size() + (kind == Column::Kind::kCategorical ? 1 : 0);
        Column column{static_cast<std::uint32_t>(features_.size() - 1),
                      kind,
                      static_cast<std::uint32_t>(size),
                      static_cast<std::uint32_t>(num_masks_),
                      static_cast<std::uint32_t>(kind == Column::Kind::kNanTrue ? 0 : size),
                      std::move(points),
                      {},
                      {}};
        std::vector<float> narrow;
        for (double point : column.points) narrow.push_back(round_down(point));
        column.narrow = Search<float>(std::move(narrow));
        if (!float32_) column.wide = Search<double>(column.points);
        num_masks_ += size;
        columns_.push_back(std::move(column));
    }
}

void ConditionLayout::add_places(const ConditionArrays& a) {
    std::map<std::pair<std::size_t, Column::Kind>, std::uint32_t> column_of;
    for (std::uint32_t c = 0; c < columns_.size(); ++c) {
        column_of[{features_[columns_[c].feature].index, columns_[c].kind}] = c;
    }
    std::map<std::pair<std::uint32_t, std::vector<std::uint32_t>>, std::int32_t> known_sets;
    for (std::size_t i = 0; i < a.feature.size(); ++i) {
        const std::uint32_t index = column_of.at({static_cast<std::size_t>(a.feature[i]), kind_of(a, i)});
        const Column& column = columns_[index];
        if (!a.categorical[i]) {
            const std::uint32_t limit = position_in(column.points, a.threshold[i]);
            places_.push_back({column.first_mask + limit, index, limit, -1});
            continue;
        }
        RankSet set = set_of(a, i, index, column);
        const auto [found, fresh] =
            known_sets.try_emplace({index, set.bounds}, static_cast<std::int32_t>(sets_.size()));
        if (fresh) sets_.push_back(std::move(set));
        const std::int32_t which = found->second;
        places_.push_back(
            {static_cast<std::uint32_t>(num_masks_) + static_cast<std::uint32_t>(which), index, 0, which});
    }
    num_masks_ += sets_.size();
    for (Column& column : columns_) column.points = {};
}

// V is what values are compared in. Floats are compared as floats in either precision, with points rounded down.
template <class T, class V>
void ConditionLayout::rank_tile(const T* x, std::size_t first, std::size_t rows, std::uint32_t* ranks) const {
    V values[kTileRows];
    std::size_t ready = features_.size();  // the feature in `values`
    for (const Column& column : columns_) {
        if (ready != column.feature) {
            const FeatureRules& rules = features_[column.feature];
            const T* given = x + rules.index;
            for (std::size_t r = 0; r < rows; ++r) values[r] = static_cast<V>(given[r * n_features_]);
            if (rules.any()) apply_rules(rules, first, std::span(values, rows), given, n_features_);
            ready = column.feature;
        }
        if constexpr (std::is_same_v<V, float>) {
            kernels_->rank32(values, rows, column.narrow.grid(), column.nan_rank, ranks);
        } else {
            kernels_->rank64(values, rows, column.wide.grid(), column.nan_rank, ranks);
        }
        ranks += kForestRows;
    }
}

template <class T>
void ConditionLayout::rank(const T* x, std::size_t first, std::size_t rows, std::uint32_t* ranks) const {
    for (std::size_t r = 0; r < rows; r += kTileRows) {
        const std::size_t count = std::min(kTileRows, rows - r);
        const T* tile = x + r * n_features_;
        if (std::is_same_v<T, float> || float32_) {
            rank_tile<T, float>(tile, first + r, count, ranks + r);
        } else {
            rank_tile<T, T>(tile, first + r, count, ranks + r);
        }
    }
}

template void ConditionLayout::rank(const float*, std::size_t, std::size_t, std::uint32_t*) const;
template void ConditionLayout::rank(const double*, std::size_t, std::size_t, std::uint32_t*) const;

void ConditionLayout::fill_masks(const std::uint32_t* ranks, MaskWords* masks) const {
    for (std::size_t word = 0; word < kMaskWords; ++word) {
        masks[kNoRows].words[word] = 0;
        masks[kAllRows].words[word] = ~std::uint64_t{0};
    }
    for (const Column& column : columns_) {
        kernels_->compare(ranks, column.size, masks[column.first_mask].words);
        ranks += kForestRows;
    }
    auto out = static_cast<std::uint32_t>(num_masks_ - sets_.size());
    for (const RankSet& set : sets_) kernels_->unite(set.runs.data(), set.runs.size(), word_of(out++), masks->words);
}

void for_blocks(std::size_t rows, std::size_t num_threads,
                const std::function<void(std::size_t first, std::size_t rows, std::size_t worker)>& body) {
    const std::size_t num_blocks = (rows + kForestRows - 1) / kForestRows;
    std::mutex mutex;
    std::size_t failed = num_blocks;
    std::exception_ptr error;
    try {
        parallel_for(num_blocks, num_threads, [&](std::size_t block, std::size_t worker) {
            const std::size_t first = block * kForestRows;
            try {
                body(first, std::min(kForestRows, rows - first), worker);
            } catch (...) {
                const std::lock_guard lock(mutex);
                if (block < failed) {  // blocks begin in order, so those before this one have begun and will end
                    failed = block;
                    error = std::current_exception();
                }
                throw;
            }
        });
    } catch (...) {
        if (error) std::rethrow_exception(error);
        throw;
    }
}

Conditions::Conditions(const ConditionArrays& arrays, const KernelTable& table)
    : layout_(std::make_unique<const ConditionLayout>(arrays, table)) {}

Conditions::~Conditions() = default;

std::size_t Conditions::n_features() const {
    return layout_->n_features();
}

std::size_t Conditions::size() const {
    return layout_->places().size();
}

template <class T>
void Conditions::encode(const T* x, std::size_t rows, std::int64_t* out, std::size_t num_threads) const {
    struct Scratch {
        std::vector<std::uint32_t> ranks;
        std::unique_ptr<MaskWords[]> masks;
        std::vector<std::uint64_t> words;
    };
    const std::size_t columns = layout_->columns().size(), n = size();
    const std::size_t threads =
        rows * std::max<std::size_t>(n, 1) < 20'000 ? 1 : std::clamp<std::size_t>(num_threads, 1, kMaxThreads);
    std::vector<Scratch> scratch(std::min(threads, rows / kForestRows + 1));
    for_blocks(rows, threads, [&](std::size_t first, std::size_t count, std::size_t worker) {
        Scratch& own = scratch[worker];
        if (!own.masks) {
            own.ranks.resize(columns * kForestRows);  // zeros: ranks of the rows that a short block lacks
            own.masks = std::make_unique_for_overwrite<MaskWords[]>(layout_->num_masks());
            own.words.resize(n);
        }
        layout_->rank(x + first * n_features(), first, count, own.ranks.data());
        layout_->fill_masks(own.ranks.data(), own.masks.get());
        for (std::size_t r = 0; r < count; r += 64) {
            for (std::size_t c = 0; c < n; ++c) own.words[c] = own.masks[layout_->places()[c].mask].words[r / 64];
            layout_->kernels().expand(own.words.data(), n, std::min<std::size_t>(64, count - r), out + (first + r) * n);
        }
    });
}

template void Conditions::encode(const float*, std::size_t, std::int64_t*, std::size_t) const;
template void Conditions::encode(const double*, std::size_t, std::int64_t*, std::size_t) const;

}  // namespace fhelearn
