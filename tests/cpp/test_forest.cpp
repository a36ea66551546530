#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <stdexcept>

#include "check.hpp"
#include "fhelearn/forest.hpp"

namespace {

using fhelearn::ConditionArrays;
using fhelearn::Conditions;
using fhelearn::ForestArrays;
using fhelearn::ForestEngine;

using Ints = std::vector<std::int64_t>;
constexpr double kInfinity = std::numeric_limits<double>::infinity();

class Random {
  public:
    explicit Random(std::uint64_t seed) : engine_(seed) {}

    std::int64_t integer(std::int64_t lo, std::int64_t hi) {
        return std::uniform_int_distribution<std::int64_t>(lo, hi)(engine_);
    }
    bool chance(double p) { return std::bernoulli_distribution(p)(engine_); }
    double normal() { return std::normal_distribution<double>()(engine_); }

    template <class T>
    T pick(const std::vector<T>& values) {
        return values[static_cast<std::size_t>(integer(0, static_cast<std::int64_t>(values.size()) - 1))];
    }

  private:
    std::mt19937_64 engine_;
};

// ---- the meaning, word by word --------------------------------------------------------------------------------------

bool lists(const Ints& starts, const Ints& values, std::size_t list, double v) {
    return std::any_of(values.begin() + starts[list], values.begin() + starts[list + 1],
                       [&](std::int64_t member) { return static_cast<double>(member) == v; });
}

bool holds(const ConditionArrays& a, std::size_t condition, double v) {
    const auto feature = static_cast<std::size_t>(a.feature[condition]);
    if (a.float32) v = static_cast<float>(v);
    if (a.zero_is_missing[feature] && std::fabs(v) <= 1e-35F) v = NAN;
    if (a.has_known[feature] && !lists(a.known_start, a.known, feature, v)) v = NAN;
    if (std::isnan(v)) return a.nan_true[condition] != 0;
    if (a.categorical[condition]) return lists(a.category_start, a.categories, condition, v);
    return v <= a.threshold[condition];
}

template <class T>
std::size_t leaf_of(const ConditionArrays& a, const ForestArrays& forest, std::size_t tree, const T* row) {
    auto node = static_cast<std::size_t>(forest.tree_starts[tree]);
    while (forest.condition[node] >= 0) {
        const auto condition = static_cast<std::size_t>(forest.condition[node]);
        const bool yes = holds(a, condition, row[a.feature[condition]]);
        node = static_cast<std::size_t>(yes ? forest.left[node] : forest.right[node]);
    }
    return node;
}

// ---- random forests -------------------------------------------------------------------------------------------------

Ints random_categories(Random& random) {
    Ints categories;
    const bool runs = random.chance(0.5);
    for (std::int64_t c = 0; c < 30; ++c) {
        if (random.chance(runs ? 0.8 : 0.2)) categories.push_back(c);
    }
    if (random.chance(0.2)) categories.push_back(fhelearn::kMaxCategory - 1);
    return categories;
}

ConditionArrays random_conditions(Random& random, bool float32, std::size_t count) {
    ConditionArrays a;
    a.n_features = random.integer(1, 6);
    a.float32 = float32;
    std::vector<bool> categorical;
    a.known_start = {0};
    for (std::int64_t f = 0; f < a.n_features; ++f) {
        categorical.push_back(random.chance(0.3));
        a.zero_is_missing.push_back(random.chance(0.3));
        a.has_known.push_back(random.chance(0.3));
        if (a.has_known.back()) {
            const Ints known = random_categories(random);
            a.known.insert(a.known.end(), known.begin(), known.end());
        }
        a.known_start.push_back(static_cast<std::int64_t>(a.known.size()));
    }
    const std::vector<double> special = {kInfinity, -kInfinity, 0.0, -0.0, 1e-35F, 1e300, -1e300, 5e-324, -5e-324};
    a.category_start = {0};
    for (std::size_t i = 0; i < count; ++i) {
        a.feature.push_back(random.integer(0, a.n_features - 1));
        a.categorical.push_back(categorical[static_cast<std::size_t>(a.feature.back())] && random.chance(0.8));
        a.nan_true.push_back(random.chance(0.5));
        const double threshold = random.chance(0.1) ? random.pick(special) : random.normal();
        a.threshold.push_back(i > 0 && random.chance(0.2) ? a.threshold.back() : threshold);
        if (a.categorical.back()) {
            const Ints members = random_categories(random);
            a.categories.insert(a.categories.end(), members.begin(), members.end());
        }
        a.category_start.push_back(static_cast<std::int64_t>(a.categories.size()));
    }
    return a;
}

// Trees from bushes to chains of `height`, values of at most `most` in magnitude.
ForestArrays random_forest(Random& random, std::size_t n_conditions, std::int64_t n_trees, std::int64_t height,
                           std::int64_t width, std::int64_t most) {
    ForestArrays forest;
    forest.width = width;
    forest.n_outputs = width + random.integer(0, 2);
    forest.tree_starts = {0};
    for (std::int64_t t = 0; t < n_trees; ++t) {
        Ints levels = {random.integer(0, height)};  // that a node may have below it
        const double bushy = random.chance(0.5) ? 0.9 : 0.1;
        const std::int64_t root = forest.tree_starts.back();
        for (std::size_t i = 0; i < levels.size(); ++i) {
            const bool inner = levels[i] > 0 && levels.size() < 700 && n_conditions > 0;
            forest.condition.push_back(inner ? random.integer(0, static_cast<std::int64_t>(n_conditions) - 1) : -1);
            std::int64_t children[2] = {-1, -1};
            const bool long_side = random.chance(0.5);
            for (std::size_t side = 0; inner && side < 2; ++side) {
                children[side] = root + static_cast<std::int64_t>(levels.size());
                levels.push_back(side == std::size_t{long_side} || random.chance(bushy) ? levels[i] - 1 : 0);
            }
            forest.left.push_back(children[0]);
            forest.right.push_back(children[1]);
            for (std::int64_t c = 0; c < width; ++c) forest.value.push_back(random.integer(-most, most));
        }
        forest.tree_starts.push_back(root + static_cast<std::int64_t>(levels.size()));
        forest.first_output.push_back(random.integer(0, forest.n_outputs - width));
    }
    return forest;
}

// Values on, next to and far from thresholds; integers and NaN for features that some condition takes for categorical.
template <class T>
std::vector<T> random_rows(Random& random, const ConditionArrays& a, std::size_t rows) {
    const auto features = static_cast<std::size_t>(a.n_features);
    std::vector<bool> categorical(features);
    for (std::size_t i = 0; i < a.feature.size(); ++i) {
        if (a.categorical[i]) categorical[static_cast<std::size_t>(a.feature[i])] = true;
    }
    constexpr T kEnd = std::numeric_limits<T>::infinity();
    const std::vector<T> special = {NAN,
                                    kEnd,
                                    -kEnd,
                                    T{0},
                                    -T{0},
                                    static_cast<T>(1e-36),
                                    static_cast<T>(1e300),
                                    static_cast<T>(-1e300),
                                    std::numeric_limits<T>::denorm_min()};
    std::vector<T> x(rows * features);
    for (std::size_t i = 0; i < x.size(); ++i) {
        if (categorical[i % features]) {
            x[i] = random.chance(0.1) ? static_cast<T>(NAN) : static_cast<T>(random.integer(-2, 32));
            if (random.chance(0.05)) x[i] = static_cast<T>(fhelearn::kMaxCategory - random.integer(0, 2));
            continue;
        }
        const T on = a.threshold.empty() ? T{0} : static_cast<T>(random.pick(a.threshold));
        const T values[] = {on,
                            std::nextafter(on, kEnd),
                            std::nextafter(on, -kEnd),
                            random.pick(special),
                            static_cast<T>(random.normal()),
                            static_cast<T>(random.integer(0, 30))};
        x[i] = values[random.integer(0, 5)];
    }
    return x;
}

template <class T>
void check_rows(const ConditionArrays& a, const ForestArrays& forest, Random& random, std::size_t rows) {
    const std::vector<T> x = random_rows<T>(random, a, rows);
    const auto features = static_cast<std::size_t>(a.n_features), n = a.feature.size();
    const auto outputs = static_cast<std::size_t>(forest.n_outputs), width = static_cast<std::size_t>(forest.width);
    const std::size_t trees = forest.first_output.size();
    Ints bits(rows * n), sums(rows * outputs);
    std::vector<std::int32_t> leaves(rows * trees);
    for (std::size_t r = 0; r < rows; ++r) {
        const T* row = x.data() + r * features;
        for (std::size_t i = 0; i < n; ++i) bits[r * n + i] = holds(a, i, row[a.feature[i]]);
        for (std::size_t t = 0; t < trees; ++t) {
            const std::size_t leaf = leaf_of(a, forest, t, row);
            leaves[r * trees + t] = static_cast<std::int32_t>(leaf - static_cast<std::size_t>(forest.tree_starts[t]));
            std::int64_t* sum = sums.data() + r * outputs + forest.first_output[t];
            for (std::size_t c = 0; c < width; ++c) sum[c] += forest.value[leaf * width + c];
        }
    }
    for (const auto& table : fhelearn::supported_kernels()) {
        const auto conditions = std::make_shared<const Conditions>(a, table);
        const ForestEngine engine(conditions, forest);
        for (std::size_t threads : {1, 3}) {
            Ints got_bits(bits.size(), -7), got_sums(sums.size(), -7);
            std::vector<std::int32_t> got_leaves(leaves.size(), -7);
            conditions->encode(x.data(), rows, got_bits.data(), threads);
            engine.run(x.data(), rows, got_sums.data(), threads);
            engine.apply(x.data(), rows, got_leaves.data(), threads);
            CHECK(got_bits == bits);
            CHECK(got_leaves == leaves);
            CHECK(got_sums == sums);
        }
    }
}

void check_forest(std::uint64_t seed, bool float32, std::size_t n_conditions, std::int64_t height, std::int64_t width,
                  std::int64_t most, std::size_t rows) {
    Random random(seed);
    const ConditionArrays a = random_conditions(random, float32, n_conditions);
    const ForestArrays forest = random_forest(random, n_conditions, 9, height, width, most);
    check_rows<float>(a, forest, random, rows);
    check_rows<double>(a, forest, random, rows);
}

// One condition on each of two features, a category list on the second, and a tree of three leaves.
ConditionArrays small_conditions() {
    ConditionArrays a;
    a.n_features = 2;
    a.feature = {0, 1};
    a.threshold = {0.5, 0.0};
    a.categorical = {0, 1};
    a.nan_true = {0, 0};
    a.category_start = {0, 0, 2};
    a.categories = {3, 5};
    a.zero_is_missing = a.has_known = {0, 0};
    a.known_start = {0, 0, 0};
    return a;
}

ForestArrays small_forest() {
    ForestArrays forest;
    forest.tree_starts = {0, 5};
    forest.condition = {0, -1, 1, -1, -1};
    forest.left = {1, -1, 3, -1, -1};
    forest.right = {2, -1, 4, -1, -1};
    forest.value = {0, 10, 0, 20, 30};
    forest.first_output = {0};
    return forest;
}

template <class Change>
std::string conditions_message(const Change& change) {
    ConditionArrays a = small_conditions();
    change(a);
    return check::message<std::invalid_argument>(__FILE__, __LINE__, [&] { Conditions(a, fhelearn::kernels()); });
}

template <class Change>
std::string forest_message(const Change& change) {
    ForestArrays forest = small_forest();
    change(forest);
    const auto conditions = std::make_shared<const Conditions>(small_conditions(), fhelearn::kernels());
    return check::message<std::invalid_argument>(__FILE__, __LINE__, [&] { ForestEngine(conditions, forest); });
}

bool contains(const std::string& text, const char* part) {
    if (text.find(part) != std::string::npos) return true;
    std::fprintf(stderr, "message: %s\n", text.c_str());
    return false;
}

}  // namespace

