#include "fhelearn/engine.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <mutex>
#include <stdexcept>
#include <thread>

#include "fhelearn/errors.hpp"
#include "fhelearn/parallel.hpp"
#include "plan.hpp"
#include "steps.hpp"

namespace fhelearn {

namespace {

// "(0, 1)": the coordinates of an element.
std::string coordinates(std::size_t element, const Shape& shape) {
    Shape at(shape.size());
    auto rest = static_cast<std::int64_t>(element);
    for (std::size_t axis = shape.size(); axis-- > 0; rest /= shape[axis]) at[axis] = rest % shape[axis];
    return to_string(at);
}

void check_options(const RunOptions& options) {
    if (!(options.p_error >= 0.0 && options.p_error < 1.0)) {
        throw std::invalid_argument("p_error must be in [0, 1), got " + std::to_string(options.p_error));
    }
    if (!(options.rounding_noise >= 0.0 && std::isfinite(options.rounding_noise))) {
        throw std::invalid_argument("rounding_noise must be finite and >= 0, got " +
                                    std::to_string(options.rounding_noise));
    }
}

bool has_op(const Program& program, Op op, bool approximate) {
    return std::any_of(program.nodes.begin(), program.nodes.end(),
                       [&](const Node& node) { return node.op == op && (!approximate || node.approximate); });
}

}  // namespace

void Violations::report(const InputViolation& violation) {
    std::lock_guard lock(mutex_);
    const auto key = [](const InputViolation& v) { return std::tuple(v.input, v.row, v.element); };
    if (!input_ || key(violation) < key(*input_)) input_ = violation;
}

void Violations::report(std::size_t node, const Overflow& overflow) {
    std::lock_guard lock(mutex_);
    Overflow& total = overflows_[node];
    const bool first = total.rows == 0;
    const auto place = [](const Overflow& o) { return std::pair(o.worst_row, o.worst_element); };
    const bool worse = overflow.magnitude > total.magnitude ||
                       (overflow.magnitude == total.magnitude && place(overflow) < place(total));
    const Overflow before = total;
    if (worse) total = overflow;
    total.rows = before.rows + overflow.rows;
    total.first_row = first ? overflow.first_row : std::min(before.first_row, overflow.first_row);
}

void Violations::raise(const Program& program, std::size_t rows) const {
    if (input_) {
        const Node& node = program.nodes[program.inputs[input_->input]];
        throw InputRangeError(
            "input " + std::to_string(input_->input) + (node.name.empty() ? "" : " '" + node.name + "'") + ": row " +
            std::to_string(input_->row) + ", element " + coordinates(input_->element, node.shape) + " is " +
            std::to_string(input_->value) + ", allowed is [" + std::to_string(node.lo[input_->element]) + ", " +
            std::to_string(node.hi[input_->element]) + "]");
    }
    if (overflows_.empty()) return;
    const auto& [index, overflow] = *overflows_.begin();
    const Node& node = program.nodes[index];
    const Range bounds = node.range();
    const bool structural = node.provenance == Provenance::kStructural;
    throw AccumulatorOverflowError(
        node.label + ": " + std::to_string(overflow.rows) + " of " + std::to_string(rows) + " rows leave the " +
        (structural ? "structural" : "calibrated") + " bounds [" + std::to_string(bounds.lo) + ", " +
        std::to_string(bounds.hi) + "] (first row " + std::to_string(overflow.first_row) + ", worst value " +
        std::to_string(overflow.worst) +
        (structural ? "); the inputs are not what the program's encoder gives, encode with it"
                    : "); calibrate on more data, widen the margin, or use proved bounds"));
}

// A plan and the arenas that its runs take and give back. Once there are as many as runs need at the same time, what a
// run still allocates does not depend on rows or program: the list of its arenas and the pool's record of the job.
class Engine::ScratchPool {
  public:
    explicit ScratchPool(Plan plan) : plan_(std::move(plan)) {}

    const Plan& plan() const { return plan_; }

