// Interval arithmetic of every op, exact: 64-bit where nothing can wrap, 128-bit or wider otherwise.
#include <algorithm>
#include <stdexcept>

#include "decode.hpp"
#include "fhelearn/errors.hpp"
#include "range_index.hpp"

namespace fhelearn {

namespace {

Int128 magnitude_of(Int128 value) {
    return value < 0 ? -value : value;
}

Int128 largest(const std::vector<std::int64_t>& values) {
    Int128 result = 0;
    for (std::int64_t v : values) result = std::max(result, magnitude_of(v));
    return result;
}

Int128 largest(const Node& x) {
    return std::max(largest(x.lo), largest(x.hi));
}

// An exact sum of fewer than 2**62 128-bit integers: terms that leave 127 bits may cancel.
class WideSum {
  public:
    void add(Int128 term) {
        __extension__ using UInt128 = unsigned __int128;
        const auto bits = static_cast<UInt128>(term);
        low_ += bits;
        high_ += (low_ < bits ? 1 : 0) - (term < 0 ? 1 : 0);
    }

    // Throws std::overflow_error if the sum leaves 127 bits.
    Int128 value() const {
        const auto low = static_cast<Int128>(low_);
        if (high_ != (low < 0 ? -1 : 0)) throw std::overflow_error("bounds leave 127 bits");
        return low;
    }

  private:
    __extension__ unsigned __int128 low_ = 0;
    std::int64_t high_ = 0;  // of a two's complement number of 192 bits
};

// A sum of non-negative terms that stays at the largest integer once it would pass it.
void add_saturating(Int128& sum, Int128 term) {
    if (__builtin_add_overflow(sum, term, &sum)) sum = ~(Int128{1} << 127);
}

// Adds w * [lo, hi] to an interval, and |w| * max(|lo|, |hi|) to a bound of partial sums, which only has to be right as
// long as it is small.
template <class T>
struct Accumulator;

template <>
struct Accumulator<std::int64_t> {  // the caller has shown that nothing wraps
    std::int64_t lo = 0, hi = 0, magnitude = 0;

    void add(std::int64_t w, std::int64_t x_lo, std::int64_t x_hi) {
        lo += w * (w < 0 ? x_hi : x_lo);
        hi += w * (w < 0 ? x_lo : x_hi);
        magnitude += std::max(x_hi, -x_lo) * (w < 0 ? -w : w);
    }

    void store(std::size_t element, WideBounds& bounds, Int128& largest_magnitude) const {
        bounds.lo[element] = lo;
        bounds.hi[element] = hi;
        largest_magnitude = std::max<Int128>(largest_magnitude, magnitude);
    }
};

template <>
struct Accumulator<Int128> {  // factors of 64 bits: a product has at most 127
    WideSum lo, hi;
    Int128 magnitude = 0;

    void add(Int128 w, Int128 x_lo, Int128 x_hi) {
        lo.add(w * (w < 0 ? x_hi : x_lo));
        hi.add(w * (w < 0 ? x_lo : x_hi));
        add_saturating(magnitude, magnitude_of(w) * std::max(magnitude_of(x_lo), magnitude_of(x_hi)));
    }

