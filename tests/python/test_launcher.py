"""Processes of `hydrofoil run`: environment, output, failures, signals, and that no process is ever left behind."""

import contextlib
import fcntl
import os
import pathlib
import pty
import select
import signal
import socket
import struct
import subprocess
import sys
import termios
import textwrap
import time

import pytest

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
WAIT_SECONDS = 20  # until something that takes milliseconds counts as missing; nothing sleeps that long


def find_program():
    candidates = [
        os.environ.get("HYDROFOIL_PROGRAM"),
        str(pathlib.Path(sys.executable).parent / "hydrofoil"),
        str(REPOSITORY / "build/dev/apps/hydrofoil"),
    ]
    for candidate in candidates:
        if candidate and os.access(candidate, os.X_OK):
            return candidate
    pytest.skip("no hydrofoil program: set HYDROFOIL_PROGRAM or build the target hydrofoil_cli")


@pytest.fixture(scope="module")
def program():
    return find_program()


@pytest.fixture
def environment():
    """The tests' own variables do not reach the ranks; the interpreter is the plain one, which starts fast."""
    ours = {name: value for name, value in os.environ.items() if name not in ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES")}
    return {**ours, "HYDROFOIL_PYTHON": sys.executable}


@pytest.fixture
def write(tmp_path):
    def write_script(text, name="script.py"):
        path = tmp_path / name
        path.write_text(textwrap.dedent(text))
        return str(path)

    return write_script


@pytest.fixture
def run(program, environment):
    def run_program(*arguments, **options):
        options = {"env": environment, "capture_output": True, "text": True, "timeout": 60, **options}
        return subprocess.run([program, "run", *arguments], **options)

    return run_program


@pytest.fixture
def start(program, environment):
    """Starts a launcher and kills it, and its group, at the end of the test."""
    with contextlib.ExitStack() as stack:

        def start_program(*arguments, **options):
            options = {
                "env": environment,
                "stdout": subprocess.PIPE,
                "stderr": subprocess.PIPE,
                "text": True,
                "start_new_session": True,
                **options,
            }
            process = subprocess.Popen([program, "run", *arguments], **options)
            stack.callback(process.wait)
            stack.callback(process.kill)
            return process

        yield start_program


def wait_until(condition, what):
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {WAIT_SECONDS} s"
        time.sleep(0.01)


def is_alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def pids_in(folder, count):
    """Process ids that `count` processes wrote as names of files."""
    wait_until(lambda: len(list(folder.glob("pid_*"))) >= count, f"{count} processes")
    return [int(path.name.removeprefix("pid_")) for path in folder.glob("pid_*")]


# A rank with a child in its group and one that left it; all of them write their ids and stay.
FAMILY = """
    cd {folder}
    trap '{trap}' TERM
    ( touch pid_$BASHPID; exec sleep 1000 ) &
    setsid bash -c 'touch pid_$$; trap "" TERM HUP; while true; do sleep 1000; done' &
    touch pid_$$
    while true; do wait; done
"""


# ---------------------------------------------------------------------------------------------- environment, arguments


def test_ranks_get_the_usual_environment(run, write):
    script = write(
        """
        import os
        names = "RANK LOCAL_RANK WORLD_SIZE LOCAL_WORLD_SIZE LOCAL_SIZE CROSS_RANK CROSS_SIZE NODE_RANK GROUP_RANK"
        names += " MASTER_ADDR MASTER_PORT PYTHONUNBUFFERED"
        print(" ".join(os.environ[name] for name in names.split()))
        """
    )
    result = run("--nproc", "3", "--master-port", "12345", "--output", "collect", script)
    assert result.returncode == 0, result.stderr
    expected = "{0} {0} 3 3 3 0 1 0 0 127.0.0.1 12345 1"
    lines = [expected.format(0), "[rank 1] " + expected.format(1), "[rank 2] " + expected.format(2)]
    assert result.stdout.splitlines() == lines


def test_arguments_reach_the_script_untouched(run, write):
    script = write("import sys; print(sys.argv[1:])")
    arguments = ["--help", "--nproc", "9", "", "a b", "--", "--num_gpus=3", "-q", "'\"\\$x", "ä"]
    result = run("--nproc", "1", script, *arguments)
    assert result.stdout == repr(arguments) + "\n"


DEEPSPEED_SCRIPT = """
    import argparse
    parser = argparse.ArgumentParser()
    parser.add_argument("--deepspeed_config")
    {local_rank}
    arguments = parser.{parse}
    print(arguments)
"""


@pytest.mark.parametrize("known", [True, False])
def test_deepspeed_command_line_works(run, write, known):
    if known:
        local_rank, parse = 'parser.add_argument("--local_rank", type=int)', "parse_args()"
        expected = "Namespace(deepspeed_config='ds_config.json', local_rank=1)"
    else:
        local_rank, parse = "", "parse_known_args()"
        expected = "(Namespace(deepspeed_config='ds_config.json'), ['--local_rank=1'])"
    script = write(DEEPSPEED_SCRIPT.format(local_rank=local_rank, parse=parse))
    result = run("--num_gpus=2", script, "--deepspeed_config", "ds_config.json")
    assert result.returncode == 0, result.stderr
    assert f"[rank 1] {expected}" in result.stdout


def test_no_local_rank_leaves_it_out(run, write):
    script = write("import sys; print(sys.argv[1:])")
    assert run("--num_gpus", "1", "--no_local_rank", script, "x").stdout == "['x']\n"
    assert run("--num_gpus", "1", script, "x").stdout == "['--local_rank=0', 'x']\n"


def test_module_is_found_like_python_does(run, tmp_path):
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "train.py").write_text("import sys; print(__name__, sys.argv[1:])")
    result = run("-m", "package.train", "x", cwd=tmp_path)
    assert result.stdout == "__main__ ['x']\n", result.stderr


