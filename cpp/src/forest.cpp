#include <algorithm>

#include "fhelearn/parallel.hpp"
#include "forest_plan.hpp"

namespace fhelearn {

namespace {

// Fewer rows than this are walked: a block of masks costs the same for one row as for 512.
constexpr std::size_t kMinSlicedRows = 16;

// Rows that walk side by side, which hides the latency of loads.
constexpr std::size_t kAbreast = 16;

// Memory of one thread.
struct Scratch {
    std::vector<std::uint32_t> ranks;    // (columns, kForestRows)
    std::unique_ptr<MaskWords[]> masks;  // made when first needed
    std::vector<std::int16_t> sums;      // (n_outputs, kForestRows)
    std::vector<std::int64_t> totals;    // (n_outputs, kForestRows)
    std::uint8_t codes[2][kForestRows] = {};
};

bool is_member(const RankSet& set, std::uint32_t rank) {
    return ((std::lower_bound(set.bounds.begin(), set.bounds.end(), rank) - set.bounds.begin()) & 1) != 0;
}

// One block of rows of a forest on its way through the trees.
class Block {
  public:
    Block(const ForestPlan& plan, const ConditionLayout& layout, Scratch& scratch, std::size_t rows)
        : plan_(plan), layout_(layout), kernels_(layout.kernels()), scratch_(scratch), rows_(rows) {
        sliced_ = plan.any_sliced && rows >= kMinSlicedRows;
    }

    // Ranks of the rows, and masks if some tree needs them.
    template <class T>
    void start(const T* x, std::size_t first) {
        if (scratch_.ranks.empty()) scratch_.ranks.resize(layout_.columns().size() * kForestRows);
        layout_.rank(x + first * layout_.n_features(), first, rows_, scratch_.ranks.data());
        if (!sliced_) return;
        if (!scratch_.masks) scratch_.masks = std::make_unique_for_overwrite<MaskWords[]>(plan_.num_masks);
        layout_.fill_masks(scratch_.ranks.data(), scratch_.masks.get());
    }

    // out (rows, n_outputs)
    void sum(std::int64_t* out) {
        const std::size_t size = plan_.n_outputs * kForestRows;
        scratch_.totals.assign(size, 0);
        if (sliced_) scratch_.sums.assign(size, 0);
        for (const Tree& tree : plan_.trees) {
            if (!sliced_ || !tree.sliced) {
                walk(tree, [&](std::size_t row, std::uint32_t leaf) { add_leaf(tree, row, leaf); });
                continue;
            }
            select(tree);
            if (tree.narrow) {
                add_narrow(tree);
            } else {
                for_codes(tree, [&](std::size_t row, std::uint32_t leaf) { add_leaf(tree, row, leaf); });
            }
        }
        if (sliced_) flush();
        for (std::size_t r = 0; r < rows_; ++r) {
            for (std::size_t o = 0; o < plan_.n_outputs; ++o) *out++ = scratch_.totals[o * kForestRows + r];
        }
    }

    // out (rows, n_trees)
    void leaves(std::int32_t* out) {
        const std::size_t n_trees = plan_.trees.size();
        for (std::size_t t = 0; t < n_trees; ++t) {
            const Tree& tree = plan_.trees[t];
            const auto put = [&](std::size_t row, std::uint32_t leaf) {
                out[row * n_trees + t] = static_cast<std::int32_t>(leaf - tree.root);
            };
            if (sliced_ && tree.sliced) {
                select(tree);
                for_codes(tree, put);
            } else {
                walk(tree, put);
            }
        }
    }

  private:
    std::uint64_t* arena() { return scratch_.masks[0].words; }

    void add_leaf(const Tree& tree, std::size_t row, std::uint32_t leaf) {
        const std::int64_t* value = plan_.values.data() + leaf * plan_.width;
        std::int64_t* total = scratch_.totals.data() + tree.first_output * kForestRows + row;
        for (std::size_t c = 0; c < plan_.width; ++c) total[c * kForestRows] += value[c];
    }

    void select(const Tree& tree) {
        kernels_.select(plan_.selects.data() + tree.first_select, tree.num_selects, arena());
    }

    void add_narrow(const Tree& tree) {
        if (tree.flush_before) flush();
        for (std::size_t c = 0; c < plan_.width; ++c) {
            kernels_.add(tree.planes.data(), tree.num_planes, arena(),
                         plan_.table.data() + tree.first_entry + c * tree.table_size,
                         scratch_.sums.data() + (tree.first_output + c) * kForestRows);
        }
    }

