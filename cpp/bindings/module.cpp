#include "module.hpp"

#include "convert.hpp"
#include "fhelearn/kernels.hpp"
#include "fhelearn/parallel.hpp"

namespace fhelearn::bindings {

namespace {

py::typing::List<py::str> supported_isas() {
    py::typing::List<py::str> names;
    for (const KernelTable& table : supported_kernels()) names.append(py::str(table.isa));
    return names;
}

}  // namespace

}  // namespace fhelearn::bindings

PYBIND11_MODULE(_core, module) {
    namespace py = pybind11;
    using namespace fhelearn;
    module.doc() = "The native engine of fhelearn: integer programs on batches, and the exact steps of quantization.";
    py::register_exception<ProgramError>(module, "ProgramError", PyExc_ValueError);
    py::register_exception<InputRangeError>(module, "InputRangeError", PyExc_ValueError);
    py::register_exception<AccumulatorOverflowError>(module, "AccumulatorOverflowError", PyExc_OverflowError);
    bindings::bind_engine(module);
    bindings::bind_forest(module);
    bindings::bind_tables(module);
    module.def("isa", [] { return std::string(kernels().isa); }, "Instruction set of the kernels in use.");
    module.def("supported_isas", &bindings::supported_isas,
               "Instruction sets this CPU can run, best first: the values that FHELEARN_ISA may take.");
    module.def("get_num_threads", &default_num_threads, "Threads that calls with num_threads=0 use.");
    module.def("set_num_threads", &set_num_threads, py::arg("num_threads"),
               "Set that number for this process; 0 returns to the environment's. Returns the previous setting.");
    module.def("available_cpus", &available_cpus, "CPUs this process may run on.");
}