TEST("forests of every height equal the walk by the book") {
    std::uint64_t seed = 0;
    for (std::int64_t height : {0, 1, 2, 5, 6, 7, 8, 9, 11, 14, 40}) {
        for (std::int64_t width : {1, 3}) {
            for (std::size_t n_conditions : {3, 40, 500}) {
                check_forest(seed, seed % 2 == 0, n_conditions, height, width, 127, 37);
                ++seed;
            }
        }
    }
}

TEST("batches of every size around the block equal the walk by the book") {
    std::uint64_t seed = 1000;
    for (std::size_t rows : {0, 1, 2, 15, 16, 255, 256, 257, 511, 512, 513, 5000}) {
        check_forest(seed, seed % 2 == 0, 60, 8, 1, 127, rows);
        ++seed;
    }
}

TEST("leaves of any size are summed exactly") {
    std::uint64_t seed = 2000;
    for (std::int64_t most : {std::int64_t{1}, std::int64_t{20000}, std::int64_t{32767}, std::int64_t{32768},
                              std::int64_t{1} << 40, INT64_MAX / 9}) {
        check_forest(seed, true, 30, 6, 2, most, 600);
        ++seed;
    }
}

TEST("features with thousands of thresholds are searched exactly") {
    for (std::size_t n_conditions : {15, 16, 17, 255, 256, 257, 4500}) {
        check_forest(3000 + n_conditions, n_conditions % 2 == 0, n_conditions, 6, 1, 127, 64);
    }
}

