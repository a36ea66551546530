// The elementwise loops for every CPU of the platform.
#define FHELEARN_ISA portable
#include "elementwise.inl"
