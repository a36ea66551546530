// Lookups and rounding on 64-bit values that may wrap or fail: what simulation under noise pays for.
#include <algorithm>
#include <cmath>

#include "decode.hpp"
#include "faults.hpp"
#include "steps.hpp"

namespace fhelearn {

namespace {

using U64 = std::uint64_t;
using I64 = std::int64_t;

I64 clip(I64 value, I64 lo, I64 hi) {
    return value < lo ? lo : value > hi ? hi : value;
}

class WideLookupStep final : public Step {
  public:
    WideLookupStep(const Node& node, const Node& operand, Place place)
        : place_(place),
          node_(node.index),
          lo_(node.table_lo),
          last_(node.array.shape.back() - 1),
          width_(operand.width),
          offset_(operand.is_signed ? I64{1} << (operand.width - 1) : 0),
          stride_(std::min(I64{1} << std::min(operand.dropped, 62), last_ + 1)),
          table_(node.array.data),
          first_(table_rows(node)) {}

    bool run(const Block& block) const override {
        const auto* x = static_cast<const I64*>(block.at(place_.x));
        auto* out = static_cast<I64*>(block.at(place_.out));
        const RunOptions& options = block.options;
        const LookupFaults faults(options.seed, node_, options.p_error, stride_);
        for (std::size_t row = 0; row < block.rows; ++row) {
            const U64 row_key = faults.row_key(block.first_row + row);
            for (std::size_t e = 0; e < first_.size(); ++e) {
                const std::size_t i = row * first_.size() + e;
                bool negated = false;
                I64 position = position_of(x[i], options.wrap, negated);
                if (options.p_error > 0) position = clip(position + faults.step(row_key, e), 0, last_);
                const I64 entry = table_[static_cast<std::size_t>(first_[e] + position)];
                out[i] = negated ? static_cast<I64>(U64{0} - static_cast<U64>(entry)) : entry;
            }
        }
        return true;
    }

  private:
    // Inside the table. Without wrapping or faults bounds make this clip nothing; after a fault upstream they do not
    // hold any more. The padding bit makes tables negacyclic: an index past the message space reads the negated entry.
    I64 position_of(I64 x, bool wrap, bool& negated) const {
        constexpr int kWidest = 62;  // wider regions hold every int64
        if (wrap && width_ <= kWidest) {
            const U64 message = U64{1} << width_;
            const U64 turned = (static_cast<U64>(x) + static_cast<U64>(offset_)) & (2 * message - 1);
            negated = turned >= message;
            x = static_cast<I64>(turned & (message - 1)) - offset_;
        }
        // Not clip(x, lo, lo + last): a table may extend past the last int64.
        if (x < lo_) return 0;
        return static_cast<I64>(std::min(static_cast<U64>(x) - static_cast<U64>(lo_), static_cast<U64>(last_)));
    }

    Place place_;
    std::size_t node_;
    I64 lo_, last_;
    int width_;
    I64 offset_, stride_;
    std::vector<I64> table_;
    std::vector<std::int32_t> first_;
};

class NoisyRoundStep final : public Step {
  public:
    NoisyRoundStep(const Node& node, Place place, ElementwiseKernels::Round exact)
        : place_(place), node_(node.index), size_(node.size), lsbs_(node.lsbs), exact_(exact) {}

    bool run(const Block& block) const override {
        const auto* x = static_cast<const I64*>(block.at(place_.x));
        auto* out = static_cast<I64*>(block.at(place_.out));
        const RunOptions& options = block.options;
        if (options.rounding_noise <= 0) {
            exact_(x, lsbs_, out, block.elements(place_.out));
            return true;
        }
        const double step = std::ldexp(1.0, lsbs_), inverse = std::ldexp(1.0, -lsbs_);
        const double deviation = options.rounding_noise * step * 0x1p-32;
        const U64 key = node_key(options.seed, node_), mask = (U64{1} << lsbs_) - 1;
        for (std::size_t row = 0; row < block.rows; ++row) {
            const U64 row_key = mix(key + kGolden * (block.first_row + row + 1));
            for (std::size_t e = 0; e < size_; ++e) {
                const std::size_t i = row * size_ + e;
                const U64 remainder = static_cast<U64>(x[i]) & mask;
                const auto g = static_cast<double>(gauss(row_key, e));
                const double shifted = (static_cast<double>(remainder) + g * deviation) * inverse + 0.5;
                const bool up = remainder != 0 && std::floor(shifted) > 0;  // a multiple never moves
                out[i] = static_cast<I64>(static_cast<U64>(x[i]) - remainder + (up ? mask + 1 : 0));
            }
        }
        return true;
    }

  private:
    Place place_;
    std::size_t node_, size_;
    int lsbs_;
    ElementwiseKernels::Round exact_;
};

}  // namespace

StepPointer make_wide_lookup(const Node& node, const Node& operand, Place place) {
    return std::make_unique<WideLookupStep>(node, operand, place);
}

StepPointer make_noisy_round(const Node& node, Place place, const KernelTable& table) {
    return std::make_unique<NoisyRoundStep>(node, place, table.elementwise->round[1]);
}

}  // namespace fhelearn
