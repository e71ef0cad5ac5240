#include "apps/train/run_files.h"

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cmath>
#include <sstream>

#include "hydrofoil/base/error.h"

namespace hydrofoil::train {
namespace {

using Points = std::vector<std::pair<double, double>>;

constexpr int kCsvDigits = 9;  // tells any two fp32 losses apart
constexpr double kWidth = 720, kHeight = 420, kLeft = 60, kRight = 20, kTop = 40, kBottom = 50;

std::string number(double value, int digits = 6) {
  char text[32];
  std::snprintf(text, sizeof(text), "%.*g", digits, value);
  return text;
}

// Rows of an earlier run with this header; lines that are none are dropped.
std::vector<std::vector<double>> read_rows(const std::string& path, size_t num_columns) {
  std::vector<std::vector<double>> rows;
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  while (std::getline(file, line)) {
    std::vector<double> row;
    std::stringstream cells(line);
    std::string cell;
    while (std::getline(cells, cell, ',')) row.push_back(std::strtod(cell.c_str(), nullptr));
    if (row.size() == num_columns) rows.push_back(std::move(row));
  }
  return rows;
}

struct Axes {
  double first_step, last_step, lowest, highest;

  [[nodiscard]] double x(double step) const {
    return kLeft + (kWidth - kLeft - kRight) * (step - first_step) / std::max(1.0, last_step - first_step);
  }
  [[nodiscard]] double y(double loss) const {
    return kTop + (kHeight - kTop - kBottom) * (highest - loss) / std::max(1e-9, highest - lowest);
  }
};

Axes axes_of(const Points& train, const Points& held_out) {
  Axes axes{INFINITY, -INFINITY, INFINITY, -INFINITY};
  for (const Points* points : {&train, &held_out}) {
    for (const auto& [step, loss] : *points) {
      if (!std::isfinite(loss)) continue;
      axes.first_step = std::min(axes.first_step, step);
      axes.last_step = std::max(axes.last_step, step);
      axes.lowest = std::min(axes.lowest, loss);
      axes.highest = std::max(axes.highest, loss);
    }
  }
  if (!std::isfinite(axes.first_step)) axes = {0, 1, 0, 1};
  return axes;
}

std::string escaped(const std::string& text) {
  std::string result;
  for (const char c : text) result += c == '&' ? "&amp;" : c == '<' ? "&lt;" : c == '>' ? "&gt;" : std::string(1, c);
  return result;
}

}  // namespace

CsvLog::CsvLog(std::string path, std::vector<std::string> columns, int64_t keep_before_step)
    : path_(std::move(path)), columns_(std::move(columns)) {
  const auto earlier = keep_before_step > 0 ? read_rows(path_, columns_.size()) : std::vector<std::vector<double>>();
  file_.open(path_, std::ios::trunc);
  if (!file_) throw_system_error("hydrofoil train", "cannot write " + path_, errno);
  for (size_t c = 0; c < columns_.size(); ++c) file_ << (c == 0 ? "" : ",") << columns_[c];
  file_ << '\n';
  for (const auto& row : earlier) {
    if (row[0] < static_cast<double>(keep_before_step)) append(row);
  }
  if (!file_.flush()) throw_system_error("hydrofoil train", "cannot write " + path_, errno);
}

void CsvLog::append(const std::vector<double>& row) {
  for (size_t c = 0; c < row.size(); ++c)
    file_ << (c == 0 ? "" : ",") << (c < 2 ? std::to_string(std::llround(row[c])) : number(row[c], kCsvDigits));
  file_ << '\n';
  rows_.push_back(row);
}

void CsvLog::write(const std::vector<double>& row) {
  HYDROFOIL_ASSERT(row.size() == columns_.size(), "columns");
  append(row);
  file_.flush();
  if (!file_) throw_system_error("hydrofoil train", "cannot write " + path_, errno);
}

Points CsvLog::column(const std::string& name) const {
  const auto c = static_cast<size_t>(std::find(columns_.begin(), columns_.end(), name) - columns_.begin());
  Points points;
  for (const auto& row : rows_) points.emplace_back(row[0], row.at(c));
  return points;
}

void write_loss_svg(const std::string& path, const std::string& title, const Points& train, const Points& held_out) {
  const Axes axes = axes_of(train, held_out);
  std::ofstream svg(path, std::ios::trunc);
  svg << "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 " << kWidth << ' ' << kHeight
      << "\" font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
      << "<text x=\"" << kLeft << "\" y=\"22\" font-size=\"14\">" << escaped(title) << "</text>\n";
  for (int tick = 0; tick <= 4; ++tick) {
    const double loss = axes.lowest + (axes.highest - axes.lowest) * tick / 4;
    const double step = axes.first_step + (axes.last_step - axes.first_step) * tick / 4;
    svg << "<line x1=\"" << kLeft << "\" x2=\"" << kWidth - kRight << "\" y1=\"" << axes.y(loss) << "\" y2=\""
        << axes.y(loss) << "\" stroke=\"#ddd\"/>\n<text x=\"" << kLeft - 6 << "\" y=\"" << axes.y(loss) + 4
        << "\" text-anchor=\"end\">" << number(std::round(loss * 1000) / 1000) << "</text>\n<text x=\"" << axes.x(step)
        << "\" y=\"" << kHeight - kBottom + 18 << "\" text-anchor=\"middle\">" << std::llround(step) << "</text>\n";
  }
  svg << "<text x=\"" << kWidth / 2 << "\" y=\"" << kHeight - 10
      << "\" text-anchor=\"middle\">step (line: training loss in nats a token; points: held out)</text>\n"
      << "<polyline fill=\"none\" stroke=\"#1f77b4\" points=\"";
  for (const auto& [step, loss] : train) {
    if (std::isfinite(loss)) svg << axes.x(step) << ',' << axes.y(loss) << ' ';
  }
  svg << "\"/>\n";
  for (const auto& [step, loss] : held_out) {
    if (std::isfinite(loss)) {
      svg << "<circle cx=\"" << axes.x(step) << "\" cy=\"" << axes.y(loss) << "\" r=\"3.5\" fill=\"#d62728\"/>\n";
    }
  }
  svg << "</svg>\n";
  if (!svg.flush()) throw_system_error("hydrofoil train", "cannot write " + path, errno);
}

}  // namespace hydrofoil::train
