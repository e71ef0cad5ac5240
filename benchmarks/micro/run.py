"""Runs the micro-benchmarks and writes build/bench/micro.json, from which benchmarks/report.py makes tables and plots.

    make bench-micro
    .venv/bin/python benchmarks/micro/run.py --only kernels collectives    these sections anew; the file keeps the others

Sections: kernels, peer_adam, optimizer_step, boundaries, engine_overhead, small_modules, collectives.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Callable

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(ROOT / "benchmarks"), str(ROOT / "benchmarks/e2e")]
from compare import cpu_name  # noqa: E402
from turns import Ranks, free_port  # noqa: E402

PYTHON, HYDROFOIL = ROOT / ".venv/bin/python", ROOT / ".venv/bin/hydrofoil"
PEERS_PYTHON = ROOT / "benchmarks/.peers/bin/python"
SMALL_ROUNDS, SMALL_STEPS = 7, 5
LOSS_TOLERANCE = 1e-2


class Runner:
    def __init__(self, build: Path, logs: Path) -> None:
        self.programs, self.logs = build / "benchmarks", logs

    def run(self, command: list[Any], **environment: str) -> None:
        kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        subprocess.run([str(part) for part in command], env={**kept, "PYTHONWARNINGS": "ignore", **environment}, cwd=ROOT, check=True)

    def json_of(self, name: str, command: list[Any], **environment: str) -> Any:
        """What the command writes to the file behind --json."""
        path = self.logs / f"micro_{name}.json"
        self.run([*command, "--json", path], **environment)
        return json.loads(path.read_text())

    def google_benchmark(self, name: str, command: list[Any], *options: str) -> list[dict[str, Any]]:
        """Medians of the repetitions, their times in seconds."""
        path = self.logs / f"micro_{name}.json"
        self.run([*command, f"--benchmark_out={path}", "--benchmark_out_format=json", "--benchmark_report_aggregates_only=true", *options])
        units = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0}
        return [{**row, "seconds": row["real_time"] * units[row["time_unit"]], "cpu_seconds": row["cpu_time"] * units[row["time_unit"]]}
                for row in json.loads(path.read_text())["benchmarks"] if row.get("aggregate_name") == "median"]

    # -- sections ------------------------------------------------------------------------------------------------------
    def kernels(self) -> dict[str, Any]:
        rows = self.google_benchmark("kernels", [self.programs / "bench_kernels"], "--benchmark_enable_random_interleaving=true",
                                     "--benchmark_repetitions=7", "--benchmark_min_time=0.08")
        return share_of_roofs(rows)

    def peer_adam(self) -> list[dict[str, Any]]:
        if not PEERS_PYTHON.exists():
            raise RuntimeError("DeepSpeed is not there: benchmarks/setup_peers.sh installs it")
        return [self.json_of("peer_adam", [PEERS_PYTHON, HERE / "peer_adam.py"], OMP_NUM_THREADS=str(threads)) for threads in (1, 2)]

    def optimizer_step(self) -> list[dict[str, Any]]:
        return self.json_of("optimizer_step", [PYTHON, HERE / "optimizer_step.py"])

    def boundaries(self) -> list[dict[str, Any]]:
        rows = []
        for world in (1, 2):
            launcher = [HYDROFOIL, "run", "--nproc", str(world)]
            for row in self.google_benchmark("boundaries", [*launcher, "--no-python", self.programs / "bench_boundaries"]):
                name = "/".join(row["run_name"].split("/")[:3])
                rows.append({"language": "C++", "name": name, "world": world, "num_units": row["num_units"], "seconds": row["seconds"]})
            rows += [{"language": "Python", **row} for row in self.json_of("boundaries", [*launcher, HERE / "boundaries.py"])]
        for row in rows:
            bare = next(r for r in rows if (r["language"], r["world"], r["name"]) == (row["language"], row["world"], row["name"].rsplit("/", 1)[0] + "/bare"))
            row["added_us_a_unit"] = (row["seconds"] - bare["seconds"]) / row["num_units"] * 1e6
        return rows

    def engine_overhead(self) -> list[dict[str, Any]]:
        return self.json_of("engine_overhead", [PYTHON, HERE / "engine_overhead.py"])

    def small_modules(self) -> list[dict[str, Any]]:
        return [self.small_modules_of(num_ranks, stage) for num_ranks, stage in ((1, "bare"), (1, 0), (2, 3))]

    def small_modules_of(self, num_ranks: int, stage: int | str) -> dict[str, Any]:
        commands = {"C++": [str(self.programs / "bench_small_modules"), str(stage)],
                    "Python": [str(PYTHON), str(ROOT / "benchmarks/e2e/worker.py"), "--shape", "small", "--dtype", "fp32",
                               *(["--engine", "bare"] if stage == "bare" else ["--engine", "hydrofoil", "--stage", str(stage)])]}
        times: dict[str, list[float]] = {name: [] for name in commands}
        losses: dict[str, list[float]] = {name: [] for name in commands}
        programs: list[Ranks] = []
        try:
            for name, command in commands.items():
                programs.append(Ranks(name, command, num_ranks, self.logs / f"micro_small_modules_{name}.log"))
                programs[-1].answers()
            for round_number in range(SMALL_ROUNDS + 1):
                for program in programs:
                    answers = program.turn(f"steps {SMALL_STEPS}")
                    losses[program.name] += answers[0]["losses"]
                    if round_number > 0:
                        times[program.name] += [max(step) for step in zip(*(answer["times"] for answer in answers))]
        finally:
            for program in programs:
                program.close()
        for cpp, python in zip(losses["C++"], losses["Python"]):
            if abs(cpp - python) > LOSS_TOLERANCE * abs(python):
                raise RuntimeError(f"small modules: the loss of the C++ program is {cpp}, of the Python one {python}: not the same work")
        medians = {name: statistics.median(values) for name, values in times.items()}
        print(f"small modules, {num_ranks} ranks, stage {stage}: C++ {medians['C++'] * 1e3:.1f} ms, Python {medians['Python'] * 1e3:.1f} ms", flush=True)
        return {"ranks": num_ranks, "stage": stage, "cpp_s": medians["C++"], "python_s": medians["Python"], "ratio": medians["Python"] / medians["C++"],
                "last_loss": losses["C++"][-1]}

    def collectives(self) -> dict[str, Any]:
        program = self.programs / "bench_collectives"
        mpirun = shutil.which("mpirun")
        if mpirun:
            launcher = [mpirun, "-np", "2", "--oversubscribe", "--allow-run-as-root", "--bind-to", "none", "-x", "MASTER_ADDR=127.0.0.1",
                        "-x", f"MASTER_PORT={free_port()}", "-x", "OMP_NUM_THREADS=1", program]
        else:
            launcher = [HYDROFOIL, "run", "--no-python", "--nproc", "2", program]
        return {"group": self.json_of("collectives", launcher),
                "process_group": self.json_of("process_group", [HYDROFOIL, "run", "--nproc", "2", HERE / "collectives.py"])}


def share_of_roofs(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The time of a kernel at the roof: what it only reads at the roof of reading, what it updates at that of updates in place, what it only
    writes at that of writing past the caches, all measured with the same number of threads in the same run."""
    roofs: dict[str, dict[str, float]] = {}
    kernels = []
    for row in rows:
        name, threads = row["run_name"].removesuffix("/real_time").rsplit("/threads:", 1)
        # Of one thread its CPU time, which others on the machine disturb less; of two the time on the clock.
        row["seconds"] = row["cpu_seconds"] if threads == "1" else row["seconds"]
        traffic = {key: row.get(key, 0.0) for key in ("read_bytes", "updated_bytes", "written_bytes")}
        if name.startswith("roof/"):
            roofs.setdefault(threads, {})[name.removeprefix("roof/")] = (row.get("flop") or sum(traffic.values())) / row["seconds"]
        else:
            kernels.append({"name": name, "threads": int(threads), "seconds": row["seconds"], "num_elements": row["num_elements"], **traffic})
    for kernel in kernels:
        roof = roofs[str(kernel["threads"])]
        roof_s = kernel["read_bytes"] / roof["read"] + kernel["updated_bytes"] / roof["update"] + kernel["written_bytes"] / roof["write"]
        moved = kernel["read_bytes"] + kernel["updated_bytes"] + kernel["written_bytes"]
        kernel |= {"roof_share": roof_s / kernel["seconds"], "bytes_per_s": moved / kernel["seconds"],
                   "elements_per_s": kernel["num_elements"] / kernel["seconds"]}
    return {"roofs": roofs, "kernels": kernels}


