"""The main job's data, model, reports and plot: everything that needs no engine."""

from __future__ import annotations

import importlib.util
import math
import os
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

JOB = Path(__file__).resolve().parents[2] / "examples" / "python" / "language_model"


def load(name: str) -> ModuleType:
    """A module of the example under a name of its own: `data` or `model` alone would clash with other packages."""
    qualified = f"language_model_{name}"
    if qualified not in sys.modules:
        spec = importlib.util.spec_from_file_location(qualified, JOB / f"{name}.py")
        sys.modules[qualified] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[qualified])
    return sys.modules[qualified]


data, model, plot, report = load("data"), load("model"), load("plot"), load("report")
CONTEXT = 16


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """41 files of different lengths, each of its own letter's bytes; one lies in a subfolder."""
    for index in range(41):
        path = tmp_path / ("deep" if index == 7 else "") / f"{index:02}.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(bytes([60 + index]) * (50 + 13 * index))
    return tmp_path


# --- the corpus ---------------------------------------------------------------------------------------------------------


def test_every_twentieth_file_is_held_out_and_never_trained_on(folder: Path) -> None:
    corpus = data.load_corpus(folder, CONTEXT)
    train = {segment.path for segment in corpus.train.segments}
    held_out = {segment.path for segment in corpus.held_out.segments}
    assert len(train) == 39 and len(held_out) == 2
    assert not train & held_out
    trained_bytes = set(corpus.train.read(0, len(corpus.train)))
    held_out_bytes = set(corpus.held_out.read(0, len(corpus.held_out)))
    assert len(trained_bytes) == 39 and len(held_out_bytes) == 2 and not trained_bytes & held_out_bytes


def test_a_single_file_holds_out_its_last_twentieth(tmp_path: Path) -> None:
    path = tmp_path / "book.txt"
    text = bytes(32 + index % 90 for index in range(2001))
    path.write_bytes(text)
    corpus = data.load_corpus(path, CONTEXT)
    assert len(corpus.held_out) == 100
    assert corpus.train.read(0, 1901) + corpus.held_out.read(0, 100) == text


def test_the_standard_library_is_the_default_without_its_tests() -> None:
    corpus = data.load_corpus(None, 256)
    paths = [segment.path for segment in corpus.train.segments + corpus.held_out.segments]
    assert os.path.basename(argparse_file()) in {path.name for path in paths}
    assert not any({"test", "idlelib", "site-packages"} & set(path.parts[-4:-1]) for path in paths)
    assert {path.suffix for path in paths} == {".py"}
    assert len(corpus.train) > 4_000_000 and len(corpus.held_out) > 100_000


def argparse_file() -> str:
    import argparse

    return argparse.__file__


def test_a_stream_reads_across_files_and_skips_empty_ones(tmp_path: Path) -> None:
    parts = [b"abc", b"", b"d", b"efghij"]
    for index, part in enumerate(parts):
        (tmp_path / str(index)).write_bytes(part)
    stream = data.ByteStream([data.Segment(tmp_path / str(index), 0, len(part)) for index, part in enumerate(parts)])
    whole = b"".join(parts)
    for start in range(len(whole) + 1):
        for end in range(start, len(whole) + 1):
            assert stream.read(start, end - start) == whole[start:end]
    for start, length in ((0, 11), (10, 1), (-1, 2), (0, -1)):
        with pytest.raises(IndexError):
            stream.read(start, length)


def test_a_file_that_shrinks_while_in_use_is_an_error_that_names_it(tmp_path: Path) -> None:
    path = tmp_path / "shrinks.txt"
    path.write_bytes(b"x" * 100)
    stream = data.ByteStream([data.Segment(path, 0, 100)])
    path.write_bytes(b"x" * 50)
    with pytest.raises(data.DataError, match="shrinks.txt changed"):
        stream.read(40, 20)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "does not exist"),
        (lambda path: path.mkdir(), "is empty"),
        (lambda path: path.write_bytes(b""), "is empty"),
        (lambda path: path.write_bytes(b"ELF\0\1\2" * 1000), "is binary"),
        (lambda path: path.write_bytes(b"short"), "too short: 5 bytes"),
        (lambda path: path.write_bytes(b"x" * 20 * CONTEXT), "to hold out"),
    ],
)
def test_unusable_data_is_an_error_that_names_it(tmp_path: Path, make: object, message: str) -> None:
    path = tmp_path / "input"
    make(path)
    with pytest.raises(data.DataError, match=message) as caught:
        data.load_corpus(path, CONTEXT)
    assert str(path) in str(caught.value)


def test_binary_files_among_texts_are_left_out_and_counted(folder: Path) -> None:
    (folder / "picture.png").write_bytes(b"\x89PNG\0\0\0")
    (folder / ".hidden").write_bytes(b"secret")
    corpus = data.load_corpus(folder, CONTEXT)
    assert corpus.num_skipped == 1
    assert not {"picture.png", ".hidden"} & {segment.path.name for segment in corpus.train.segments}


# --- batches ------------------------------------------------------------------------------------------------------------