TEST("no trees, no conditions and no features are forests too") {
    ConditionArrays a;
    a.category_start = a.known_start = {0};
    const auto conditions = std::make_shared<const Conditions>(a, fhelearn::kernels());
    ForestArrays forest;
    forest.tree_starts = {0};
    Ints out(3, -7);
    ForestEngine(conditions, forest).run(static_cast<const float*>(nullptr), 3, out.data(), 2);
    CHECK((out == Ints{0, 0, 0}));
    forest.tree_starts = {0, 1};
    forest.condition = forest.left = forest.right = {-1};
    forest.value = {-5};
    forest.first_output = {0};
    ForestEngine(conditions, forest).run(static_cast<const double*>(nullptr), 3, out.data(), 2);
    CHECK((out == Ints{-5, -5, -5}));
}

TEST("nodes that no row reaches change nothing") {
    const auto conditions = std::make_shared<const Conditions>(small_conditions(), fhelearn::kernels());
    ForestArrays forest = small_forest();
    for (std::int64_t i = 5; i < 65; i += 2) {  // a chain without a parent, taller than the tree
        forest.condition.insert(forest.condition.end(), {0, -1});
        forest.left.insert(forest.left.end(), {i + 1, -1});
        forest.right.insert(forest.right.end(), {i + 2, -1});
        forest.value.insert(forest.value.end(), {0, 99});
    }
    forest.condition.push_back(-1);
    forest.left.push_back(-1);
    forest.right.push_back(-1);
    forest.value.push_back(99);
    forest.tree_starts = {0, 66};
    const std::vector<double> row = {0.75, 5.0};
    for (std::size_t rows : {1, 100}) {
        std::vector<double> x;
        for (std::size_t r = 0; r < rows; ++r) x.insert(x.end(), row.begin(), row.end());
        Ints out(rows);
        ForestEngine(conditions, forest).run(x.data(), rows, out.data(), 1);
        CHECK(out == Ints(rows, 20));
    }
}