def main() -> int:
    sections = ["kernels", "peer_adam", "optimizer_step", "boundaries", "engine_overhead", "small_modules", "collectives"]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=sections, default=sections, metavar="SECTION")
    parser.add_argument("--build", type=Path, default=ROOT / "build/micro", help="where the programs were built (default: build/micro)")
    parser.add_argument("--out", type=Path, default=ROOT / "build/bench/micro.json")
    parser.add_argument("--note", default="", help="a remark on the run that the report repeats")
    arguments = parser.parse_args()
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    results: dict[str, Any] = json.loads(arguments.out.read_text()) if arguments.out.exists() else {}
    runner = Runner(arguments.build, arguments.out.parent)
    failed = []
    for section in arguments.only:
        measure: Callable[[], Any] = getattr(runner, section)
        print(f"== {section}", flush=True)
        started = time.monotonic()
        try:
            results[section] = measure()
        except (RuntimeError, subprocess.CalledProcessError, OSError) as error:
            print(f"{section}: {error}", file=sys.stderr, flush=True)
            failed.append(section)
            continue
        print(f"== {section}: {time.monotonic() - started:.0f} s", flush=True)
        results["machine"] = {"cpu": cpu_name(), "cores": os.cpu_count(), "date": time.strftime("%Y-%m-%d"), "note": arguments.note}
        arguments.out.write_text(json.dumps(results, indent=1))
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