    TypedArray take() {
        if (const auto lock = try_lock(); lock && !free_.empty()) {
            TypedArray arena = std::move(free_.back());
            free_.pop_back();
            return arena;
        }
        TypedArray arena(plan_.arena_bytes);
        for (const Slot& slot : plan_.slots) {
            if (slot.constant.empty()) continue;
            const TypedArray row(slot.constant, slot.type);
            const std::size_t bytes = slot.size * size_of(slot.type);
            std::byte* to = static_cast<std::byte*>(arena.data()) + slot.offset;
            for (std::size_t r = 0; r < plan_.block_rows; ++r) std::memcpy(to + r * bytes, row.data(), bytes);
        }
        return arena;
    }

    void give_back(TypedArray arena) {
        if (const auto lock = try_lock()) free_.push_back(std::move(arena));  // else the arena is freed
    }

  private:
    // In the child of a fork that happened while another thread held the mutex, nobody will ever unlock it: then give
    // up, which costs an arena per run. Whoever else holds it is done after a few instructions.
    std::unique_lock<std::mutex> try_lock() {
        constexpr int kAttempts = 200;
        std::unique_lock lock(mutex_, std::try_to_lock);
        for (int i = 0; i < kAttempts && !lock.owns_lock(); ++i) {
            std::this_thread::yield();
            lock.try_lock();
        }
        return lock;
    }

    Plan plan_;
    std::mutex mutex_;
    std::vector<TypedArray> free_;
};

Engine::Engine(Program program, const KernelTable& table) : program_(std::move(program)) {
    narrow_ = std::make_unique<ScratchPool>(make_plan(program_, table, false));
    wide_ = std::make_unique<ScratchPool>(make_plan(program_, table, true));
    for (Node& node : program_.nodes) {  // the plans hold what runs need; only bounds that errors quote are kept
        node.array = {};
        if (node.op == Op::kInput || node.declared()) continue;
        node.lo = {};
        node.hi = {};
    }
}

Engine::~Engine() = default;

void Engine::run(std::span<const std::int64_t* const> inputs, std::size_t rows, std::span<std::int64_t* const> outputs,
                 const RunOptions& options) const {
    check_options(options);
    if (options.wrap) program_.check_wrappable();
    const bool fails = options.p_error > 0 && has_op(program_, Op::kTableLookup, false);
    const bool noisy = options.rounding_noise > 0 && has_op(program_, Op::kRound, true);
    const bool wraps = options.wrap && program_.has_calibrated_bounds();
    ScratchPool& scratch = fails || noisy || wraps ? *wide_ : *narrow_;
    const Plan& plan = scratch.plan();

    // Below this much work waking a thread costs more than it brings.
    constexpr double kSerialNanoseconds = 40'000;
    const bool serial = plan.nanoseconds_per_row * static_cast<double>(rows) < kSerialNanoseconds;
    const std::size_t threads = serial ? 1 : std::clamp<std::size_t>(options.num_threads, 1, kMaxThreads);
    // Four chunks per thread even out what other processes disturb.
    const std::size_t share = threads == 1 ? rows : (rows + 4 * threads - 1) / (4 * threads);
    const std::size_t block_rows = std::max<std::size_t>(1, std::min(plan.block_rows, share));
    const std::size_t num_blocks = (rows + block_rows - 1) / block_rows;

    Violations violations;
    std::vector<TypedArray> arenas(std::min(threads, num_blocks));
    parallel_for(num_blocks, threads, [&](std::size_t chunk, std::size_t worker) {
        TypedArray& arena = arenas[worker];
        if (!arena.data()) arena = scratch.take();
        const std::size_t first = chunk * block_rows;
        const Block block{first,
                          std::min(block_rows, rows - first),
                          static_cast<std::byte*>(arena.data()),
                          plan.slots,
                          inputs,
                          outputs,
                          options,
                          violations};
        for (const auto& step : plan.steps) {
            if (!step->run(block)) return;
        }
    });
    for (TypedArray& arena : arenas) {
        if (arena.data()) scratch.give_back(std::move(arena));
    }
    violations.raise(program_, rows);
}

}  // namespace fhelearn