TEST("a category that is no integer is named, the first block's first") {
    const auto conditions = std::make_shared<const Conditions>(small_conditions(), fhelearn::kernels());
    const ForestEngine engine(conditions, small_forest());
    std::vector<float> x(2 * 4000, 3.0F);
    Ints out(2 * 4000);
    x[2 * 3999 + 1] = 1.5F;
    x[2 * 700 + 1] = -2.25F;
    x[2 * 100] = 0.25F;  // numerical
    for (std::size_t threads : {1, 3}) {
        CHECK_THROWS(std::invalid_argument, "x: row 700, feature 1 is -2.25",
                     engine.run(x.data(), 4000, out.data(), threads));
        CHECK_THROWS(std::invalid_argument, "categories must be integers",
                     conditions->encode(x.data(), 4000, out.data(), threads));
    }
    x[2 * 100 + 1] = std::numeric_limits<float>::infinity();
    CHECK_THROWS(std::invalid_argument, "row 100, feature 1 is inf", engine.run(x.data(), 4000, out.data(), 3));
}

TEST("hostile conditions are refused by name") {
    using A = ConditionArrays;
    CHECK(contains(conditions_message([](A& a) { a.n_features = -1; }), "n_features is -1"));
    CHECK(contains(conditions_message([](A& a) { a.feature[1] = 2; }), "feature[1] is 2, must be in [0, 2)"));
    CHECK(contains(conditions_message([](A& a) { a.feature[0] = -1; }), "feature[0] is -1"));
    CHECK(contains(conditions_message([](A& a) { a.threshold[0] = NAN; }), "threshold[0] is NaN"));
    CHECK(contains(conditions_message([](A& a) { a.threshold.pop_back(); }), "threshold has 1 entries, must have 2"));
    CHECK(contains(conditions_message([](A& a) { a.nan_true.clear(); }), "nan_true has 0 entries"));
    CHECK(contains(conditions_message([](A& a) { a.category_start = {0, 0}; }), "category_start has 2 entries"));
    CHECK(contains(conditions_message([](A& a) { a.category_start = {0, 3, 2}; }), "category_start[1] is 3"));
    CHECK(contains(conditions_message([](A& a) { a.category_start = {0, 0, 1}; }), "category_start[2] is 1"));
    CHECK(contains(conditions_message([](A& a) { a.category_start = {0, -1, 2}; }), "category_start[1] is -1"));
    CHECK(contains(conditions_message([](A& a) { a.category_start = {1, 1, 2}; }), "category_start[0] is 1"));
    CHECK(contains(conditions_message([](A& a) { a.categories = {5, 5}; }), "categories[1] is 5, must be greater"));
    CHECK(contains(conditions_message([](A& a) { a.categories = {-1, 5}; }), "categories[0] is -1"));
    CHECK(contains(conditions_message([](A& a) { a.categories[1] = fhelearn::kMaxCategory; }), "in [0, 2**24)"));
    CHECK(contains(conditions_message([](A& a) { a.zero_is_missing.push_back(1); }), "zero_is_missing has 3 entries"));
    CHECK(contains(conditions_message([](A& a) { a.known_start = {0, 1, 1}; }), "known_start[2] is 1"));
}

