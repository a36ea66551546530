#pragma once

#include <pybind11/pybind11.h>

namespace fhelearn::bindings {

void bind_engine(pybind11::module_& module);
void bind_forest(pybind11::module_& module);
void bind_tables(pybind11::module_& module);

}  // namespace fhelearn::bindings
