#include "forest_plan.hpp"

#include <algorithm>
#include <bit>
#include <limits>
#include <map>
#include <stdexcept>
#include <string>

#include "array_checks.hpp"
#include "fhelearn/types.hpp"

namespace fhelearn {

namespace {

// Cycles, measured on a Zen 5 core with AVX-512; AVX2 moves the balance by less than a level of a tree.
constexpr double kCyclesPerSelect = 10;     // 512 rows
constexpr double kCyclesPerMask = 3;        // 512 rows
constexpr double kCyclesPerStep = 8;        // one row, one node of a walk
constexpr double kCyclesPerSearch = 3;      // one row, one column
constexpr double kCyclesPerNarrowLeaf = 1;  // one row, one column of values
constexpr double kCyclesPerLeaf = 8;

constexpr std::size_t kMostMasks = std::size_t{1} << 29;  // whose words 32 bits can name
constexpr std::size_t kMinEntries = 64;                   // of a table, for ForestKernels::add

std::string range(std::int64_t first, std::int64_t last) {
    return "in [" + std::to_string(first) + ", " + std::to_string(last) + "]";
}

void check_shapes(const ForestArrays& a) {
    const std::size_t n = a.condition.size();
    constexpr auto kMost = static_cast<std::size_t>(std::numeric_limits<std::int32_t>::max());
    if (n > kMost) fail("the number of nodes", static_cast<std::int64_t>(n), "at most " + std::to_string(kMost));
    if (a.width < 1) fail("width", a.width, "at least 1");
    if (a.tree_starts.empty()) {
        throw std::invalid_argument("tree_starts is empty, must have one entry per tree and the end");
    }
    const std::size_t n_trees = a.tree_starts.size() - 1;
    check_size("left", a.left.size(), n, "one per node");
    check_size("right", a.right.size(), n, "one per node");
    const auto width = static_cast<std::size_t>(a.width);
    if (a.value.size() % width != 0 || a.value.size() / width != n) {
        throw std::invalid_argument("value has " + std::to_string(a.value.size()) + " entries, must have width=" +
                                    std::to_string(a.width) + " for each of " + std::to_string(n) + " nodes");
    }
    check_size("first_output", a.first_output.size(), n_trees, "one per tree");
    // outputs that no tree adds to only cost memory: a few classes may have none
    constexpr std::size_t kFree = std::size_t{1} << 14;
    const auto most =
        static_cast<std::int64_t>(std::min(kMost, std::max(kFree, n_trees * static_cast<std::size_t>(a.width))));
    if (a.n_outputs < a.width || a.n_outputs > most) {
        fail("n_outputs", a.n_outputs,
             "at least the width of value, " + std::to_string(a.width) + ", and at most " + std::to_string(most));
    }
    for (std::size_t t = 0; t < n_trees; ++t) {
        if (a.first_output[t] < 0 || a.first_output[t] > a.n_outputs - a.width) {
            fail(entry("first_output", t), a.first_output[t], range(0, a.n_outputs - a.width));
        }
    }
    if (a.tree_starts.front() != 0) fail("tree_starts[0]", a.tree_starts.front(), "0");
    const auto end = static_cast<std::int64_t>(n);
    for (std::size_t t = 0; t < n_trees; ++t) {
        if (a.tree_starts[t + 1] <= a.tree_starts[t] || a.tree_starts[t + 1] > end) {
            fail(entry("tree_starts", t + 1), a.tree_starts[t + 1], range(a.tree_starts[t] + 1, end));
        }
    }
    if (a.tree_starts.back() != end) {
        fail(entry("tree_starts", n_trees), a.tree_starts.back(), "the number of nodes, " + std::to_string(end));
    }
}

// Children come after their parents, so there are no cycles, and have one parent, so there are no more paths than
// nodes.
void check_nodes(const ForestArrays& a, std::size_t n_conditions) {
    std::vector<bool> has_parent(a.condition.size());
    for (std::size_t t = 0; t + 1 < a.tree_starts.size(); ++t) {
        const std::int64_t end = a.tree_starts[t + 1];
        for (std::int64_t node = a.tree_starts[t]; node < end; ++node) {
            const auto i = static_cast<std::size_t>(node);
            if (a.condition[i] < -1 || a.condition[i] >= static_cast<std::int64_t>(n_conditions)) {
                fail(entry("condition", i), a.condition[i],
                     "-1 at a leaf, else " + range(0, static_cast<std::int64_t>(n_conditions) - 1));
            }
            if (a.condition[i] < 0) continue;
            for (const auto& [name, child] : {std::pair("left", a.left[i]), std::pair("right", a.right[i])}) {
                if (child <= node || child >= end) {
                    fail(entry(name, i), child, "a later node of its tree, " + range(node + 1, end - 1));
                }
                if (has_parent[static_cast<std::size_t>(child)]) {
                    fail(entry(name, i), child, "no other node's child");
                }
                has_parent[static_cast<std::size_t>(child)] = true;
            }
        }
    }
}

void check_sums(const ForestArrays& a) {
    const auto width = static_cast<std::size_t>(a.width);
    std::vector<Int128> bound(static_cast<std::size_t>(a.n_outputs));
    for (std::size_t t = 0; t + 1 < a.tree_starts.size(); ++t) {
        for (std::size_t c = 0; c < width; ++c) {
            Int128 most = 0;
            for (auto i = static_cast<std::size_t>(a.tree_starts[t]);
                 i < static_cast<std::size_t>(a.tree_starts[t + 1]); ++i) {
                const Int128 v = a.condition[i] < 0 ? a.value[i * width + c] : 0;
                most = std::max(most, v < 0 ? -v : v);
            }
            bound[static_cast<std::size_t>(a.first_output[t]) + c] += most;
        }
    }
    for (std::size_t o = 0; o < bound.size(); ++o) {
        if (bound[o] > std::numeric_limits<std::int64_t>::max()) {
            throw std::invalid_argument("value: the leaves of output " + std::to_string(o) + " may sum up to " +
                                        to_string(bound[o]) + ", must fit 64 bits");
        }
    }
}

std::size_t at(const std::vector<std::int64_t>& array, std::size_t i) {
    return static_cast<std::size_t>(array[i]);
}

// The masks that a tree's codes are made of. What a select needs is free once it is done: each mask has one reader.
class Slicer {
  public:
    Slicer(const ForestArrays& arrays, const ConditionLayout& layout, std::vector<MaskSelect>& selects)
        : arrays_(arrays), layout_(layout), selects_(selects), next_(static_cast<std::uint32_t>(layout.num_masks())) {}

