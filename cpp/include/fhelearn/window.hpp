// The geometry of convolutions and pooling.
#pragma once

#include <cstdint>

namespace fhelearn {

// Extents of a convolution or pooling window, always two-dimensional.
struct Window {
    std::int64_t channels = 0, height = 0, width = 0;              // of the operand
    std::int64_t out_channels = 0, out_height = 0, out_width = 0;  // of the result
    std::int64_t kernel_height = 0, kernel_width = 0;
    std::int64_t stride_height = 1, stride_width = 1;
    std::int64_t dilation_height = 1, dilation_width = 1;
    std::int64_t groups = 1;
};

}  // namespace fhelearn
