// The kinds of steps, each built from decoded nodes by the planner.
#pragma once

#include <memory>
#include <vector>

#include "plan.hpp"

namespace fhelearn {

// Where a step reads and writes.
struct Place {
    std::size_t x = 0, out = 0;
};

using StepPointer = std::unique_ptr<Step>;

// Copies the rows of an input into a slot, checking bounds.
StepPointer make_load(const Node& node, std::size_t position, std::size_t out, ScalarType type,
                      const KernelTable& table);

// Checks a declared bound, except of values that options.wrap lets wrap.
StepPointer make_check(const Node& node, std::size_t slot, ScalarType type, const KernelTable& table);

StepPointer make_convert(Place place, ScalarType from, ScalarType to, const KernelTable& table);

// Copies a slot to output `position`; wide plans reduce it as decryption does.
StepPointer make_store(const Node& node, std::size_t position, std::size_t slot, ScalarType type, bool wide,
                       const KernelTable& table);

StepPointer make_matmul(const Node& node, const std::vector<std::int64_t>& bias, Place place,
                        const MatmulKernel& kernel);
StepPointer make_convolution(const Node& node, Place place, ScalarType type, const KernelTable& table);
StepPointer make_sum_pool(const Node& node, Place place, ScalarType type, const KernelTable& table);
StepPointer make_binary(const Node& node, std::size_t x, std::size_t y, std::size_t out, ScalarType type,
                        const KernelTable& table);
StepPointer make_negate(Place place, ScalarType type, const KernelTable& table);
StepPointer make_with_constant(const Node& node, Place place, ScalarType type, const KernelTable& table);
StepPointer make_sum(const Node& node, const Shape& operand, Place place, ScalarType type, const KernelTable& table);
StepPointer make_round(const Node& node, Place place, ScalarType type, const KernelTable& table);
StepPointer make_gather(const Node& node, const Shape& operand, Place place, ScalarType type, const KernelTable& table);
StepPointer make_scatter(std::vector<std::int32_t> map, Place place, ScalarType type, const KernelTable& table);

// out elements have type `entry`; the operand lies inside the table.
StepPointer make_lookup(const Node& node, Place place, ScalarType operand, ScalarType entry, const KernelTable& table);

// 64-bit lookup and rounding with wrapping and faults. `operand` gives the region whose width a wrapping lookup takes.
StepPointer make_wide_lookup(const Node& node, const Node& operand, Place place);
StepPointer make_noisy_round(const Node& node, Place place, const KernelTable& table);

// `values` repeated to at least 256 entries, so that loops over a period are long.
template <class T>
std::vector<T> tile(const std::vector<T>& values) {
    constexpr std::size_t kEnough = 256;
    std::vector<T> result;
    const std::size_t copies = values.empty() ? 0 : (kEnough + values.size() - 1) / values.size();
    result.reserve(copies * values.size());
    for (std::size_t i = 0; i < copies; ++i) result.insert(result.end(), values.begin(), values.end());
    return result;
}

// `values` as elements of `type`, in 64-byte aligned memory.
class TypedArray {
  public:
    TypedArray() = default;
    TypedArray(const std::vector<std::int64_t>& values, ScalarType type);
    explicit TypedArray(std::size_t bytes);

    void* data() const { return bytes_.get(); }

  private:
    struct Free {
        void operator()(std::byte* p) const { ::operator delete[](p, std::align_val_t{64}); }
    };
    std::unique_ptr<std::byte[], Free> bytes_;
};

// Index of kernels that come for 32 and 64 bits.
inline std::size_t width_index(ScalarType type) {
    return type == ScalarType::kI64 ? 1 : 0;
}

// Index of kernels that come for elements of 1, 2, 4, 8 bytes.
inline std::size_t size_index(ScalarType type) {
    const std::size_t size = size_of(type);
    return size == 1 ? 0 : size == 2 ? 1 : size == 4 ? 2 : 3;
}

}  // namespace fhelearn
