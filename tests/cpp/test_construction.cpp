// Programs whose construction takes minutes if any part of it is quadratic: CMakeLists.txt gives this file a time
// limit. What comes out is compared with plain loops on small ones.
#include <algorithm>

#include "check.hpp"
#include "plan.hpp"
#include "range_index.hpp"
#include "runs.hpp"

using namespace testing;
using fhelearn::Plan;
using fhelearn::RangeIndex;
using fhelearn::Slot;

namespace {

std::size_t bytes(const Plan& plan, const Slot& slot) {
    return slot.size * fhelearn::size_of(slot.type) * plan.block_rows + fhelearn::kReadSlack;
}

// Whether no two slots that live at the same time, or of which one is a constant, share memory.
bool disjoint(const Plan& plan) {
    for (std::size_t i = 0; i < plan.slots.size(); ++i) {
        for (std::size_t j = 0; j < i; ++j) {
            const Slot &a = plan.slots[i], &b = plan.slots[j];
            const bool together =
                !a.constant.empty() || !b.constant.empty() || (a.first <= b.last && b.first <= a.last);
            const bool share = a.offset < b.offset + bytes(plan, b) && b.offset < a.offset + bytes(plan, a);
            if (together && share) return false;
        }
        if (plan.slots[i].offset + bytes(plan, plan.slots[i]) > plan.arena_bytes) return false;
    }
    return true;
}

// Inputs of three elements each, with bounds of their own, side by side.
Builder many_inputs(std::int64_t count) {
    Builder builder;
    NodeSpec joined{"concatenate", "", {}, {3 * count}, {}, {}, "proved", 20, true, {{"axis", std::int64_t{0}}}};
    joined.lo = scalar(-count);
    joined.hi = scalar(count);
    for (std::int64_t i = 0; i < count; ++i) joined.operands.push_back(builder.input({3}, i % 2 ? -i : 0, i));
    builder.specs.push_back(joined);
    return builder;
}

}  // namespace

TEST("slots that live at the same time do not share memory") {
    Random random(11);
    for (int i = 0; i < 200; ++i) {
        const Program program = random_builder(random).build();
        for (bool wide : {false, true}) CHECK(disjoint(fhelearn::make_plan(program, fhelearn::kernels(), wide)));
    }
}

TEST("memory of dead slots is used again") {
    Builder builder;
    builder.input({1000}, 0, 1 << 20);
    for (std::int64_t i = 0; i < 50; ++i) builder.emit("negate", {i});
    const Plan plan = fhelearn::make_plan(builder.build(), fhelearn::kernels(), false);
    CHECK(disjoint(plan));
    CHECK(plan.arena_bytes <= 4 * bytes(plan, plan.slots[0]));
}

TEST("a program of many inputs is planned in no time") {
    const std::int64_t count = 40000;
    const Builder builder = many_inputs(count);
    const Plan plan = fhelearn::make_plan(builder.build(), fhelearn::kernels(), false);
    CHECK(plan.slots.size() >= static_cast<std::size_t>(count));
    CHECK(disjoint(fhelearn::make_plan(many_inputs(100).build(), fhelearn::kernels(), false)));
}

TEST("ranges of stretches equal plain scans") {
    Random random(12);
    for (std::int64_t size : {1, 2, 31, 32, 33, 64, 65, 1000, 1024, 1025, 40000}) {
        const Ints values = random.list(static_cast<std::size_t>(size), INT64_MIN, INT64_MAX);
        const RangeIndex index(values);
        for (int i = 0; i < 300; ++i) {
            const std::int64_t first = i ? random.integer(0, size - 1) : 0;
            const std::int64_t last = i ? random.integer(first + 1, size) : size;
            const auto [least, greatest] = std::minmax_element(values.begin() + first, values.begin() + last);
            const fhelearn::Range got = index.range(static_cast<std::size_t>(first), static_cast<std::size_t>(last));
            CHECK(got.lo == *least && got.hi == *greatest);
        }
    }
}

TEST("lookups whose elements all reach other stretches of a large table have their bounds in no time") {
    const std::int64_t elements = 100000, size = 1 << 20;
    Builder builder;
    builder.input({elements}, 0, size - 1);
    builder.specs[0].lo.shape = builder.specs[0].hi.shape = {elements};
    builder.specs[0].lo.data.resize(static_cast<std::size_t>(elements));
    builder.specs[0].hi.data.resize(static_cast<std::size_t>(elements));
    IntArray table{{size}, Ints(static_cast<std::size_t>(size))};
    for (std::int64_t i = 0; i < size; ++i) table.data[static_cast<std::size_t>(i)] = i / 2;
    for (std::int64_t i = 0; i < elements; ++i) {
        builder.specs[0].lo.data[static_cast<std::size_t>(i)] = i;
        builder.specs[0].hi.data[static_cast<std::size_t>(i)] = size - 1 - i;
    }
    builder.emit("table_lookup", {0}, {{"lo", std::int64_t{0}}, {"table", table}});
    const NodeSpec& made = builder.specs[1];
    CHECK(made.lo.data[99999] == 99999 / 2 && made.hi.data[99999] == (size - 100000) / 2);
}

TEST("pools equal the convolutions with weights of one, and large kernels take no time") {
    Random random(13);
    const auto pool = [&](Builder& builder, Ints kernel, Ints strides) {
        return builder.emit("sum_pool2d", {0}, {{"kernel", kernel}, {"strides", strides}});
    };
    for (int i = 0; i < 200; ++i) {
        Builder builder;
        const Shape shape = {random.integer(1, 3), random.integer(1, 9), random.integer(1, 9)};
        builder.input(shape, 0, 0);
        const std::int64_t reach = i % 2 ? 100 : std::int64_t{1} << 55;
        for (IntArray* bound : {&builder.specs[0].lo, &builder.specs[0].hi}) *bound = random.array(shape, reach);
        for (std::size_t e = 0; e < builder.specs[0].lo.data.size(); ++e) {
            builder.specs[0].hi.data[e] = std::max(builder.specs[0].lo.data[e], builder.specs[0].hi.data[e]);
        }
        builder.specs[0].width = 64;
        builder.specs[0].is_signed = true;
        const Ints kernel = {random.integer(1, shape[1]), random.integer(1, shape[2])};
        const Ints strides = random.list(2, 1, 3);
        pool(builder, kernel, strides);
        const Shape weights = {shape[0], 1, kernel[0], kernel[1]};
        builder.emit("conv2d", {0},
                     {{"weights", IntArray{weights, Ints(fhelearn::count(weights), 1)}},
                      {"strides", strides},
                      {"dilations", Ints{1, 1}},
                      {"groups", shape[0]}});
        const Program program = builder.build();
        CHECK(program.nodes[1].lo == program.nodes[2].lo && program.nodes[1].hi == program.nodes[2].hi);
        CHECK(program.nodes[1].partial_sums == program.nodes[2].partial_sums);
    }
    Builder large;
    large.input({1, 2048, 2048}, -1, 3);
    pool(large, {1024, 1024}, {1, 1});
    CHECK(large.specs[1].hi.data.back() == 3 << 20 && large.specs[1].lo.data[0] == -(1 << 20));
}
