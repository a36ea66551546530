// The meaning of every op once more, on one row of 64-bit integers, as slow and plain as possible.
#pragma once

#include <algorithm>
#include <vector>

#include "decode.hpp"
#include "fhelearn/program.hpp"

namespace testing {

using Row = std::vector<std::int64_t>;

inline std::size_t at(std::int64_t i) {
    return static_cast<std::size_t>(i);
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

inline Row naive_moved(const fhelearn::Node& node, const fhelearn::Program& program, const std::vector<Row>& values) {
    Row out(node.size);
    if (node.op == fhelearn::Op::kConcatenate) {
        fhelearn::Operands operands;
        for (std::size_t i : node.operands) operands.emplace_back(program.nodes[i]);
        for (std::size_t i = 0; i < operands.size(); ++i) {
            const auto map = fhelearn::concatenate_map(node, operands, i);
            for (std::size_t e = 0; e < map.size(); ++e) out[at(map[e])] = values[node.operands[i]][e];
        }
        return out;
    }
    const auto map = fhelearn::source_map(node, program.nodes[node.operands[0]].shape);
    for (std::size_t e = 0; e < out.size(); ++e) out[e] = map[e] < 0 ? node.fill : values[node.operands[0]][at(map[e])];
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
    if (node.op >= Op::kReshape) return naive_moved(node, program, values);
    Row out(node.size);
    if (node.op == Op::kSum) {
        const auto map = fhelearn::sum_map(node, program.nodes[node.operands[0]].shape);
        for (std::size_t e = 0; e < x.size(); ++e) out[at(map[e])] += x[e];
        return out;
    }
    if (node.op == Op::kTableLookup) {
        const auto rows = fhelearn::table_rows(node);
        for (std::size_t e = 0; e < out.size(); ++e) out[e] = node.array.data[at(rows[e] + x[e] - node.table_lo)];
        return out;
    }
    const bool constant = node.op == Op::kAddConstant || node.op == Op::kMultiplyConstant;
    const auto map =
        constant ? fhelearn::broadcast_map(node.array.shape, node.shape) : std::vector<std::int32_t>(node.size);
    const Row& y = node.operands.size() > 1 ? values[node.operands[1]] : x;
    for (std::size_t e = 0; e < out.size(); ++e) {
        out[e] = naive_element(node, x[e], y[e], constant ? node.array.data[at(map[e])] : 0);
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
