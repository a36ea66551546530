#include "steps.hpp"

#include <algorithm>
#include <cstring>
#include <new>

#include "decode.hpp"

namespace fhelearn {

namespace {

// A step that is one call of a kernel: the closure holds what it needs.
template <class Call>
class CallStep final : public Step {
  public:
    explicit CallStep(Call call) : call_(std::move(call)) {}

    bool run(const Block& block) const override {
        call_(block);
        return true;
    }

  private:
    Call call_;
};

template <class Call>
StepPointer make_call(Call call) {
    return std::make_unique<CallStep<Call>>(std::move(call));
}

class LoadStep final : public Step {
  public:
    LoadStep(const Node& node, std::size_t position, std::size_t out, ElementwiseKernels::CheckedLoad load)
        : position_(position), out_(out), size_(node.size), lo_(tile(node.lo)), hi_(tile(node.hi)), load_(load) {}

    bool run(const Block& block) const override {
        const std::int64_t* x = block.inputs[position_] + block.first_row * size_;
        const std::size_t n = block.rows * size_;
        while (!load_(x, lo_.data(), hi_.data(), lo_.size(), block.at(out_), n)) {
            if (report(block, x, n)) return false;
        }
        return true;
    }

  private:
    // False if there is no violation any more, because the caller's array is written meanwhile.
    bool report(const Block& block, const volatile std::int64_t* x, std::size_t n) const {
        for (std::size_t i = 0; i < n; ++i) {
            const std::size_t element = i % size_;
            const std::int64_t value = x[i];
            if (value >= lo_[element] && value <= hi_[element]) continue;
            block.violations.report(InputViolation{position_, block.first_row + i / size_, element, value});
            return true;
        }
        return false;
    }

    std::size_t position_, out_, size_;
    std::vector<std::int64_t> lo_, hi_;
    ElementwiseKernels::CheckedLoad load_;
};

class CheckStep final : public Step {
  public:
    CheckStep(const Node& node, std::size_t slot, ScalarType type, const ElementwiseKernels& kernels)
        : node_(node.index),
          size_(node.size),
          may_overflow_(node.depends_on_calibrated),
          may_fail_(node.depends_on_lookup),
          slot_(slot),
          lo_(tile(node.lo)),
          hi_(tile(node.hi)),
          check_(kernels.check[index_of(type)]),
          widen_(kernels.convert[index_of(type)][index_of(ScalarType::kI64)]) {}

    bool run(const Block& block) const override {
        if ((may_overflow_ && block.options.wrap) || (may_fail_ && block.options.p_error > 0)) return true;
        const std::size_t n = block.elements(slot_);
        if (check_(block.at(slot_), lo_.data(), hi_.data(), lo_.size(), n)) return true;
        block.violations.report(node_, describe(block, n));
        return false;
    }

  private:
    Overflow describe(const Block& block, std::size_t n) const {
        std::vector<std::int64_t> values(n);
        widen_(block.at(slot_), values.data(), n);
        Overflow overflow;
        for (std::size_t row = 0; row < block.rows; ++row) {
            bool outside = false;
            for (std::size_t e = 0; e < size_; ++e) {
                const std::int64_t value = values[row * size_ + e];
                if (value >= lo_[e] && value <= hi_[e]) continue;
                outside = true;
                const double magnitude = std::abs(static_cast<double>(value));
                if (magnitude > overflow.magnitude) {
                    overflow.magnitude = magnitude;
                    overflow.worst = value;
                    overflow.worst_row = block.first_row + row;
                    overflow.worst_element = e;
                }
            }
            if (outside && overflow.rows++ == 0) overflow.first_row = block.first_row + row;
        }
        return overflow;
    }

