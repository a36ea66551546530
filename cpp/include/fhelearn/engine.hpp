// Runs a program on batches, bit-identical with the reference evaluator of ir/reference.py.
#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "fhelearn/kernels.hpp"
#include "fhelearn/program.hpp"

namespace fhelearn {

struct RunOptions {
    std::size_t num_threads = 1;
    bool wrap = false;            // what calibrated bounds do when left: wrap as the ciphertext does, or throw
    double p_error = 0.0;         // probability of a failed lookup, in [0, 1)
    double rounding_noise = 0.0;  // standard deviation at approximate rounding, in steps of 2**lsbs
    std::uint64_t seed = 0;
};

// Immutable after construction; run() may be called from several threads at once.
class Engine {
  public:
    // Plans for the kernels of `table`, which must outlive the engine.
    Engine(Program program, const KernelTable& table);
    ~Engine();
    Engine(const Engine&) = delete;
    Engine& operator=(const Engine&) = delete;

    const Program& program() const { return program_; }

    // inputs[i]: `rows` times the elements of the i-th input node, C order; outputs[i] likewise for program.outputs.
    // Throws InputRangeError if an input is outside its bounds, AccumulatorOverflowError if a value leaves declared
    // bounds, ProgramError if wrapping has no meaning for the program, std::invalid_argument if an option is out of
    // range. Outputs are unspecified after an error.
    void run(std::span<const std::int64_t* const> inputs, std::size_t rows, std::span<std::int64_t* const> outputs,
             const RunOptions& options) const;

  private:
    class ScratchPool;

    Program program_;
    std::unique_ptr<ScratchPool> narrow_;  // typed by proved bounds
    std::unique_ptr<ScratchPool> wide_;    // 64-bit throughout, for faults and wrapped values
};

}  // namespace fhelearn
