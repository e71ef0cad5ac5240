#define HYDROFOIL_REDUCE_ISA reduce_avx512
#include "hydrofoil/comm/detail/reduce_kernels.inc.cpp"