def test_no_python_starts_a_program(run):
    result = run("--nproc", "1", "--no-python", "sh", "-c", "echo $RANK of $WORLD_SIZE")
    assert result.stdout == "0 of 1\n"


def test_threads_are_cores_by_ranks_unless_set(run, environment):
    cores = len(os.sched_getaffinity(0))
    command = ("--no-python", "sh", "-c", "echo $OMP_NUM_THREADS")
    result = run("--nproc", "1", *command)
    assert result.stdout == f"{cores}\n"
    assert f"OMP_NUM_THREADS={cores} ({cores} cores / 1 ranks)" in result.stderr
    result = run("--nproc", "2", "--output", "raw", *command)
    assert result.stdout == f"{max(1, cores // 2)}\n" * 2
    result = run("--nproc", "2", "--output", "raw", *command, env={**environment, "OMP_NUM_THREADS": "7"})
    assert result.stdout == "7\n7\n"


def test_quiet_says_nothing_of_its_own(run):
    assert run("-q", "--no-python", "true").stderr == ""


def test_bound_ranks_do_not_share_cores(run, write):
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        pytest.skip("one core")
    script = write("import os; print(sorted(os.sched_getaffinity(0)))")
    result = run("--nproc", "2", "--bind-cores", "--output", "collect", script)
    half = len(cores) // 2
    assert result.stdout.splitlines() == [str(cores[:half]), f"[rank 1] {cores[half:]}"]


def test_standard_input_goes_to_rank_0(run):
    result = run("--nproc", "2", "--output", "collect", "--no-python", "sh", "-c", "cat; echo end", input="text\n")
    assert result.stdout == "text\nend\n[rank 1] end\n"


def test_two_launchers_use_different_ports(run, start):
    first = start("--no-python", "sh", "-c", "echo $MASTER_PORT; sleep 1000")
    port = int(first.stdout.readline())
    others = {int(run("--no-python", "sh", "-c", "echo $MASTER_PORT").stdout) for _ in range(20)}
    assert port not in others
    # A server that reuses addresses, as torch's store does, can listen on the port that the launcher keeps.
    with socket.create_server(("127.0.0.1", port)), pytest.raises(OSError):
        socket.create_server(("127.0.0.1", port))


# --------------------------------------------------------------------------------------------------- wrong use, help


