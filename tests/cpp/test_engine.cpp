#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <thread>

#include "check.hpp"
#include "fhelearn/engine.hpp"
#include "fhelearn/errors.hpp"
#include "naive.hpp"
#include "runs.hpp"

using namespace testing;
using fhelearn::Engine;
using fhelearn::KernelTable;
using fhelearn::RunOptions;

namespace {

// A fault so rare that it never happens, but makes the engine take its 64-bit plan.
RunOptions wide_options() {
    RunOptions options;
    options.p_error = 1e-300;
    options.rounding_noise = 1e-300;
    return options;
}

bool agrees(const Program& program, const Batch& inputs, std::size_t rows, const Batch& outputs) {
    for (std::size_t row = 0; row < rows; ++row) {
        std::vector<Row> one;
        for (std::size_t i = 0; i < inputs.size(); ++i) {
            const std::size_t size = program.nodes[program.inputs[i]].size;
            const auto first = inputs[i].begin() + static_cast<std::ptrdiff_t>(row * size);
            one.emplace_back(first, first + static_cast<std::ptrdiff_t>(size));
        }
        const std::vector<Row> expected = naive_run(program, one);
        for (std::size_t o = 0; o < outputs.size(); ++o) {
            if (!std::equal(expected[o].begin(), expected[o].end(),
                            outputs[o].begin() + static_cast<std::ptrdiff_t>(row * expected[o].size()))) {
                return false;
            }
        }
    }
    return true;
}

// y = x * 10 of one 8-bit input, declared to lie in [0, 1000].
Builder declared_program(const char* provenance) {
    Builder builder;
    const std::int64_t x = builder.input({2}, 0, 255);
    builder.emit("multiply_constant", {x}, {{"value", scalar(10)}});
    builder.specs.back().provenance = provenance;
    builder.specs.back().lo = scalar(0);
    builder.specs.back().hi = scalar(1000);
    builder.specs.back().name = "y";
    builder.specs.back().width = 10;
    return builder;
}

// One row, read where it is: other threads may write it.
Ints run_in_place(const Engine& engine, const Ints& row) {
    Ints out(row.size());
    const std::int64_t* from[] = {row.data()};
    std::int64_t* to[] = {out.data()};
    engine.run(from, 1, to, {});
    return out;
}

const KernelTable& portable() {
    return fhelearn::supported_kernels().back();
}

}  // namespace

TEST("random programs equal plain loops on every instruction set, narrow and wide") {
    Random random(1);
    for (int i = 0; i < 150; ++i) {
        const Builder builder = random_builder(random);
        const auto last = static_cast<std::int64_t>(builder.specs.size()) - 1;
        Ints outputs = {last, random.integer(0, last)};
        if (i % 2) {  // every value; else a matmul that one add_constant reads keeps its own to itself
            for (std::int64_t node = 0; node <= last; ++node) outputs.push_back(node);
        }
        const Program program = builder.build(outputs);
        const std::size_t rows = at(random.integer(1, 40));
        const Batch inputs = random_batch(random, program, rows);
        for (const KernelTable& table : fhelearn::supported_kernels()) {
            const Engine engine(program, table);
            CHECK(agrees(program, inputs, rows, run(engine, inputs, rows, {})));
            CHECK(agrees(program, inputs, rows, run(engine, inputs, rows, wide_options())));
        }
    }
}

TEST("many rows on many threads give what one thread gives") {
    Random random(2);
    Builder builder;
    const std::int64_t x = builder.input({30}, 0, 65535);
    const std::int64_t y = builder.emit("matmul", {x}, {{"weights", random.array({30, 3}, 30000)}});
    builder.emit("add_constant", {y}, {{"value", random.array({3}, 1000000)}});
    const Program program = builder.build();
    const std::size_t rows = 30001;
    const Batch inputs = random_batch(random, program, rows);
    const Engine engine(program, fhelearn::kernels());
    RunOptions options;
    const Batch expected = run(engine, inputs, rows, options);
    CHECK(agrees(program, inputs, rows, expected));
    options.num_threads = 4;
    CHECK(run(engine, inputs, rows, options) == expected);
    std::vector<std::thread> callers;
    std::vector<Batch> results(4);
    for (Batch& result : results) callers.emplace_back([&] { result = run(engine, inputs, rows, options); });
    for (std::thread& caller : callers) caller.join();
    for (const Batch& result : results) CHECK(result == expected);
}

TEST("a batch of no rows gives no rows") {
    Builder builder;
    builder.input({3}, 0, 7);
    const Engine engine(builder.build(), portable());
    CHECK(run(engine, {{}}, 0, {}) == Batch{{}});
}

