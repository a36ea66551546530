#include "plan.hpp"

#include <algorithm>
#include <functional>
#include <iterator>
#include <queue>
#include <set>

#include "decode.hpp"
#include "steps.hpp"

namespace fhelearn {

namespace {

Range entries_of(const IntArray& array) {
    const auto [least, greatest] = std::minmax_element(array.data.begin(), array.data.end());
    return {*least, *greatest};
}

Range hull(Range a, Range b) {
    return {std::min(a.lo, b.lo), std::max(a.hi, b.hi)};
}

// Memory from 0 to end(), parts of which are free: every operation takes logarithmic time.
class GapList {
  public:
    std::size_t end() const { return end_; }

    // The offset of the smallest gap of `bytes`, the lowest of equal ones; without one, memory at the end grows.
    std::size_t take(std::size_t bytes) {
        const auto found = by_size_.lower_bound({bytes, 0});
        if (found != by_size_.end()) {
            const auto [size, offset] = *found;
            erase(by_offset_.find(offset));
            if (size > bytes) insert(offset + bytes, size - bytes);
            return offset;
        }
        std::size_t offset = end_;
        if (!by_offset_.empty()) {
            const auto last = std::prev(by_offset_.end());
            if (last->first + last->second == end_) {
                offset = last->first;
                erase(last);
            }
        }
        end_ = offset + bytes;
        return offset;
    }

    // Memory that nothing had before.
    std::size_t take_fresh(std::size_t bytes) {
        end_ += bytes;
        return end_ - bytes;
    }

    void give_back(std::size_t offset, std::size_t bytes) {
        const auto after = by_offset_.lower_bound(offset);
        if (after != by_offset_.begin()) {
            const auto before = std::prev(after);
            if (before->first + before->second == offset) {
                offset = before->first;
                bytes += before->second;
                erase(before);
            }
        }
        if (after != by_offset_.end() && after->first == offset + bytes) {
            bytes += after->second;
            erase(after);
        }
        insert(offset, bytes);
    }

  private:
    using Gaps = std::map<std::size_t, std::size_t>;

    void insert(std::size_t offset, std::size_t size) {
        by_offset_.emplace(offset, size);
        by_size_.emplace(size, offset);
    }

    void erase(Gaps::const_iterator gap) {
        by_size_.erase({gap->second, gap->first});
        by_offset_.erase(gap);
    }

    Gaps by_offset_;  // sizes
    std::set<std::pair<std::size_t, std::size_t>> by_size_;
    std::size_t end_ = 0;
};

// What is fused: an add_constant into the matmul before it, whose accumulators start at the constants. A lookup is a
// step of its own, from one buffer of a block to another: a block's buffers stay in the L2 cache, so a fused lookup
// would save a store and a load per element but need a kernel for each pair of accumulator and entry type. On (256
// features) x (256, 256) in 8 bits, one thread of an AVX2 server, the lookup step is 0.11 of 1.96 us per row, all it
// could save.
class Planner {
  public:
    Planner(const Program& program, const KernelTable& table, bool wide)
        : program_(program), table_(table), wide_(wide), value_(program.nodes.size()), users_(program.nodes.size()) {
        for (const Node& node : program.nodes) {
            for (std::size_t operand : node.operands) users_[operand].push_back(node.index);
        }
        for (std::size_t output : program.outputs) returned_.insert(output);
    }

    Plan plan() {
        for (std::size_t i = 0; i < program_.inputs.size(); ++i)
            load(i);  // first: bad inputs are reported before all else
        for (const Node& node : program_.nodes) {
            if (node.op == Op::kInput || becomes_bias(node)) continue;
            value_[node.index] = emit_node(node);
            if (node.declared()) check(node);
        }
        for (std::size_t i = 0; i < program_.outputs.size(); ++i) store(i);
        place_slots();
        return std::move(plan_);
    }

  private:
    std::size_t new_slot(ScalarType type, std::size_t size) {
        plan_.slots.push_back({.type = type, .size = size, .first = plan_.steps.size(), .last = plan_.steps.size()});
        return plan_.slots.size() - 1;
    }