    void store(std::size_t element, WideBounds& bounds, Int128& largest_magnitude) const {
        bounds.lo[element] = lo.value();
        bounds.hi[element] = hi.value();
        largest_magnitude = std::max(largest_magnitude, magnitude);
    }
};

template <class T>
void matmul(const Node& node, const Node& x, WideBounds& bounds, Int128& magnitude) {
    const auto k = static_cast<std::size_t>(node.array.shape[0]), m = static_cast<std::size_t>(node.array.shape[1]);
    std::vector<Accumulator<T>> row(m);
    for (std::size_t r = 0; r < x.size / k; ++r) {
        std::fill(row.begin(), row.end(), Accumulator<T>());
        for (std::size_t i = 0; i < k; ++i) {
            for (std::size_t j = 0; j < m; ++j)
                row[j].add(node.array.data[i * m + j], x.lo[r * k + i], x.hi[r * k + i]);
        }
        for (std::size_t j = 0; j < m; ++j) row[j].store(r * m + j, bounds, magnitude);
    }
}

// One output position of a convolution.
template <class T>
Accumulator<T> window_sum(const Node& node, const Node& x, std::int64_t o, std::int64_t oh, std::int64_t ow) {
    const Window& w = node.window;
    const std::int64_t depth = w.channels / w.groups, first = o / (w.out_channels / w.groups) * depth;
    Accumulator<T> sum;
    for (std::int64_t c = 0; c < depth; ++c) {
        for (std::int64_t i = 0; i < w.kernel_height; ++i) {
            for (std::int64_t j = 0; j < w.kernel_width; ++j) {
                const std::int64_t row = oh * w.stride_height + i * w.dilation_height;
                const std::int64_t column = ow * w.stride_width + j * w.dilation_width;
                const auto at = static_cast<std::size_t>(((first + c) * w.height + row) * w.width + column);
                const auto weight =
                    static_cast<std::size_t>(((o * depth + c) * w.kernel_height + i) * w.kernel_width + j);
                sum.add(node.array.data[weight], x.lo[at], x.hi[at]);
            }
        }
    }
    return sum;
}

template <class T>
void window(const Node& node, const Node& x, WideBounds& bounds, Int128& magnitude) {
    std::size_t element = 0;
    for (std::int64_t o = 0; o < node.window.out_channels; ++o) {
        for (std::int64_t h = 0; h < node.window.out_height; ++h) {
            for (std::int64_t w = 0; w < node.window.out_width; ++w) {
                window_sum<T>(node, x, o, h, w).store(element++, bounds, magnitude);
            }
        }
    }
}

// Sums of value(element) over all windows of one pooled channel, told as emit(position, sum). Rows enter and leave the
// running sums of the columns once, whatever the kernel's size. 2**24 integers of 64 bits fit 128.
template <class Value, class Emit>
void pool_channel(const Window& w, std::int64_t channel, const Value& value, const Emit& emit) {
    std::vector<Int128> columns(static_cast<std::size_t>(w.width)), before(static_cast<std::size_t>(w.width) + 1);
    const auto add_row = [&](std::int64_t row, int sign) {
        const auto start = static_cast<std::size_t>((channel * w.height + row) * w.width);
        for (std::size_t j = 0; j < columns.size(); ++j) columns[j] += sign * value(start + j);
    };
    std::int64_t entered = 0, left = 0;
    auto position = static_cast<std::size_t>(channel * w.out_height * w.out_width);
    for (std::int64_t h = 0; h < w.out_height; ++h) {
        const std::int64_t first = h * w.stride_height;
        while (entered < first + w.kernel_height) add_row(entered++, 1);
        while (left < first) add_row(left++, -1);
        for (std::size_t j = 0; j < columns.size(); ++j) before[j + 1] = before[j] + columns[j];
        for (std::int64_t v = 0; v < w.out_width; ++v) {
            const auto start = static_cast<std::size_t>(v * w.stride_width);
            emit(position++, before[start + static_cast<std::size_t>(w.kernel_width)] - before[start]);
        }
    }
}

void sum_pool(const Node& node, const Node& x, WideBounds& bounds, Int128& magnitude) {
    const auto lo = [&](std::size_t i) { return Int128{x.lo[i]}; };
    const auto hi = [&](std::size_t i) { return Int128{x.hi[i]}; };
    const auto reach = [&](std::size_t i) { return std::max(magnitude_of(x.lo[i]), magnitude_of(x.hi[i])); };
    for (std::int64_t c = 0; c < node.window.channels; ++c) {
        pool_channel(node.window, c, lo, [&](std::size_t i, Int128 sum) { bounds.lo[i] = sum; });
        pool_channel(node.window, c, hi, [&](std::size_t i, Int128 sum) { bounds.hi[i] = sum; });
        pool_channel(node.window, c, reach, [&](std::size_t, Int128 sum) { magnitude = std::max(magnitude, sum); });
    }
}

template <class T>
void sum(const Node& node, const Node& x, WideBounds& bounds, Int128& magnitude) {
    const std::vector<std::int32_t> map = sum_map(node, x.shape);
    std::vector<Accumulator<T>> sums(node.size);
    for (std::size_t i = 0; i < x.size; ++i) sums[static_cast<std::size_t>(map[i])].add(1, x.lo[i], x.hi[i]);
    for (std::size_t i = 0; i < node.size; ++i) sums[i].store(i, bounds, magnitude);
}

template <class T>
void linear(const Node& node, const Node& x, WideBounds& bounds, Int128& magnitude) {
    if (node.op == Op::kMatmul) return matmul<T>(node, x, bounds, magnitude);
    if (node.op == Op::kSum) return sum<T>(node, x, bounds, magnitude);
    window<T>(node, x, bounds, magnitude);
}

void choose_linear(const Node& node, const Node& x, WideBounds& bounds, Int128& magnitude) {
    if (node.op == Op::kSumPool2d) return sum_pool(node, x, bounds, magnitude);
    // |w| <= 2**63 and |x| <= 2**63 leave no doubt about the product of two, so divide instead of multiplying three.
    const Int128 heaviest = std::max<Int128>(node.op == Op::kSum ? 1 : largest(node.array.data), 1);
    const Int128 terms = static_cast<Int128>(std::max(node.array.data.size(), x.size));
    const bool safe = heaviest * std::max<Int128>(largest(x), 1) <= (Int128{1} << 62) / terms;
    if (safe) return linear<std::int64_t>(node, x, bounds, magnitude);
    linear<Int128>(node, x, bounds, magnitude);
}

void binary(const Node& node, const Node& x, const Node& y, WideBounds& bounds) {
    for (std::size_t i = 0; i < node.size; ++i) {
        const Int128 xl = x.lo[i], xh = x.hi[i], yl = y.lo[i], yh = y.hi[i];
        if (node.op == Op::kMultiply) {
            const Int128 products[] = {xl * yl, xl * yh, xh * yl, xh * yh};
            bounds.lo[i] = *std::min_element(products, products + 4);
            bounds.hi[i] = *std::max_element(products, products + 4);
            continue;
        }
        const bool sub = node.op == Op::kSub, maximum = node.op == Op::kMaximum;
        bounds.lo[i] = maximum ? std::max(xl, yl) : sub ? xl - yh : xl + yl;
        bounds.hi[i] = maximum ? std::max(xh, yh) : sub ? xh - yl : xh + yh;
    }
}

void with_constant(const Node& node, const Node& x, WideBounds& bounds) {
    const std::vector<std::int32_t> map = broadcast_map(node.array.shape, node.shape);
    for (std::size_t i = 0; i < node.size; ++i) {
        const Int128 c = node.array.data[static_cast<std::size_t>(map[i])];
        const bool add = node.op == Op::kAddConstant;
        const Int128 a = add ? x.lo[i] + c : x.lo[i] * c, b = add ? x.hi[i] + c : x.hi[i] * c;
        bounds.lo[i] = std::min(a, b);
        bounds.hi[i] = std::max(a, b);
    }
}

[[noreturn]] void fail_coverage(const Node& node, const Node& x, std::size_t element) {
    const std::int64_t size = node.array.shape.back();
    throw ProgramError(node.label + ": table covers [" + std::to_string(node.table_lo) + ", " +
                       to_string(Int128{node.table_lo} + size - 1) + "] but operand element " +
                       std::to_string(element) + " lies in [" + std::to_string(x.lo[element]) + ", " +
                       std::to_string(x.hi[element]) + "]; extend the table");
}

void table_lookup(const Node& node, const Node& x, WideBounds& bounds) {
    const std::int64_t size = node.array.shape.back();
    const std::vector<std::int32_t> rows = table_rows(node);
    const RangeIndex entries(node.array.data);
    std::size_t known_first = 0, known_last = 0;  // neighbours often reach the same entries
    Range reached;
    for (std::size_t i = 0; i < node.size; ++i) {
        if (x.lo[i] < node.table_lo || Int128{x.hi[i]} - node.table_lo >= size) fail_coverage(node, x, i);
        const std::size_t first = static_cast<std::size_t>(rows[i] + (x.lo[i] - node.table_lo));
        const std::size_t last = static_cast<std::size_t>(rows[i] + (x.hi[i] - node.table_lo) + 1);
        if (first != known_first || last != known_last) reached = entries.range(first, last);
        known_first = first;
        known_last = last;
        bounds.lo[i] = reached.lo;
        bounds.hi[i] = reached.hi;
    }
}

void round(const Node& node, const Node& x, WideBounds& bounds) {
    const Int128 step = Int128{1} << node.lsbs;
    const auto floored = [&](Int128 v) { return (v >> node.lsbs) * step; };
    for (std::size_t i = 0; i < node.size; ++i) {
        // An approximate rounding may go either way anywhere.
        bounds.lo[i] = floored(x.lo[i] + (node.approximate ? 0 : step / 2));
        bounds.hi[i] = floored(x.hi[i] + (node.approximate ? step - 1 : step / 2));
    }
}

void moved(const Node& node, const Operands& operands, WideBounds& bounds) {
    if (node.op == Op::kConcatenate) {
        std::int64_t offset = 0;
        for (const Node& x : operands) {
            const std::vector<std::int32_t> map = concatenate_map(node, x.shape, offset);
            offset += x.shape[static_cast<std::size_t>(node.axis)];
            for (std::size_t i = 0; i < map.size(); ++i) {
                bounds.lo[static_cast<std::size_t>(map[i])] = x.lo[i];
                bounds.hi[static_cast<std::size_t>(map[i])] = x.hi[i];
            }
        }
        return;
    }
    const Node& x = operands[0];
    const std::vector<std::int32_t> map = source_map(node, x.shape);
    for (std::size_t i = 0; i < map.size(); ++i) {
        bounds.lo[i] = map[i] < 0 ? node.fill : x.lo[static_cast<std::size_t>(map[i])];
        bounds.hi[i] = map[i] < 0 ? node.fill : x.hi[static_cast<std::size_t>(map[i])];
    }
}

void infer(const Node& node, const Operands& operands, WideBounds& bounds, Int128& magnitude) {
    switch (node.op) {
        case Op::kInput:
            return;  // an input's bounds are what its owner says
        case Op::kConstant:
            bounds.lo.assign(node.array.data.begin(), node.array.data.end());
            bounds.hi = bounds.lo;
            return;
        case Op::kMatmul:
        case Op::kConv:
        case Op::kSumPool2d:
        case Op::kSum:
            return choose_linear(node, operands[0], bounds, magnitude);
        case Op::kAdd:
        case Op::kSub:
        case Op::kMultiply:
        case Op::kMaximum:
            return binary(node, operands[0], operands[1], bounds);
        case Op::kNegate:
            for (std::size_t i = 0; i < node.size; ++i) {
                bounds.lo[i] = -Int128{operands[0].get().hi[i]};
                bounds.hi[i] = -Int128{operands[0].get().lo[i]};
            }
            return;
        case Op::kAddConstant:
        case Op::kMultiplyConstant:
            return with_constant(node, operands[0], bounds);
        case Op::kTableLookup:
            return table_lookup(node, operands[0], bounds);
        case Op::kRound:
            return round(node, operands[0], bounds);
        default:
            return moved(node, operands, bounds);
    }
}

}  // namespace

WideBounds infer_bounds(const Node& node, const Operands& operands, Int128& magnitude) {
    WideBounds bounds;
    bounds.lo.resize(node.size);
    bounds.hi.resize(node.size);
    magnitude = 0;
    try {
        infer(node, operands, bounds, magnitude);
    } catch (const std::overflow_error& error) {
        throw ProgramError(node.label + ": " + error.what() + "; use narrower operands or weights");
    }
    return bounds;
}

}  // namespace fhelearn
