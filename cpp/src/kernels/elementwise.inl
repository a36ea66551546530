// Elementwise loops, compiled once per instruction set: each including file defines FHELEARN_ISA and has its own flags.
// Everything lives in an unnamed namespace and uses no inline function of a shared header, because the linker keeps one
// copy of such a function and could keep the one compiled for a newer CPU.
#include <cmath>
#include <cstring>

#include "fhelearn/kernels.hpp"
#include "tables_of.hpp"

namespace fhelearn {

namespace {

template <class T>
struct UnsignedOf;
template <>
struct UnsignedOf<std::int32_t> {
    using Type = std::uint32_t;
};
template <>
struct UnsignedOf<std::int64_t> {
    using Type = std::uint64_t;
};

struct Add {
    template <class U>
    static U apply(U a, U b) {
        return a + b;
    }
};

struct Sub {
    template <class U>
    static U apply(U a, U b) {
        return a - b;
    }
};

struct Multiply {
    template <class U>
    static U apply(U a, U b) {
        return a * b;
    }
};

template <class T, class Operation>
void binary(const void* x, const void* y, void* out, std::size_t n) {
    using U = typename UnsignedOf<T>::Type;  // unsigned arithmetic wraps, signed must not
    const U* a = static_cast<const U*>(x);
    const U* b = static_cast<const U*>(y);
    U* o = static_cast<U*>(out);
    for (std::size_t i = 0; i < n; ++i) o[i] = Operation::template apply<U>(a[i], b[i]);
}

template <class T>
void maximum(const void* x, const void* y, void* out, std::size_t n) {
    const T* a = static_cast<const T*>(x);
    const T* b = static_cast<const T*>(y);
    T* o = static_cast<T*>(out);
    for (std::size_t i = 0; i < n; ++i) o[i] = a[i] > b[i] ? a[i] : b[i];
}

template <class T>
void negate(const void* x, void* out, std::size_t n) {
    using U = typename UnsignedOf<T>::Type;
    const U* a = static_cast<const U*>(x);
    U* o = static_cast<U*>(out);
    for (std::size_t i = 0; i < n; ++i) o[i] = U{0} - a[i];
}

template <class T, class Operation>
void with_constants(const void* x, const void* constants, std::size_t period, void* out, std::size_t n) {
    for (std::size_t start = 0; start < n; start += period) {
        const std::size_t length = n - start < period ? n - start : period;
        binary<T, Operation>(static_cast<const T*>(x) + start, constants, static_cast<T*>(out) + start, length);
    }
}

template <class T>
void round(const void* x, int lsbs, void* out, std::size_t n) {
    using U = typename UnsignedOf<T>::Type;
    const T* a = static_cast<const T*>(x);
    T* o = static_cast<T*>(out);
    for (std::size_t i = 0; i < n; ++i) {
        const U half_up = static_cast<U>(a[i] >> lsbs) + static_cast<U>((a[i] >> (lsbs - 1)) & 1);
        o[i] = static_cast<T>(half_up << lsbs);
    }
}

template <class T>
void sum(const void* x, std::size_t x_size, const std::int32_t* map, void* out, std::size_t out_size,
         std::size_t rows) {
    using U = typename UnsignedOf<T>::Type;
    const U* a = static_cast<const U*>(x);
    U* o = static_cast<U*>(out);
    for (std::size_t r = 0; r < rows; ++r, a += x_size, o += out_size) {
        std::memset(o, 0, out_size * sizeof(U));
        for (std::size_t e = 0; e < x_size; ++e) o[map[e]] += a[e];
    }
}

template <class From, class To>
void convert(const void* x, void* out, std::size_t n) {
    const From* a = static_cast<const From*>(x);
    To* o = static_cast<To*>(out);
    for (std::size_t i = 0; i < n; ++i) o[i] = static_cast<To>(a[i]);
}

template <class T>
bool check(const void* x, const std::int64_t* lo, const std::int64_t* hi, std::size_t period, std::size_t n) {
    std::int64_t outside = 0;
    for (std::size_t start = 0; start < n; start += period) {
        const T* a = static_cast<const T*>(x) + start;
        const std::size_t length = n - start < period ? n - start : period;
        for (std::size_t i = 0; i < length; ++i) {
            const std::int64_t v = a[i];
            outside |= (v < lo[i]) | (v > hi[i]);
        }
    }
    return outside == 0;
}

template <class To>
bool checked_load(const std::int64_t* x, const std::int64_t* lo, const std::int64_t* hi, std::size_t period, void* out,
                  std::size_t n) {
    // The caller's array may be written meanwhile, and a value that changes between check and copy would index past a
    // table: each is read once, into a buffer whose origin the barrier hides from the compiler.
    constexpr std::size_t kBuffer = 256;
    std::int64_t buffer[kBuffer];
    std::int64_t outside = 0;
    std::size_t phase = 0;  // of `done` in the period
    for (std::size_t done = 0, length = 0; done < n; done += length, phase = (phase + length) % period) {
        const std::size_t left = n - done < period - phase ? n - done : period - phase;
        length = left < kBuffer ? left : kBuffer;
        std::memcpy(buffer, x + done, length * sizeof buffer[0]);
        __asm__ volatile("" : : "r"(buffer) : "memory");
        To* o = static_cast<To*>(out) + done;
        for (std::size_t i = 0; i < length; ++i) {
            outside |= (buffer[i] < lo[phase + i]) | (buffer[i] > hi[phase + i]);
            o[i] = static_cast<To>(buffer[i]);
        }
    }
    return outside == 0;
}

template <class X, class Entry>
void lookup(const void* x, const void* table, std::int64_t lo, const std::int32_t* first, std::size_t period, void* out,
            std::size_t n) {
    const X* a = static_cast<const X*>(x);
    const Entry* t = static_cast<const Entry*>(table);
    Entry* o = static_cast<Entry*>(out);
    if (!first) {
        for (std::size_t i = 0; i < n; ++i) o[i] = t[static_cast<std::int64_t>(a[i]) - lo];
        return;
    }
    for (std::size_t start = 0; start < n; start += period) {
        const std::size_t length = n - start < period ? n - start : period;
        for (std::size_t i = 0; i < length; ++i) {
            o[start + i] = t[first[i] + (static_cast<std::int64_t>(a[start + i]) - lo)];
        }
    }
}

template <class T>
void gather(const void* x, std::size_t x_size, const std::int32_t* map, std::int64_t fill, void* out,
            std::size_t out_size, std::size_t rows) {
    const T* a = static_cast<const T*>(x);
    T* o = static_cast<T*>(out);
    const T filler = static_cast<T>(fill);
    for (std::size_t r = 0; r < rows; ++r, a += x_size, o += out_size) {
        for (std::size_t e = 0; e < out_size; ++e) o[e] = map[e] < 0 ? filler : a[map[e]];
    }
}

template <class T>
void scatter(const void* x, std::size_t x_size, const std::int32_t* map, void* out, std::size_t out_size,
             std::size_t rows) {
    const T* a = static_cast<const T*>(x);
    T* o = static_cast<T*>(out);
    for (std::size_t r = 0; r < rows; ++r, a += x_size, o += out_size) {
        for (std::size_t e = 0; e < x_size; ++e) o[map[e]] = a[e];
    }
}

// Adding 1.5 * 2**52 leaves no fraction bits: the sum is rounded half to even, the low bits of its pattern are the
// integer.
constexpr double kToInteger = 6755399441055744.0;

// Rounds and clips in float64: exact, because [lo - 1, hi + 1] lies inside +-2**51, where clipping first changes
// nothing.
bool quantize(const double* x, std::size_t rows, std::size_t columns, const double* scale, const double* offset,
              const double* lo, const double* hi, std::int64_t* q, double* below, double* above) {
    std::int64_t pattern_of_zero;
    std::memcpy(&pattern_of_zero, &kToInteger, sizeof pattern_of_zero);
    std::int64_t missing = 0;
    for (std::size_t r = 0; r < rows; ++r, x += columns, q += columns) {
        for (std::size_t c = 0; c < columns; ++c) {
            const double v = (x[c] - offset[c]) / scale[c];
            missing |= x[c] != x[c];  // NOLINT(misc-redundant-expression): only NaN differs from itself
            const double capped = v < hi[c] + 1 ? v : hi[c] + 1;
            const double boxed = capped > lo[c] - 1 ? capped : lo[c] - 1;
            const double rounded = (boxed + kToInteger) - kToInteger;
            below[c] += rounded < lo[c] ? 1.0 : 0.0;
            above[c] += rounded > hi[c] ? 1.0 : 0.0;
            const double low = rounded > lo[c] ? rounded : lo[c];
            const double clipped = (low < hi[c] ? low : hi[c]) + kToInteger;
            std::int64_t pattern;
            std::memcpy(&pattern, &clipped, sizeof pattern);
            q[c] = pattern - pattern_of_zero;
        }
    }
    return missing == 0;
}

void dequantize(const std::int64_t* q, std::size_t rows, std::size_t columns, const double* scale, const double* offset,
                double* x) {
    for (std::size_t r = 0; r < rows; ++r, q += columns, x += columns) {
        for (std::size_t c = 0; c < columns; ++c) x[c] = static_cast<double>(q[c]) * scale[c] + offset[c];
    }
}

using I32 = std::int32_t;
using I64 = std::int64_t;

#define FHELEARN_FOR_TYPES(F, ...)                                                           \
    {F<__VA_ARGS__ std::uint8_t>, F<__VA_ARGS__ std::int8_t>,  F<__VA_ARGS__ std::uint16_t>, \
     F<__VA_ARGS__ std::int16_t>, F<__VA_ARGS__ std::int32_t>, F<__VA_ARGS__ std::int64_t>}
#define FHELEARN_LOOKUPS(X) \
    {lookup<X, std::uint8_t>, lookup<X, std::uint16_t>, lookup<X, std::uint32_t>, lookup<X, std::uint64_t>}
#define FHELEARN_COMMA(X) X,
#define FHELEARN_CONVERSIONS(X) FHELEARN_FOR_TYPES(convert, FHELEARN_COMMA(X))

constexpr ElementwiseKernels kElementwise = {
    .add = {binary<I32, Add>, binary<I64, Add>},
    .sub = {binary<I32, Sub>, binary<I64, Sub>},
    .multiply = {binary<I32, Multiply>, binary<I64, Multiply>},
    .maximum = {maximum<I32>, maximum<I64>},
    .negate = {negate<I32>, negate<I64>},
    .add_constant = {with_constants<I32, Add>, with_constants<I64, Add>},
    .multiply_constant = {with_constants<I32, Multiply>, with_constants<I64, Multiply>},
    .round = {round<I32>, round<I64>},
    .sum = {sum<I32>, sum<I64>},
    .convert = {FHELEARN_CONVERSIONS(std::uint8_t), FHELEARN_CONVERSIONS(std::int8_t),
                FHELEARN_CONVERSIONS(std::uint16_t), FHELEARN_CONVERSIONS(std::int16_t),
                FHELEARN_CONVERSIONS(std::int32_t), FHELEARN_CONVERSIONS(std::int64_t)},
    .checked_load = FHELEARN_FOR_TYPES(checked_load),
    .check = FHELEARN_FOR_TYPES(check),
    .lookup = {FHELEARN_LOOKUPS(std::uint8_t), FHELEARN_LOOKUPS(std::int8_t), FHELEARN_LOOKUPS(std::uint16_t),
               FHELEARN_LOOKUPS(std::int16_t), FHELEARN_LOOKUPS(std::int32_t), FHELEARN_LOOKUPS(std::int64_t)},
    .gather = {gather<std::uint8_t>, gather<std::uint16_t>, gather<std::uint32_t>, gather<std::uint64_t>},
    .scatter = {scatter<std::uint8_t>, scatter<std::uint16_t>, scatter<std::uint32_t>, scatter<std::uint64_t>},
};

constexpr QuantizeKernels kQuantize = {quantize, dequantize};

}  // namespace

namespace FHELEARN_ISA {

const ElementwiseKernels& elementwise() {
    return kElementwise;
}

const QuantizeKernels& quantization() {
    return kQuantize;
}

}  // namespace FHELEARN_ISA

}  // namespace fhelearn
