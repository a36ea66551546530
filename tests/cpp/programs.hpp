// Programs for tests: a builder that infers shapes and bounds, and random programs of all ops.
#pragma once

#include <algorithm>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "decode.hpp"
#include "fhelearn/errors.hpp"
#include "fhelearn/program.hpp"

namespace testing {

using fhelearn::Attribute;
using fhelearn::IntArray;
using fhelearn::Node;
using fhelearn::NodeSpec;
using fhelearn::Program;
using fhelearn::Shape;
using Ints = std::vector<std::int64_t>;
using Attributes = std::map<std::string, Attribute>;

inline IntArray scalar(std::int64_t value) {
    return {{}, {value}};
}

// Bits of the smallest integer type that holds [lo, hi], as ir/SPEC.md defines it.
inline std::int64_t bit_width(std::int64_t lo, std::int64_t hi) {
    std::int64_t width = 1;
    if (lo >= 0) {
        while (width < 63 && hi >> width) ++width;
        return width;
    }
    while (width < 64 && (hi >> (width - 1) || lo >> (width - 1) != -1)) ++width;
    return width;
}

class Builder {
  public:
    std::int64_t input(Shape shape, std::int64_t lo, std::int64_t hi, std::string name = "x") {
        NodeSpec spec{"input",  std::move(name),   {},     shape, scalar(lo), scalar(hi),
                      "proved", bit_width(lo, hi), lo < 0, {}};
        spec.attributes = {{"shape", Attribute(Ints(shape))}};
        return keep(std::move(spec));
    }

    // A node with the shape and bounds that its op infers. Throws ProgramError if the op refuses its operands.
    std::int64_t emit(const std::string& op, Ints operands, Attributes attributes = {}) {
        NodeSpec spec;
        spec.op = op;
        spec.operands = std::move(operands);
        spec.attributes = std::move(attributes);
        spec.provenance = "proved";
        Node node;
        node.label = op;
        node.op = fhelearn::parse_op(spec, op);
        const Program so_far = specs.empty() ? Program() : build();
        fhelearn::Operands values;
        for (std::int64_t i : spec.operands) values.emplace_back(so_far.nodes[static_cast<std::size_t>(i)]);
        fhelearn::decode_attributes(spec, values, node);
        fhelearn::Int128 magnitude = 0;
        const fhelearn::WideBounds bounds = fhelearn::infer_bounds(node, values, magnitude);
        spec.shape = node.shape;
        spec.lo.shape = spec.hi.shape = node.shape;
        std::int64_t lo = INT64_MAX, hi = INT64_MIN;
        for (std::size_t i = 0; i < node.size; ++i) {
            if (bounds.lo[i] < INT64_MIN || bounds.hi[i] > INT64_MAX) throw fhelearn::ProgramError("too wide");
            spec.lo.data.push_back(static_cast<std::int64_t>(bounds.lo[i]));
            spec.hi.data.push_back(static_cast<std::int64_t>(bounds.hi[i]));
            lo = std::min(lo, spec.lo.data.back());
            hi = std::max(hi, spec.hi.data.back());
        }
        spec.width = bit_width(lo, hi);
        spec.is_signed = lo < 0;
        return keep(std::move(spec));
    }

    Program build(Ints outputs = {}) const {
        if (outputs.empty()) outputs = {static_cast<std::int64_t>(specs.size()) - 1};
        return fhelearn::decode_program(specs, outputs);
    }

    std::vector<NodeSpec> specs;

  private:
    std::int64_t keep(NodeSpec spec) {
        specs.push_back(std::move(spec));
        return static_cast<std::int64_t>(specs.size()) - 1;
    }
};

class Random {
  public:
    explicit Random(std::uint64_t seed) : engine_(seed) {}

    std::int64_t integer(std::int64_t lo, std::int64_t hi) {
        return std::uniform_int_distribution<std::int64_t>(lo, hi)(engine_);
    }

    IntArray array(Shape shape, std::int64_t reach) {
        IntArray result{shape, Ints(fhelearn::count(shape))};
        for (std::int64_t& v : result.data) v = integer(-reach, reach);
        return result;
    }

    Ints list(std::size_t n, std::int64_t lo, std::int64_t hi) {
        Ints result(n);
        for (std::int64_t& v : result) v = integer(lo, hi);
        return result;
    }

