"""How `hydrofoil run` ends: failures, signals, and that no process is ever left behind."""

import os
import pathlib
import pty
import select
import signal
import sys
import textwrap
import time

import pytest

from tests.support.launcher import (  # noqa: F401
    FAMILY, WAIT_SECONDS, environment, is_alive, pids_in, program, run, start, wait_until, write,
)


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
