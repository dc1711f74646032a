"""Laws of worker processes: none outlives the process that it works for, however that one ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from demur.workers import pool

POOLED = """
import os, time, sys
from demur.workers import pool

def work(k):
    open(os.path.join(sys.argv[1], str(os.getpid())), "w").close()
    time.sleep(600)

def stubborn():
    import signal
    signal.signal(signal.SIGTERM, signal.SIG_IGN)

if __name__ == "__main__":
    with pool(2, stubborn if sys.argv[2] == "stubborn" else None) as there:
        if sys.argv[2] == "idle":
            print(there.submit(os.getpid).result(), flush=True)
            time.sleep(600)
        [there.submit(work, k) for k in range(2)]
"""


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and was not asked for counts as ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are looked up where Linux lists them")
@pytest.mark.parametrize(
    ("kind", "how"),
    [
        *((kind, how) for kind in ("busy", "idle") for how in (signal.SIGKILL, signal.SIGTERM)),
        ("stubborn", signal.SIGKILL),
    ],
)
def test_workers_end_with_the_process_that_they_work_for(kind: str, how: signal.Signals, tmp_path: Path) -> None:
    (tmp_path / "pooled.py").write_text(POOLED, encoding="utf-8")
    seen = tmp_path / "pids"
    seen.mkdir()
    line = [sys.executable, str(tmp_path / "pooled.py"), str(seen), kind]
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True) as parent:
        if kind == "idle":
            assert parent.stdout is not None
            workers = [int(parent.stdout.readline())]
        else:
            until = time.monotonic() + 60
            while len(os.listdir(seen)) < 2 and time.monotonic() < until:
                time.sleep(0.05)
            workers = [*map(int, os.listdir(seen))]
            assert len(workers) == 2
        assert all(map(alive, workers))
        parent.send_signal(how)
        parent.wait()
        until = time.monotonic() + 30
        while any(map(alive, workers)) and time.monotonic() < until:
            time.sleep(0.05)
        assert not any(map(alive, workers))


def test_a_pool_begins_its_workers_and_gives_what_they_find() -> None:
    with pool(1, print) as there:
        assert there.submit(os.getppid).result() == os.getpid()


STOPPED = """
import os, signal, sys, time
from demur.workers import Processes

def work(k):
    open(os.path.join(sys.argv[1], str(os.getpid())), "w").close()
    time.sleep(600)

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # shells have what they start behind them ignore it
    try:
        with Processes(2) as submit:
            list(submit([(work, k) for k in range(4)]))
    except KeyboardInterrupt:
        print("stopped", flush=True)
"""


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are looked up where Linux lists them")
@pytest.mark.parametrize("everybody", [True, False], ids=["as a terminal", "the process alone"])
def test_ctrl_c_ends_the_work_at_once_whoever_gets_it(everybody: bool, tmp_path: Path) -> None:
    (tmp_path / "stopped.py").write_text(STOPPED, encoding="utf-8")
    seen = tmp_path / "pids"
    seen.mkdir()
    line = [sys.executable, str(tmp_path / "stopped.py"), str(seen)]
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True, start_new_session=True) as parent:
        until = time.monotonic() + 60
        while len(os.listdir(seen)) < 2 and time.monotonic() < until:
            time.sleep(0.05)
        workers = [*map(int, os.listdir(seen))]
        assert len(workers) == 2
        (os.killpg if everybody else os.kill)(parent.pid, signal.SIGINT)
        try:
            assert parent.communicate(timeout=30)[0].strip() == "stopped"
        finally:
            parent.kill()
        assert not any(map(alive, workers))
