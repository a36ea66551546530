// The integer program as the engine sees it: decoded, validated again, bounds re-proved.
#pragma once

#include <map>
#include <span>
#include <string>
#include <vector>

#include "fhelearn/types.hpp"
#include "fhelearn/window.hpp"

namespace fhelearn {

enum class Op : std::uint8_t {
    kInput,
    kConstant,
    kMatmul,
    kConv,  // conv1d and conv2d: a conv1d has height 1
    kSumPool2d,
    kAdd,
    kSub,
    kMultiply,
    kMaximum,
    kNegate,
    kAddConstant,
    kMultiplyConstant,
    kSum,
    kTableLookup,
    kRound,
    kReshape,
    kTranspose,
    kConcatenate,
    kSlice,
    kGather,
    kPad,
    kBroadcast,
};

enum class Provenance : std::uint8_t { kProved, kStructural, kCalibrated };

// A node as it crosses the language border: nothing of it is trusted.
struct NodeSpec {
    std::string op;
    std::string name;
    std::vector<std::int64_t> operands;
    Shape shape;
    IntArray lo;
    IntArray hi;
    std::string provenance;
    std::int64_t width = 0;  // of the linear region the value belongs to
    bool is_signed = false;
    std::map<std::string, Attribute> attributes;
};

// A validated node. Bounds have one entry per element (C order, no batch axis).
struct Node {
    Op op = Op::kInput;
    std::string label;  // "%3 matmul 'fc1'"
    std::string name;
    std::size_t index = 0;
    std::vector<std::size_t> operands;
    Shape shape;
    std::size_t size = 1;
    Provenance provenance = Provenance::kProved;
    std::vector<std::int64_t> lo, hi;  // what the value keeps to; checked at run time where it was declared, not proved
    Range stored;                      // every value the node can compute before that check
    std::int64_t partial_sums = 0;     // largest |partial sum| on the way to a value of a linear op, saturated
    bool depends_on_calibrated = false;  // an unseen input may push the value outside its bounds
    bool depends_on_lookup = false;      // an injected failure may
    int dropped = 0;                     // low bits that rounding took out of the encoding: lookups do not read them
    int width = 1;
    bool is_signed = false;

    IntArray array;  // weights, value or table
    Window window;
    std::vector<std::int64_t> axes, starts, steps, before, indices;
    std::int64_t axis = 0;
    std::int64_t table_lo = 0;
    std::int64_t fill = 0;  // of pad
    int lsbs = 0;
    bool approximate = false;

    // The interval of all elements together.
    Range range() const;
    bool declared() const { return provenance != Provenance::kProved; }
};

// Nodes in SSA order: node i defines value %i and reads only earlier ones.
struct Program {
    std::vector<Node> nodes;
    std::vector<std::size_t> inputs;
    std::vector<std::size_t> outputs;

    bool has_calibrated_bounds() const;

    // Throws ProgramError naming the first product or maximum of values that may wrap: nothing says what it would mean.
    void check_wrappable() const;
};

// Decode and validate. Every bound is inferred again from the operands' bounds: a proved bound must contain what was
// inferred, a declared one must lie inside it, and a table must cover its operand. Throws ProgramError naming the node.
Program decode_program(std::span<const NodeSpec> specs, std::span<const std::int64_t> outputs);

}  // namespace fhelearn
