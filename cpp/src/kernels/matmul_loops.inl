// Matrix products as plain loops that compilers vectorize, for any instruction set; included by the files of each.
// In an unnamed namespace, for the reason given in elementwise.inl.
#include "fhelearn/kernels.hpp"

namespace fhelearn {

namespace {

// Packed as bias (m), weights (k, m); both of type W, except that the bias has the accumulator's type U.
template <class W, class U>
std::size_t loops_packed_bytes(std::size_t k, std::size_t m) {
    return m * sizeof(U) + k * m * sizeof(W);
}

template <class W, class U>
void loops_pack(const std::int64_t* weights, const std::int64_t* bias, std::size_t k, std::size_t m, void* packed) {
    U* b = static_cast<U*>(packed);
    for (std::size_t j = 0; j < m; ++j) b[j] = bias ? static_cast<U>(bias[j]) : U{0};
    W* w = reinterpret_cast<W*>(b + m);
    for (std::size_t i = 0; i < k * m; ++i) w[i] = static_cast<W>(weights[i]);
}

// U is the unsigned accumulator, S its signed twin: operands are widened with their sign, then multiplied modulo
// 2**bits.
template <class X, class W, class S, class U>
void loops_run(const void* x, std::size_t rows, std::size_t k, const void* packed, std::size_t m, void* out) {
    const U* bias = static_cast<const U*>(packed);
    const W* weights = reinterpret_cast<const W*>(bias + m);
    const X* a = static_cast<const X*>(x);
    U* o = static_cast<U*>(out);
    for (std::size_t r = 0; r < rows; ++r, a += k, o += m) {
        if (m == 1) {
            U sum = bias[0];
            for (std::size_t i = 0; i < k; ++i) sum += static_cast<U>(S{a[i]}) * static_cast<U>(S{weights[i]});
            o[0] = sum;
            continue;
        }
        for (std::size_t j = 0; j < m; ++j) o[j] = bias[j];
        for (std::size_t i = 0; i < k; ++i) {
            const U v = static_cast<U>(S{a[i]});
            const W* w = weights + i * m;
            for (std::size_t j = 0; j < m; ++j) o[j] += v * static_cast<U>(S{w[j]});
        }
    }
}

template <class X, class W, class S, class U>
constexpr MatmulKernel loops(const char* name, ScalarType operand, ScalarType weight, ScalarType accumulator) {
    return {name, operand, weight, accumulator, loops_packed_bytes<W, U>, loops_pack<W, U>, loops_run<X, W, S, U>};
}

using I16 = std::int16_t;
using I32 = std::int32_t;
using I64 = std::int64_t;

constexpr MatmulKernel kLoops16 =
    loops<I16, I16, I32, std::uint32_t>("loops_s16_s32", ScalarType::kI16, ScalarType::kI16, ScalarType::kI32);
constexpr MatmulKernel kLoops32 =
    loops<I32, I32, I32, std::uint32_t>("loops_s32_s32", ScalarType::kI32, ScalarType::kI32, ScalarType::kI32);
constexpr MatmulKernel kLoops32Wide =
    loops<I32, I32, I64, std::uint64_t>("loops_s32_s64", ScalarType::kI32, ScalarType::kI32, ScalarType::kI64);
constexpr MatmulKernel kLoops64 =
    loops<I64, I64, I64, std::uint64_t>("loops_s64_s64", ScalarType::kI64, ScalarType::kI64, ScalarType::kI64);

}  // namespace

}  // namespace fhelearn
