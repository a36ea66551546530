// Python objects to C++ values and back; every check names what was wrong. No arithmetic.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/typing.h>

#include <string>
#include <vector>

#include "fhelearn/errors.hpp"
#include "fhelearn/program.hpp"

namespace fhelearn::bindings {

namespace py = pybind11;

using Int64Array = py::array_t<std::int64_t, py::array::c_style>;
using Float64Array = py::array_t<double, py::array::c_style>;
using Float32Array = py::array_t<float, py::array::c_style>;
using BoolArray = py::array_t<bool, py::array::c_style>;

// "float32 array of shape (3, 2), not C-contiguous", or a type's name.
std::string describe(const py::handle& object);

// `object` as an array of exactly that dtype, `rank` axes and C order, never copied.
// Throws py::type_error naming `what` otherwise.
Int64Array int64_array(const py::handle& object, const char* what, py::ssize_t rank);
Float64Array float64_array(const py::handle& object, const char* what, py::ssize_t rank);
Float32Array float32_array(const py::handle& object, const char* what, py::ssize_t rank);
BoolArray bool_array(const py::handle& object, const char* what, py::ssize_t rank);

// A node of the engine's constructor. Throws ProgramError naming node and key.
NodeSpec node_spec(const py::handle& object, std::size_t index);

// Exact integers of a Python list; throws ProgramError naming `what`.
std::vector<std::int64_t> integers(const py::handle& object, const std::string& what);

Shape shape_of(const py::array& array);

template <class T>
std::span<const T> view(const py::array_t<T, py::array::c_style>& array) {
    return {array.data(), static_cast<std::size_t>(array.size())};
}

}  // namespace fhelearn::bindings
