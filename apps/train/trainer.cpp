#include "apps/train/trainer.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <ctime>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <random>

#include "apps/launcher/terminal.h"
#include "hydrofoil/base/log.h"
#include "hydrofoil/comm/agree.h"
#include "hydrofoil/memory/process_memory.h"
#include "hydrofoil/models/weights.h"
#include "hydrofoil/storage/checksum.h"
#include "hydrofoil/storage/strict_json.h"

namespace hydrofoil::train {
namespace {

namespace fs = std::filesystem;
using detail::concat;
using launcher::with_commas;

constexpr const char* kFunction = "hydrofoil train";
constexpr int64_t kEvalBatchSize = 16;
constexpr int64_t kMemoryInterval = 10;  // steps; reading it walks the page tables
constexpr int64_t kMaxPathBytes = 4096;
constexpr int64_t kSampledWindows = 256;  // of the data, to know it again

double memory_mib() { return static_cast<double>(memory::process_memory().pss_bytes) / (1 << 20); }

int64_t positions_of(const models::ModelConfig& config) {
  const auto* gpt2 = std::get_if<models::Gpt2Config>(&config.family);
  return gpt2 != nullptr ? gpt2->n_positions : std::get<models::LlamaConfig>(config.family).max_position_embeddings;
}

int64_t choose_context(const TrainOptions& options, const models::ModelConfig& config) {
  const int64_t positions = positions_of(config);
  const int64_t context = options.context.value_or(std::min(positions, kDefaultContext));
  HYDROFOIL_CHECK_ARG(context <= positions, kFunction, "--context: got ", context, ", but the model has ", positions,
                      " positions");
  return context;
}

bool is_text(const data::Corpus& corpus) {
  return !corpus.train.ranges().empty() && !data::is_npy_path(corpus.train.ranges()[0].path);
}

std::string timestamp() {
  const std::time_t now = std::time(nullptr);
  std::tm local{};
  localtime_r(&now, &local);
  char text[32];
  std::strftime(text, sizeof(text), "%Y-%m-%d_%H-%M-%S", &local);
  return text;
}

comm::Group connect_control(comm::Job& job) {
  comm::JobGroupOptions options;
  options.num_channels = 1;
  options.group.name = "train";
  return std::move(job.connect(options)[0]);
}

// Dropout masks depend on these numbers alone, so that a resumed run draws those of a run without a break.
void seed_dropout(std::initializer_list<int64_t> numbers) {
  std::vector<uint32_t> words;
  for (const int64_t number : numbers) {
    words.push_back(static_cast<uint32_t>(number));
    words.push_back(static_cast<uint32_t>(static_cast<uint64_t>(number) >> 32));
  }
  std::seed_seq sequence(words.begin(), words.end());
  std::array<uint32_t, 2> seed{};
  sequence.generate(seed.begin(), seed.end());
  at::Generator generator = at::detail::getDefaultCPUGenerator();
  const std::lock_guard lock(generator.mutex());
  generator.set_current_seed(static_cast<uint64_t>(seed[0]) << 32 | seed[1]);
}

std::string hex(uint64_t value) {
  char text[17];
  std::snprintf(text, sizeof(text), "%016lx", value);
  return text;
}

}  // namespace

Trainer::Trainer(TrainOptions options, const volatile std::sig_atomic_t& stop)
    : options_(std::move(options)),
      stop_(stop),
      control_(connect_control(job_)),
      engine_options_(engine::resolve_engine_options(options_.config, {job_.world_size(), true}).options),
      model_config_(models::load_model_config(options_.model)),
      context_(choose_context(options_, model_config_)),
      corpus_(data::load_corpus(options_.data, context_, {.vocab_size = model_config_.vocab_size()})) {
  held_out_windows_ = data::spread_windows(corpus_.held_out, context_, options_.eval_windows);
  build_engine(/*with_weights=*/!options_.resume);
  batches_ = std::make_unique<data::Batches>(corpus_.train, batches_options());
  std::vector<std::string> lines = {concat("context ", context_)};
  for (const auto& [name, value] : batches_->state()) lines.push_back(concat("data: ", name, " ", value));
  comm::require_agreement(control_, kFunction, lines);
}

data::BatchesOptions Trainer::batches_options() const {
  const auto& options = engine_->options();
  return {.context = context_,
          .global_batch = options.train_batch_size,
          .seed = options_.seed,
          .rank = job_.rank(),
          .world_size = job_.world_size(),
          .accumulation = options.gradient_accumulation_steps};
}

std::unique_ptr<models::CausalLM> Trainer::build_model(bool with_weights) const {
  auto model = models::make_model(model_config_);
  if (with_weights && options_.init) {
    models::load_weights(*model, *options_.init);
  } else {
    models::initialize_weights(*model, static_cast<uint64_t>(options_.seed));
  }
  return model;
}

void Trainer::build_engine(bool with_weights) {
  engine_.reset();
  model_ = build_model(with_weights);
  engine_ = engine::initialize(model_->tree(), engine_options_, job_);
  HYDROFOIL_CHECK_ARG(!engine_->groups().empty(), kFunction, options_.config, ": the section 'optimizer' is required");
}

std::vector<std::vector<float>> Trainer::gather(const std::vector<float>& own) {
  const auto count = static_cast<int64_t>(own.size());
  const at::Tensor mine = at::tensor(own);
  const at::Tensor all = at::empty({job_.world_size() * count}, at::kFloat);
  control_.all_gather(mine, all).wait();
  std::vector<std::vector<float>> rows;
  for (int64_t rank = 0; rank < job_.world_size(); ++rank) {
    const float* row = all.data_ptr<float>() + rank * count;
    rows.emplace_back(row, row + count);
  }
  return rows;
}

std::string Trainer::agree_on_folder() {
  const std::string own = options_.out ? *options_.out : options_.resume ? *options_.resume : "runs/" + timestamp();
  HYDROFOIL_CHECK_ARG(own.size() < kMaxPathBytes, kFunction, "--out: got a name of ", own.size(), " bytes");
  const at::Tensor bytes = at::zeros({kMaxPathBytes}, at::kChar);
  std::copy(own.begin(), own.end(), bytes.data_ptr<int8_t>());
  control_.broadcast(bytes, 0).wait();
  std::string folder = reinterpret_cast<const char*>(bytes.data_ptr<int8_t>());
  std::error_code error;
  const bool resumed = options_.resume && fs::equivalent(*options_.resume, folder, error);
  const bool goes_on = fs::exists(fs::path(folder) / "checkpoint", error);
  HYDROFOIL_CHECK_ARG(
      resumed || !fs::exists(fs::path(folder) / "loss.csv"), kFunction, folder, " holds a run already",
      goes_on ? "; name another folder with --out, or go on with --resume " + folder
              : ", which ended before its first checkpoint; name another folder with --out, or remove this one");
  control_.barrier();  // nobody writes there before everybody has looked
  fs::create_directories(folder, error);
  if (error) throw_system_error(kFunction, "cannot make the folder " + folder, error.value());
  return folder;
}

int64_t Trainer::resume() {
  const std::string folder = *options_.resume + "/checkpoint";
  std::vector<double> lrs;
  for (const auto& group : engine_->groups()) lrs.push_back(group.lr);
  const auto loaded = engine_->load_checkpoint(folder);
  HYDROFOIL_CHECK_ARG(loaded.has_value(), kFunction, "--resume: ", *options_.resume,
                      " holds no checkpoint/: that run ended before its first one; start it again in another folder");
  const nlohmann::json state = storage::parse_strict_json(loaded->client_state, kFunction, loaded->directory, 8);
  std::map<std::string, int64_t> saved;
  for (const auto& [name, value] : state.items()) {
    if (value.is_number_integer()) saved[name] = value.get<int64_t>();
  }
  batches_->check_state(saved);
  HYDROFOIL_CHECK_ARG(saved.contains("step"), kFunction, loaded->directory, " was not written by `hydrofoil train`");
  for (const auto& [name, value] : identity()) {
    const auto found = state.find(name);
    HYDROFOIL_CHECK_ARG(found == state.end() || *found == value, kFunction, "--resume: the ", name,
                        " is not the one that ", loaded->directory, " was trained with");
  }
  for (size_t g = 0; g < lrs.size(); ++g) {
    const double lr = engine_->groups()[g].lr;
    if (job_.is_first() && !engine_->schedule() && lr != lrs[g]) {
      log_warning("--resume: the learning rate of the checkpoint, ", lr, ", is kept; ", options_.config, " has ",
                  lrs[g]);
    }
  }
  return saved.at("step");
}

void Trainer::say_hello(Progress& progress, int64_t steps, const std::string& out) {
  const auto& options = engine_->options();
  int64_t numel = 0;
  for (const auto& info : model_->tree().parameters) numel += info.parameter.numel();
  char millions[32];
  std::snprintf(millions, sizeof(millions), "%.2f", static_cast<double>(numel) / 1e6);
  progress.say(concat("model  ", millions, " M parameters, ", config::dtype_name(options.model_dtype()),
                      ", ZeRO stage ", options.zero.stage, " on ", job_.world_size(), " rank(s)"));
  const std::string unit = is_text(corpus_) ? " bytes" : " tokens";
  progress.say(concat("data   ", corpus_.name, ": ", with_commas(corpus_.train.num_tokens()), unit, " to train on, ",
                      with_commas(corpus_.held_out.num_tokens()), " held out",
                      corpus_.num_skipped > 0 ? concat("; ", corpus_.num_skipped, " binary files left out") : ""));
  progress.say(
      concat("run    ", steps, " steps of ", with_commas(options.train_batch_size * context_), unit, ", into ", out));
}

double Trainer::train_step(int64_t step) {
  const int64_t accumulation = engine_->options().gradient_accumulation_steps;
  model_->train();
  double total = 0.0;
  for (int64_t micro_step = 0; micro_step < accumulation; ++micro_step) {
    const data::Batch batch = batches_->micro_batch(step, micro_step);
    seed_dropout({options_.seed, step, micro_step, job_.rank()});
    at::Tensor loss;
    {
      const engine::PhaseScope forward(*engine_, engine::Phase::kForward);
      loss = model_->loss(batch.inputs, batch.targets);
    }
    engine_->backward(loss);
    engine_->step();
    total += loss.item<float>();
  }
  return total / static_cast<double>(accumulation);
}

double Trainer::evaluate() {
  const at::NoGradGuard no_grad;
  model_->train(false);
  const int64_t world_size = job_.world_size();
  std::vector<int64_t> mine;
  for (size_t i = job_.rank(); i < held_out_windows_.size(); i += world_size) mine.push_back(held_out_windows_[i]);
  const auto count = static_cast<int64_t>(held_out_windows_.size());
  const int64_t rounds = (count + world_size * kEvalBatchSize - 1) / (world_size * kEvalBatchSize);
  double total = 0.0;
  for (int64_t round = 0; round < rounds; ++round) {
    const int64_t first = std::min<int64_t>(round * kEvalBatchSize, mine.size());
    const int64_t last = std::min<int64_t>(first + kEvalBatchSize, mine.size());
    // A rank without windows left still takes part in the gathers of ZeRO-3.
    const std::vector<int64_t> indices = last > first ? std::vector<int64_t>(mine.begin() + first, mine.begin() + last)
                                                      : std::vector<int64_t>{held_out_windows_[0]};
    const data::Batch batch = data::read_windows(corpus_.held_out, context_, indices);
    total += model_->loss(batch.inputs, batch.targets).item<float>() * static_cast<double>(last - first);
  }
  double sum = 0.0;
  for (const auto& row : gather({static_cast<float>(total)})) sum += row[0];
  return sum / static_cast<double>(count);
}

double Trainer::report_held_out(int64_t step, Progress& progress, Logs* logs) {
  const double loss = evaluate();
  const auto tokens = static_cast<double>(step * engine_->options().train_batch_size * context_);
  if (logs != nullptr) logs->held_out.write({static_cast<double>(step), tokens, loss, bits(loss)});
  char text[96];
  std::snprintf(text, sizeof(text), "held out after step %ld: loss %.3f, %.3f bits per %s", step, loss, bits(loss),
                is_text(corpus_) ? "byte" : "token");
  progress.say(text);
  return loss;
}

std::pair<int64_t, std::optional<double>> Trainer::train(int64_t first_step, int64_t steps, Progress& progress,
                                                         Logs* logs) {
  const int64_t tokens_per_step = engine_->options().train_batch_size * context_;
  std::optional<double> held_out;
  double memory = memory_mib();
  report_held_out(first_step, progress, logs);
  for (int64_t step = first_step; step < steps;) {
    const auto started = std::chrono::steady_clock::now();
    const double loss = train_step(step);
    if (step % kMemoryInterval == 0) memory = memory_mib();
    const auto rows = gather({static_cast<float>(loss), stop_ != 0 ? 1.0F : 0.0F, static_cast<float>(memory)});
    ++step;
    StepRow row;
    row.step = step;
    row.tokens = step * tokens_per_step;
    bool stop = false;
    for (const auto& of_rank : rows) {
      row.loss += static_cast<double>(of_rank[0]) / static_cast<double>(rows.size());
      stop = stop || of_rank[1] != 0.0F;
      row.memory_mib = std::max(row.memory_mib, static_cast<double>(of_rank[2]));
    }
    row.lr = engine_->groups()[0].lr;
    row.grad_norm = engine_->grad_norm().value_or(NAN);
    row.tokens_per_s = static_cast<double>(tokens_per_step) /
                       std::chrono::duration<double>(std::chrono::steady_clock::now() - started).count();
    if (logs != nullptr) {
      logs->train.write({static_cast<double>(row.step), static_cast<double>(row.tokens), row.loss, bits(row.loss),
                         row.lr, row.grad_norm, row.tokens_per_s, row.memory_mib});
    }
    progress.step(row);
    for (size_t rank = 0; rank < rows.size(); ++rank) {
      if (std::isfinite(rows[rank][0])) continue;
      control_.barrier();  // all ranks are here; a launcher ends the others when one leaves
      throw TrainingError(concat("[hydrofoil train] the loss of step ", step, " is ", rows[rank][0], " on rank ", rank,
                                 "; a smaller learning rate may help"));
    }
    if (stop) return {step, std::nullopt};
    if (step % options_.eval_interval == 0 || step == steps) held_out = report_held_out(step, progress, logs);
    if (options_.save_interval > 0 && step % options_.save_interval == 0 && step != steps) save(step);
  }
  return {steps, held_out};
}

const std::map<std::string, std::string>& Trainer::identity() {
  if (!identity_.empty()) return identity_;
  const std::string model = models::function_of(model_config_);
  const auto windows = data::spread_windows(corpus_.train, context_, kSampledWindows);
  const at::Tensor sample = data::read_windows(corpus_.train, context_, windows).inputs;
  identity_ = {{"model", hex(storage::xxh3_64(model.data(), model.size()))},
               {"data", hex(storage::xxh3_64(sample.const_data_ptr(), sample.nbytes()))}};
  return identity_;
}

void Trainer::save(int64_t step) {
  nlohmann::json state = batches_->state();
  state["step"] = step;
  state.update(identity());
  engine_->save_checkpoint(out_ + "/checkpoint", {.tag = concat("step", step), .client_state = state.dump()});
}

void Trainer::check_checkpoint(double expected, Progress& progress) {
  build_engine(/*with_weights=*/false);
  engine_->load_checkpoint(out_ + "/checkpoint");
  const double loss = evaluate();
  if (std::abs(loss - expected) > 1e-6) {
    throw TrainingError(
        concat("[hydrofoil train] the checkpoint loaded again has a held-out loss of ", loss, ", expected ", expected));
  }
  progress.say(concat("checkpoint loaded into a new engine: the held-out loss is ",
                      loss == expected ? "the same" : "the same to 1e-6"));
}

int Trainer::run() {
  const int64_t first_step = options_.resume ? resume() : 0;
  const int64_t global_batch = engine_->options().train_batch_size;
  const int64_t steps = options_.steps.value_or(std::max<int64_t>(1, batches_->num_windows() / global_batch));
  HYDROFOIL_CHECK_ARG(first_step < steps, kFunction, "the checkpoint is at step ", first_step,
                      " already, --steps asks for ", steps);
  out_ = agree_on_folder();
  const bool first = job_.is_first();
  Progress progress(first_step, steps, options_.print_interval, is_text(corpus_) ? "byte" : "token", first);
  std::optional<Logs> logs;
  if (first) {
    const std::string bits_name = is_text(corpus_) ? "bits_per_byte" : "bits_per_token";
    logs.emplace(Logs{
        CsvLog(out_ + "/loss.csv",
               {"step", "tokens", "loss", bits_name, "lr", "grad_norm", "tokens_per_s", "memory_mib"}, first_step + 1),
        CsvLog(out_ + "/held_out.csv", {"step", "tokens", "loss", bits_name}, first_step)});
  }
  say_hello(progress, steps, out_);
  const auto draw = [&] {
    if (!logs) return;
    write_loss_svg(
        out_ + "/loss.svg",
        concat(corpus_.name, ": ZeRO stage ", engine_->options().zero.stage, ", ", job_.world_size(), " rank(s)"),
        logs->train.column("loss"), logs->held_out.column("loss"));
  };
  std::pair<int64_t, std::optional<double>> done;
  try {
    done = train(first_step, steps, progress, logs ? &*logs : nullptr);
  } catch (...) {
    try {
      draw();
    } catch (const SystemError&) {  // NOLINT(bugprone-empty-catch): the first error counts
    }
    throw;
  }
  save(done.first);
  draw();
  if (done.second) check_checkpoint(*done.second, progress);
  progress.close();
  engine_->destroy();
  if (first && !done.second) {
    progress.say(concat("interrupted after step ", done.first, " of ", steps,
                        done.first < steps ? concat("; go on with --resume ", out_) : ""));
  }
  progress.say(concat("  loss curve  ", out_, "/loss.svg\n  numbers     ", out_, "/loss.csv, ", out_,
                      "/held_out.csv\n  checkpoint  ", out_, "/checkpoint/step", done.first));
  control_.barrier();
  return done.second ? 0 : kExitInterrupted;
}

}  // namespace hydrofoil::train
