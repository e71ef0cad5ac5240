#pragma once

#include <exception>
#include <functional>
#include <string>

#include "hydrofoil/comm/group.h"

namespace hydrofoil::checkpoint {

// Makes an error of one rank an error of all. Every rank of `group` calls it with its own error or null: where all are
// null it returns; else a rank with an error throws that, and the others throw an Error of the first failed rank's
// class
// "[what] rank R failed: ...". An undefined group is this rank alone. Blocks; CommError where a rank does not come.
void agree(const comm::Group& group, std::exception_ptr own_error, const std::string& what);

// Runs `step` on every rank and agrees on its outcome.
void run_together(const comm::Group& group, const std::string& what, const std::function<void()>& step);

}  // namespace hydrofoil::checkpoint
