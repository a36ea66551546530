// Damaged node lists: validation refuses them or the engine runs them; sanitizers watch that nothing else happens.
#include <type_traits>

#include "check.hpp"
#include "fhelearn/engine.hpp"
#include "fhelearn/errors.hpp"
#include "runs.hpp"

using namespace testing;

namespace {

std::int64_t odd_integer(Random& random) {
    const Ints odd = {0, 1, -1, 2, 3, 7, 62, 63, 64, 255, 1 << 20, std::int64_t{1} << 40, INT64_MAX, INT64_MIN};
    return odd[static_cast<std::size_t>(random.integer(0, static_cast<std::int64_t>(odd.size()) - 1))];
}

void damage(Random& random, Ints& values) {
    const std::int64_t last = static_cast<std::int64_t>(values.size()) - 1;
    if (last < 0 || random.integer(0, 3) == 0) {
        values.push_back(odd_integer(random));
    } else if (random.integer(0, 3) == 0) {
        values.pop_back();
    } else {
        values[static_cast<std::size_t>(random.integer(0, last))] = odd_integer(random);
    }
}

void damage(Random& random, Attribute& attribute) {
    if (random.integer(0, 9) == 0) {
        attribute = odd_integer(random);
        return;
    }
    std::visit(
        [&](auto& value) {
            using T = std::decay_t<decltype(value)>;
            if constexpr (std::is_same_v<T, bool>) value = !value;
            if constexpr (std::is_same_v<T, std::int64_t>) value = odd_integer(random);
            if constexpr (std::is_same_v<T, std::string>) value += "x";
            if constexpr (std::is_same_v<T, Ints>) damage(random, value);
            if constexpr (std::is_same_v<T, IntArray>) damage(random, random.integer(0, 1) ? value.shape : value.data);
        },
        attribute);
}

void damage(Random& random, NodeSpec& spec) {
    switch (random.integer(0, 8)) {
        case 0:
            spec.op = op_names()[static_cast<std::size_t>(random.integer(0, 20))];
            return;
        case 1:
            return damage(random, spec.operands);
        case 2:
            return damage(random, spec.shape);
        case 3:
            return damage(random, random.integer(0, 1) ? spec.lo.data : spec.lo.shape);
        case 4:
            return damage(random, random.integer(0, 1) ? spec.hi.data : spec.hi.shape);
        case 5:
            spec.provenance = random.integer(0, 1) ? "structural" : "calibrated";
            return;
        case 6:
            spec.width = odd_integer(random);
            return;
        default:
            break;
    }
    if (spec.attributes.empty()) return;
    auto at = spec.attributes.begin();
    std::advance(at, random.integer(0, static_cast<std::int64_t>(spec.attributes.size()) - 1));
    if (random.integer(0, 9) == 0) {
        spec.attributes.erase(at);
    } else {
        damage(random, at->second);
    }
}

// Whether the damaged program was accepted; it then also ran in every mode.
bool survives(Random& random, const Builder& builder) {
    try {
        const Program program = builder.build();
        const Batch inputs = random_batch(random, program, 3);
        const fhelearn::Engine engine(program, fhelearn::kernels());
        for (int mode = 0; mode < 4; ++mode) {
            fhelearn::RunOptions options;
            options.wrap = mode % 2 == 1;
            options.p_error = options.rounding_noise = mode / 2 ? 0.4 : 0.0;
            try {
                run(engine, inputs, 3, options);
            } catch (const fhelearn::AccumulatorOverflowError&) {
                continue;
            }
        }
        return true;
    } catch (const fhelearn::ProgramError&) {
        return false;
    }
}

}  // namespace

TEST("damaged programs are refused with ProgramError or run") {
    Random random(7);
    int accepted = 0, refused = 0;
    for (int i = 0; i < 150; ++i) {
        const Builder builder = random_builder(random);
        for (int j = 0; j < 40; ++j) {
            Builder damaged = builder;
            const auto last = static_cast<std::int64_t>(damaged.specs.size()) - 1;
            damage(random, damaged.specs[static_cast<std::size_t>(random.integer(0, last))]);
            ++(survives(random, damaged) ? accepted : refused);
        }
    }
    CHECK(refused > 2000);
    CHECK(accepted > 200);
}
