#include "hydrofoil/memory/alignment.h"

#include "hydrofoil/base/error.h"

namespace hydrofoil::memory {

int64_t checked_multiply(int64_t a, int64_t b, const char* function) {
  int64_t product = 0;
  HYDROFOIL_CHECK_ARG(a >= 0 && b >= 0 && !__builtin_mul_overflow(a, b, &product), function, "size: ", a, " * ", b,
                      " is negative or does not fit in 63 bits");
  return product;
}

int64_t round_up(int64_t value, int64_t multiple) {
  HYDROFOIL_CHECK_ARG(value >= 0 && multiple > 0, "round_up", "got value ", value, " and multiple ", multiple,
                      ", expected value >= 0 and multiple > 0");
  const int64_t count = value / multiple + (value % multiple != 0 ? 1 : 0);
  return checked_multiply(count, multiple, "round_up");
}

}  // namespace hydrofoil::memory
