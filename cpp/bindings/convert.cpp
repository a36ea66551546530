#include "convert.hpp"

namespace fhelearn::bindings {

namespace {

bool is_array(const py::handle& object, const py::dtype& dtype) {
    if (!py::isinstance<py::array>(object)) return false;
    const auto array = py::reinterpret_borrow<py::array>(object);
    return array.dtype().equal(dtype) && (array.flags() & py::array::c_style) != 0 &&
           (array.flags() & py::detail::npy_api::NPY_ARRAY_ALIGNED_) != 0;
}

template <class T>
py::array_t<T, py::array::c_style> typed_array(const py::handle& object, const char* what, py::ssize_t rank) {
    if (is_array(object, py::dtype::of<T>())) {
        auto array = py::reinterpret_borrow<py::array_t<T, py::array::c_style>>(object);
        if (array.ndim() == rank) return array;
    }
    throw py::type_error(std::string(what) + " must be a C-contiguous " + std::string(py::str(py::dtype::of<T>())) +
                         " array with " + std::to_string(rank) + " axes, got " + describe(object));
}

std::int64_t integer(const py::handle& object, const std::string& what) {
    if (!py::isinstance<py::int_>(object) || py::isinstance<py::bool_>(object)) {
        throw ProgramError(what + " must be an int, got " + describe(object));
    }
    int overflow = 0;
    const long long value = PyLong_AsLongLongAndOverflow(object.ptr(), &overflow);
    if (overflow != 0) throw ProgramError(what + " does not fit 64 bits");
    return value;
}

std::string text(const py::handle& object, const std::string& what) {
    if (!py::isinstance<py::str>(object)) throw ProgramError(what + " must be a str, got " + describe(object));
    return object.cast<std::string>();
}

IntArray tensor(const py::handle& object, const std::string& what) {
    if (!is_array(object, py::dtype::of<std::int64_t>())) {
        throw ProgramError(what + " must be a C-contiguous int64 array, got " + describe(object));
    }
    const auto array = py::reinterpret_borrow<Int64Array>(object);
    return {shape_of(array), {array.data(), array.data() + array.size()}};
}

Attribute attribute(const py::handle& object, const std::string& what) {
    if (py::isinstance<py::bool_>(object)) return object.cast<bool>();
    if (py::isinstance<py::int_>(object)) return integer(object, what);
    if (py::isinstance<py::str>(object)) return text(object, what);
    if (py::isinstance<py::array>(object)) return tensor(object, what);
    return integers(object, what);
}

}  // namespace

std::string describe(const py::handle& object) {
    if (!py::isinstance<py::array>(object)) return py::cast<std::string>(py::type::handle_of(object).attr("__name__"));
    const auto array = py::reinterpret_borrow<py::array>(object);
    const std::string layout = (array.flags() & py::array::c_style) != 0 ? "" : ", not C-contiguous";
    return std::string(py::str(array.dtype())) + " array of shape " + to_string(shape_of(array)) + layout;
}

Int64Array int64_array(const py::handle& object, const char* what, py::ssize_t rank) {
    return typed_array<std::int64_t>(object, what, rank);
}

Float64Array float64_array(const py::handle& object, const char* what, py::ssize_t rank) {
    return typed_array<double>(object, what, rank);
}

Float32Array float32_array(const py::handle& object, const char* what, py::ssize_t rank) {
    return typed_array<float>(object, what, rank);
}

BoolArray bool_array(const py::handle& object, const char* what, py::ssize_t rank) {
    return typed_array<bool>(object, what, rank);
}

std::vector<std::int64_t> integers(const py::handle& object, const std::string& what) {
    if (!py::isinstance<py::list>(object) && !py::isinstance<py::tuple>(object)) {
        throw ProgramError(what + " must be a list of ints, got " + describe(object));
    }
    std::vector<std::int64_t> values;
    for (const py::handle& item : object)
        values.push_back(integer(item, what + "[" + std::to_string(values.size()) + "]"));
    return values;
}

Shape shape_of(const py::array& array) {
    return {array.shape(), array.shape() + array.ndim()};
}

NodeSpec node_spec(const py::handle& object, std::size_t index) {
    const std::string where = "node " + std::to_string(index);
    if (!py::isinstance<py::dict>(object)) throw ProgramError(where + " must be a dict, got " + describe(object));
    const auto dict = py::reinterpret_borrow<py::dict>(object);
    const auto get = [&](const char* key) {
        if (!dict.contains(key)) throw ProgramError(where + ": key '" + key + "' is missing");
        return py::object(dict[key]);
    };
    const auto named = [&](const char* key) { return where + ": '" + key + "'"; };
    NodeSpec spec;
    spec.op = text(get("op"), named("op"));
    spec.name = text(get("name"), named("name"));
    spec.operands = integers(get("operands"), named("operands"));
    spec.shape = integers(get("shape"), named("shape"));
    spec.lo = tensor(get("lo"), named("lo"));
    spec.hi = tensor(get("hi"), named("hi"));
    spec.provenance = text(get("provenance"), named("provenance"));
    spec.width = integer(get("width"), named("width"));
    const py::object is_signed = get("signed");
    if (!py::isinstance<py::bool_>(is_signed)) {
        throw ProgramError(named("signed") + " must be a bool, got " + describe(is_signed));
    }
    spec.is_signed = is_signed.cast<bool>();
    const py::object attributes = get("attributes");
    if (!py::isinstance<py::dict>(attributes)) {
        throw ProgramError(named("attributes") + " must be a dict, got " + describe(attributes));
    }
    for (const auto& [key, value] : py::reinterpret_borrow<py::dict>(attributes)) {
        const std::string name = text(key, where + ": attribute name");
        spec.attributes.emplace(name, attribute(value, where + ": attribute '" + name + "'"));
    }
    return spec;
}

}  // namespace fhelearn::bindings