    // Appends a step and extends the lives of the slots that it touches.
    void emit(StepPointer step, std::initializer_list<std::size_t> slots, double nanoseconds) {
        for (std::size_t slot : slots) plan_.slots[slot].last = plan_.steps.size();
        plan_.steps.push_back(std::move(step));
        plan_.nanoseconds_per_row += nanoseconds;
    }

    const Node& operand(const Node& node, std::size_t i = 0) const { return program_.nodes[node.operands[i]]; }
    ScalarType type_of(std::size_t slot) const { return plan_.slots[slot].type; }
    ScalarType storage(Range range) const { return wide_ ? ScalarType::kI64 : narrowest(range); }

    // The slot that holds a node's value as `type`, converting once.
    std::size_t value_as(std::size_t node, ScalarType type) {
        const std::size_t slot = value_[node];
        if (type_of(slot) == type) return slot;
        const auto [known, fresh] = converted_.try_emplace({slot, type});
        if (fresh) {
            known->second = new_slot(type, plan_.slots[slot].size);
            emit(make_convert({slot, known->second}, type_of(slot), type, table_), {slot, known->second},
                 0.1 * static_cast<double>(plan_.slots[slot].size));
        }
        return known->second;
    }

    // 32 bits if nothing on the way to the result leaves them, else 64.
    ScalarType accumulator(const Node& node) const {
        const ScalarType narrow = ScalarType::kI32;
        bool fit = !wide_ && fits(node.stored, narrow) && fits(Range{0, node.partial_sums}, narrow) && node.lsbs < 31;
        for (std::size_t i = 0; i < node.operands.size(); ++i) fit = fit && fits(operand(node, i).range(), narrow);
        if (node.op == Op::kConv || node.op == Op::kAddConstant || node.op == Op::kMultiplyConstant) {
            fit = fit && fits(entries_of(node.array), narrow);
        }
        return fit ? narrow : ScalarType::kI64;
    }

    // The value of a matmul that only an add_constant reads, which then starts its accumulators.
    bool becomes_bias(const Node& node) const {
        if (wide_ || node.op != Op::kMatmul || node.declared() || returned_.contains(node.index)) return false;
        if (users_[node.index].size() != 1) return false;
        const Node& user = program_.nodes[users_[node.index][0]];
        if (user.op != Op::kAddConstant) return false;
        const Shape& shape = user.array.shape;  // one row of constants
        return shape.empty() ||
               std::all_of(shape.begin(), shape.end() - 1, [](std::int64_t extent) { return extent == 1; });
    }

    struct Product {
        const MatmulKernel* kernel;
        std::vector<std::int64_t> bias;
    };

    // How to multiply for `matmul`, whose value or, with a bias, whose user's value is `result`.
    Product product(const Node& matmul, const Node& result) const {
        if (wide_) return {&table_.matmul.back(), {}};
        std::vector<std::int64_t> bias;
        Int128 partial_sums = matmul.partial_sums;
        if (result.index != matmul.index) {
            const auto m = static_cast<std::size_t>(matmul.shape.back());
            for (std::size_t j = 0; j < m; ++j)
                bias.push_back(result.array.data[result.array.data.size() == 1 ? 0 : j]);
            const Range entries = entries_of(result.array);
            partial_sums += std::max(Int128{entries.hi}, -Int128{entries.lo});
        }
        const bool fit = partial_sums <= range_of(ScalarType::kI32).hi;
        return {&choose_matmul(table_, operand(matmul).range(), entries_of(matmul.array), fit), std::move(bias)};
    }

    // The type in which the only reader of a value wants it, if it is one that can hold the value's `range`.
    ScalarType preferred(const Node& node, Range range) const {
        const ScalarType type = storage(range);
        if (wide_ || users_[node.index].size() != 1 || returned_.contains(node.index)) return type;
        const Node& user = program_.nodes[users_[node.index][0]];
        if (user.op != Op::kMatmul) return type;
        const Node& result = becomes_bias(user) ? program_.nodes[users_[user.index][0]] : user;
        const ScalarType wanted = product(user, result).kernel->operand;
        return fits(range, wanted) ? wanted : type;
    }

