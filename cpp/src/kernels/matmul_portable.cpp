// Matrix products for every CPU of the platform.
#include "matmul_loops.inl"
#include "tables_of.hpp"

namespace fhelearn::portable {

MatmulKernels matmul() {
    static constexpr MatmulKernel kKernels[] = {kLoops16, kLoops32, kLoops32Wide, kLoops64};
    return {kKernels, sizeof kKernels / sizeof kKernels[0]};
}

}  // namespace fhelearn::portable
