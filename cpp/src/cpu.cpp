#include "fhelearn/cpu.hpp"

#include <cstring>

namespace fhelearn {

bool cpu_supports(const char* isa) {
    if (std::strcmp(isa, "portable") == 0) return true;
#if defined(FHELEARN_HAVE_AVX2)
    __builtin_cpu_init();
    if (std::strcmp(isa, "avx2") == 0) return __builtin_cpu_supports("avx2");
#endif
    return false;
}

}  // namespace fhelearn