    void load(std::size_t position) {
        const Node& node = program_.nodes[program_.inputs[position]];
        const ScalarType type = preferred(node, node.range());
        const std::size_t slot = value_[node.index] = new_slot(type, node.size);
        emit(make_load(node, position, slot, type, table_), {slot}, static_cast<double>(node.size));
    }

    void check(const Node& node) {
        const std::size_t slot = value_[node.index];
        emit(make_check(node, slot, type_of(slot), table_), {slot}, 0.2 * static_cast<double>(node.size));
    }

    void store(std::size_t position) {
        const Node& node = program_.nodes[program_.outputs[position]];
        const std::size_t slot = value_[node.index];
        emit(make_store(node, position, slot, type_of(slot), wide_, table_), {slot},
             0.5 * static_cast<double>(node.size));
    }

    std::size_t emit_node(const Node& node) {
        switch (node.op) {
            case Op::kInput:
                return value_[node.index];
            case Op::kConstant:
                return constant(node);
            case Op::kMatmul:
                return matmul(node, node);
            case Op::kAddConstant:
                if (becomes_bias(operand(node))) return matmul(operand(node), node);
                return arithmetic(node);
            case Op::kTableLookup:
                return lookup(node);
            case Op::kReshape:
                return value_[node.operands[0]];
            case Op::kConcatenate:
                return concatenate(node);
            case Op::kTranspose:
            case Op::kSlice:
            case Op::kGather:
            case Op::kPad:
            case Op::kBroadcast:
                return gather(node);
            default:
                return arithmetic(node);
        }
    }

    std::size_t constant(const Node& node) {
        const std::size_t slot = new_slot(storage(node.range()), node.size);
        plan_.slots[slot].constant = node.array.data;
        return slot;
    }

    std::size_t matmul(const Node& node, const Node& result) {
        const Product how = product(node, result);
        const std::size_t x = value_as(node.operands[0], how.kernel->operand);
        const std::size_t out = new_slot(how.kernel->accumulator, node.size);
        const double products = static_cast<double>(node.size) * static_cast<double>(node.array.shape[0]);
        emit(make_matmul(node, how.bias, {x, out}, *how.kernel), {x, out}, products / 30);
        return out;
    }

    std::size_t arithmetic(const Node& node) {
        const ScalarType type = accumulator(node);
        const std::size_t x = value_as(node.operands[0], type);
        const std::size_t y = node.operands.size() > 1 ? value_as(node.operands[1], type) : x;
        const std::size_t out = new_slot(type, node.size);
        double nanoseconds = static_cast<double>(std::max(operand(node).size, node.size)) * 0.3;
        if (node.op == Op::kConv) {
            nanoseconds =
                static_cast<double>(node.size * node.array.data.size()) / static_cast<double>(node.window.out_channels);
        }
        emit(arithmetic_step(node, x, y, out, type), {x, y, out}, nanoseconds);
        return out;
    }

    StepPointer arithmetic_step(const Node& node, std::size_t x, std::size_t y, std::size_t out,
                                ScalarType type) const {
        const Place place{x, out};
        switch (node.op) {
            case Op::kConv:
                return make_convolution(node, place, type, table_);
            case Op::kSumPool2d:
                return make_sum_pool(node, place, type, table_);
            case Op::kNegate:
                return make_negate(place, type, table_);
            case Op::kAddConstant:
            case Op::kMultiplyConstant:
                return make_with_constant(node, place, type, table_);
            case Op::kSum:
                return make_sum(node, operand(node).shape, place, type, table_);
            case Op::kRound:
                if (wide_ && node.approximate) return make_noisy_round(node, place, table_);
                return make_round(node, place, type, table_);
            default:
                return make_binary(node, x, y, out, type, table_);
        }
    }

