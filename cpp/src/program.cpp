#include "fhelearn/program.hpp"

#include <algorithm>

#include "decode.hpp"
#include "fhelearn/errors.hpp"

namespace fhelearn {

namespace {

constexpr std::int64_t kMin = std::numeric_limits<std::int64_t>::min();
constexpr std::int64_t kMax = std::numeric_limits<std::int64_t>::max();
constexpr std::size_t kMaxRank = 16;  // ir/SPEC.md's limit

std::string interval(Int128 lo, Int128 hi) {
    return "[" + to_string(lo) + ", " + to_string(hi) + "]";
}

Provenance parse_provenance(const NodeSpec& spec, const std::string& label) {
    if (spec.provenance == "proved") return Provenance::kProved;
    if (spec.provenance == "structural") return Provenance::kStructural;
    if (spec.provenance == "calibrated") return Provenance::kCalibrated;
    throw ProgramError(label + ": provenance is '" + spec.provenance +
                       "', must be 'proved', 'structural' or 'calibrated'");
}

// Bounds as given, one per element.
std::vector<std::int64_t> expand(const IntArray& bound, const char* what, const Node& node) {
    bool fits = bound.shape.size() <= node.shape.size();
    std::size_t entries = 1;
    for (std::size_t i = 1; fits && i <= bound.shape.size(); ++i) {
        const std::int64_t extent = bound.shape[bound.shape.size() - i];
        fits = extent == 1 || extent == node.shape[node.shape.size() - i];
        entries *= static_cast<std::size_t>(extent);
    }
    if (!fits || entries != bound.data.size()) {
        throw ProgramError(node.label + ": " + what + " of shape " + to_string(bound.shape) +
                           " does not broadcast to shape " + to_string(node.shape));
    }
    if (bound.data.size() == 1) return std::vector<std::int64_t>(node.size, bound.data[0]);
    const std::vector<std::int32_t> map = broadcast_map(bound.shape, node.shape);
    std::vector<std::int64_t> result(node.size);
    for (std::size_t i = 0; i < node.size; ++i) result[i] = bound.data[static_cast<std::size_t>(map[i])];
    return result;
}

void decode_region(const NodeSpec& spec, Node& node) {
    if (spec.width < 1 || spec.width > 64) {
        throw ProgramError(node.label + ": region width is " + std::to_string(spec.width) + ", must lie in [1, 64]");
    }
    node.width = static_cast<int>(spec.width);
    node.is_signed = spec.is_signed;
}

void check_region(const Node& node) {
    const Int128 half = Int128{1} << (node.width - 1);
    const Int128 lo = node.is_signed ? -half : 0, hi = node.is_signed ? half - 1 : 2 * half - 1;
    const Range range = node.range();
    if (range.lo < lo || range.hi > hi) {
        throw ProgramError(node.label + ": bounds " + interval(range.lo, range.hi) + " do not fit its region's width " +
                           std::to_string(node.width) + (node.is_signed ? " (signed)" : " (unsigned)"));
    }
}

// As ir.dropped_bits: after rounding, as long as elements only move.
int dropped_bits(const Node& node, const Operands& operands) {
    int before = operands.empty() ? 0 : 62;
    for (const Node& operand : operands) before = std::min(before, operand.dropped);
    switch (node.op) {
        case Op::kRound:
            return std::max(before, node.lsbs);
        case Op::kPad:
            return node.fill == 0 ? before : 0;
        case Op::kReshape:
        case Op::kTranspose:
        case Op::kConcatenate:
        case Op::kSlice:
        case Op::kGather:
        case Op::kBroadcast:
            return before;
        default:
            return 0;
    }
}

// Sums on the way to a value that is looked at are modular, so only what is looked at must fit its region.
bool is_modular(Op op) {
    switch (op) {
        case Op::kInput:
        case Op::kConstant:
        case Op::kMultiply:
        case Op::kMaximum:
        case Op::kTableLookup:
        case Op::kRound:
            return false;
        default:
            return true;
    }
}

void check_regions(const Program& program) {
    for (const Node& node : program.nodes) {
        if (is_modular(node.op)) continue;
        check_region(node);
        for (std::size_t operand : node.operands) check_region(program.nodes[operand]);
    }
    for (std::size_t output : program.outputs) check_region(program.nodes[output]);
}

// Compare the given bounds with the inferred ones and fill what the planner reads.
void check_bounds(const WideBounds& inferred, Int128 magnitude, Node& node) {
    Range stored{kMax, kMin};
    for (std::size_t i = 0; i < node.size; ++i) {
        const Int128 lo = inferred.lo[i], hi = inferred.hi[i];
        if (lo < kMin || hi > kMax) {
            throw ProgramError(node.label + ": inferred bounds " + interval(lo, hi) + " at element " +
                               std::to_string(i) + " leave 64 bits; use narrower operands or weights");
        }
        const bool inside = lo <= node.lo[i] && node.hi[i] <= hi, around = node.lo[i] <= lo && hi <= node.hi[i];
        if (node.declared() ? !inside : !around) {
            throw ProgramError(
                node.label + ": bounds " + interval(node.lo[i], node.hi[i]) + " at element " + std::to_string(i) +
                (node.declared() ? " were declared, must lie inside " : " were given as proved, must contain ") +
                interval(lo, hi));
        }
        stored.lo = std::min(stored.lo, static_cast<std::int64_t>(lo));
        stored.hi = std::max(stored.hi, static_cast<std::int64_t>(hi));
    }
    node.stored = stored;
    node.partial_sums = static_cast<std::int64_t>(std::min<Int128>(magnitude, kMax));
}

Node decode_node(const NodeSpec& spec, std::size_t index, const Program& program) {
    Node node;
    node.index = index;
    node.name = spec.name;
    node.label = "%" + std::to_string(index) + " " + spec.op + (spec.name.empty() ? "" : " '" + spec.name + "'");
    node.op = parse_op(spec, node.label);
    node.provenance = parse_provenance(spec, node.label);
    if (spec.shape.size() > kMaxRank) {
        throw ProgramError(node.label + ": shape has " + std::to_string(spec.shape.size()) +
                           " axes, must have at most " + std::to_string(kMaxRank));
    }
    Operands operands;
    for (std::int64_t operand : spec.operands) {
        if (operand < 0 || static_cast<std::size_t>(operand) >= index) {
            throw ProgramError(node.label + ": operand " + std::to_string(operand) + " must be one of the " +
                               std::to_string(index) + " earlier nodes");
        }
        node.operands.push_back(static_cast<std::size_t>(operand));
        operands.emplace_back(program.nodes[node.operands.back()]);
    }
    node.depends_on_calibrated = node.provenance == Provenance::kCalibrated ||
                                 std::any_of(operands.begin(), operands.end(),
                                             [](const Node& operand) { return operand.depends_on_calibrated; });
    node.depends_on_lookup =
        spec.op == "table_lookup" ||
        std::any_of(operands.begin(), operands.end(), [](const Node& operand) { return operand.depends_on_lookup; });
    decode_attributes(spec, operands, node);
    node.dropped = dropped_bits(node, operands);
    if (node.shape != spec.shape) {
        throw ProgramError(node.label + ": shape " + to_string(spec.shape) + " was given, " + to_string(node.shape) +
                           " was inferred");
    }
    node.lo = expand(spec.lo, "lo", node);
    node.hi = expand(spec.hi, "hi", node);
    for (std::size_t i = 0; i < node.size; ++i) {
        if (node.lo[i] > node.hi[i]) {
            throw ProgramError(node.label + ": empty bounds " + interval(node.lo[i], node.hi[i]) + " at element " +
                               std::to_string(i));
        }
    }
    decode_region(spec, node);
    if (node.op == Op::kInput) {
        node.stored = node.range();
        return node;
    }
    Int128 magnitude = 0;
    const WideBounds inferred = infer_bounds(node, operands, magnitude);
    check_bounds(inferred, magnitude, node);
    return node;
}

}  // namespace

Range Node::range() const {
    return {*std::min_element(lo.begin(), lo.end()), *std::max_element(hi.begin(), hi.end())};
}

bool Program::has_calibrated_bounds() const {
    return std::any_of(nodes.begin(), nodes.end(),
                       [](const Node& node) { return node.provenance == Provenance::kCalibrated; });
}

void Program::check_wrappable() const {
    for (const Node& node : nodes) {
        if (node.op != Op::kMultiply && node.op != Op::kMaximum) continue;
        for (std::size_t operand : node.operands) {
            if (!nodes[operand].depends_on_calibrated) continue;
            throw ProgramError(node.label +
                               ": an operand depends on calibrated bounds, so it may wrap; apply "
                               "fhelearn.passes.expand_products to the program first");
        }
    }
}

Program decode_program(std::span<const NodeSpec> specs, std::span<const std::int64_t> outputs) {
    Program program;
    program.nodes.reserve(specs.size());
    for (std::size_t index = 0; index < specs.size(); ++index) {
        program.nodes.push_back(decode_node(specs[index], index, program));
        if (program.nodes.back().op == Op::kInput) program.inputs.push_back(index);
    }
    if (outputs.empty()) throw ProgramError("a program must have at least one output");
    for (std::int64_t output : outputs) {
        if (output < 0 || static_cast<std::size_t>(output) >= specs.size()) {
            throw ProgramError("output " + std::to_string(output) + " must be one of the " +
                               std::to_string(specs.size()) + " nodes");
        }
        program.outputs.push_back(static_cast<std::size_t>(output));
    }
    check_regions(program);
    return program;
}

}  // namespace fhelearn
