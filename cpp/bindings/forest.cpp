#include "fhelearn/forest.hpp"

#include "convert.hpp"
#include "fhelearn/parallel.hpp"
#include "module.hpp"

namespace fhelearn::bindings {

namespace {

using Int32Array = py::array_t<std::int32_t, py::array::c_style>;

std::vector<std::int64_t> ints(const py::object& object, const char* what, py::ssize_t rank = 1) {
    const Int64Array array = int64_array(object, what, rank);
    const auto values = view(array);
    return {values.begin(), values.end()};
}

std::vector<double> doubles(const py::object& object, const char* what) {
    const Float64Array array = float64_array(object, what, 1);
    const auto values = view(array);
    return {values.begin(), values.end()};
}

std::vector<std::uint8_t> flags(const py::object& object, const char* what) {
    const BoolArray array = bool_array(object, what, 1);
    const auto* bytes = reinterpret_cast<const std::uint8_t*>(array.data());  // hostile bytes are no valid bool
    return {bytes, bytes + array.size()};
}

// Arrays are copied while the GIL keeps other threads from writing to them, so what is checked is what is used.
std::shared_ptr<Conditions> make_conditions(std::int64_t n_features, bool float32, const py::object& feature,
                                            const py::object& threshold, const py::object& categorical,
                                            const py::object& nan_true, const py::object& category_start,
                                            const py::object& categories, const py::object& zero_is_missing,
                                            const py::object& has_known, const py::object& known_start,
                                            const py::object& known) {
    ConditionArrays arrays;
    arrays.n_features = n_features;
    arrays.float32 = float32;
    arrays.feature = ints(feature, "feature");
    arrays.threshold = doubles(threshold, "threshold");
    arrays.categorical = flags(categorical, "categorical");
    arrays.nan_true = flags(nan_true, "nan_true");
    arrays.category_start = ints(category_start, "category_start");
    arrays.categories = ints(categories, "categories");
    arrays.zero_is_missing = flags(zero_is_missing, "zero_is_missing");
    arrays.has_known = flags(has_known, "has_known");
    arrays.known_start = ints(known_start, "known_start");
    arrays.known = ints(known, "known");
    const py::gil_scoped_release release;
    return std::make_shared<Conditions>(arrays, kernels());
}

std::unique_ptr<ForestEngine> make_engine(const std::shared_ptr<Conditions>& conditions, const py::object& tree_starts,
                                          const py::object& condition, const py::object& left, const py::object& right,
                                          const py::object& value, const py::object& first_output,
                                          std::int64_t n_outputs) {
    ForestArrays arrays;
    arrays.tree_starts = ints(tree_starts, "tree_starts");
    arrays.condition = ints(condition, "condition");
    arrays.left = ints(left, "left");
    arrays.right = ints(right, "right");
    const Int64Array values = int64_array(value, "value", 2);
    if (values.shape(0) != static_cast<py::ssize_t>(arrays.condition.size())) {
        throw std::invalid_argument("value has " + std::to_string(values.shape(0)) +
                                    " rows, must have one per node: " + std::to_string(arrays.condition.size()));
    }
    arrays.width = values.shape(1);
    arrays.value = ints(value, "value", 2);
    arrays.first_output = ints(first_output, "first_output");
    arrays.n_outputs = n_outputs;
    const py::gil_scoped_release release;
    return std::make_unique<ForestEngine>(conditions, arrays);
}

// Calls compute(x, rows, out, threads) without the GIL, where `out` is a new array (rows, columns) of Out that is
// returned, and x the rows as float32 or as float64.
template <class Out, class Compute>
py::array_t<Out, py::array::c_style> on_rows(const py::object& x, std::size_t n_features, std::size_t columns,
                                             std::size_t num_threads, const Compute& compute) {
    const bool narrow =
        py::isinstance<py::array>(x) && py::reinterpret_borrow<py::array>(x).dtype().equal(py::dtype::of<float>());
    const py::array rows = narrow ? py::array(float32_array(x, "x", 2)) : py::array(float64_array(x, "x", 2));
    if (rows.shape(1) != static_cast<py::ssize_t>(n_features)) {
        throw std::invalid_argument("x has " + std::to_string(rows.shape(1)) +
                                    " columns, must have one per feature: " + std::to_string(n_features));
    }
    const std::size_t threads = num_threads ? num_threads : default_num_threads();
    py::array_t<Out, py::array::c_style> result({rows.shape(0), static_cast<py::ssize_t>(columns)});
    Out* out = result.mutable_data();
    const void* from = rows.data();
    const auto count = static_cast<std::size_t>(rows.shape(0));
    const py::gil_scoped_release release;
    if (narrow) {
        compute(static_cast<const float*>(from), count, out, threads);
    } else {
        compute(static_cast<const double*>(from), count, out, threads);
    }
    return result;
}

Int64Array encode(const Conditions& conditions, const py::object& x, std::size_t num_threads) {
    return on_rows<std::int64_t>(x, conditions.n_features(), conditions.size(), num_threads,
                                 [&](auto... arguments) { conditions.encode(arguments...); });
}

Int64Array run(const ForestEngine& engine, const py::object& x, std::size_t num_threads) {
    return on_rows<std::int64_t>(x, engine.n_features(), engine.n_outputs(), num_threads,
                                 [&](auto... arguments) { engine.run(arguments...); });
}

Int32Array apply(const ForestEngine& engine, const py::object& x, std::size_t num_threads) {
    return on_rows<std::int32_t>(x, engine.n_features(), engine.n_trees(), num_threads,
                                 [&](auto... arguments) { engine.apply(arguments...); });
}

}  // namespace

void bind_forest(py::module_& module) {
    py::class_<Conditions, std::shared_ptr<Conditions>>(
        module, "Conditions", "What the nodes of a forest ask of float rows. Safe to use from several threads.")
        .def(
            py::init(&make_conditions), py::kw_only(), py::arg("n_features"), py::arg("float32"), py::arg("feature"),
            py::arg("threshold"), py::arg("categorical"), py::arg("nan_true"), py::arg("category_start"),
            py::arg("categories"), py::arg("zero_is_missing"), py::arg("has_known"), py::arg("known_start"),
            py::arg("known"),
            "m conditions: feature int64 (m,), threshold float64 (m,), categorical and nan_true bool (m,), categories\n"
            "int64, those of condition i at category_start[i]:category_start[i + 1], ascending, in [0, 2**24).\n"
            "f features: zero_is_missing and has_known bool (f,), known and known_start (f + 1,) likewise.\n\n"
            "float32 rounds values before they are compared. Raises TypeError or ValueError naming array and place.")
        .def_property_readonly("n_features", &Conditions::n_features, "Columns of the rows.")
        .def_property_readonly("size", &Conditions::size, "Number of conditions.")
        .def(
            "encode", &encode, py::arg("x"), py::kw_only(), py::arg("num_threads") = 0,
            "1 where a condition holds, else 0: float32 or float64 x (n, n_features), C order, to int64 (n, size).\n\n"
            "num_threads=0 is the default number. Raises TypeError for another dtype or layout, ValueError naming row\n"
            "and feature if a category is no integer.");
    py::class_<ForestEngine>(module, "ForestEngine",
                             "A forest of integer leaves, planned for this CPU. Safe to use from several threads.")
        .def(
            py::init(&make_engine), py::kw_only(), py::arg("conditions").none(false), py::arg("tree_starts"),
            py::arg("condition"), py::arg("left"), py::arg("right"), py::arg("value"), py::arg("first_output"),
            py::arg("n_outputs"),
            "Nodes of all trees one after the other: tree_starts int64 (n_trees + 1,), condition int64 (n_nodes,), -1\n"
            "at leaves, left and right (where the condition holds, and where not) int64 (n_nodes,), value int64\n"
            "(n_nodes, width), first_output int64 (n_trees,). Children come after their parents.\n\n"
            "Raises TypeError or ValueError naming array and place.")
        .def_property_readonly("n_features", &ForestEngine::n_features, "Columns of the rows.")
        .def_property_readonly("n_trees", &ForestEngine::n_trees, "Number of trees.")
        .def_property_readonly("n_outputs", &ForestEngine::n_outputs, "Number of sums per row.")
        .def("run", &run, py::arg("x"), py::kw_only(), py::arg("num_threads") = 0,
             "Sums of the leaves' values: x as for Conditions.encode, to int64 (n, n_outputs).\n\n"
             "Errors as Conditions.encode.")
        .def("apply", &apply, py::arg("x"), py::kw_only(), py::arg("num_threads") = 0,
             "The leaf reached in each tree, counted from its root: int32 (n, n_trees).\n\n"
             "Errors as Conditions.encode.");
}

}  // namespace fhelearn::bindings