    std::size_t lookup(const Node& node) {
        const std::size_t x = value_[node.operands[0]];
        const ScalarType entry = preferred(node, entries_of(node.array));
        const std::size_t out = new_slot(entry, node.size);
        StepPointer step = wide_ ? make_wide_lookup(node, operand(node), {x, out})
                                 : make_lookup(node, {x, out}, type_of(x), entry, table_);
        emit(std::move(step), {x, out}, static_cast<double>(node.size) * (wide_ ? 5.0 : 0.7));
        return out;
    }

    std::size_t gather(const Node& node) {
        Range range = operand(node).range();
        if (node.op == Op::kPad) range = hull(range, {node.fill, node.fill});
        const ScalarType held = type_of(value_[node.operands[0]]);
        const ScalarType type = fits(range, held) ? held : storage(range);
        const std::size_t x = value_as(node.operands[0], type);
        const std::size_t out = new_slot(type, node.size);
        emit(make_gather(node, operand(node).shape, {x, out}, type, table_), {x, out},
             0.4 * static_cast<double>(node.size));
        return out;
    }

    std::size_t concatenate(const Node& node) {
        Range range = operand(node).range();
        for (std::size_t i : node.operands) range = hull(range, program_.nodes[i].range());
        const ScalarType type = storage(range);
        for (std::size_t i : node.operands) value_as(i, type);
        const std::size_t out = new_slot(type, node.size);
        std::int64_t offset = 0;
        for (std::size_t i : node.operands) {
            const Node& part = program_.nodes[i];
            const std::size_t x = value_as(i, type);
            emit(make_scatter(concatenate_map(node, part.shape, offset), {x, out}, type, table_), {x, out},
                 0.4 * static_cast<double>(part.size));
            offset += part.shape[static_cast<std::size_t>(node.axis)];
        }
        return out;
    }

    std::size_t bytes(const Slot& slot, std::size_t rows) const {
        constexpr std::size_t kLine = 64;
        return (slot.size * size_of(slot.type) * rows + kReadSlack + kLine - 1) / kLine * kLine;
    }

    // Each slot gets the smallest gap that is free from its first step on. Slots come in the order of their first
    // steps.
    std::size_t assign_offsets(std::size_t rows) {
        GapList gaps;
        std::priority_queue<std::pair<std::size_t, Slot*>, std::vector<std::pair<std::size_t, Slot*>>, std::greater<>>
            live;  // by last step
        for (Slot& slot : plan_.slots) {
            for (; !live.empty() && live.top().first < slot.first; live.pop()) {
                const Slot& gone = *live.top().second;
                gaps.give_back(gone.offset, bytes(gone, rows));
            }
            const bool forever = !slot.constant.empty();  // a constant's memory is never anyone else's, nor was it
            slot.offset = forever ? gaps.take_fresh(bytes(slot, rows)) : gaps.take(bytes(slot, rows));
            if (!forever) live.emplace(slot.last, &slot);
        }
        return gaps.end();
    }

    // As many rows as keep the buffers in half of a common L2 cache (512 KiB), but enough to pay for a step's call.
    void place_slots() {
        constexpr std::size_t kCache = 256 * 1024, kMinRows = 8, kMaxRows = 2048, kMaxArena = 64 * 1024 * 1024;
        const std::size_t one = std::max<std::size_t>(assign_offsets(1), 1);
        std::size_t rows = std::clamp(kCache / one, kMinRows, kMaxRows);
        if (rows * one > kMaxArena) rows = std::max<std::size_t>(kMaxArena / one, 1);
        plan_.block_rows = rows;
        plan_.arena_bytes = assign_offsets(rows);
    }

    const Program& program_;
    const KernelTable& table_;
    const bool wide_;
    Plan plan_;
    std::vector<std::size_t> value_;  // slot of each node
    std::map<std::pair<std::size_t, ScalarType>, std::size_t> converted_;
    std::vector<std::vector<std::size_t>> users_;
    std::set<std::size_t> returned_;
};

}  // namespace

Plan make_plan(const Program& program, const KernelTable& table, bool wide) {
    return Planner(program, table, wide).plan();
}

}  // namespace fhelearn
