#pragma once

#include <cstdint>
#include <fstream>
#include <string>
#include <utility>
#include <vector>

namespace hydrofoil::train {

// Rows appended to a CSV file of numbers; each is on disk before the next step starts. The first column is the step.
class CsvLog {
 public:
  // Starts the file anew, or keeps the rows of a resumed run whose step is below `keep_before_step`. Throws SystemError
  // where it cannot be written.
  CsvLog(std::string path, std::vector<std::string> columns, int64_t keep_before_step);

  void write(const std::vector<double>& row);
  // (step, value) of a column, for the curve.
  [[nodiscard]] std::vector<std::pair<double, double>> column(const std::string& name) const;

 private:
  void append(const std::vector<double>& row);

  std::string path_;
  std::vector<std::string> columns_;
  std::vector<std::vector<double>> rows_;
  std::ofstream file_;
};

// Writes an SVG of the training loss (a line) and the held-out loss (points) over steps.
void write_loss_svg(const std::string& path, const std::string& title,
                    const std::vector<std::pair<double, double>>& train,
                    const std::vector<std::pair<double, double>>& held_out);

}  // namespace hydrofoil::train