    void flush() {
        for (std::size_t o = 0; o < plan_.n_outputs; ++o) {
            kernels_.flush(scratch_.sums.data() + o * kForestRows, scratch_.totals.data() + o * kForestRows);
        }
    }

    // visit(row, leaf) for all rows, after select().
    template <class Visit>
    void for_codes(const Tree& tree, const Visit& visit) {
        const std::size_t low = std::min(tree.num_planes, kCodeBits);
        kernels_.codes(tree.planes.data(), low, arena(), scratch_.codes[0]);
        kernels_.codes(tree.planes.data() + low, tree.num_planes - low, arena(), scratch_.codes[1]);
        const std::uint32_t* leaf = plan_.leaf_of_code.data() + tree.first_code;
        for (std::size_t r = 0; r < rows_; ++r) {
            visit(r, leaf[scratch_.codes[0][r] + (std::size_t{scratch_.codes[1][r]} << kCodeBits)]);
        }
    }

    template <class Visit>
    void walk(const Tree& tree, const Visit& visit) {
        for (std::size_t first = 0; first < rows_; first += kAbreast) {
            const std::size_t count = std::min(kAbreast, rows_ - first);
            std::uint32_t at[kAbreast];
            std::fill_n(at, kAbreast, tree.root);
            bool moved = tree.height > 0;
            while (moved) {
                moved = false;
                for (std::size_t i = 0; i < count; ++i) {
                    const WalkNode& node = plan_.nodes[at[i]];
                    const std::uint32_t rank = scratch_.ranks[std::size_t{node.column} * kForestRows + first + i];
                    const bool holds = node.set < 0
                                           ? rank <= node.limit
                                           : is_member(layout_.sets()[static_cast<std::size_t>(node.set)], rank);
                    const std::uint32_t next = node.next[holds];
                    moved |= next != at[i];
                    at[i] = next;
                }
            }
            for (std::size_t i = 0; i < count; ++i) visit(first + i, at[i]);
        }
    }

    const ForestPlan& plan_;
    const ConditionLayout& layout_;
    const ForestKernels& kernels_;
    Scratch& scratch_;
    std::size_t rows_;
    bool sliced_;
};

template <class T, class Finish>
void for_forest_blocks(const ForestPlan& plan, const ConditionLayout& layout, const T* x, std::size_t rows,
                       std::size_t num_threads, const Finish& finish) {
    constexpr double kSerialCycles = 150'000;  // below, waking a thread costs more than it brings
    const bool serial = plan.cycles_per_row * static_cast<double>(rows) < kSerialCycles;
    const std::size_t threads = serial ? 1 : std::clamp<std::size_t>(num_threads, 1, kMaxThreads);
    std::vector<Scratch> scratch(std::min(threads, rows / kForestRows + 1));
    for_blocks(rows, threads, [&](std::size_t first, std::size_t count, std::size_t worker) {
        Block block(plan, layout, scratch[worker], count);
        block.start(x, first);
        finish(block, first);
    });
}

}  // namespace

ForestEngine::ForestEngine(std::shared_ptr<const Conditions> conditions, const ForestArrays& arrays)
    : conditions_(std::move(conditions)), plan_(std::make_unique<const ForestPlan>(arrays, conditions_->layout())) {}

ForestEngine::~ForestEngine() = default;

std::size_t ForestEngine::n_features() const {
    return conditions_->n_features();
}

std::size_t ForestEngine::n_trees() const {
    return plan_->trees.size();
}

std::size_t ForestEngine::n_outputs() const {
    return plan_->n_outputs;
}

template <class T>
void ForestEngine::run(const T* x, std::size_t rows, std::int64_t* out, std::size_t num_threads) const {
    for_forest_blocks(*plan_, conditions_->layout(), x, rows, num_threads,
                      [&](Block& block, std::size_t first) { block.sum(out + first * n_outputs()); });
}

template <class T>
void ForestEngine::apply(const T* x, std::size_t rows, std::int32_t* out, std::size_t num_threads) const {
    for_forest_blocks(*plan_, conditions_->layout(), x, rows, num_threads,
                      [&](Block& block, std::size_t first) { block.leaves(out + first * n_trees()); });
}

template void ForestEngine::run(const float*, std::size_t, std::int64_t*, std::size_t) const;
template void ForestEngine::run(const double*, std::size_t, std::int64_t*, std::size_t) const;
template void ForestEngine::apply(const float*, std::size_t, std::int32_t*, std::size_t) const;
template void ForestEngine::apply(const double*, std::size_t, std::int32_t*, std::size_t) const;

}  // namespace fhelearn
