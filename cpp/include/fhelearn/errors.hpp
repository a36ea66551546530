// Errors of the core. The binding gives each its Python exception; messages name what, where, value, allowed, remedy.
#pragma once

#include <stdexcept>
#include <string>

namespace fhelearn {

// A node list breaks a rule of ir/SPEC.md.
class ProgramError : public std::invalid_argument {
  public:
    using std::invalid_argument::invalid_argument;
};

// Inputs of a run have the wrong count, shape or values outside their declared bounds.
class InputRangeError : public std::invalid_argument {
  public:
    using std::invalid_argument::invalid_argument;
};

// A run-time value left a bound that was declared (structural or calibrated), not proved.
class AccumulatorOverflowError : public std::overflow_error {
  public:
    using std::overflow_error::overflow_error;
};

}  // namespace fhelearn