    std::size_t node_, size_;
    bool may_overflow_, may_fail_;
    std::size_t slot_;
    std::vector<std::int64_t> lo_, hi_;
    ElementwiseKernels::Check check_;
    ElementwiseKernels::Convert widen_;
};

// Decryption yields the message and its padding bit; the top bit of a signed message is a sign of its own.
void wrap_outputs(std::int64_t* values, std::size_t n, int width, bool is_signed) {
    const std::uint64_t modulus = std::uint64_t{1} << (width + 1);
    for (std::size_t i = 0; i < n; ++i) {
        std::uint64_t reduced = static_cast<std::uint64_t>(values[i]) & (modulus - 1);
        if (is_signed && reduced >= modulus / 2) {
            reduced -= modulus;
        } else if (is_signed && reduced >= modulus / 4) {
            reduced -= modulus / 2;
        }
        values[i] = static_cast<std::int64_t>(reduced);
    }
}

}  // namespace

TypedArray::TypedArray(std::size_t bytes)
    : bytes_(static_cast<std::byte*>(::operator new[](bytes + kReadSlack, std::align_val_t{64}))) {
    std::memset(bytes_.get(), 0, bytes + kReadSlack);
}

TypedArray::TypedArray(const std::vector<std::int64_t>& values, ScalarType type)
    : TypedArray(values.size() * size_of(type)) {
    supported_kernels().back().elementwise->convert[index_of(ScalarType::kI64)][index_of(type)](values.data(), data(),
                                                                                                values.size());
}

StepPointer make_load(const Node& node, std::size_t position, std::size_t out, ScalarType type,
                      const KernelTable& table) {
    return std::make_unique<LoadStep>(node, position, out, table.elementwise->checked_load[index_of(type)]);
}

StepPointer make_check(const Node& node, std::size_t slot, ScalarType type, const KernelTable& table) {
    return std::make_unique<CheckStep>(node, slot, type, *table.elementwise);
}

StepPointer make_convert(Place place, ScalarType from, ScalarType to, const KernelTable& table) {
    const auto convert = table.elementwise->convert[index_of(from)][index_of(to)];
    return make_call([=](const Block& b) { convert(b.at(place.x), b.at(place.out), b.elements(place.x)); });
}

StepPointer make_store(const Node& node, std::size_t position, std::size_t slot, ScalarType type, bool wide,
                       const KernelTable& table) {
    constexpr int kWidest = 62;  // wider regions hold every int64
    const auto convert = table.elementwise->convert[index_of(type)][index_of(ScalarType::kI64)];
    const bool reduce = wide && node.width <= kWidest;
    return make_call([=, width = node.width, is_signed = node.is_signed, size = node.size](const Block& b) {
        std::int64_t* out = b.outputs[position] + b.first_row * size;
        convert(b.at(slot), out, b.elements(slot));
        if (reduce && b.options.wrap) wrap_outputs(out, b.elements(slot), width, is_signed);
    });
}

StepPointer make_matmul(const Node& node, const std::vector<std::int64_t>& bias, Place place,
                        const MatmulKernel& kernel) {
    const auto k = static_cast<std::size_t>(node.array.shape[0]), m = static_cast<std::size_t>(node.array.shape[1]);
    TypedArray packed(kernel.packed_bytes(k, m));
    kernel.pack(node.array.data.data(), bias.empty() ? nullptr : bias.data(), k, m, packed.data());
    return make_call([=, packed = std::move(packed), run = kernel.run](const Block& b) {
        run(b.at(place.x), b.elements(place.x) / k, k, packed.data(), m, b.at(place.out));
    });
}

StepPointer make_convolution(const Node& node, Place place, ScalarType type, const KernelTable& table) {
    TypedArray weights(node.array.data, type);
    const auto kernel = table.windows->convolution[width_index(type)];
    return make_call([=, weights = std::move(weights), window = node.window](const Block& b) {
        const std::size_t x_bytes = b.slots[place.x].size * size_of(type);
        const std::size_t out_bytes = b.slots[place.out].size * size_of(type);
        for (std::size_t row = 0; row < b.rows; ++row) {
            kernel(static_cast<std::byte*>(b.at(place.x)) + row * x_bytes, weights.data(), window,
                   static_cast<std::byte*>(b.at(place.out)) + row * out_bytes);
        }
    });
}

StepPointer make_sum_pool(const Node& node, Place place, ScalarType type, const KernelTable& table) {
    const auto kernel = table.windows->sum_pool[width_index(type)];
    return make_call([=, window = node.window](const Block& b) {
        const std::size_t x_bytes = b.slots[place.x].size * size_of(type);
        const std::size_t out_bytes = b.slots[place.out].size * size_of(type);
        for (std::size_t row = 0; row < b.rows; ++row) {
            kernel(static_cast<std::byte*>(b.at(place.x)) + row * x_bytes, window,
                   static_cast<std::byte*>(b.at(place.out)) + row * out_bytes);
        }
    });
}

StepPointer make_binary(const Node& node, std::size_t x, std::size_t y, std::size_t out, ScalarType type,
                        const KernelTable& table) {
    const ElementwiseKernels& e = *table.elementwise;
    const std::size_t width = width_index(type);
    const auto kernel = node.op == Op::kAdd        ? e.add[width]
                        : node.op == Op::kSub      ? e.sub[width]
                        : node.op == Op::kMultiply ? e.multiply[width]
                                                   : e.maximum[width];
    return make_call([=](const Block& b) { kernel(b.at(x), b.at(y), b.at(out), b.elements(out)); });
}

StepPointer make_negate(Place place, ScalarType type, const KernelTable& table) {
    const auto kernel = table.elementwise->negate[width_index(type)];
    return make_call([=](const Block& b) { kernel(b.at(place.x), b.at(place.out), b.elements(place.out)); });
}

StepPointer make_with_constant(const Node& node, Place place, ScalarType type, const KernelTable& table) {
    const ElementwiseKernels& e = *table.elementwise;
    const auto kernel = (node.op == Op::kAddConstant ? e.add_constant : e.multiply_constant)[width_index(type)];
    const std::vector<std::int32_t> map = broadcast_map(node.array.shape, node.shape);
    std::vector<std::int64_t> constants(map.size());
    for (std::size_t i = 0; i < map.size(); ++i) constants[i] = node.array.data[static_cast<std::size_t>(map[i])];
    constants = tile(constants);
    return make_call([=, period = constants.size(), typed = TypedArray(constants, type)](const Block& b) {
        kernel(b.at(place.x), typed.data(), period, b.at(place.out), b.elements(place.out));
    });
}

StepPointer make_sum(const Node& node, const Shape& operand, Place place, ScalarType type, const KernelTable& table) {
    const auto kernel = table.elementwise->sum[width_index(type)];
    return make_call([=, map = sum_map(node, operand)](const Block& b) {
        kernel(b.at(place.x), b.slots[place.x].size, map.data(), b.at(place.out), b.slots[place.out].size, b.rows);
    });
}

StepPointer make_round(const Node& node, Place place, ScalarType type, const KernelTable& table) {
    const auto kernel = table.elementwise->round[width_index(type)];
    return make_call(
        [=, lsbs = node.lsbs](const Block& b) { kernel(b.at(place.x), lsbs, b.at(place.out), b.elements(place.out)); });
}

StepPointer make_gather(const Node& node, const Shape& operand, Place place, ScalarType type,
                        const KernelTable& table) {
    const auto kernel = table.elementwise->gather[size_index(type)];
    return make_call([=, map = source_map(node, operand), fill = node.fill](const Block& b) {
        kernel(b.at(place.x), b.slots[place.x].size, map.data(), fill, b.at(place.out), b.slots[place.out].size,
               b.rows);
    });
}

StepPointer make_scatter(std::vector<std::int32_t> map, Place place, ScalarType type, const KernelTable& table) {
    const auto kernel = table.elementwise->scatter[size_index(type)];
    return make_call([=, map = std::move(map)](const Block& b) {
        kernel(b.at(place.x), b.slots[place.x].size, map.data(), b.at(place.out), b.slots[place.out].size, b.rows);
    });
}

StepPointer make_lookup(const Node& node, Place place, ScalarType operand, ScalarType entry, const KernelTable& table) {
    const auto kernel = table.elementwise->lookup[index_of(operand)][size_index(entry)];
    std::vector<std::int32_t> first;
    if (node.array.shape.size() > 1) first = tile(table_rows(node));
    return make_call([=, lo = node.table_lo, entries = TypedArray(node.array.data, entry),
                      first = std::move(first)](const Block& b) {
        kernel(b.at(place.x), entries.data(), lo, first.empty() ? nullptr : first.data(), first.size(), b.at(place.out),
               b.elements(place.out));
    });
}

}  // namespace fhelearn