  private:
    std::mt19937_64 engine_;
};

// Attributes that may suit an op that moves elements of shape `x`; none for other ops.
inline Attributes random_moving_attributes(Random& random, const std::string& op, const Shape& x) {
    const std::size_t rank = x.size();
    const std::int64_t axis = random.integer(0, std::max(static_cast<std::int64_t>(rank), std::int64_t{1}) - 1);
    if (op == "reshape") return {{"shape", Ints{static_cast<std::int64_t>(fhelearn::count(x)), 1}}};
    if (op == "transpose") {
        Ints axes(rank);
        for (std::size_t i = 0; i < rank; ++i)
            axes[i] = static_cast<std::int64_t>((i + static_cast<std::size_t>(axis)) % rank);
        return {{"axes", axes}};
    }
    if (op == "concatenate") return {{"axis", axis}};
    if (op == "slice") {
        Ints starts, stops;
        for (std::int64_t extent : x) {
            starts.push_back(random.integer(0, extent - 1));
            stops.push_back(random.integer(starts.back() + 1, extent));
        }
        return {{"starts", starts}, {"stops", stops}, {"steps", random.list(rank, 1, 2)}};
    }
    if (op == "gather") {
        const std::int64_t extent = x[static_cast<std::size_t>(axis)];
        const Ints indices = random.list(static_cast<std::size_t>(random.integer(1, 5)), 0, extent - 1);
        return {{"axis", axis}, {"indices", IntArray{{static_cast<std::int64_t>(indices.size())}, indices}}};
    }
    if (op == "pad")
        return {{"before", random.list(rank, 0, 1)},
                {"after", random.list(rank, 0, 1)},
                {"value", random.integer(-300, 300)}};
    if (op == "broadcast") {
        Shape shape = x;
        for (std::int64_t& extent : shape) extent = extent == 1 ? random.integer(1, 3) : extent;
        if (random.integer(0, 1)) shape.insert(shape.begin(), 2);
        return {{"shape", Ints(shape)}};
    }
    return {};
}

// Attributes that may suit `op` on a value of shape `x` with bounds [lo, hi].
inline Attributes random_attributes(Random& random, const std::string& op, const Shape& x, std::int64_t lo,
                                    std::int64_t hi) {
    const std::size_t rank = x.size();
    const std::int64_t reach = random.integer(0, 2) ? 127 : 70000,
                       axis = random.integer(0, std::max(static_cast<std::int64_t>(rank), std::int64_t{1}) - 1);
    if (op == "constant") return {{"value", random.array(random.list(2, 1, 4), 9)}};
    if (op == "matmul") return {{"weights", random.array({x.back(), random.integer(1, 20)}, reach)}};
    if (op == "conv1d" || op == "conv2d") {
        const std::size_t axes = op == "conv2d" ? 2 : 1;
        const std::int64_t groups = x[0] % 2 == 0 ? random.integer(1, 2) : 1;
        Shape shape = {groups * random.integer(1, 3), x[0] / groups};
        for (std::size_t i = 0; i < axes; ++i) shape.push_back(random.integer(1, 2));
        return {{"weights", random.array(shape, reach)},
                {"strides", random.list(axes, 1, 2)},
                {"dilations", random.list(axes, 1, 2)},
                {"groups", groups}};
    }
    if (op == "sum_pool2d") return {{"kernel", random.list(2, 1, 2)}, {"strides", random.list(2, 1, 2)}};
    if (op == "add_constant" || op == "multiply_constant") {
        Shape shape = x;
        if (rank && random.integer(0, 1)) shape.erase(shape.begin());
        for (std::int64_t& extent : shape) extent = random.integer(0, 1) ? extent : 1;
        return {{"value", random.array(shape, 50)}};
    }
    if (op == "sum") return {{"axes", Ints{axis}}, {"keepdims", random.integer(0, 1) == 1}};
    if (op == "table_lookup" && hi - lo < 5000) {
        Shape shape = x;
        for (std::int64_t& extent : shape) extent = random.integer(0, 1) ? extent : 1;
        if (random.integer(0, 1)) shape.clear();
        const std::int64_t before = random.integer(0, 2);
        shape.push_back(hi - lo + 1 + before + random.integer(0, 2));
        const Ints reaches = {3, 100, 30000, 100000, std::int64_t{1} << 33};
        return {{"lo", lo - before},
                {"table", random.array(shape, reaches[static_cast<std::size_t>(random.integer(0, 4))])}};
    }
    if (op == "round")
        return {{"lsbs", random.integer(1, 9)},
                {"method", std::string(random.integer(0, 1) ? "exact" : "approximate")}};
    return random_moving_attributes(random, op, x);
}

inline const std::vector<std::string>& op_names() {
    static const std::vector<std::string> names = {
        "constant", "matmul",       "conv1d",  "conv2d",   "sum_pool2d",   "add",
        "sub",      "multiply",     "maximum", "negate",   "add_constant", "multiply_constant",
        "sum",      "table_lookup", "round",   "reshape",  "transpose",    "concatenate",
        "slice",    "gather",       "pad",     "broadcast"};
    return names;
}

// A program of one to three inputs and about a dozen ops; every op that does not fit is dropped.
inline Builder random_builder(Random& random) {
    Builder builder;
    for (std::int64_t i = random.integer(1, 3); i > 0; --i) {
        const std::int64_t bits = random.integer(1, 17),
                           lo = random.integer(0, 1) ? 0 : -(std::int64_t{1} << (bits - 1));
        Shape shape;
        for (std::int64_t rank = random.integer(1, 3); rank > 0; --rank) shape.push_back(random.integer(1, 6));
        builder.input(shape, lo, lo + (std::int64_t{1} << bits) - 1);
    }
    for (int step = 0; step < 14; ++step) {
        const std::string& op =
            op_names()[static_cast<std::size_t>(random.integer(0, static_cast<std::int64_t>(op_names().size()) - 1))];
        const auto last = static_cast<std::int64_t>(builder.specs.size()) - 1;
        Ints operands = {random.integer(0, last)};
        const NodeSpec& x = builder.specs[static_cast<std::size_t>(operands[0])];
        if (x.shape.empty() && op != "negate") continue;
        const bool two = op == "add" || op == "sub" || op == "multiply" || op == "maximum" || op == "concatenate";
        if (two) operands.push_back(random.integer(0, 1) ? operands[0] : random.integer(0, last));
        if (op == "constant") operands.clear();
        const auto lo = *std::min_element(x.lo.data.begin(), x.lo.data.end());
        const auto hi = *std::max_element(x.hi.data.begin(), x.hi.data.end());
        try {
            builder.emit(op, operands, random_attributes(random, op, x.shape, lo, hi));
            const NodeSpec& made = builder.specs.back();
            if (fhelearn::count(made.shape) > 3000 || made.width > 50)
                builder.specs.pop_back();  // products stay in 64 bits
        } catch (const fhelearn::ProgramError&) {
            continue;
        }
    }
    return builder;
}

}  // namespace testing
