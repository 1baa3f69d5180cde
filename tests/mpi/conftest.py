"""Runs jobs under a real mpiexec of each MPI, and sees that nothing of them is left."""

import os
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PYTHONS = {"mpich": ROOT / ".venv/bin/python", "openmpi": ROOT / ".venv-openmpi/bin/python"}

LEAVE_PID = """
import os
with open(os.path.join(os.environ["PID_FOLDER"], str(os.getpid())), "w"):
    pass
try:
    import at_start
except ImportError:
    pass
"""


PATIENCE = 240.0
"""Seconds after which a job counts as hanging; a busy machine may be many times slower than an idle one."""

START_LIMIT = 120
"""Seconds after which the start of MPI counts as failed."""

NO_START = [
    "PMIx server's listener thread failed to start",
    f"taskfarm: MPI has not started within {START_LIMIT} s",
]
"""What stands in the errors of a run that its MPI could not start, once in some ten thousand times."""


class LauncherFailed(Exception):
    """The MPI, and nothing of taskfarm's, has failed: the test starts again."""


class Job:
    """A job of which every Python process leaves a file with its pid.

    Attributes
    ----------
    process : subprocess.Popen
        What was started.
    """

    def __init__(self, python: Path, words: list[str], folder: Path) -> None:
        self.pids = folder / "pids"
        self.pids.mkdir(exist_ok=True)
        hooks = folder / "hooks"
        hooks.mkdir(exist_ok=True)
        (hooks / "sitecustomize.py").write_text(LEAVE_PID)
        environ = dict(os.environ, PYTHONPATH=str(hooks), PID_FOLDER=str(self.pids))
        environ["OMPI_ALLOW_RUN_AS_ROOT"] = environ["OMPI_ALLOW_RUN_AS_ROOT_CONFIRM"] = "1"
        environ["PRTE_MCA_rmaps_default_mapping_policy"] = ":oversubscribe"
        self.process = subprocess.Popen(
            [str(python), *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="backslashreplace",
            cwd=folder,
            env=environ,
        )

    def wait_for(self, path: Path) -> None:
        """Wait until the job has made a file."""
        deadline = time.monotonic() + PATIENCE
        while not path.exists() and self.process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        if not path.exists():
            self.end()
            raise AssertionError(f"the job has ended without {path.name}")

    def end(self, timeout: float = PATIENCE) -> tuple[int, str, str]:
        """Wait for the end: exit code, standard output and standard error; nothing may be left."""
        try:
            out, err = self.process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            out, err = self.process.communicate(timeout=10)
            self._kill_rest()
            raise AssertionError(f"still running after {timeout} s\n{out}\n{err}") from None
        deadline = time.monotonic() + 60
        while (left := self._alive()) and time.monotonic() < deadline:
            time.sleep(0.05)
        self._kill_rest()
        assert not left, f"left behind: {left}\n{out}\n{err}"
        if any(line in err for line in NO_START):
            raise LauncherFailed(err)
        return self.process.returncode, out, err

    def _alive(self) -> list[int]:
        pids = [int(entry.name) for entry in self.pids.iterdir()]
        return [pid for pid in pids if _state(pid) not in ("", "Z")]

    def _kill_rest(self) -> None:
        for pid in self._alive():
            os.kill(pid, 9)


def _state(pid: int) -> str:
    """The state of a process in one letter; empty if there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    return stat.rpartition(")")[2].split()[0]


def rank_of(pid: int) -> int:
    """The MPI rank of a process; -1 if it has none."""
    try:
        environ = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return -1
    for variable in environ:
        name, _, value = variable.partition(b"=")
        if name in (b"PMI_RANK", b"OMPI_COMM_WORLD_RANK"):
            return int(value)
    return -1


@pytest.fixture(params=list(PYTHONS))
def python(request: pytest.FixtureRequest) -> Path:
    """The interpreter of an environment with one of the MPIs."""
    path = PYTHONS[request.param]
    if not path.exists():
        pytest.skip(f"no environment with {request.param}: run scripts/setup")
    return path


@pytest.fixture
def survives(python: Path) -> None:
    """Skip where a dead rank ends all others."""
    if python != PYTHONS["openmpi"]:
        pytest.skip("only Open MPI goes on without a rank")


@pytest.fixture
def start(python: Path, tmp_path: Path) -> Callable[..., Job]:
    """Start ``python -m taskfarm run -n RANKS OPTIONS job.py ARGS`` with the code of the job."""

    def start(code: str, ranks: int = 4, *args: str, options: Sequence[str] = ()) -> Job:
        (tmp_path / "job.py").write_text(code)
        limit = ["--start-limit", str(START_LIMIT)] if ranks > 1 else []
        words = ["-m", "taskfarm", "run", "-n", str(ranks), *limit, *options, "job.py", *args]
        return Job(python, words, tmp_path)

    return start


@pytest.fixture
def run(start: Callable[..., Job]) -> Callable[..., tuple[int, str, str]]:
    """The same, to its end."""
    return lambda *args, **options: start(*args, **options).end()


@pytest.fixture
def start_shell(python: Path, tmp_path: Path) -> Callable[..., Job]:
    """Start ``python -m taskfarm shell -n RANKS WORDS``; with one rank, in one process."""

    def start(*words: str, ranks: int = 3) -> Job:
        start_ranks = ["-n", str(ranks)] if ranks > 1 else []
        return Job(python, ["-m", "taskfarm", "shell", *start_ranks, "--quiet", *words], tmp_path)

    return start


@pytest.fixture
def shell(start_shell: Callable[..., Job]) -> Callable[..., tuple[int, str, str]]:
    """The same, to its end."""
    return lambda *words, **options: start_shell(*words, **options).end()