TEST("a program of constants needs no input") {
    Builder builder;
    builder.emit("constant", {}, {{"value", IntArray{{2}, {5, -7}}}});
    CHECK(run(Engine(builder.build(), portable()), {}, 2, {}) == Batch({{5, -7, 5, -7}}));
}

TEST("an input outside its bounds is named with row and element, whatever the thread that meets it") {
    Builder builder;
    builder.input({2, 2}, -8, 7, "pixels");
    const Program program = builder.build();
    const Engine engine(program, fhelearn::kernels());
    Ints values(4 * 50000, 3);
    values[4 * 49999 + 1] = 8;
    values[4 * 20000 + 2] = -9;
    RunOptions options;
    options.num_threads = 3;
    CHECK_THROWS(fhelearn::InputRangeError, "input 0 'pixels': row 20000, element (1, 0) is -9, allowed is [-8, 7]",
                 run(engine, {values}, 50000, options));
}

TEST("values outside declared bounds are counted and the worst is shown") {
    const Engine engine(declared_program("calibrated").build(), fhelearn::kernels());
    CHECK(run(engine, {{0, 100}}, 1, {}) == Batch({{0, 1000}}));
    CHECK_THROWS(
        fhelearn::AccumulatorOverflowError,
        "%1 multiply_constant 'y': 2 of 3 rows leave the calibrated bounds [0, 1000] (first row 0, worst value 2550)",
        run(engine, {{101, 1, 2, 3, 110, 255}}, 3, {}));
}

TEST("a wrapped output is reduced modulo the ciphertext's width and padding bit") {
    RunOptions options;
    options.wrap = true;
    const Engine engine(declared_program("calibrated").build(), fhelearn::kernels());  // 10 bits, so modulo 2048
    CHECK(run(engine, {{100, 255}}, 1, options) == Batch({{1000, 2550 - 2048}}));
    const Engine structural(declared_program("structural").build(), fhelearn::kernels());
    CHECK_THROWS(fhelearn::AccumulatorOverflowError, "structural", run(structural, {{100, 255}}, 1, options));
}

TEST("a wrapped lookup reads the negated entry of the table's other half") {
    Builder builder = declared_program("calibrated");
    IntArray table{{1001}, Ints(1001)};
    for (std::size_t i = 0; i <= 1000; ++i) table.data[i] = static_cast<std::int64_t>(i) + 1;
    builder.emit("table_lookup", {1}, {{"lo", std::int64_t{0}}, {"table", table}});
    RunOptions options;
    options.wrap = true;
    const Engine engine(builder.build(), portable());
    // 1010 < 1024 is clipped to the table's end; 1500 is past 1024: minus the entry of 476, decoded modulo 2048.
    CHECK(run(engine, {{101, 150}}, 1, options) == Batch({{1001, 2048 - 477}}));
}

TEST("products of values that may wrap are refused when wrapping is asked for") {
    Builder builder = declared_program("calibrated");
    builder.emit("multiply", {1, 1});
    RunOptions options;
    options.wrap = true;
    const Engine engine(builder.build(), portable());
    CHECK(run(engine, {{1, 2}}, 1, {}) == Batch({{100, 400}}));
    CHECK_THROWS(fhelearn::ProgramError, "expand_products", run(engine, {{1, 2}}, 1, options));
}

TEST("lookups fail at the asked rate and equal seeds fail equally") {
    Builder builder;
    const std::int64_t x = builder.input({100}, 0, 15);
    IntArray table{{16}, Ints(16)};
    for (std::size_t i = 0; i < 16; ++i) table.data[i] = static_cast<std::int64_t>(i);
    builder.emit("table_lookup", {x}, {{"lo", std::int64_t{0}}, {"table", table}});
    const Engine engine(builder.build(), fhelearn::kernels());
    const Batch inputs = {Ints(100 * 1000, 8)};
    RunOptions options;
    options.p_error = 0.1;
    options.seed = 42;
    const Batch outputs = run(engine, inputs, 1000, options);
    const auto failed = std::count_if(outputs[0].begin(), outputs[0].end(), [](std::int64_t v) { return v != 8; });
    CHECK(failed > 9620 && failed < 10380);  // four standard deviations of a binomial
    CHECK(std::all_of(outputs[0].begin(), outputs[0].end(), [](std::int64_t v) { return v >= 7 && v <= 9; }));
    options.num_threads = 3;
    CHECK(run(engine, inputs, 1000, options) == outputs);
    options.seed = 43;
    CHECK(run(engine, inputs, 1000, options) != outputs);
}

