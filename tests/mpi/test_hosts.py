"""Runs across three hosts over TCP: all well, a host cut off for a while, for good, and killed."""

import contextlib
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .conftest import NO_START, PYTHONS, START_LIMIT, LauncherFailed
from .hosts import Hosts, hosts

pytestmark = pytest.mark.xdist_group("hosts")

JOB = """
import socket, sys, time
from taskfarm import Farm

def work(x):
    time.sleep(0.01)
    return x, socket.gethostname()

tasks = int(sys.argv[1])
with Farm() as farm:
    names, total = set(), 0
    for x, name in farm.map(work, range(tasks), chunksize=1):
        total += x
        names.add(name)
        if x == 100:
            open("started", "w").close()
    print("total", total, *sorted(names), flush=True)
"""


CUT = 3000
"""Tasks that are not done before a host can be cut off: MPI_Finalize would wait for it for ever."""


@pytest.fixture(scope="module")
def three() -> Iterator[Hosts]:
    """Three hosts, if this machine lets them be made."""
    context = hosts(3)
    try:
        made = context.__enter__()
    except (OSError, subprocess.SubprocessError) as error:
        pytest.skip(f"no namespaces can be made here: {error}")
    try:
        yield made
    finally:
        context.__exit__(None, None, None)


class Launch:
    """A run of the job on six ranks of three hosts."""

    def __init__(self, three: Hosts, python: Path, words: list[str], job: str = JOB) -> None:
        self._folder = three.folder
        self._hosts = three
        (three.folder / "job.py").write_text(job)
        (three.folder / "started").unlink(missing_ok=True)
        mpiexec = str(python.with_name("mpiexec"))
        environ = dict(os.environ)
        if python == PYTHONS["mpich"]:
            (three.folder / "list").write_text("".join(f"{name}:2\n" for name in three.names))
            start = [mpiexec, "-launcher", "ssh", "-launcher-exec", str(three.rsh), "-f", "list"]
        else:
            (three.folder / "list").write_text("".join(f"{name} slots=2\n" for name in three.names))
            start = [mpiexec, "--allow-run-as-root", "--hostfile", "list"]
            environ |= {
                "PRTE_MCA_plm_ssh_agent": str(three.rsh),
                "OMPI_MCA_pml": "ob1",
                "OMPI_MCA_btl": "self,sm,tcp",
            }
        command = [*start, "-n", "6", str(python), "-m", "taskfarm", "run"]
        self._out = (three.folder / "out").open("w+")
        self.process = subprocess.Popen(
            three.on("h1", [*command, "--start-limit", str(START_LIMIT), *words]),
            cwd=three.folder,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=self._out,
            stderr=subprocess.STDOUT,
        )

    def wait_started(self) -> None:
        """Wait until a hundred tasks are done."""
        ending = time.monotonic() + 240
        while not (self._folder / "started").exists() and time.monotonic() < ending:
            assert self.process.poll() is None, self.end()
            time.sleep(0.02)

    def end(self, timeout: float = 240) -> tuple[int, str]:
        """Wait for the end: exit code, and what was printed; no rank may be left on any host."""
        try:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(timeout)
            code = self.process.poll()
            ending = time.monotonic() + 60
            while self._ranks() and time.monotonic() < ending:
                time.sleep(0.05)
            left = self._ranks()
        finally:
            for name in self._hosts.names:
                self._hosts.kill(name)
            self.process.wait()
        self._out.seek(0)
        text = self._out.read()
        if any(line in text for line in NO_START):
            raise LauncherFailed(text)
        assert code is not None, f"it did not end within {timeout} s:\n{text}"
        assert not left, f"left behind: {left}\n{text}"
        return code, text

    def _ranks(self) -> list[int]:
        found = []
        for name in self._hosts.names:
            for pid in self._hosts.pids(name):
                try:
                    command = Path(f"/proc/{pid}/cmdline").read_bytes()
                except OSError:
                    continue
                if b"taskfarm\0run" in command and b"mpiexec" not in command:
                    found.append(pid)
        return found


