// Runs of engines on batches that tests can compare.
#pragma once

#include <vector>

#include "fhelearn/engine.hpp"
#include "programs.hpp"

namespace testing {

using Batch = std::vector<Ints>;  // one dense array per input or output

inline Batch run(const fhelearn::Engine& engine, const Batch& inputs, std::size_t rows,
                 const fhelearn::RunOptions& options) {
    std::vector<const std::int64_t*> from;
    for (const Ints& input : inputs) from.push_back(input.data());
    Batch outputs;
    std::vector<std::int64_t*> to;
    for (std::size_t i : engine.program().outputs) outputs.emplace_back(engine.program().nodes[i].size * rows);
    for (Ints& output : outputs) to.push_back(output.data());
    engine.run(from, rows, to, options);
    return outputs;
}

// Rows over the whole declared range of every input; about a third of the rows are corners.
inline Batch random_batch(Random& random, const Program& program, std::size_t rows) {
    Batch batch;
    for (std::size_t index : program.inputs) {
        const Node& node = program.nodes[index];
        Ints values(node.size * rows);
        for (std::size_t row = 0; row < rows; ++row) {
            const bool corner = random.integer(0, 2) == 0;
            for (std::size_t e = 0; e < node.size; ++e) {
                const std::int64_t end = random.integer(0, 1) ? node.lo[e] : node.hi[e];
                values[row * node.size + e] = corner ? end : random.integer(node.lo[e], node.hi[e]);
            }
        }
        batch.push_back(std::move(values));
    }
    return batch;
}

}  // namespace testing