def test_exit_code_2_and_nearest_name_at_wrong_use(program, run):
    result = run("--nprok", "2", "x.py")
    assert result.returncode == 2
    assert "unknown flag --nprok; the nearest valid flag is --nproc" in result.stderr
    result = run("--num_nodes", "2", "x.py")
    assert result.returncode == 2 and "not yet supported" in result.stderr
    wrong = ((["rn"], "run"), (["--verson"], "--version"), (["config", "explian"], "explain"))
    for arguments, nearest in (*wrong, (["config", "explain", "x", "--wrold-size=2"], "--world-size")):
        result = subprocess.run([program, *arguments], capture_output=True, text=True)
        assert result.returncode == 2 and f" is {nearest}" in result.stderr
    assert subprocess.run([program], capture_output=True).returncode == 2


@pytest.mark.parametrize("flags", [["--world-size", "0"], ["--world-size", "x"], ["--device", "tpu"]])
def test_wrong_value_for_config_explain(program, flags):
    result = subprocess.run([program, "config", "explain", "x.json", *flags], capture_output=True, text=True)
    assert result.returncode == 2 and flags[0] in result.stderr and flags[1] in result.stderr


def test_config_explain(program, tmp_path):
    file = tmp_path / "ds_config.json"
    file.write_text('{"train_micro_batch_size_per_gpu": 3, "gradient_accumulation_steps": 2}')
    command = [program, "config", "explain", str(file), "--world-size", "4"]
    result = subprocess.run(command, capture_output=True, text=True)
    if "this build has no configuration module" in result.stderr:
        pytest.skip("this build has no configuration module")
    assert result.returncode == 0 and "train_batch_size" in result.stdout and "24" in result.stdout
    file.write_text('{"train_batch_size": 3, "bf17": {}}')
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 2 and "bf16" in result.stderr


def test_help_and_version(program, run):
    for arguments in ([], ["run"], ["config"], ["config", "explain"]):
        result = subprocess.run([program, *arguments, "--help"], capture_output=True, text=True)
        assert result.returncode == 0 and "Example" in result.stdout and "Exit codes" in result.stdout
    result = subprocess.run([program, "--version"], capture_output=True, text=True)
    assert result.returncode == 0 and result.stdout.startswith("hydrofoil ") and "torch 2." in result.stdout


def test_program_that_cannot_start_is_named(run):
    result = run("--nproc", "2", "--no-python", "/nonexistent/program")
    assert result.returncode == 126
    assert "cannot start /nonexistent/program: No such file or directory" in result.stderr


# ------------------------------------------------------------------------------------------------------------ output


def test_output_modes(run, write):
    script = write(
        r"""
        import sys
        sys.stdout.write("out\n"); sys.stderr.write("error\n")
        """
    )
    expected = {
        "auto": ["[rank 1] out", "out"],
        "prefix": ["[rank 0] out", "[rank 1] out"],
        "raw": ["out", "out"],
        "collect": ["[rank 1] out", "out"],
    }
    for mode, lines in expected.items():
        result = run("-q", "--nproc", "2", "--output", mode, script)
        assert sorted(result.stdout.splitlines()) == lines, mode
        assert sorted(result.stderr.splitlines()) == [line.replace("out", "error") for line in lines], mode


def test_lines_of_different_ranks_never_mix(run, write):
    # Unbuffered Python writes a line and its end separately.
    script = write(
        """
        import os
        for i in range(200):
            print(os.environ["RANK"] * 50)
        """
    )
    lines = run("--nproc", "3", script).stdout.splitlines()
    assert len(lines) == 600
    for rank, line in (("0", "0" * 50), ("1", "[rank 1] " + "1" * 50), ("2", "[rank 2] " + "2" * 50)):
        assert lines.count(line) == 200, rank


def test_partial_line_of_rank_0_shows_at_once(start, tmp_path):
    process = start("--no-python", "sh", "-c", f"printf '\\r 10%%'; until [ -e {tmp_path}/seen ]; do sleep 0.01; done")
    assert process.stdout.read(5) == "\n 10%"  # text mode shows a carriage return as a line end
    (tmp_path / "seen").touch()
    assert process.wait(WAIT_SECONDS) == 0


def test_another_rank_does_not_wait_for_ever_for_a_line_of_rank_0(start):
    process = start("--nproc", "2", "--no-python", "sh", "-c", "[ $RANK = 0 ] && printf open || echo line; sleep 1000")
    assert {process.stdout.readline(), process.stdout.readline()} <= {"open\n", "[rank 1] line\n", "open[rank 1] line\n"}


