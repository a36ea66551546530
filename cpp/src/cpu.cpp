#include "fhelearn/cpu.hpp"

#include <cstring>

namespace fhelearn {

bool cpu_supports(const char* isa) {
    if (std::strcmp(isa, "portable") == 0) return true;
#if defined(FHELEARN_HAVE_AVX2)
    __builtin_cpu_init();
    if (std::strcmp(isa, "avx2") == 0) return __builtin_cpu_supports("avx2");
    if (std::strcmp(isa, "avx512") == 0) {  // and AVX2, whose kernels its table shares
        return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("avx512f") &&
               __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
               __builtin_cpu_supports("avx512vl");
    }
#endif
    return false;
}

}  // namespace fhelearn
