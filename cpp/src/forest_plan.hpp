// A forest as blocks of rows run through it: trees as selects on masks ("sliced"), or as nodes to walk.
//
// Sliced. The leaf of a row is a code of a few bits, and bit b of it is a mask over the rows of a block: a condition,
// or select(condition, bit b of the left subtree, bit b of the right one). A select treats 512 rows in a few cycles, so
// that a tree costs about as many of them as it has nodes. A walk costs as many steps as the tree is deep for each row:
// that is less for trees of thousands of leaves, of which a block of rows visits few.
#pragma once

#include <array>
#include <vector>

#include "conditions.hpp"

namespace fhelearn {

inline constexpr std::size_t kCodeBits = 8;    // per array of codes
inline constexpr std::size_t kMaxPlanes = 12;  // of a sliced tree

using Planes = std::array<std::uint32_t, kMaxPlanes>;

// An inner node; a leaf is its own child, so that a walk may go on.
struct WalkNode {
    std::uint32_t column;
    std::uint32_t limit;
    std::int32_t set;       // -1: rank <= limit decides
    std::uint32_t next[2];  // where the condition does not hold, and where it does: a load costs less than a branch
};

struct Tree {
    std::uint32_t root = 0;
    std::uint32_t height = 0;  // steps to the deepest leaf
    std::size_t num_leaves = 0;
    double walk_cycles = 0;  // per row
    std::size_t first_output = 0;
    std::size_t num_planes = 0;
    Planes planes{};
    std::size_t first_select = 0, num_selects = 0;
    std::size_t first_code = 0;   // in leaf_of_code
    std::size_t first_entry = 0;  // in table, if `narrow`
    std::size_t table_size = 0;   // entries per column
    bool sliced = false;
    bool narrow = false;        // 16-bit leaves, summed in 16 bits
    bool flush_before = false;  // the 16-bit sums might overflow with this tree
};

class ForestPlan {
  public:
    ForestPlan(const ForestArrays& arrays, const ConditionLayout& layout);

    std::size_t width, n_outputs;
    std::vector<Tree> trees;
    std::vector<WalkNode> nodes;
    std::vector<std::int64_t> values;         // (n_nodes, width)
    std::vector<MaskSelect> selects;          // of all trees
    std::vector<std::uint32_t> leaf_of_code;  // nodes
    std::vector<std::int16_t> table;          // per narrow tree (width, table_size)
    std::size_t num_masks;                    // of the arena: conditions, then what trees need one after the other
    bool any_sliced = false;
    double cycles_per_row = 0;

  private:
    void add_nodes(const ForestArrays& arrays, const ConditionLayout& layout);
    void add_trees(const ForestArrays& arrays);
    void slice(const ForestArrays& arrays, const ConditionLayout& layout);
    void add_codes(Tree& tree, const std::vector<std::size_t>& leaves);
    void add_tables();
};

}  // namespace fhelearn
