// The meaning of every op once more, on one row of 64-bit integers, as slow and plain as possible. Nothing of the
// engine but the decoded program is used: where elements go is arithmetic on coordinates of its own.
#pragma once

#include <algorithm>
#include <vector>

#include "fhelearn/program.hpp"

namespace testing {

using Row = std::vector<std::int64_t>;

inline std::size_t at(std::int64_t i) {
    return static_cast<std::size_t>(i);
}

// Coordinates of element `e` of a C-order array.
inline Row coordinates_of(std::size_t e, const fhelearn::Shape& shape) {
    Row coordinates(shape.size());
    for (std::size_t axis = 0; axis < shape.size(); ++axis) {
        std::int64_t below = 1;  // elements under one step of this axis
        for (std::size_t inner = axis + 1; inner < shape.size(); ++inner) below *= shape[inner];
        coordinates[axis] = static_cast<std::int64_t>(e) / below % shape[axis];
    }
    return coordinates;
}

// Horner's rule: the element at `coordinates`, of which those of axes with extent 1 do not count and those of axes that
// `shape` lacks on the left neither: NumPy's broadcasting.
inline std::size_t element_at(const Row& coordinates, const fhelearn::Shape& shape) {
    std::int64_t e = 0;
    const std::size_t more = coordinates.size() - shape.size();
    for (std::size_t axis = 0; axis < shape.size(); ++axis) {
        e = e * shape[axis] + (shape[axis] == 1 ? 0 : coordinates[more + axis]);
    }
    return at(e);
}

inline Row naive_window(const fhelearn::Node& node, const Row& x) {
    const fhelearn::Window& w = node.window;
    const bool pool = node.op == fhelearn::Op::kSumPool2d;
    const std::int64_t depth = pool ? 1 : w.channels / w.groups, area = w.kernel_height * w.kernel_width;
    Row out(node.size);
    for (std::int64_t e = 0; e < static_cast<std::int64_t>(node.size); ++e) {
        const std::int64_t o = e / (w.out_height * w.out_width), h = e / w.out_width % w.out_height,
                           v = e % w.out_width;
        const std::int64_t group = pool ? o : o / (w.out_channels / w.groups);
        for (std::int64_t t = 0; t < depth * area; ++t) {
            const std::int64_t row = h * w.stride_height + t % area / w.kernel_width * w.dilation_height;
            const std::int64_t column = v * w.stride_width + t % w.kernel_width * w.dilation_width;
            const std::int64_t weight = pool ? 1 : node.array.data[at(o * depth * area + t)];
            out[at(e)] += weight * x[at(((group * depth + t / area) * w.height + row) * w.width + column)];
        }
    }
    return out;
}

inline Row naive_matmul(const fhelearn::Node& node, const Row& x) {
    const std::size_t k = at(node.array.shape[0]), m = at(node.array.shape[1]);
    Row out(node.size);
    for (std::size_t e = 0; e < out.size(); ++e) {
        for (std::size_t i = 0; i < k; ++i) out[e] += x[e / m * k + i] * node.array.data[i * m + e % m];
    }
    return out;
}

inline Row naive_concatenate(const fhelearn::Node& node, const fhelearn::Program& program,
                             const std::vector<Row>& values) {
    const std::size_t axis = at(node.axis);
    Row out(node.size);
    for (std::size_t e = 0; e < out.size(); ++e) {
        Row place = coordinates_of(e, node.shape);
        std::size_t part = 0;
        for (; place[axis] >= program.nodes[node.operands[part]].shape[axis]; ++part) {
            place[axis] -= program.nodes[node.operands[part]].shape[axis];
        }
        out[e] = values[node.operands[part]][element_at(place, program.nodes[node.operands[part]].shape)];
    }
    return out;
}

// One element of an op that moves elements of `x`.
inline std::int64_t naive_moved(const fhelearn::Node& node, const fhelearn::Shape& shape, const Row& x, std::size_t e) {
    using fhelearn::Op;
    if (node.op == Op::kReshape) return x[e];
    const Row to = coordinates_of(e, node.shape);
    if (node.op == Op::kBroadcast) return x[element_at(to, shape)];
    Row from = to;
    for (std::size_t axis = 0; axis < to.size(); ++axis) {
        if (node.op == Op::kTranspose) from[at(node.axes[axis])] = to[axis];
        if (node.op == Op::kSlice) from[axis] = node.starts[axis] + node.steps[axis] * to[axis];
        if (node.op == Op::kGather && axis == at(node.axis)) from[axis] = node.indices[at(to[axis])];
        if (node.op == Op::kPad) from[axis] = to[axis] - node.before[axis];
        if (from[axis] < 0 || (node.op == Op::kPad && from[axis] >= shape[axis])) return node.fill;
    }
    return x[element_at(from, shape)];
}

inline Row naive_sum(const fhelearn::Node& node, const fhelearn::Shape& shape, const Row& x) {
    fhelearn::Shape kept = shape;  // the result's shape with axes of extent 1 where it lost axes
    for (std::int64_t axis : node.axes) kept[at(axis)] = 1;
    Row out(node.size);
    for (std::size_t e = 0; e < x.size(); ++e) out[element_at(coordinates_of(e, shape), kept)] += x[e];
    return out;
}

inline Row naive_lookup(const fhelearn::Node& node, const Row& x) {
    Row out(node.size);
    const fhelearn::Shape tables(node.array.shape.begin(), node.array.shape.end() - 1);
    for (std::size_t e = 0; e < out.size(); ++e) {
        const std::size_t table = element_at(coordinates_of(e, node.shape), tables);
        out[e] = node.array.data[table * at(node.array.shape.back()) + at(x[e] - node.table_lo)];
    }
    return out;
}

inline std::int64_t naive_element(const fhelearn::Node& node, std::int64_t x, std::int64_t y, std::int64_t c) {
    using fhelearn::Op;
    switch (node.op) {
        case Op::kAdd:
            return x + y;
        case Op::kSub:
            return x - y;
        case Op::kMultiply:
            return x * y;
        case Op::kMaximum:
            return std::max(x, y);
        case Op::kNegate:
            return -x;
        case Op::kAddConstant:
            return x + c;
        case Op::kMultiplyConstant:
            return x * c;
        default:
            return ((x >> node.lsbs) + ((x >> (node.lsbs - 1)) & 1)) * (std::int64_t{1} << node.lsbs);
    }
}

inline Row naive_node(const fhelearn::Node& node, const fhelearn::Program& program, const std::vector<Row>& values) {
    using fhelearn::Op;
    if (node.op == Op::kConstant) return node.array.data;
    const Row& x = values[node.operands[0]];
    if (node.op == Op::kMatmul) return naive_matmul(node, x);
    if (node.op == Op::kConv || node.op == Op::kSumPool2d) return naive_window(node, x);
    if (node.op == Op::kConcatenate) return naive_concatenate(node, program, values);
    const fhelearn::Shape& shape = program.nodes[node.operands[0]].shape;
    if (node.op == Op::kSum) return naive_sum(node, shape, x);
    if (node.op == Op::kTableLookup) return naive_lookup(node, x);
    Row out(node.size);
    const bool constant = node.op == Op::kAddConstant || node.op == Op::kMultiplyConstant;
    const Row& y = node.operands.size() > 1 ? values[node.operands[1]] : x;
    for (std::size_t e = 0; e < out.size(); ++e) {
        if (node.op >= Op::kReshape) {
            out[e] = naive_moved(node, shape, x, e);
            continue;
        }
        const std::size_t c = constant ? element_at(coordinates_of(e, node.shape), node.array.shape) : 0;
        out[e] = naive_element(node, x[e], y[e], constant ? node.array.data[c] : 0);
    }
    return out;
}

// All outputs of one row, given the row of each input.
inline std::vector<Row> naive_run(const fhelearn::Program& program, const std::vector<Row>& inputs) {
    std::vector<Row> values(program.nodes.size());
    std::size_t position = 0;
    for (const fhelearn::Node& node : program.nodes) {
        values[node.index] = node.op == fhelearn::Op::kInput ? inputs[position++] : naive_node(node, program, values);
    }
    std::vector<Row> outputs;
    for (std::size_t i : program.outputs) outputs.push_back(values[i]);
    return outputs;
}

}  // namespace testing
