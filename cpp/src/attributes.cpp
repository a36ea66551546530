// Attributes and shapes of every op.
#include "attributes.hpp"

#include <numeric>

#include "decode.hpp"

namespace fhelearn {

namespace {

constexpr std::int64_t kMax = std::numeric_limits<std::int64_t>::max();
constexpr std::int64_t kMin = std::numeric_limits<std::int64_t>::min();

struct OpEntry {
    const char* name;
    Op op;
    std::size_t min_operands, max_operands;
};

constexpr std::size_t kAny = static_cast<std::size_t>(-1);
constexpr OpEntry kOps[] = {
    {"input", Op::kInput, 0, 0},
    {"constant", Op::kConstant, 0, 0},
    {"matmul", Op::kMatmul, 1, 1},
    {"conv1d", Op::kConv, 1, 1},
    {"conv2d", Op::kConv, 1, 1},
    {"sum_pool2d", Op::kSumPool2d, 1, 1},
    {"add", Op::kAdd, 2, 2},
    {"sub", Op::kSub, 2, 2},
    {"multiply", Op::kMultiply, 2, 2},
    {"maximum", Op::kMaximum, 2, 2},
    {"negate", Op::kNegate, 1, 1},
    {"add_constant", Op::kAddConstant, 1, 1},
    {"multiply_constant", Op::kMultiplyConstant, 1, 1},
    {"sum", Op::kSum, 1, 1},
    {"table_lookup", Op::kTableLookup, 1, 1},
    {"round", Op::kRound, 1, 1},
    {"reshape", Op::kReshape, 1, 1},
    {"transpose", Op::kTranspose, 1, 1},
    {"concatenate", Op::kConcatenate, 1, kAny},
    {"slice", Op::kSlice, 1, 1},
    {"gather", Op::kGather, 1, 1},
    {"pad", Op::kPad, 1, 1},
    {"broadcast", Op::kBroadcast, 1, 1},
};

bool broadcasts(const Shape& from, const Shape& to) {
    if (from.size() > to.size()) return false;
    for (std::size_t i = 1; i <= from.size(); ++i) {
        if (from[from.size() - i] != 1 && from[from.size() - i] != to[to.size() - i]) return false;
    }
    return true;
}

class Decoder {
  public:
    Decoder(const NodeSpec& spec, const Operands& operands, Node& node)
        : spec_(spec), operands_(operands), node_(node), read_(spec, node.label) {}

    void decode() {
        switch (node_.op) {
            case Op::kInput:
                return input();
            case Op::kConstant:
                return constant();
            case Op::kMatmul:
                return matmul();
            case Op::kConv:
                return conv();
            case Op::kSumPool2d:
                return sum_pool();
            case Op::kAdd:
            case Op::kSub:
            case Op::kMultiply:
            case Op::kMaximum:
                return binary();
            case Op::kNegate:
                return like_operand();
            case Op::kAddConstant:
            case Op::kMultiplyConstant:
                return with_constant();
            case Op::kSum:
                return sum();
            case Op::kTableLookup:
                return table_lookup();
            case Op::kRound:
                return round();
            case Op::kReshape:
                return reshape();
            case Op::kTranspose:
                return transpose();
            case Op::kConcatenate:
                return concatenate();
            case Op::kSlice:
                return slice();
            case Op::kGather:
                return gather();
            case Op::kPad:
                return pad();
            case Op::kBroadcast:
                return broadcast();
        }
    }

    void finish() { read_.finish(); }

  private:
    const Shape& x() const { return operands_[0].get().shape; }
    std::int64_t rank() const { return static_cast<std::int64_t>(x().size()); }

    [[noreturn]] void fail(const std::string& problem) const { throw ProgramError(node_.label + ": " + problem); }

    void like_operand() { node_.shape = x(); }

    void input() {
        node_.shape = read_.list("shape");
        for (const char* name : {"lo", "hi"}) read_.skip(name);  // the same numbers as the value's bounds
    }

    void constant() {
        node_.array = read_.array("value");
        node_.shape = node_.array.shape;
    }

    void matmul() {
        const IntArray& weights = node_.array = read_.array("weights");
        if (weights.shape.size() != 2)
            read_.fail("weights", "must be a matrix (k, m), got " + to_string(weights.shape));
        if (x().empty() || x().back() != weights.shape[0]) {
            fail("last axis of operand shape " + to_string(x()) +
                 " must be weights.shape[0] = " + std::to_string(weights.shape[0]));
        }
        node_.shape = x();
        node_.shape.back() = weights.shape[1];
    }

    // Result extents of a window along one axis.
    std::int64_t extent(std::int64_t size, std::int64_t kernel, std::int64_t stride, std::int64_t dilation) const {
        if (Int128{dilation} * (kernel - 1) + 1 > size) {
            fail("window does not fit the operand's shape " + to_string(x()) + "; pad first");
        }
        return (size - (dilation * (kernel - 1) + 1)) / stride + 1;
    }

