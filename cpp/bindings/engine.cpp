#include "fhelearn/engine.hpp"

#include "convert.hpp"
#include "fhelearn/parallel.hpp"
#include "module.hpp"

namespace fhelearn::bindings {

namespace {

std::unique_ptr<Engine> make_engine(const py::typing::List<py::typing::Dict<py::str, py::object>>& nodes,
                                    const py::typing::List<py::int_>& outputs) {
    std::vector<NodeSpec> specs;
    for (const py::handle& node : nodes) specs.push_back(node_spec(node, specs.size()));
    const std::vector<std::int64_t> returned = integers(outputs, "outputs");
    const py::gil_scoped_release release;
    return std::make_unique<Engine>(decode_program(specs, returned), kernels());
}

// Input `position` after checks of dtype, shape and layout; `rows` is set by the first input and held by the others.
Int64Array checked_input(const py::handle& object, const Node& node, std::size_t position, py::ssize_t& rows) {
    const std::string where = "input " + std::to_string(position) + (node.name.empty() ? "" : " '" + node.name + "'");
    if (!py::isinstance<py::array>(object) ||
        !py::reinterpret_borrow<py::array>(object).dtype().equal(py::dtype::of<std::int64_t>())) {
        throw InputRangeError(where + ": must be an int64 array, got " + describe(object));
    }
    const auto array = py::reinterpret_borrow<py::array>(object);
    Shape expected = node.shape;
    expected.insert(expected.begin(), array.ndim() ? array.shape(0) : 0);
    if (array.ndim() == 0 || shape_of(array) != expected) {
        std::string text = "(n";
        for (std::int64_t extent : node.shape) text += ", " + std::to_string(extent);
        throw InputRangeError(where + ": must have shape " + text + "), got " + to_string(shape_of(array)));
    }
    constexpr int kLayout = int{py::array::c_style} | int{py::detail::npy_api::NPY_ARRAY_ALIGNED_};
    if ((array.flags() & kLayout) != kLayout) {
        throw InputRangeError(where + ": must be C-contiguous; pass np.ascontiguousarray of it");
    }
    if (rows >= 0 && array.shape(0) != rows) {
        throw InputRangeError(where + ": has " + std::to_string(array.shape(0)) + " rows but input 0 has " +
                              std::to_string(rows));
    }
    rows = array.shape(0);
    return py::reinterpret_borrow<Int64Array>(array);
}

RunOptions run_options(std::size_t num_threads, const std::string& on_overflow, double p_error, double rounding_noise,
                       std::uint64_t seed) {
    if (on_overflow != "error" && on_overflow != "wrap") {
        throw std::invalid_argument("on_overflow must be 'error' or 'wrap', got '" + on_overflow + "'");
    }
    return {num_threads ? num_threads : default_num_threads(), on_overflow == "wrap", p_error, rounding_noise, seed};
}

py::typing::List<Int64Array> run(const Engine& engine, const py::typing::List<py::object>& inputs,
                                 std::size_t num_threads, const std::string& on_overflow, double p_error,
                                 double rounding_noise, std::uint64_t seed) {
    const RunOptions options = run_options(num_threads, on_overflow, p_error, rounding_noise, seed);
    const Program& program = engine.program();
    if (inputs.size() != program.inputs.size()) {
        throw InputRangeError("the program takes " + std::to_string(program.inputs.size()) + " inputs, got " +
                              std::to_string(inputs.size()));
    }
    py::ssize_t rows = -1;
    std::vector<Int64Array> held;
    std::vector<const std::int64_t*> from;
    for (std::size_t i = 0; i < inputs.size(); ++i) {
        held.push_back(checked_input(inputs[i], program.nodes[program.inputs[i]], i, rows));
        from.push_back(held.back().data());
    }
    if (rows < 0) rows = 1;  // a program of constants
    py::typing::List<Int64Array> results;
    std::vector<std::int64_t*> to;
    for (std::size_t output : program.outputs) {
        Shape shape = program.nodes[output].shape;
        shape.insert(shape.begin(), rows);
        Int64Array result(shape);
        to.push_back(result.mutable_data());
        results.append(std::move(result));
    }
    const py::gil_scoped_release release;
    engine.run(from, static_cast<std::size_t>(rows), to, options);
    return results;
}

}  // namespace

void bind_engine(py::module_& module) {
    py::class_<Engine>(module, "Engine",
                       "A verified integer program, planned for this CPU. Safe to use from several threads.")
        .def(py::init(&make_engine), py::arg("nodes"), py::arg("outputs"),
             "Decode and validate. Raises ProgramError naming the node.")
        .def("run", &run, py::arg("inputs"), py::kw_only(), py::arg("num_threads") = 0,
             py::arg("on_overflow") = "error", py::arg("p_error") = 0.0, py::arg("rounding_noise") = 0.0,
             py::arg("seed") = 0,
             "Run on int64 arrays (n, *shape), one per input; returns one int64 array (n, *shape) per output.\n\n"
             "num_threads=0 is the default number. Raises InputRangeError or AccumulatorOverflowError.");
}

}  // namespace fhelearn::bindings
