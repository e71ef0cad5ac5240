"""The training job: build, train, evaluate, save, load again, and let the model write."""

from __future__ import annotations

import math
import time
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

import hydrofoil
from data import Batches, Corpus, load_corpus, read_windows, spread_windows
from generate import generate
from interrupt import EXIT_CODE, StopFlag
from model import LanguageModel, ModelConfig, next_byte_loss
from plot import plot_loss
from ranks import Ranks
from report import HELD_OUT_COLUMNS, TRAIN_COLUMNS, CsvLog, Progress, bits_per_byte, memory_mib, read_csv
from settings import count_parameters, engine_config, fastest_dtype, training_device

EVAL_BATCH_SIZE = 16
MEMORY_INTERVAL = 10  # Reading it walks the page tables: a few milliseconds.


class TrainingError(Exception):
    """The job cannot go on; the message says why, for the user."""


class Trainer:
    """One rank of the job. Every method is called by all ranks."""

    def __init__(self, options: Namespace, stop: StopFlag) -> None:
        self._options, self._stop = options, stop
        hydrofoil.init_distributed()
        self._device = training_device()
        self._ranks = Ranks(self._device)
        self._dtype = self._ranks.from_first(options.dtype if options.dtype != "auto" else fastest_dtype())
        self._model_config = ModelConfig()
        self._corpus = load_corpus(options.data, self._model_config.context)
        self._config = engine_config(options, self._dtype)
        self._batches = self._make_batches(self._corpus)
        self._held_out = spread_windows(self._corpus.held_out, self._model_config.context, options.eval_windows)
        self._tokens_per_step = self._config["train_batch_size"] * self._model_config.context
        self._engine = self._build_engine(options.seed)

    def run(self) -> int:
        """Runs the whole job; returns the exit code. Raises TrainingError where the loss stops being a number."""
        first_step = self._resume() if self._options.resume else 0
        out = self._make_run_folder()
        try:
            done, held_out_loss = self._run_into(out, first_step)
        except TrainingError:
            self._ranks.wait()  # All ranks are here; a launcher ends rank 0 when another leaves before it has drawn.
            raise
        interrupted = self._ranks.any(self._stop.requested)
        self._engine.destroy()
        if self._ranks.is_first:
            _print_summary(out, done, self._options.steps, held_out_loss, interrupted)
        self._ranks.wait()
        return EXIT_CODE if interrupted else 0

    def _run_into(self, out: Path, first_step: int) -> tuple[int, float | None]:
        """Trains, saves, loads again and writes; returns the steps done and, if not stopped, the held-out loss."""
        options = self._options
        with (
            Progress(first_step, options.steps, options.print_interval, self._ranks.is_first) as progress,
            self._reports(out, first_step) as logs,
        ):
            self._say_hello(progress, out)
            done, held_out_loss = self._train(first_step, progress, logs)
            self._save(out, done)
            if held_out_loss is not None:
                self._check_checkpoint(out, held_out_loss, progress)
                if options.sample:
                    self._write_sample(progress)
        return done, held_out_loss

    # --- set-up -------------------------------------------------------------------------------------------------------

    def _make_batches(self, corpus: Corpus) -> Batches:
        return Batches(
            corpus.train,
            self._model_config.context,
            self._config["train_batch_size"],
            self._options.seed,
            self._ranks.rank,
            self._ranks.world_size,
            self._config["gradient_accumulation_steps"],
        )

    def _build_engine(self, seed: int) -> Any:
        torch.manual_seed(seed)  # The same initial weights on every rank and for every world size.
        model = LanguageModel(self._model_config).to(self._device)
        engine, _, _, _ = hydrofoil.initialize(model=model, model_parameters=model.parameters(), config=self._config)
        return engine

    def _make_run_folder(self) -> Path:
        out = self._options.out or self._options.resume or Path("runs") / time.strftime("%Y-%m-%d_%H-%M-%S")
        out = self._ranks.from_first(Path(out))
        resumed = self._options.resume and self._options.resume.resolve() == out.resolve()
        if (out / "loss.csv").exists() and not resumed:
            raise TrainingError(
                f"{out} holds a run already; name another folder with --out, or go on with --resume {out}"
            )
        self._ranks.wait()  # Nobody writes there before everybody has looked.
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise TrainingError(f"cannot make the folder {out}: {error.strerror}") from error
        return out

    def _resume(self) -> int:
        folder = self._options.resume / "checkpoint"
        if not folder.is_dir():
            raise TrainingError(f"{self._options.resume} holds no checkpoint/ to resume from")
        _, state = self._engine.load_checkpoint(str(folder))
        expected = self._client_state(state["step"])
        for name in ("seed", "tokens_per_step", "train_bytes"):
            if state[name] != expected[name]:
                raise TrainingError(
                    f"{folder} was trained with {name} {state[name]}, this run has {expected[name]}: "
                    "its data would not go on where it stopped"
                )
        if state["step"] >= self._options.steps:
            raise TrainingError(f"{folder} is at step {state['step']} already, --steps asks for {self._options.steps}")
        return state["step"]

    def _client_state(self, step: int) -> dict[str, int]:
        return {
            "step": step,
            "seed": self._options.seed,
            "tokens_per_step": self._tokens_per_step,
            "train_bytes": len(self._corpus.train),
        }

    @contextmanager
    def _reports(self, out: Path, first_step: int) -> Iterator[tuple[CsvLog, CsvLog] | None]:
        """The CSV files of rank 0 (None elsewhere). The curve is drawn however the block ends."""
        if not self._ranks.is_first:
            yield None
            return
        paths = out / "loss.csv", out / "held_out.csv"
        logs = CsvLog(paths[0], TRAIN_COLUMNS, first_step + 1), CsvLog(paths[1], HELD_OUT_COLUMNS, first_step)
        try:
            yield logs
        finally:
            for log in logs:
                log.close()
            how = f"ZeRO stage {self._options.stage}, {self._dtype}, {self._ranks.world_size} rank(s)"
            plot_loss(read_csv(paths[0]), read_csv(paths[1]), f"{self._corpus.name}: {how}", out / "loss")

    def _say_hello(self, progress: Progress, out: Path) -> None:
        corpus, model = self._corpus, self._model_config
        progress.say(
            f"model  {count_parameters(model) / 1e6:.2f} M parameters ({model.layers} layers of {model.width}), {self._dtype}, "
            f"ZeRO stage {self._options.stage} on {self._ranks.world_size} rank(s)"
        )
        skipped = f"; {corpus.num_skipped} binary files left out" if corpus.num_skipped else ""
        sizes = f"{len(corpus.train):,} bytes to train on, {len(corpus.held_out):,} held out"
        progress.say(f"data   {corpus.name}: {sizes}{skipped}")
        progress.say(f"run    {self._options.steps} steps of {self._tokens_per_step:,} bytes, into {out}")

    # --- training -----------------------------------------------------------------------------------------------------

    def _train(
        self, first_step: int, progress: Progress, logs: tuple[CsvLog, CsvLog] | None
    ) -> tuple[int, float | None]:
        """Trains until the last step or an agreed stop; returns the steps done and, if not stopped, the held-out loss."""
        options = self._options
        held_out_loss = None
        memory = memory_mib()
        step = first_step
        self._report_held_out(step, progress, logs)
        while step < options.steps:
            started = time.perf_counter()
            loss = self._train_step(step)
            if step % MEMORY_INTERVAL == 0:
                memory = memory_mib()
            losses, stops, memories = zip(*self._ranks.gather(loss, self._stop.requested, memory))
            step += 1
            row = {
                "step": step,
                "tokens": step * self._tokens_per_step,
                "loss": sum(losses) / len(losses),
                "bits_per_byte": bits_per_byte(sum(losses) / len(losses)),
                "lr": float(self._engine.get_lr()[0]),
                "grad_norm": _as_float(self._engine.get_global_grad_norm()),
                "tokens_per_s": self._tokens_per_step / (time.perf_counter() - started),
                "memory_mib": max(memories),
            }
            if logs:
                logs[0].write(row)
            progress.step(row)
            if not math.isfinite(row["loss"]):
                rank = next(rank for rank, value in enumerate(losses) if not math.isfinite(value))
                raise TrainingError(
                    f"the loss of step {step} is {losses[rank]} on rank {rank}; a smaller learning rate may help"
                )
            if any(stops):
                return step, None
            if step % options.eval_interval == 0 or step == options.steps:
                held_out_loss = self._report_held_out(step, progress, logs)
        return step, held_out_loss

    def _train_step(self, step: int) -> float:
        """One optimizer step; the mean loss of this rank's micro batches."""
        accumulation = self._config["gradient_accumulation_steps"]
        self._engine.train()
        total = 0.0
        for micro_step in range(accumulation):
            tokens, targets = self._batches.micro_batch(step, micro_step)
            loss = next_byte_loss(self._engine(tokens.to(self._device)), targets.to(self._device))
            self._engine.backward(loss)
            self._engine.step()
            total += loss.item()
        return total / accumulation

    # --- evaluation, checkpoint, sample -------------------------------------------------------------------------------

    def evaluate(self) -> float:
        """Mean loss in nats over the held-out windows. Ranks share the windows and all run forward equally often."""
        self._engine.eval()
        total = 0.0
        mine = self._held_out[self._ranks.rank :: self._ranks.world_size]
        rounds = math.ceil(len(self._held_out) / (self._ranks.world_size * EVAL_BATCH_SIZE))
        with torch.no_grad():
            for turn in range(rounds):
                chosen = mine[turn * EVAL_BATCH_SIZE : (turn + 1) * EVAL_BATCH_SIZE]
                # A rank without windows left still takes part in the gathers of ZeRO-3.
                indices = chosen or self._held_out[:1]
                tokens, targets = read_windows(self._corpus.held_out, self._model_config.context, indices)
                loss = next_byte_loss(self._engine(tokens.to(self._device)), targets.to(self._device))
                total += loss.item() * len(chosen)
        return sum(row[0] for row in self._ranks.gather(total)) / len(self._held_out)

    def _report_held_out(self, step: int, progress: Progress, logs: tuple[CsvLog, CsvLog] | None) -> float:
        loss = self.evaluate()
        row = {"step": step, "tokens": step * self._tokens_per_step, "loss": loss, "bits_per_byte": bits_per_byte(loss)}
        if logs:
            logs[1].write(row)
        progress.say(f"held out after step {step}: loss {loss:.3f}, {row['bits_per_byte']:.3f} bits per byte")
        return loss

    def _save(self, out: Path, step: int) -> None:
        folder, tag = out / "checkpoint", f"step{step}"
        self._engine.save_checkpoint(str(folder), tag=tag, client_state=self._client_state(step))

    def _check_checkpoint(self, out: Path, expected: float, progress: Progress) -> None:
        """Loads the checkpoint into a new engine with other initial weights, which then has to give the same loss."""
        self._engine.destroy()
        self._engine = self._build_engine(self._options.seed + 1)
        self._engine.load_checkpoint(str(out / "checkpoint"))
        loss = self.evaluate()
        if abs(loss - expected) > 1e-6:
            raise TrainingError(f"the checkpoint loaded again has a held-out loss of {loss}, expected {expected}")
        how = "the same" if loss == expected else "the same to 1e-6"
        progress.say(f"checkpoint loaded into a new engine: the held-out loss is {how}")

    def _write_sample(self, progress: Progress) -> None:
        self._engine.eval()
        prompt = self._options.prompt.encode() or self._corpus.held_out.read(0, 1)
        text = generate(
            self._engine,
            prompt,
            self._options.sample_bytes,
            self._model_config.context,
            self._device,
            self._options.seed,
            keep_going=lambda: not self._ranks.any(self._stop.requested),
        )
        line = "-" * 80
        progress.say(f"a sample of its text, after {prompt.decode(errors='replace')!r}:\n{line}")
        progress.say(f"{(prompt + text).decode(errors='replace')}\n{line}")


def _print_summary(out: Path, done: int, steps: int, held_out_loss: float | None, interrupted: bool) -> None:
    if held_out_loss is not None:
        loss = f"{held_out_loss:.4f} nats = {bits_per_byte(held_out_loss):.3f} bits per byte"
        print(f"held-out loss after {done} steps: {loss}")
    if interrupted:
        print(f"interrupted after step {done} of {steps}" + (f"; go on with --resume {out}" if done < steps else ""))
    print(f"  loss curve  {out / 'loss.svg'}, {out / 'loss.png'}")
    print(f"  numbers     {out / 'loss.csv'}, {out / 'held_out.csv'}")
    print(f"  checkpoint  {out / 'checkpoint' / f'step{done}'}", flush=True)


def _as_float(value: Any) -> float:
    return math.nan if value is None else float(value)