    // Masks of the codes below the root of a tree, by bit. `codes` holds each leaf's number, or is empty: then a row's
    // code is the conditions on its way, by depth, and anything where the way is shorter.
    //
    // From the deepest nodes up, all of a depth in turn, so that selects that wait for each other lie far apart.
    Planes slice(const std::vector<std::size_t>& nodes, const std::map<std::size_t, std::uint32_t>& codes) {
        std::vector<Planes> planes(nodes.size());
        std::size_t child = nodes.size();
        for (std::size_t i = nodes.size(); i-- > 0;) {
            if (arrays_.condition[nodes[i]] < 0) {
                planes[i] = leaf(nodes[i], codes);
                continue;
            }
            child -= 2;
            const std::size_t shift = codes.empty() ? 1 : 0;
            if (shift) planes[i][0] = condition(nodes[i]);
            for (std::size_t b = shift; b < kMaxPlanes; ++b) {
                planes[i][b] = combine(nodes[i], planes[child][b - shift], planes[child + 1][b - shift]);
            }
        }
        return planes[0];
    }

    void release(std::uint32_t mask) {
        if (mask >= layout_.num_masks()) free_.push_back(mask);
    }

    std::uint32_t num_masks() const { return next_; }

  private:
    static constexpr std::uint32_t kAny = std::numeric_limits<std::uint32_t>::max();

    Planes leaf(std::size_t node, const std::map<std::size_t, std::uint32_t>& codes) const {
        Planes planes;
        planes.fill(kAny);
        if (codes.empty()) return planes;
        for (std::size_t b = 0; b < kMaxPlanes; ++b) planes[b] = (codes.at(node) >> b) & 1 ? kAllRows : kNoRows;
        return planes;
    }