@pytest.fixture
def launch(three: Hosts, python: Path) -> Callable[..., Launch]:
    return lambda *words: Launch(three, python, list(words))


GANGS = """
import taskfarm
from taskfarm import task
from taskfarm.errors import UsageError

@task(ranks=2)
def names(x):
    return taskfarm.comm().allgather(socket.gethostname())

on_one = list(names.options(hosts=1).map(range(40)))
assert all(len(set(each)) == 1 for each in on_one), on_one
assert {each[0] for each in on_one} == {"h2", "h3"}, on_one
assert {*names.options(ranks=5).submit(0).result()} == {"h1", "h2", "h3"}
try:
    names.options(ranks=3, hosts=1).submit(0)
except UsageError as error:
    print(error, flush=True)
"""


def test_three_hosts(three: Hosts, python: Path) -> None:
    code, text = Launch(three, python, ["job.py", "300"], JOB + GANGS).end()
    assert code == 0, text
    assert "total 44850 h1 h2 h3" in text
    assert "names needs 3 ranks of one host, and no host has more than 2 workers" in text


def test_host_that_is_cut_off_for_a_while(three: Hosts, launch: Callable[..., Launch]) -> None:
    run = launch("--lost-after", "20", "job.py", "900")
    run.wait_started()
    three.cut("h3")
    time.sleep(2)
    three.mend("h3")
    code, text = run.end()
    assert code == 0, text
    assert f"total {900 * 899 // 2} h1 h2 h3" in text
    assert "lost" not in text


def test_host_that_is_cut_off_for_good(three: Hosts, python: Path, launch: Callable[..., Launch]) -> None:
    run = launch("--lost-after", "3", "job.py", str(CUT))
    run.wait_started()
    three.cut("h3")
    try:
        code, text = run.end()
    finally:
        three.mend("h3")
    assert f"total {CUT * (CUT - 1) // 2} h1 h2 h3" in text
    assert "lost 2 of 5 workers" in text
    assert text.count("on h3 (silent for") == 2
    # Open MPI's mpiexec waits for the host until it is ended by force.
    assert code == (0 if python == PYTHONS["mpich"] else -9), text


def test_host_that_is_killed(three: Hosts, launch: Callable[..., Launch]) -> None:
    run = launch("--journal", "run.db", "--resume", "job.py", "900")
    run.wait_started()
    three.kill("h3")
    code, text = run.end()
    assert "total" not in text, text
    code, text = launch("--journal", "run.db", "--resume", "job.py", "900").end()
    (three.folder / "run.db").unlink()
    assert code == 0, text
    assert f"total {900 * 899 // 2} h1 h2 h3" in text


NEEDING = """
import socket, sys, time
from taskfarm import task
from taskfarm.errors import WorkerLost

@task(needs={"disk": "60GB"})
def write(x):
    began = time.monotonic()
    time.sleep(0.02)
    return socket.gethostname(), began, time.monotonic()

@task(needs="big")
def on_one_host(x):
    time.sleep(0.05)
    return socket.gethostname()

spans = {}
for host, began, ended in write.map(range(60), chunksize=1):
    spans.setdefault(host, []).append((began, ended))
for host, times in spans.items():
    times.sort()
    assert all(one[1] <= other[0] for one, other in zip(times, times[1:])), (host, times)
assert set(on_one_host.map(range(10))) == {"h3"}
open("started", "w").close()
futures = [on_one_host.submit(x) for x in range(int(sys.argv[1]))]
others, ended, lost = write.map(range(20)), 0, set()
for future in futures:
    try:
        ended += future.result() == "h3"
    except WorkerLost as error:
        lost.add(str(error))
print("ended", ended, len(list(others)), *sorted(spans), *lost)
"""


def test_the_workers_of_a_host_share_what_it_has(three: Hosts, python: Path) -> None:
    words = ["--resource", "disk=100GB/host", "--resource", "big@h[3-9]", "--quiet", "job.py", "5"]
    code, text = Launch(three, python, words, NEEDING).end()
    assert code == 0, text
    assert "ended 5 20 h1 h2 h3\n" in text
