"""Processes of `hydrofoil run`: their environment, arguments and output."""

import fcntl
import os
import pty
import select
import socket
import struct
import subprocess
import sys
import termios
import time

import pytest

from tests.support.launcher import (  # noqa: F401
    WAIT_SECONDS, environment, program, run, start, write,
)


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
