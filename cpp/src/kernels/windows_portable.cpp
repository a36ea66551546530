// Convolution and pooling for every CPU of the platform.
#define FHELEARN_ISA portable
#include "window_loops.inl"
