#include "fhelearn/kernels.hpp"

#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

#include "fhelearn/cpu.hpp"
#include "tables_of.hpp"

namespace fhelearn {

namespace {

KernelTable make_table(const char* isa, const ElementwiseKernels& elementwise, const QuantizeKernels& quantization,
                       const WindowKernels& windows, const ForestKernels& forests, MatmulKernels matmul) {
    return {isa, &elementwise, &quantization, &windows, &forests, {matmul.first, matmul.count}};
}

std::vector<KernelTable> collect() {
    std::vector<KernelTable> tables;
#if defined(FHELEARN_HAVE_AVX2)
    if (cpu_supports("avx512")) {  // which includes AVX2; only forests gain from more so far
        tables.push_back(make_table("avx512", avx2::elementwise(), avx2::quantization(), avx2::windows(),
                                    avx512::forests(), avx2::matmul()));
    }
    if (cpu_supports("avx2")) {
        tables.push_back(make_table("avx2", avx2::elementwise(), avx2::quantization(), avx2::windows(), avx2::forests(),
                                    avx2::matmul()));
    }
#endif
    tables.push_back(make_table("portable", portable::elementwise(), portable::quantization(), portable::windows(),
                                portable::forests(), portable::matmul()));
    return tables;
}

const KernelTable& choose() {
    const auto tables = supported_kernels();
    const char* forced = std::getenv("FHELEARN_ISA");
    if (!forced || !*forced) return tables.front();
    if (const KernelTable* found = find_kernels(tables, forced)) return *found;
    std::string names;
    for (const KernelTable& table : tables) names += (names.empty() ? "" : ", ") + std::string(table.isa);
    throw std::invalid_argument("FHELEARN_ISA='" + std::string(forced) + "' is not supported here; choose one of " +
                                names + " or unset it");
}

}  // namespace

std::span<const KernelTable> supported_kernels() {
    static const std::vector<KernelTable> tables = collect();
    return tables;
}

const KernelTable* find_kernels(std::span<const KernelTable> tables, const char* isa) {
    for (const KernelTable& table : tables) {
        if (std::strcmp(table.isa, isa) == 0) return &table;
    }
    return nullptr;
}

const KernelTable& kernels() {
    static const KernelTable& chosen = choose();
    return chosen;
}

const MatmulKernel& choose_matmul(const KernelTable& table, Range operand, Range weights, bool i32_accumulator) {
    for (const MatmulKernel& kernel : table.matmul) {
        const bool wide = kernel.accumulator == ScalarType::kI64;
        if (fits(operand, kernel.operand) && fits(weights, kernel.weight) && (i32_accumulator || wide)) return kernel;
    }
    return table.matmul.back();
}

}  // namespace fhelearn