TEST("a wrapped lookup in a table that extends past the last integer reads its own entries") {
    const std::int64_t lo = INT64_MAX - 3;
    Builder builder = declared_program("calibrated");
    const std::int64_t x = builder.input({1}, lo, INT64_MAX);
    builder.emit("table_lookup", {x}, {{"lo", lo}, {"table", IntArray{{8}, {0, 10, 20, 30, 40, 50, 60, 70}}}});
    for (double p_error : {0.0, 1e-300}) {
        RunOptions options;
        options.wrap = true;
        options.p_error = p_error;
        const Engine engine(builder.build(), portable());
        CHECK(run(engine, {{1, 2, 3, 4}, {lo, INT64_MAX}}, 2, options) == Batch({{0, 30}}));
    }
}

TEST("noise never moves a value that is a multiple already") {
    Builder builder;
    const std::int64_t x = builder.input({64}, 0, 31);
    builder.emit("round", {x}, {{"lsbs", std::int64_t{3}}, {"method", std::string("approximate")}});
    const Engine engine(builder.build(), portable());
    Ints values(64);
    for (std::size_t i = 0; i < 64; ++i) values[i] = static_cast<std::int64_t>(i) % 32;
    RunOptions options;
    options.rounding_noise = 5.0;
    std::size_t moved = 0;
    for (options.seed = 0; options.seed < 50; ++options.seed) {
        const Ints rounded = run(engine, {values}, 1, options)[0];
        for (std::size_t i = 0; i < 64; ++i) {
            if (values[i] % 8 == 0) CHECK(rounded[i] == values[i]);
            moved += rounded[i] != (values[i] + 4) / 8 * 8;
        }
    }
    CHECK(moved > 500);
}

#if !defined(__SANITIZE_THREAD__)  // the race is the test
TEST("whatever a concurrent writer does to an input, answers are entries of the table") {
    Builder builder;
    const std::int64_t x = builder.input({500}, 0, 3);
    builder.emit("table_lookup", {x}, {{"lo", std::int64_t{0}}, {"table", IntArray{{4}, {7, 7, 7, 7}}}});
    const Engine engine(builder.build(), fhelearn::kernels());
    Ints values(500, 1);
    std::atomic<bool> done{false};
    std::thread writer([&] {
        for (std::int64_t i = 0; !done; ++i) {
            std::atomic_ref<std::int64_t>(values[at(i % 500)]).store(i % 3 ? 2 : std::int64_t{1} << (i % 62));
        }
    });
    int wrong = 0;
    for (int i = 0; i < 30000; ++i) {
        try {
            wrong += run_in_place(engine, values) != Ints(500, 7);
        } catch (const fhelearn::InputRangeError&) {
            continue;
        }
    }
    done = true;
    writer.join();
    CHECK(wrong == 0);
}
#endif

// ThreadSanitizer's runtime does not support threads in forked children; in AddressSanitizer's of GCC 12 a child waits
// for the allocator's own lock for good (SizeClassAllocator64::GetFromAllocator) if another thread held it at the fork.
#if !defined(__SANITIZE_THREAD__) && !defined(__SANITIZE_ADDRESS__)
TEST("a child forked while other threads run the engine can run it") {
    const Engine engine(declared_program("structural").build(), fhelearn::kernels());
    std::atomic<bool> done{false};
    std::vector<std::thread> runners;
    for (int i = 0; i < 3; ++i) {
        runners.emplace_back([&] {
            while (!done) run(engine, {{1, 2}}, 1, {});
        });
    }
    int right = 0;
    for (int i = 0; i < 100; ++i) {
        const pid_t child = fork();
        if (child == 0) {
            alarm(20);  // a deadlock ends with a signal
            for (int again = 0; again < 3; ++again) run(engine, {{1, 2}}, 1, {});
            _exit(0);
        }
        int status = -1;
        waitpid(child, &status, 0);
        right += WIFEXITED(status) && WEXITSTATUS(status) == 0;
        if (right <= i) break;
    }
    done = true;
    for (std::thread& runner : runners) runner.join();
    CHECK(right == 100);
}
#endif

TEST("options out of range are refused") {
    Builder builder;
    builder.input({1}, 0, 1);
    const Engine engine(builder.build(), portable());
    RunOptions options;
    options.p_error = 1.0;
    CHECK_THROWS(std::invalid_argument, "p_error must be in [0, 1)", run(engine, {{0}}, 1, options));
    options = {};
    options.rounding_noise = -1.0;
    CHECK_THROWS(std::invalid_argument, "rounding_noise", run(engine, {{0}}, 1, options));
}

TEST("a number of threads whose fourfold overflows is a number of threads") {
    Builder builder;
    builder.input({100}, 0, 9);
    builder.emit("negate", {0});
    const Engine engine(builder.build(), fhelearn::kernels());
    RunOptions options;
    for (std::size_t threads : {std::size_t{1} << 62, std::size_t{1} << 63, SIZE_MAX}) {
        options.num_threads = threads;
        CHECK(run(engine, {Ints(100 * 20000, 3)}, 20000, options) == Batch{Ints(100 * 20000, -3)});
    }
}