def test_a_megabyte_without_line_end_arrives_whole(run, write):
    script = write("import sys; sys.stdout.write('x' * 3_000_001)")
    result = run("--nproc", "2", script)
    assert result.returncode == 0
    assert result.stdout.count("x") == 2 * 3_000_001


def test_binary_output_of_rank_0_is_unchanged(run, write):
    script = write("import sys; sys.stdout.buffer.write(bytes(range(256)) * 1000)")
    result = run(script, text=False)
    assert result.stdout == bytes(range(256)) * 1000


def test_log_dir_has_the_raw_output_of_each_rank(run, write, tmp_path):
    script = write(
        """
        import os, sys
        sys.stdout.buffer.write(b"10%\\r20%\\xff\\0 no end"); print(os.environ["RANK"], file=sys.stderr)
        """
    )
    folder = tmp_path / "a" / "logs"
    assert run("--nproc", "2", "--log-dir", str(folder), script, text=False).returncode == 0
    for rank in (0, 1):
        content = (folder / f"rank_{rank}.log").read_bytes()
        assert b"10%\r20%\xff\0 no end" in content and b"%d\n" % rank in content


def test_log_dir_that_cannot_be_made_is_an_error(run):
    result = run("--log-dir", "/proc/nowhere", "--no-python", "true")
    assert result.returncode == 126 and "create /proc/nowhere" in result.stderr


def test_grandchild_that_holds_the_output_open_delays_nothing(run):
    begin = time.monotonic()
    result = run("--grace-seconds", "1", "--no-python", "sh", "-c", "sleep 1000 & echo done")
    assert result.returncode == 0 and result.stdout == "done\n"
    assert time.monotonic() - begin < WAIT_SECONDS
    assert "left behind" in result.stderr


def test_terminal_width_reaches_rank_0_and_bars_are_cleared(program, environment, tmp_path):
    reader, writer = pty.openpty()
    fcntl.ioctl(writer, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 133, 0, 0))
    script = "[ $RANK = 1 ] && { sleep 0.3; echo line; exit; }; printf \"\\r<$HYDROFOIL_TERMINAL>\"; sleep 0.8"
    process = subprocess.Popen(
        [program, "run", "-q", "--nproc", "2", "--no-python", "sh", "-c", script],
        env=environment, stdin=subprocess.DEVNULL, stdout=writer, stderr=writer,
    )
    os.close(writer)
    output = b""
    while select.select([reader], [], [], WAIT_SECONDS)[0]:
        try:
            output += os.read(reader, 4096)
        except OSError:  # the terminal is closed
            break
    os.close(reader)
    assert process.wait(WAIT_SECONDS) == 0
    assert output == b"\r<133>\r\x1b[K[rank 1] line\r\n"


def test_reader_that_leaves_ends_the_ranks(program, environment):
    command = f"'{program}' run --no-python yes | head -n 1; echo ${{PIPESTATUS[0]}}"
    result = subprocess.run(["bash", "-c", command], env=environment, capture_output=True, text=True, timeout=60)
    assert result.stdout == "y\n141\n"


def test_slow_reader_holds_the_ranks_back(start):
    process = start("--no-python", "sh", "-c", "head -c 30000000 /dev/zero | tr '\\0' x; echo; echo end")
    time.sleep(0.3)
    assert process.poll() is None
    output = process.stdout.read()
    assert len(output) == 30_000_000 + len("\nend\n") and output.endswith("x\nend\n")
    assert process.wait(WAIT_SECONDS) == 0


# ---------------------------------------------------------------------------------------------------------- failures


def test_failing_rank_ends_the_others_and_shows_its_last_lines(run, write):
    script = write(
        """
        import os, sys, time
        if os.environ["RANK"] == "1":
            for i in range(50):
                print("line", i)
            sys.exit("the reason")
        time.sleep(1000)
        """
    )
    begin = time.monotonic()
    result = run("--nproc", "3", script)
    assert result.returncode == 1
    report = result.stderr[result.stderr.index("hydrofoil run: rank 1 failed with exit code 1") :].splitlines()
    assert len(report) == 21
    assert "  line 49" in report and "  line 30" not in report and "  the reason" in report
    assert time.monotonic() - begin < WAIT_SECONDS


