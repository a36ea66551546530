#include "fhelearn/tables.hpp"

#include "convert.hpp"
#include "fhelearn/parallel.hpp"
#include "module.hpp"

namespace fhelearn::bindings {

namespace {

std::size_t threads(std::size_t num_threads) {
    return num_threads ? num_threads : default_num_threads();
}

void check_length(const py::array& array, const char* what, py::ssize_t expected, const char* of) {
    if (array.size() == expected) return;
    throw std::invalid_argument(std::string(what) + " has " + std::to_string(array.size()) +
                                " entries, must have one per " + of + ": " + std::to_string(expected));
}

Int64Array copy_of(const std::vector<std::int64_t>& values) {
    return Int64Array(static_cast<py::ssize_t>(values.size()), values.data());
}

py::typing::Tuple<Int64Array, Int64Array, Int64Array> quantize_rows(const py::object& x, const py::object& scale,
                                                                    const py::object& offset, const py::object& lo,
                                                                    const py::object& hi, std::size_t num_threads) {
    const Float64Array values = float64_array(x, "x", 2), scales = float64_array(scale, "scale", 1);
    const Float64Array offsets = float64_array(offset, "offset", 1);
    const Int64Array lows = int64_array(lo, "lo", 1), highs = int64_array(hi, "hi", 1);
    const py::ssize_t rows = values.shape(0), columns = values.shape(1);
    check_length(scales, "scale", columns, "column of x");
    check_length(offsets, "offset", columns, "column of x");
    check_length(lows, "lo", columns, "column of x");
    check_length(highs, "hi", columns, "column of x");
    const std::size_t used = threads(num_threads);
    Int64Array q({rows, columns});
    std::int64_t* out = q.mutable_data();
    std::vector<std::int64_t> below(static_cast<std::size_t>(columns)), above(static_cast<std::size_t>(columns));
    {
        const double* from = values.data();
        const auto s = view(scales), o = view(offsets);
        const auto l = view(lows), h = view(highs);
        const py::gil_scoped_release release;
        quantize(from, static_cast<std::size_t>(rows), s, o, l, h, out, below, above, used);
    }
    return py::make_tuple(std::move(q), copy_of(below), copy_of(above));
}

Float64Array dequantize_rows(const py::object& q, const py::object& scale, const py::object& offset,
                             std::size_t num_threads) {
    const Int64Array values = int64_array(q, "q", 2);
    const Float64Array scales = float64_array(scale, "scale", 1), offsets = float64_array(offset, "offset", 1);
    const py::ssize_t rows = values.shape(0), columns = values.shape(1);
    check_length(scales, "scale", columns, "column of q");
    check_length(offsets, "offset", columns, "column of q");
    const std::size_t used = threads(num_threads);
    Float64Array x({rows, columns});
    double* out = x.mutable_data();
    const std::int64_t* from = values.data();
    const auto s = view(scales), o = view(offsets);
    const py::gil_scoped_release release;
    dequantize(from, static_cast<std::size_t>(rows), s, o, out, used);
    return x;
}

Float64Array dequantize_table(std::int64_t lo, std::size_t size, const py::object& scale, const py::object& zero_point,
                              std::size_t num_threads) {
    const Float64Array scales = float64_array(scale, "scale", 1);
    const Int64Array zeros = int64_array(zero_point, "zero_point", 1);
    check_length(zeros, "zero_point", scales.size(), "channel");
    const std::size_t used = threads(num_threads);
    Float64Array x({scales.size(), static_cast<py::ssize_t>(size)});
    double* out = x.mutable_data();
    const auto s = view(scales);
    const auto z = view(zeros);
    const py::gil_scoped_release release;
    dequantize_range(lo, size, s, z, out, used);
    return x;
}

Int64Array requantize_table(const py::object& y, const py::object& scale, const py::object& zero_point,
                            const py::object& lo, const py::object& hi, std::size_t num_threads) {
    const Float64Array values = float64_array(y, "y", 2), scales = float64_array(scale, "scale", 1);
    const Int64Array zeros = int64_array(zero_point, "zero_point", 1);
    const Int64Array lows = int64_array(lo, "lo", 1), highs = int64_array(hi, "hi", 1);
    const py::ssize_t channels = values.shape(0), size = values.shape(1);
    check_length(scales, "scale", channels, "channel");
    check_length(zeros, "zero_point", channels, "channel");
    check_length(lows, "lo", channels, "channel");
    check_length(highs, "hi", channels, "channel");
    const std::size_t used = threads(num_threads);
    Int64Array q({channels, size});
    std::int64_t* out = q.mutable_data();
    const double* from = values.data();
    const auto s = view(scales);
    const auto z = view(zeros), l = view(lows), h = view(highs);
    const py::gil_scoped_release release;
    requantize(from, static_cast<std::size_t>(size), s, z, l, h, out, used);
    return q;
}

py::typing::Tuple<Int64Array, Int64Array, Int64Array> thresholds_of(const py::object& table, std::int64_t lo) {
    const Int64Array entries = int64_array(table, "table", 2);
    const Thresholds result = table_thresholds(entries.data(), static_cast<std::size_t>(entries.shape(0)),
                                               static_cast<std::size_t>(entries.shape(1)), lo);
    return py::make_tuple(copy_of(result.starts), copy_of(result.thresholds), copy_of(result.values));
}

}  // namespace

void bind_tables(py::module_& module) {
    module.def(
        "quantize", &quantize_rows, py::arg("x"), py::arg("scale"), py::arg("offset"), py::arg("lo"), py::arg("hi"),
        py::arg("num_threads") = 0,
        "clip(rint((x - offset) / scale), lo, hi) of float64 x (n, f), parameters (f,); lo and hi within +-2**50.\n\n"
        "Returns q int64 (n, f) and, per column, how many values were clipped from below and from above.\n"
        "Raises ValueError naming row and column if x holds NaN.");
    module.def("dequantize", &dequantize_rows, py::arg("q"), py::arg("scale"), py::arg("offset"),
               py::arg("num_threads") = 0, "q * scale + offset of int64 q (n, f), parameters (f,); float64 (n, f).");
    module.def("dequantize_range", &dequantize_table, py::arg("lo"), py::arg("size"), py::arg("scale"),
               py::arg("zero_point"), py::arg("num_threads") = 0,
               "(lo + i - zero_point) * scale for i < size, parameters (channels,); float64 (channels, size).");
    module.def("requantize", &requantize_table, py::arg("y"), py::arg("scale"), py::arg("zero_point"), py::arg("lo"),
               py::arg("hi"), py::arg("num_threads") = 0,
               "clip(rint(y / scale) + zero_point, lo, hi) of float64 y (channels, size); int64, same shape.\n\n"
               "Raises ValueError naming channel and entry if y holds NaN.");
    module.def("table_thresholds", &thresholds_of, py::arg("table"), py::arg("lo"),
               "Run-length form of int64 table (channels, size): starts (channels + 1,), thresholds, values.");
}

}  // namespace fhelearn::bindings
