// Convolution and pooling as plain loops whose innermost runs along a row, which compilers vectorize; included once per
// instruction set. In an unnamed namespace, for the reason given in elementwise.inl.
#include "fhelearn/kernels.hpp"
#include "tables_of.hpp"

namespace fhelearn {

namespace {

// Position (c, h, w) in a (channels, height, width) array of one row.
std::size_t position(std::int64_t c, std::int64_t h, std::int64_t w, std::int64_t height, std::int64_t width) {
    return static_cast<std::size_t>((c * height + h) * width + w);
}

// out[i] += weight * x[i * stride]. U is unsigned: 64-bit sums may wrap on the way to an exact result.
template <class U>
void accumulate(const U* x, U weight, std::int64_t stride, U* out, std::int64_t n) {
    if (stride == 1) {
        for (std::int64_t i = 0; i < n; ++i) out[i] += weight * x[i];
        return;
    }
    for (std::int64_t i = 0; i < n; ++i) out[i] += weight * x[i * stride];
}

// One row of the result: output channel `o`, which reads `depth` channels from `first`, at height `oh`. A null
// `weights` stands for ones.
template <class U>
void window_row(const U* x, const U* weights, const Window& w, std::int64_t first, std::int64_t depth, std::int64_t oh,
                U* out) {
    for (std::int64_t i = 0; i < w.out_width; ++i) out[i] = 0;
    for (std::int64_t c = first; c < first + depth; ++c) {
        for (std::int64_t i = 0; i < w.kernel_height; ++i) {
            const U* row = x + position(c, oh * w.stride_height + i * w.dilation_height, 0, w.height, w.width);
            for (std::int64_t j = 0; j < w.kernel_width; ++j) {
                accumulate(row + j * w.dilation_width, weights ? *weights++ : U{1}, w.stride_width, out, w.out_width);
            }
        }
    }
}

template <class U>
void convolve(const void* x, const void* weights, const Window& w, void* out) {
    const std::int64_t depth = w.channels / w.groups, per_group = w.out_channels / w.groups;
    U* o = static_cast<U*>(out);
    for (std::int64_t channel = 0; channel < w.out_channels; ++channel) {
        const U* kernel =
            static_cast<const U*>(weights) + position(channel * depth, 0, 0, w.kernel_height, w.kernel_width);
        for (std::int64_t h = 0; h < w.out_height; ++h, o += w.out_width) {
            window_row(static_cast<const U*>(x), kernel, w, channel / per_group * depth, depth, h, o);
        }
    }
}

template <class U>
void pool(const void* x, const Window& w, void* out) {
    U* o = static_cast<U*>(out);
    for (std::int64_t channel = 0; channel < w.channels; ++channel) {
        for (std::int64_t h = 0; h < w.out_height; ++h, o += w.out_width) {
            window_row<U>(static_cast<const U*>(x), nullptr, w, channel, 1, h, o);
        }
    }
}

constexpr WindowKernels kWindows = {
    .convolution = {convolve<std::uint32_t>, convolve<std::uint64_t>},
    .sum_pool = {pool<std::uint32_t>, pool<std::uint64_t>},
};

}  // namespace

namespace FHELEARN_ISA {

const WindowKernels& windows() {
    return kWindows;
}

}  // namespace FHELEARN_ISA

}  // namespace fhelearn