def make_batches(stream: object, world_size: int, rank: int, accumulation: int = 1, seed: int = 3) -> object:
    return data.Batches(stream, CONTEXT, 12, seed, rank, world_size, accumulation)


@pytest.fixture
def stream(folder: Path) -> object:
    return data.load_corpus(folder, CONTEXT).train


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("accumulation", [1, 2])
def test_the_global_batch_is_the_same_for_every_world_size(stream: object, world_size: int, accumulation: int) -> None:
    for step in (0, 1, 500):
        expected = make_batches(stream, 1, 0).window_indices(step)
        got = [
            window
            for micro_step in range(accumulation)
            for rank in range(world_size)
            for window in make_batches(stream, world_size, rank, accumulation).window_indices(step, micro_step)
        ]
        assert got == expected


def test_an_epoch_takes_every_window_once_over_all_ranks(stream: object) -> None:
    ranks = [make_batches(stream, 3, rank) for rank in range(3)]
    count = stream.num_windows(CONTEXT)
    taken = [window for step in range(-(-count // 12)) for rank in ranks for window in rank.window_indices(step)]
    assert sorted(taken[:count]) == list(range(count))
    assert taken[:count] != sorted(taken[:count])


def test_the_order_depends_on_the_seed_and_the_epoch_alone(stream: object) -> None:
    order = [make_batches(stream, 1, 0).window_indices(step) for step in range(4)]
    assert order == [make_batches(stream, 1, 0).window_indices(step) for step in range(4)]
    assert order != [make_batches(stream, 1, 0, seed=4).window_indices(step) for step in range(4)]
    assert data.permuted(0, 1000, 3, 0) != data.permuted(0, 1000, 3, 1)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 16, 17, 1000, 1025])
def test_the_permutation_reaches_every_index_once(size: int) -> None:
    assert sorted(data.permuted(index, size, 7, 1) for index in range(size)) == list(range(size))


def test_targets_are_the_bytes_that_follow_the_inputs(tmp_path: Path) -> None:
    path = tmp_path / "count.txt"
    path.write_bytes(bytes(1 + index % 250 for index in range(1000)))
    stream = data.ByteStream([data.Segment(path, 0, 1000)])
    inputs, targets = data.read_windows(stream, CONTEXT, [0, 5])
    assert inputs.shape == targets.shape == (2, CONTEXT) and inputs.dtype == targets.dtype == torch.int64
    assert inputs[1, 0] == 1 + 5 * CONTEXT
    assert torch.equal(inputs[:, 1:], targets[:, :-1]) and torch.equal(targets, inputs + 1)


def test_a_batch_that_cannot_be_cut_equally_is_an_error_with_the_arithmetic(stream: object) -> None:
    with pytest.raises(data.DataError, match="12 windows cannot be cut equally for 5 ranks x 1 .* multiple of 5"):
        make_batches(stream, 5, 0)


@pytest.mark.parametrize("count", [1, 7, 10_000])
def test_held_out_windows_are_spread_and_distinct(stream: object, count: int) -> None:
    windows = data.spread_windows(stream, CONTEXT, count)
    available = stream.num_windows(CONTEXT)
    assert len(windows) == len(set(windows)) == min(count, available)
    assert all(0 <= window < available for window in windows)


# --- the model ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def network() -> torch.nn.Module:
    torch.manual_seed(0)
    return model.LanguageModel()


def test_the_model_has_the_size_that_the_job_promises(network: torch.nn.Module) -> None:
    assert sum(parameter.numel() for parameter in network.parameters()) == 3_148_032


def test_the_first_loss_is_that_of_guessing(network: torch.nn.Module) -> None:
    tokens = torch.randint(0, 256, (2, 257), generator=torch.Generator().manual_seed(0))
    loss = model.next_byte_loss(network(tokens[:, :-1]), tokens[:, 1:])
    assert loss.item() == pytest.approx(math.log(256), abs=0.1)


@pytest.mark.parametrize("length", [1, 3, 256])
def test_logits_have_a_row_for_each_byte(network: torch.nn.Module, length: int) -> None:
    assert network(torch.zeros(3, length, dtype=torch.int64)).shape == (3, length, 256)


def test_a_longer_input_than_the_context_is_refused(network: torch.nn.Module) -> None:
    with pytest.raises(ValueError, match="got 257 bytes, expected at most 256"):
        network(torch.zeros(1, 257, dtype=torch.int64))


def test_later_bytes_do_not_change_earlier_logits(network: torch.nn.Module) -> None:
    tokens = torch.randint(0, 256, (1, 64), generator=torch.Generator().manual_seed(1))
    changed = tokens.clone()
    changed[:, 40:] = (changed[:, 40:] + 1) % 256
    with torch.no_grad():
        before, after = network(tokens), network(changed)
    torch.testing.assert_close(before[:, :40], after[:, :40], rtol=0, atol=1e-5)
    assert not torch.allclose(before[:, 40:], after[:, 40:], rtol=0, atol=1e-3)


def test_positions_count(network: torch.nn.Module) -> None:
    tokens = torch.tensor([[1, 2, 3, 9], [2, 1, 3, 9]])
    with torch.no_grad():
        first, second = network(tokens)[:, -1]
    assert not torch.allclose(first, second, rtol=0, atol=1e-5)


def test_every_parameter_gets_a_gradient_in_bf16() -> None:
    network = model.LanguageModel(model.ModelConfig(layers=1, width=32, heads=2, hidden=48)).bfloat16()
    tokens = torch.arange(34).view(2, 17)
    loss = model.next_byte_loss(network(tokens[:, :-1]), tokens[:, 1:])
    loss.backward()
    assert loss.dtype == torch.float32
    assert all(parameter.grad.abs().sum() > 0 for parameter in network.parameters())


# --- generation, reports, plot ------------------------------------------------------------------------------------------


def test_generation_follows_the_model_and_stops_when_told() -> None:
    generate = load("generate").generate

    def count_up(tokens: torch.Tensor) -> torch.Tensor:
        assert tokens.shape[1] <= 4
        return torch.nn.functional.one_hot((tokens + 1) % 256, 256) * 100.0

    cpu = torch.device("cpu")
    assert generate(count_up, b"abc", 6, 4, cpu, seed=0) == b"defghi"
    answers = iter([True, True, False])
    assert generate(count_up, b"a", 6, 4, cpu, seed=0, keep_going=lambda: next(answers)) == b"bc"
    with pytest.raises(ValueError, match="prompt is empty"):
        generate(count_up, b"", 1, 4, cpu, seed=0)


def test_rows_are_on_disk_at_once_and_a_resumed_log_drops_the_later_ones(tmp_path: Path) -> None:
    path = tmp_path / "held_out.csv"
    log = report.CsvLog(path, report.HELD_OUT_COLUMNS)
    for step in (0, 10, 20):
        log.write({"step": step, "tokens": 2048 * step, "loss": 1.5, "bits_per_byte": report.bits_per_byte(1.5)})
        assert report.read_csv(path)[-1]["step"] == step
    log.close()
    report.CsvLog(path, report.HELD_OUT_COLUMNS, keep_before_step=20).close()
    assert [row["step"] for row in report.read_csv(path)] == [0, 10]
    report.CsvLog(path, report.HELD_OUT_COLUMNS).close()
    assert report.read_csv(path) == []


@pytest.mark.parametrize(("value", "columns"), [("120", 120), ("0", None), ("", None), ("wide", None)])
def test_the_launcher_tells_of_a_terminal_behind_the_pipe(
    monkeypatch: pytest.MonkeyPatch, value: str, columns: int | None
) -> None:
    monkeypatch.setenv("HYDROFOIL_TERMINAL", value)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: False, raising=False)
    assert report.terminal_columns() == columns