    std::uint32_t condition(std::size_t node) const { return layout_.places()[at(arrays_.condition, node)].mask; }

    std::uint32_t combine(std::size_t node, std::uint32_t yes, std::uint32_t no) {
        if (yes == no || no == kAny) return yes;
        if (yes == kAny) return no;
        if (yes == kAllRows && no == kNoRows) return condition(node);
        release(yes);
        release(no);
        if (free_.empty()) free_.push_back(next_++);
        selects_.push_back({free_.back(), condition(node), yes, no});
        free_.pop_back();
        return selects_.back().out;
    }

    const ForestArrays& arrays_;
    const ConditionLayout& layout_;
    std::vector<MaskSelect>& selects_;
    std::vector<std::uint32_t> free_;
    std::uint32_t next_;
};

// The nodes below `root` level by level, the children of a node side by side.
std::vector<std::size_t> levels_of(const ForestArrays& arrays, std::size_t root) {
    std::vector<std::size_t> nodes = {root};
    for (std::size_t i = 0; i < nodes.size(); ++i) {
        const std::size_t node = nodes[i];
        if (arrays.condition[node] < 0) continue;
        nodes.push_back(at(arrays.left, node));
        nodes.push_back(at(arrays.right, node));
    }
    return nodes;
}

// Leaves below `root`, from left to right: neighbours get like codes, which saves selects.
std::vector<std::size_t> leaves_of(const ForestArrays& arrays, std::size_t root) {
    std::vector<std::size_t> leaves, stack = {root};
    while (!stack.empty()) {
        const std::size_t node = stack.back();
        stack.pop_back();
        if (arrays.condition[node] < 0) {
            leaves.push_back(node);
        } else {
            stack.insert(stack.end(), {at(arrays.right, node), at(arrays.left, node)});
        }
    }
    return leaves;
}

}  // namespace

ForestPlan::ForestPlan(const ForestArrays& arrays, const ConditionLayout& layout) {
    check_shapes(arrays);
    check_nodes(arrays, layout.places().size());
    check_sums(arrays);
    width = static_cast<std::size_t>(arrays.width);
    n_outputs = static_cast<std::size_t>(arrays.n_outputs);
    values = arrays.value;
    add_nodes(arrays, layout);
    add_trees(arrays);
    slice(arrays, layout);
    add_tables();
}

void ForestPlan::add_nodes(const ForestArrays& arrays, const ConditionLayout& layout) {
    for (std::size_t i = 0; i < arrays.condition.size(); ++i) {
        const auto self = static_cast<std::uint32_t>(i);
        if (arrays.condition[i] < 0) {
            nodes.push_back({0, 0, -1, {self, self}});
            continue;
        }
        const Place& place = layout.places()[at(arrays.condition, i)];
        nodes.push_back({place.column,
                         place.limit,
                         place.set,
                         {static_cast<std::uint32_t>(arrays.right[i]), static_cast<std::uint32_t>(arrays.left[i])}});
    }
}

void ForestPlan::add_trees(const ForestArrays& arrays) {
    std::vector<std::uint32_t> depth(nodes.size());
    for (std::size_t i = 0; i < nodes.size(); ++i) {
        if (nodes[i].next[0] != i) depth[nodes[i].next[0]] = depth[nodes[i].next[1]] = depth[i] + 1;
    }
    for (std::size_t t = 0; t + 1 < arrays.tree_starts.size(); ++t) {
        Tree tree;
        tree.root = static_cast<std::uint32_t>(arrays.tree_starts[t]);
        tree.first_output = at(arrays.first_output, t);
        const std::vector<std::size_t> leaves = leaves_of(arrays, tree.root);  // there may be nodes that no row reaches
        double steps = 0;
        for (std::size_t leaf : leaves) {
            tree.height = std::max(tree.height, depth[leaf]);
            steps += depth[leaf];
        }
        tree.num_leaves = leaves.size();
        tree.walk_cycles = kCyclesPerStep * (1 + steps / static_cast<double>(leaves.size()));
        trees.push_back(tree);
    }
}

// Slices every tree for which that is cheaper than a walk, if what they save pays for the masks.
void ForestPlan::slice(const ForestArrays& arrays, const ConditionLayout& layout) {
    Slicer slicer(arrays, layout, selects);
    double saved = 0;
    for (Tree& tree : trees) {
        const bool by_path = tree.height <= kCodeBits;
        if (!by_path && tree.num_leaves > std::size_t{1} << kMaxPlanes) continue;
        const std::vector<std::size_t> leaves = leaves_of(arrays, tree.root);
        std::map<std::size_t, std::uint32_t> numbers;
        for (std::size_t i = 0; !by_path && i < leaves.size(); ++i) numbers[leaves[i]] = static_cast<std::uint32_t>(i);
        tree.num_planes = by_path ? tree.height : static_cast<std::size_t>(std::bit_width(leaves.size() - 1));
        tree.first_select = selects.size();
        tree.planes = slicer.slice(levels_of(arrays, tree.root), numbers);
        tree.num_selects = selects.size() - tree.first_select;
        for (std::size_t b = 0; b < tree.num_planes; ++b) {
            slicer.release(tree.planes[b]);
            tree.planes[b] = word_of(tree.planes[b]);
        }
        const double cycles = kCyclesPerSelect * static_cast<double>(tree.num_selects) / kForestRows +
                              (by_path ? kCyclesPerNarrowLeaf : kCyclesPerLeaf) * static_cast<double>(width);
        if (cycles >= tree.walk_cycles) {
            selects.resize(tree.first_select);
            continue;
        }
        tree.sliced = true;
        saved += tree.walk_cycles - cycles;
        add_codes(tree, leaves);
    }
    for (MaskSelect& select : selects) {
        for (std::uint32_t* mask : {&select.out, &select.condition, &select.yes, &select.no}) *mask = word_of(*mask);
    }
    any_sliced = slicer.num_masks() < kMostMasks &&
                 saved > kCyclesPerMask * static_cast<double>(layout.num_masks()) / kForestRows;
    num_masks = slicer.num_masks();
    cycles_per_row = kCyclesPerSearch * static_cast<double>(layout.columns().size()) - (any_sliced ? saved : 0);
    for (Tree& tree : trees) {
        cycles_per_row += tree.walk_cycles;
        tree.sliced = tree.sliced && any_sliced;
    }
}

void ForestPlan::add_codes(Tree& tree, const std::vector<std::size_t>& leaves) {
    tree.first_code = leaf_of_code.size();
    for (std::size_t code = 0; code < std::size_t{1} << tree.num_planes; ++code) {
        std::size_t node = tree.root;
        if (tree.height <= kCodeBits) {
            for (std::size_t depth = 0; nodes[node].next[0] != node; ++depth) {
                node = nodes[node].next[(code >> depth) & 1];
            }
        } else {
            node = leaves[std::min(code, leaves.size() - 1)];
        }
        leaf_of_code.push_back(static_cast<std::uint32_t>(node));
    }
}

// Tables of the trees whose leaves have 16 bits, and when to empty the 16-bit sums.
void ForestPlan::add_tables() {
    constexpr std::int64_t kMost = std::numeric_limits<std::int16_t>::max();
    std::int64_t bound = 0;
    for (Tree& tree : trees) {
        if (!tree.sliced || tree.num_planes > kCodeBits) continue;
        const std::size_t codes = std::size_t{1} << tree.num_planes;
        const std::uint32_t* leaf = leaf_of_code.data() + tree.first_code;
        std::int64_t most = 0;
        for (std::size_t code = 0; code < codes; ++code) {
            for (std::size_t c = 0; c < width; ++c) {
                const std::int64_t v = values[leaf[code] * width + c];
                most = std::max(most, v < -kMost ? kMost + 1 : std::abs(v));
            }
        }
        tree.narrow = most <= kMost;
        if (!tree.narrow) continue;
        tree.flush_before = bound + most > kMost;
        bound = tree.flush_before ? most : bound + most;
        tree.table_size = std::max(codes, kMinEntries);
        tree.first_entry = table.size();
        for (std::size_t c = 0; c < width; ++c) {
            for (std::size_t code = 0; code < tree.table_size; ++code) {
                table.push_back(code < codes ? static_cast<std::int16_t>(values[leaf[code] * width + c]) : 0);
            }
        }
    }
}

}  // namespace fhelearn
