// What this CPU can execute.
#pragma once

namespace fhelearn {

// Whether instructions of `isa` ("portable", "avx2", "avx512": its parts F, BW, DQ and VL) run here: the CPU has them
// and the system saves their registers.
bool cpu_supports(const char* isa);

}  // namespace fhelearn