TEST("hostile trees are refused by name") {
    using F = ForestArrays;
    CHECK(contains(forest_message([](F& f) { f.condition[0] = 2; }), "condition[0] is 2, must be -1 at a leaf"));
    CHECK(contains(forest_message([](F& f) { f.condition[2] = -2; }), "condition[2] is -2"));
    CHECK(contains(forest_message([](F& f) { f.left[0] = 0; }), "left[0] is 0, must be a later node of its tree"));
    CHECK(contains(forest_message([](F& f) { f.right[2] = 1; }), "right[2] is 1, must be a later node"));
    CHECK(contains(forest_message([](F& f) { f.right[2] = 5; }), "right[2] is 5"));
    CHECK(contains(forest_message([](F& f) { f.left[2] = -1; }), "left[2] is -1"));
    CHECK(contains(forest_message([](F& f) { f.right[2] = 3; }), "right[2] is 3, must be no other node's child"));
    CHECK(contains(forest_message([](F& f) { f.left.pop_back(); }), "left has 4 entries, must have 5"));
    CHECK(contains(forest_message([](F& f) { f.value.pop_back(); }), "value has 4 entries, must have width=1"));
    CHECK(contains(forest_message([](F& f) { f.width = 0; }), "width is 0"));
    CHECK(contains(forest_message([](F& f) { f.width = INT64_MAX; }), "value has 5 entries"));
    CHECK(contains(forest_message([](F& f) { f.n_outputs = 0; }), "n_outputs is 0"));
    CHECK(contains(forest_message([](F& f) { f.first_output = {1}; }), "first_output[0] is 1, must be in [0, 0]"));
    CHECK(contains(forest_message([](F& f) { f.first_output = {}; }), "first_output has 0 entries"));
    CHECK(contains(forest_message([](F& f) { f.tree_starts = {}; }), "tree_starts is empty"));
    CHECK(contains(forest_message([](F& f) { f.tree_starts = {0, 4}; }), "tree_starts[1] is 4, must be the number"));
    CHECK(contains(forest_message([](F& f) { f.tree_starts = {0, 6}; }), "tree_starts[1] is 6"));
    CHECK(contains(forest_message([](F& f) { f.tree_starts = {1, 5}; }), "tree_starts[0] is 1"));
    CHECK(contains(forest_message([](F& f) {
                       f.tree_starts = {0, 0, 5};
                       f.first_output = {0, 0};
                   }),
                   "tree_starts[1] is 0"));
    CHECK(contains(forest_message([](F& f) { f.value[1] = INT64_MIN; }), "may sum up to 9223372036854775808"));
}
