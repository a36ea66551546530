// What each kernel file offers to the table in kernels.cpp.
#pragma once

#include "fhelearn/kernels.hpp"

namespace fhelearn {

// An array of kernels. Not std::span, whose inline members files with special flags must not emit (elementwise.inl).
struct MatmulKernels {
    const MatmulKernel* first;
    std::size_t count;
};

namespace portable {
const ElementwiseKernels& elementwise();
const QuantizeKernels& quantization();
const WindowKernels& windows();
const ForestKernels& forests();
MatmulKernels matmul();
}  // namespace portable

namespace avx2 {
const ElementwiseKernels& elementwise();
const QuantizeKernels& quantization();
const WindowKernels& windows();
const ForestKernels& forests();
MatmulKernels matmul();
}  // namespace avx2

namespace avx512 {
const ForestKernels& forests();
}  // namespace avx512

}  // namespace fhelearn
