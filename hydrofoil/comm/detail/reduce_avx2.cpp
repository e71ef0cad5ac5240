#define HYDROFOIL_REDUCE_ISA reduce_avx2
#include "hydrofoil/comm/detail/reduce_kernels.inc.cpp"