    void place_window() {
        Window& w = node_.window;
        w.out_height = extent(w.height, w.kernel_height, w.stride_height, w.dilation_height);
        w.out_width = extent(w.width, w.kernel_width, w.stride_width, w.dilation_width);
    }

    void conv() {
        const std::size_t axes = spec_.op == "conv2d" ? 2 : 1;
        const IntArray& weights = node_.array = read_.array("weights");
        if (x().size() != axes + 1 || weights.shape.size() != axes + 2) {
            fail("operand must have rank " + std::to_string(axes + 1) + " and weights rank " +
                 std::to_string(axes + 2) + ", got " + to_string(x()) + " and " + to_string(weights.shape));
        }
        const auto& strides = read_.integers("strides", axes, 1, kMax);
        const auto& dilations = read_.integers("dilations", axes, 1, kMax);
        const std::int64_t groups = read_.integer("groups", 1, kMax);
        Window& w = node_.window;
        w.groups = groups;
        w.channels = x()[0];
        w.out_channels = weights.shape[0];
        if (w.channels % groups || w.out_channels % groups || w.channels / groups != weights.shape[1]) {
            fail("groups=" + std::to_string(groups) + " must divide the channels of operand " + to_string(x()) +
                 " and of weights " + to_string(weights.shape));
        }
        w.height = axes == 2 ? x()[1] : 1;
        w.width = x().back();
        w.kernel_height = axes == 2 ? weights.shape[2] : 1;
        w.kernel_width = weights.shape.back();
        w.stride_height = axes == 2 ? strides[0] : 1;
        w.stride_width = strides.back();
        w.dilation_height = axes == 2 ? dilations[0] : 1;
        w.dilation_width = dilations.back();
        place_window();
        node_.shape = axes == 2 ? Shape{w.out_channels, w.out_height, w.out_width} : Shape{w.out_channels, w.out_width};
    }

    void sum_pool() {
        if (x().size() != 3) fail("operand must have shape (channels, height, width), got " + to_string(x()));
        const auto& kernel = read_.integers("kernel", 2, 1, kMax);
        const auto& strides = read_.integers("strides", 2, 1, kMax);
        Window& w = node_.window;
        w.channels = w.out_channels = x()[0];
        w.height = x()[1];
        w.width = x()[2];
        w.kernel_height = kernel[0];
        w.kernel_width = kernel[1];
        w.stride_height = strides[0];
        w.stride_width = strides[1];
        place_window();
        node_.shape = {w.channels, w.out_height, w.out_width};
    }

    void binary() {
        const Shape& y = operands_[1].get().shape;
        if (x() != y) fail("operands must have one shape, got " + to_string(x()) + " and " + to_string(y));
        like_operand();
    }

    void with_constant() {
        node_.array = read_.array("value");
        if (!broadcasts(node_.array.shape, x())) {
            read_.fail("value", "of shape " + to_string(node_.array.shape) + " must broadcast to the operand's shape " +
                                    to_string(x()));
        }
        like_operand();
    }

    void sum() {
        node_.axes = read_.list("axes");
        const bool keepdims = read_.boolean("keepdims");
        if (node_.axes.empty()) read_.fail("axes", "must not be empty");
        std::vector<bool> summed(x().size(), false);
        for (std::int64_t axis : node_.axes) {
            if (axis < 0 || axis >= rank() || summed[static_cast<std::size_t>(axis)]) {
                read_.fail("axes", "must be distinct axes of shape " + to_string(x()));
            }
            summed[static_cast<std::size_t>(axis)] = true;
        }
        for (std::size_t axis = 0; axis < x().size(); ++axis) {
            if (!summed[axis]) node_.shape.push_back(x()[axis]);
            if (summed[axis] && keepdims) node_.shape.push_back(1);
        }
    }

    void table_lookup() {
        node_.table_lo = read_.integer("lo", kMin, kMax);
        node_.array = read_.array("table");
        if (node_.array.shape.empty()) read_.fail("table", "must have at least one axis");
        const Shape rows(node_.array.shape.begin(), node_.array.shape.end() - 1);
        if (!broadcasts(rows, x())) {
            read_.fail("table", "of shape " + to_string(node_.array.shape) +
                                    " must be (*s, size) with s broadcastable to " + to_string(x()));
        }
        if (node_.array.data.size() > static_cast<std::size_t>(kMaxEntries)) read_.fail("table", "is too large");
        like_operand();
    }

    void round() {
        node_.lsbs = static_cast<int>(read_.integer("lsbs", 1, 62));
        const std::string& method = read_.text("method");
        if (method != "exact" && method != "approximate") {
            read_.fail("method", "is '" + method + "', must be 'exact' or 'approximate'");
        }
        node_.approximate = method == "approximate";
        like_operand();
    }

    void reshape() { node_.shape = read_.list("shape"); }