def make_row(step: int) -> dict[str, float]:
    return {"step": step, "loss": 2.0, "bits_per_byte": 2.9, "tokens_per_s": 8000.0, "memory_mib": 412.0}


def test_progress_without_a_terminal_is_a_line_every_few_steps(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("HYDROFOIL_TERMINAL", raising=False)
    with report.Progress(0, 25, 10, visible=True) as progress:
        for step in range(1, 26):
            progress.step(make_row(step))
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines] == ["10/25", "20/25", "25/25"]
    assert all(fact in lines[0] for fact in ("loss 2.000", "8,000 tokens/s", "412 MiB a rank", "left"))


def test_progress_with_a_terminal_is_a_bar(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("HYDROFOIL_TERMINAL", "150")
    with report.Progress(0, 3, 10, visible=True) as progress:
        progress.say("a message")
        for step in range(1, 4):
            progress.step(make_row(step))
    shown = capsys.readouterr().out
    assert "a message\n" in shown and "\r" in shown
    assert "100%" in shown and "412 MiB a rank" in shown


def test_other_ranks_show_nothing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("HYDROFOIL_TERMINAL", "150")
    with report.Progress(0, 10, 1, visible=False) as progress:
        progress.say("a message")
        progress.step(make_row(1))
    assert capsys.readouterr() == ("", "")


def test_memory_is_that_of_a_process_with_torch_in_it() -> None:
    assert 20 < report.memory_mib() < 100_000


@pytest.mark.parametrize("num_rows", [0, 1, 50])
def test_the_plot_is_written_as_svg_and_png(tmp_path: Path, num_rows: int) -> None:
    pytest.importorskip("matplotlib", reason="the plot is drawn by matplotlib")
    rows = [{"tokens": 2048 * step, "bits_per_byte": 8 / (1 + step)} for step in range(num_rows)]
    svg, png = plot.plot_loss(rows, rows[::10], "a run", tmp_path / "loss")
    assert svg.suffix == ".svg" and b"<svg" in svg.read_bytes()
    assert png.suffix == ".png" and png.read_bytes().startswith(b"\x89PNG") and png.stat().st_size > 5_000


def test_smoothing_keeps_the_ends_and_straight_lines() -> None:
    assert plot.smoothed([3.0, 2.0, 1.0, 0.0]) == pytest.approx([3.0, 2.0, 1.0, 0.0])
    assert plot.smoothed([8.0, 2.0, 2.0], reach=1) == pytest.approx([8.0, 4.0, 2.0])
    assert plot.smoothed([]) == []