def test_exit_code_is_that_of_the_failed_rank(run):
    assert run("--no-python", "sh", "-c", "exit 77").returncode == 77
    result = run("--nproc", "2", "--no-python", "sh", "-c", "[ $RANK = 0 ] && exit 0; sleep 0.2; exit 5")
    assert result.returncode == 5


@pytest.mark.parametrize("name", ["SEGV", "KILL", "ABRT"])
def test_signal_that_ends_a_rank_is_named(run, name):
    result = run("--nproc", "2", "--no-python", "sh", "-c", f"ulimit -c 0; [ $RANK = 1 ] && kill -{name} $$; sleep 1000")
    assert result.returncode == 128 + getattr(signal, "SIG" + name)
    assert f"rank 1 failed with signal SIG{name}; it printed nothing" in result.stderr


def test_rank_that_ignores_sigterm_is_killed_after_the_grace(run):
    script = "trap '' TERM; [ $RANK = 1 ] && { sleep 0.3; exit 3; }; while true; do sleep 1000; done"
    begin = time.monotonic()
    result = run("--nproc", "2", "--grace-seconds", "0.3", "--no-python", "bash", "-c", script)
    assert result.returncode == 3
    assert 0.3 < time.monotonic() - begin < WAIT_SECONDS


# ----------------------------------------------------------------------------------------------------------- signals


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signal_is_forwarded_once_and_gives_the_exit_code(start, write, number):
    script = write(
        f"""
        import signal, time
        caught = []
        signal.signal({int(number)}, lambda *_: caught.append(1))
        print("ready")
        while not caught:
            time.sleep(0.01)
        time.sleep(0.3)
        print("caught", len(caught))
        """
    )
    process = start("--nproc", "2", "--output", "prefix", script)
    ready = {process.stdout.readline() for _ in range(2)}
    assert ready == {"[rank 0] ready\n", "[rank 1] ready\n"}
    process.send_signal(number)
    assert process.wait(WAIT_SECONDS) == 128 + number
    assert sorted(process.stdout.read().splitlines()) == ["[rank 0] caught 1", "[rank 1] caught 1"]


def test_ctrl_c_at_a_terminal_arrives_once(program, environment, write):
    script = write(
        """
        import signal, time
        caught = []
        signal.signal(signal.SIGINT, lambda *_: caught.append(1))
        print("ready")
        while not caught:
            time.sleep(0.01)
        time.sleep(0.3)
        print("caught", len(caught))
        """
    )
    pid, terminal = pty.fork()
    if pid == 0:
        os.execve(program, [program, "run", "-q", script], environment)
    output = b""
    while b"caught" not in output or not output.endswith(b"\n"):
        assert select.select([terminal], [], [], WAIT_SECONDS)[0], output
        output += os.read(terminal, 4096)
        if output.endswith(b"ready\r\n"):
            os.write(terminal, b"\x03")
    assert b"caught 1\r\n" in output
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 130
    os.close(terminal)


def test_second_signal_kills(start, tmp_path):
    process = start("--nproc", "2", "--no-python", "bash", "-c", f"trap '' INT; touch {tmp_path}/pid_$$; while true; do sleep 1; done")
    ranks = pids_in(tmp_path, 2)
    process.send_signal(signal.SIGINT)
    time.sleep(0.2)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert process.wait(WAIT_SECONDS) == 130
    assert not any(is_alive(pid) for pid in ranks)


def test_rank_stuck_after_an_interrupt_is_ended(start, tmp_path):
    script = f"[ $RANK = 1 ] && trap '' INT; touch {tmp_path}/pid_$$; while true; do sleep 0.05; done"
    process = start("--nproc", "2", "--grace-seconds", "1", "--no-python", "bash", "-c", script)
    ranks = pids_in(tmp_path, 2)
    process.send_signal(signal.SIGINT)
    assert process.wait(WAIT_SECONDS) == 130
    assert not any(is_alive(pid) for pid in ranks)