    void transpose() {
        node_.axes = read_.integers("axes", x().size(), 0, rank() - 1);
        std::vector<bool> seen(x().size(), false);
        for (std::int64_t axis : node_.axes) {
            if (seen[static_cast<std::size_t>(axis)]) read_.fail("axes", "must be a permutation");
            seen[static_cast<std::size_t>(axis)] = true;
            node_.shape.push_back(x()[static_cast<std::size_t>(axis)]);
        }
    }

    void concatenate() {
        if (x().empty()) fail("operands must have at least one axis");
        node_.axis = read_.integer("axis", 0, rank() - 1);
        const auto axis = static_cast<std::size_t>(node_.axis);
        node_.shape = x();
        for (std::size_t i = 1; i < operands_.size(); ++i) {
            Shape other = operands_[i].get().shape;
            if (other.size() != x().size()) fail("operands must have one rank");
            node_.shape[axis] += other[axis];
            other[axis] = x()[axis];
            if (other != x()) fail("operands must agree on every axis but " + std::to_string(axis));
        }
    }

    void slice() {
        node_.starts = read_.integers("starts", x().size(), 0, kMax);
        const auto& stops = read_.integers("stops", x().size(), 1, kMax);
        node_.steps = read_.integers("steps", x().size(), 1, kMax);
        for (std::size_t axis = 0; axis < x().size(); ++axis) {
            if (node_.starts[axis] >= stops[axis] || stops[axis] > x()[axis]) {
                fail("slice must keep 0 <= start < stop <= extent on axis " + std::to_string(axis) + " of " +
                     to_string(x()));
            }
            node_.shape.push_back((stops[axis] - node_.starts[axis] - 1) / node_.steps[axis] + 1);
        }
    }

    void gather() {
        if (x().empty()) fail("operand must have at least one axis");
        node_.axis = read_.integer("axis", 0, rank() - 1);
        const std::int64_t extent = x()[static_cast<std::size_t>(node_.axis)];
        const IntArray& indices = read_.array("indices");
        if (indices.shape.size() != 1) read_.fail("indices", "must have one axis, got " + to_string(indices.shape));
        for (std::int64_t i : indices.data) {
            if (i < 0 || i >= extent) {
                read_.fail("indices",
                           "holds " + std::to_string(i) + ", must lie in [0, " + std::to_string(extent - 1) + "]");
            }
        }
        node_.indices = indices.data;
        node_.shape = x();
        node_.shape[static_cast<std::size_t>(node_.axis)] = indices.shape[0];
    }

    void pad() {
        node_.before = read_.integers("before", x().size(), 0, kMaxElements);
        const auto& after = read_.integers("after", x().size(), 0, kMaxElements);
        node_.fill = read_.integer("value", kMin, kMax);
        for (std::size_t axis = 0; axis < x().size(); ++axis) {
            node_.shape.push_back(node_.before[axis] + x()[axis] + after[axis]);
        }
    }

    void broadcast() {
        node_.shape = read_.list("shape");
        if (!broadcasts(x(), node_.shape)) {
            read_.fail("shape", to_string(node_.shape) + " must be one that " + to_string(x()) + " broadcasts to");
        }
    }

    const NodeSpec& spec_;
    const Operands& operands_;
    Node& node_;
    AttributeReader read_;
};

}  // namespace

Op parse_op(const NodeSpec& spec, const std::string& label) {
    for (const OpEntry& entry : kOps) {
        if (spec.op != entry.name) continue;
        if (spec.operands.size() < entry.min_operands || spec.operands.size() > entry.max_operands) {
            throw ProgramError(label + ": got " + std::to_string(spec.operands.size()) + " operands, takes " +
                               std::to_string(entry.min_operands) + (entry.max_operands == kAny ? " or more" : ""));
        }
        return entry.op;
    }
    throw ProgramError(label + ": '" + spec.op + "' is not an op of ir/SPEC.md");
}

std::size_t count(const Shape& shape) {
    return static_cast<std::size_t>(std::accumulate(shape.begin(), shape.end(), std::int64_t{1}, std::multiplies<>()));
}

void decode_attributes(const NodeSpec& spec, const Operands& operands, Node& node) {
    Decoder decoder(spec, operands, node);
    decoder.decode();
    decoder.finish();
    Int128 size = 1;
    for (std::int64_t extent : node.shape) {
        size *= std::max<std::int64_t>(extent, 0);
        if (size < 1 || size > kMaxElements) {
            throw ProgramError(node.label + ": shape " + to_string(node.shape) +
                               " must have positive extents and at most 2**24 elements");
        }
    }
    node.size = static_cast<std::size_t>(size);
    if (node.op == Op::kReshape && node.size != operands[0].get().size) {
        throw ProgramError(node.label + ": shape " + to_string(node.shape) + " has other elements than operand shape " +
                           to_string(operands[0].get().shape));
    }
}

}  // namespace fhelearn
