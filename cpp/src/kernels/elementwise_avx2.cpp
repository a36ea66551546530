// The elementwise loops for CPUs with AVX2; files of that name alone are compiled with that flag.
#define FHELEARN_ISA avx2
#include "elementwise.inl"