def test_interrupt_ends_ranks_of_a_launcher_that_was_started_with_it_ignored(start, tmp_path):
    script = f"touch {tmp_path}/pid_$$; while true; do sleep 0.05; done"
    process = start("--nproc", "2", "--no-python", "bash", "-c", script,
                    preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN))
    ranks = pids_in(tmp_path, 2)
    process.send_signal(signal.SIGINT)
    assert process.wait(WAIT_SECONDS) == 130
    assert not any(is_alive(pid) for pid in ranks)


def test_user_signals_reach_the_ranks(start):
    process = start("--no-python", "bash", "-c", "trap 'echo usr1; exit 0' USR1; echo ready; while true; do sleep 0.05; done")
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGUSR1)
    assert process.wait(WAIT_SECONDS) == 0
    assert process.stdout.read() == "usr1\n"


def test_stop_and_continue_reach_the_ranks(start, tmp_path):
    process = start("--no-python", "bash", "-c", f"touch {tmp_path}/pid_$$; while true; do sleep 0.05; done")
    (rank,) = pids_in(tmp_path, 1)

    def state():
        return pathlib.Path(f"/proc/{rank}/stat").read_text().rpartition(")")[2].split()[0]

    process.send_signal(signal.SIGTSTP)
    wait_until(lambda: state() == "T", "rank stopped")
    process.send_signal(signal.SIGCONT)
    wait_until(lambda: state() != "T", "rank goes on")
    process.send_signal(signal.SIGTERM)
    assert process.wait(WAIT_SECONDS) == 143


# ----------------------------------------------------------------------------------------------------------- orphans


def supervisor_of(process):
    children = pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    assert len(children) == 1
    return int(children[0])


@pytest.mark.parametrize("victim", ["front", "supervisor", "front, output full"])
def test_kill_9_of_the_launcher_leaves_no_process(start, tmp_path, victim):
    full = victim.endswith("full")
    script = FAMILY.format(folder=tmp_path, trap="")
    if full:  # nobody reads the pipe, so that the launcher has output it cannot write
        script = script.replace("while true; do wait; done", "yes")
    process = start("--nproc", "2", "--no-python", "bash", "-c", textwrap.dedent(script))
    family = pids_in(tmp_path, 6)
    assert all(is_alive(pid) for pid in family)
    supervisor = supervisor_of(process)
    time.sleep(0.2 if full else 0)
    os.kill(supervisor if victim == "supervisor" else process.pid, signal.SIGKILL)
    wait_until(lambda: not any(is_alive(pid) for pid in [*family, supervisor]), "end of all processes")
    code = process.wait(WAIT_SECONDS)
    assert code == (137 if victim == "supervisor" else -9)


def test_kill_9_of_both_processes_of_the_launcher_ends_the_ranks(start, tmp_path):
    process = start("--nproc", "2", "--no-python", "bash", "-c", f"touch {tmp_path}/pid_$$; while true; do sleep 0.05; done")
    ranks = pids_in(tmp_path, 2)
    supervisor = supervisor_of(process)
    process.send_signal(signal.SIGSTOP)  # so that it cannot clean up in between
    os.kill(supervisor, signal.SIGKILL)
    process.kill()
    wait_until(lambda: not any(is_alive(pid) for pid in ranks), "end of the ranks")


def test_failure_leaves_no_process(start, tmp_path):
    script = textwrap.dedent(FAMILY.format(folder=tmp_path, trap="")).replace(
        "while true; do wait; done", "[ $RANK = 1 ] && { until [ -e go ]; do sleep 0.01; done; exit 4; }; while true; do wait; done"
    )
    process = start("--nproc", "2", "--grace-seconds", "0.3", "--no-python", "bash", "-c", script)
    family = pids_in(tmp_path, 6)
    (tmp_path / "go").touch()
    assert process.wait(WAIT_SECONDS) == 4
    assert not any(is_alive(pid) for pid in family)


def test_normal_end_leaves_no_process(start, tmp_path):
    script = textwrap.dedent(FAMILY.format(folder=tmp_path, trap="")).replace(
        "while true; do wait; done", "until [ -e go ]; do sleep 0.01; done; exit 0"
    )
    process = start("--nproc", "2", "--grace-seconds", "0.3", "--no-python", "bash", "-c", script)
    family = pids_in(tmp_path, 6)
    (tmp_path / "go").touch()
    assert process.wait(WAIT_SECONDS) == 0
    assert not any(is_alive(pid) for pid in family)
