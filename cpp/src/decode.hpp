// The three parts of decoding a node; each throws ProgramError naming it.
#pragma once

#include <functional>
#include <vector>

#include "fhelearn/program.hpp"

namespace fhelearn {

using Operands = std::vector<std::reference_wrapper<const Node>>;

// Elements of a value, as ir/SPEC.md limits them, and entries of a table: both are indexed by 32 bits.
inline constexpr std::int64_t kMaxElements = std::int64_t{1} << 24;
inline constexpr std::int64_t kMaxEntries = std::int64_t{1} << 30;

// Op of a name of ir/SPEC.md.
Op parse_op(const NodeSpec& spec, const std::string& label);

// Read and check the attributes of `node.op`, fill node.shape from them and the operands' shapes.
void decode_attributes(const NodeSpec& spec, const Operands& operands, Node& node);

// Exact bounds per element.
struct WideBounds {
    std::vector<Int128> lo, hi;
};

// Bounds of node's value that interval arithmetic proves from its operands' bounds. For table_lookup: checks that the
// table covers the operand. `magnitude` is an upper bound of every partial sum's absolute value.
WideBounds infer_bounds(const Node& node, const Operands& operands, Int128& magnitude);

// The position in the operand that each element of a moving op (reshape, transpose, slice, gather, broadcast, pad)
// reads; -1 where pad fills.
std::vector<std::int32_t> source_map(const Node& node, const Shape& operand);

// The element of the result that each element of the operand of `sum` adds to.
std::vector<std::int32_t> sum_map(const Node& node, const Shape& operand);

// The element of the result that each element of an operand of `concatenate` becomes, which begins at `offset` of the
// axis.
std::vector<std::int32_t> concatenate_map(const Node& node, const Shape& operand, std::int64_t offset);

// Index into a C-order array of shape `from` for each element of the shape it broadcasts to.
std::vector<std::int32_t> broadcast_map(const Shape& from, const Shape& to);

// First entry of the table that each element of a lookup reads (0 everywhere for a single table).
std::vector<std::int32_t> table_rows(const Node& node);

// Number of elements; extents are positive and the caller has checked the limit.
std::size_t count(const Shape& shape);

}  // namespace fhelearn
