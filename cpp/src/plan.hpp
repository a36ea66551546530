// What the engine does with a block of rows: a list of steps on buffers of one arena.
#pragma once

#include <cstddef>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <vector>

#include "fhelearn/engine.hpp"

namespace fhelearn {

// A buffer of `size` elements per row. Slots whose lifetimes (first to last step) overlap do not share memory.
struct Slot {
    ScalarType type = ScalarType::kI64;
    std::size_t size = 0;
    std::size_t offset = 0;  // bytes into the arena
    std::size_t first = 0, last = 0;
    std::vector<std::int64_t> constant{};  // written once, kept for all runs
};

// The first input value, in order of inputs, rows, elements, outside its bounds.
struct InputViolation {
    std::size_t input, row, element;
    std::int64_t value;
};

// Rows of a node outside its declared bounds.
struct Overflow {
    std::size_t rows = 0, first_row = 0;
    double magnitude = -1.0;  // |worst value|; of equals the first counts
    std::size_t worst_row = 0, worst_element = 0;
    std::int64_t worst = 0;
};

// What went wrong in the blocks of a run. Blocks report in any order; the result does not depend on it.
class Violations {
  public:
    void report(const InputViolation& violation);
    void report(std::size_t node, const Overflow& overflow);

    // Throws the error of the first violation, if there was one: inputs before nodes, earlier nodes before later ones.
    // (A block stops at its first overflowing node, so for the first of all nodes the counts are complete.)
    void raise(const Program& program, std::size_t rows) const;

  private:
    std::mutex mutex_;
    std::optional<InputViolation> input_;
    std::map<std::size_t, Overflow> overflows_;
};

// A block of rows on its way through the steps.
struct Block {
    std::size_t first_row;
    std::size_t rows;
    std::byte* arena;
    const std::vector<Slot>& slots;
    std::span<const std::int64_t* const> inputs;
    std::span<std::int64_t* const> outputs;
    const RunOptions& options;
    Violations& violations;

    void* at(std::size_t slot) const { return arena + slots[slot].offset; }
    std::size_t elements(std::size_t slot) const { return slots[slot].size * rows; }
};

class Step {
  public:
    virtual ~Step() = default;

    // False if the block must not go on, because a violation was reported.
    virtual bool run(const Block& block) const = 0;
};

struct Plan {
    std::vector<Slot> slots;
    std::vector<std::unique_ptr<Step>> steps;
    std::size_t block_rows = 1;
    std::size_t arena_bytes = 0;
    double nanoseconds_per_row = 0.0;  // a rough estimate, to decide whether threads pay
};

// `wide`: every buffer 64-bit, lookups clipped, values wrapping and faults injected as RunOptions ask. Otherwise
// buffers have the types that bounds prove, and the plan is only right for runs without faults in which no calibrated
// value wraps.
Plan make_plan(const Program& program, const KernelTable& table, bool wide);

}  // namespace fhelearn
