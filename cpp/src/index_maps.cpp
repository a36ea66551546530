// Where elements go: every op that only moves elements is one gather or scatter by a precomputed map.
#include <algorithm>

#include "decode.hpp"

namespace fhelearn {

namespace {

// Elements to skip per step along each axis of a C-order array.
std::vector<std::int64_t> strides_of(const Shape& shape) {
    std::vector<std::int64_t> strides(shape.size(), 1);
    for (std::size_t axis = shape.size(); axis-- > 1;) strides[axis - 1] = strides[axis] * shape[axis];
    return strides;
}

// visit(position, coordinates) for every element of `shape` in C order.
template <class Visit>
void for_each_element(const Shape& shape, Visit visit) {
    std::vector<std::int64_t> at(shape.size(), 0);
    const std::size_t size = count(shape);
    for (std::size_t position = 0; position < size; ++position) {
        visit(position, at);
        for (std::size_t axis = shape.size(); axis-- > 0;) {
            if (++at[axis] < shape[axis]) break;
            at[axis] = 0;
        }
    }
}

// Coordinate of the operand along `axis` of the result; -1 outside it.
std::int64_t source_coordinate(const Node& node, const Shape& operand, std::size_t axis, std::int64_t at) {
    switch (node.op) {
        case Op::kSlice:
            return node.starts[axis] + at * node.steps[axis];
        case Op::kGather:
            return axis == static_cast<std::size_t>(node.axis) ? node.indices[static_cast<std::size_t>(at)] : at;
        case Op::kPad:
            return at >= node.before[axis] && at < node.before[axis] + operand[axis] ? at - node.before[axis] : -1;
        default:
            return at;
    }
}

}  // namespace

std::vector<std::int32_t> broadcast_map(const Shape& from, const Shape& to) {
    std::vector<std::int64_t> strides = strides_of(from);
    strides.insert(strides.begin(), to.size() - from.size(), 0);
    for (std::size_t axis = to.size() - from.size(); axis < to.size(); ++axis) {
        if (from[axis - (to.size() - from.size())] == 1) strides[axis] = 0;
    }
    std::vector<std::int32_t> map(count(to));
    for_each_element(to, [&](std::size_t position, const std::vector<std::int64_t>& at) {
        std::int64_t source = 0;
        for (std::size_t axis = 0; axis < to.size(); ++axis) source += at[axis] * strides[axis];
        map[position] = static_cast<std::int32_t>(source);
    });
    return map;
}

std::vector<std::int32_t> source_map(const Node& node, const Shape& operand) {
    if (node.op == Op::kBroadcast) return broadcast_map(operand, node.shape);
    std::vector<std::int32_t> map(node.size);
    if (node.op == Op::kReshape) {
        for (std::size_t i = 0; i < map.size(); ++i) map[i] = static_cast<std::int32_t>(i);
        return map;
    }
    const std::vector<std::int64_t> strides = strides_of(operand);
    for_each_element(node.shape, [&](std::size_t position, const std::vector<std::int64_t>& at) {
        std::int64_t source = 0;
        for (std::size_t axis = 0; axis < at.size(); ++axis) {
            const std::size_t from = node.op == Op::kTranspose ? static_cast<std::size_t>(node.axes[axis]) : axis;
            const std::int64_t coordinate = source_coordinate(node, operand, axis, at[axis]);
            if (coordinate < 0) {
                source = -1;
                break;
            }
            source += coordinate * strides[from];
        }
        map[position] = static_cast<std::int32_t>(source);
    });
    return map;
}

std::vector<std::int32_t> sum_map(const Node& node, const Shape& operand) {
    Shape kept = operand;
    for (std::int64_t axis : node.axes) kept[static_cast<std::size_t>(axis)] = 1;
    return broadcast_map(kept, operand);
}

std::vector<std::int32_t> concatenate_map(const Node& node, const Shape& operand, std::int64_t offset) {
    const std::vector<std::int64_t> strides = strides_of(node.shape);
    std::vector<std::int32_t> map(count(operand));
    for_each_element(operand, [&](std::size_t position, const std::vector<std::int64_t>& at) {
        std::int64_t target = offset * strides[static_cast<std::size_t>(node.axis)];
        for (std::size_t a = 0; a < at.size(); ++a) target += at[a] * strides[a];
        map[position] = static_cast<std::int32_t>(target);
    });
    return map;
}

std::vector<std::int32_t> table_rows(const Node& node) {
    const Shape rows(node.array.shape.begin(), node.array.shape.end() - 1);
    std::vector<std::int32_t> map = broadcast_map(rows, node.shape);
    for (std::int32_t& row : map) row *= static_cast<std::int32_t>(node.array.shape.back());
    return map;
}

}  // namespace fhelearn
