#define HYDROFOIL_REDUCE_ISA reduce_scalar
#include "hydrofoil/comm/detail/reduce_kernels.inc.cpp"
