"""The recipes of docs/clusters.md in a Slurm of three nodes: warned, stopped, requeued, resumed."""

import re
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .conftest import PYTHONS, ROOT
from .slurm import Slurm, missing, slurm

OPTIONS = ["--size", "14", "--values", "values.npy"]

# The jobs wait for their limits together: one process runs all tests of this file.
pytestmark = pytest.mark.xdist_group("hosts")

# The TOF map of the examples, with a task for each point. While there is a file `slow`, a task takes long
# enough to be stopped.
JOB = f"""
import sys, time
from pathlib import Path
sys.path.insert(0, {str(ROOT / "examples")!r})
import tof_map
from taskfarm import task

@task
def tof(*point):
    if Path("slow").exists():
        Path("begun").touch()
        time.sleep(1)
    return tof_map.tof(*point)

def compute_map(size, temperature):
    axis = tof_map.pressure_axis(size).tolist()
    points = tof.starmap((p_o2, p_co, temperature) for p_co in axis for p_o2 in axis)
    values = tof_map.np.array(list(points)).reshape(size, size, 3)
    return tof_map.np.concatenate([values, tof_map.np.zeros((size, size, 1))], axis=-1)

tof_map.compute_map = compute_map
sys.argv[1:] = {OPTIONS!r}
tof_map.main()
"""

# The first commands end at once; those after them wait as long as there is a file `slow`.
COMMANDS = "".join(
    f"{'while [ -e slow ]; do sleep 1; done; ' if number > 10 else ''}echo {number} >>ran\n"
    for number in range(1, 21)
)
COMMANDS += "mpiexec -n 2 python -c 'from mpi4py import MPI; print(MPI.COMM_WORLD.size)' >nested\n"

PMI = {"mpich": "pmi2", "openmpi": "pmix"}
STARTS = ["srun", "mpiexec"]
LONG = 240
"""Seconds after which a wait is given up: Slurm looks at limits twice a minute."""


def recipe(start: str, mpi: str, page: str) -> str:
    """A batch script of the documentation, for one of the MPIs, and with less time."""
    text = (ROOT / "docs" / page).read_text()
    scripts = re.findall(r"^```bash\n(#!/bin/bash\n#SBATCH.*?)^```", text, re.M | re.S)
    (found,) = [script for script in scripts if f"\n{start} " in script]
    found = found.replace("--walltime 03:58:00 --grace 60", "--walltime 40s --grace 5")
    return found.replace("--mpi=pmi2", f"--mpi={PMI[mpi]}")


class Batch:
    """A batch job that is slow until it is hastened.

    Attributes
    ----------
    folder : Path
        Where it runs.
    number : str
        What Slurm calls it.
    """

    def __init__(
        self, cluster: Slurm, start: str, mpi: str, name: str, *options: str, page: str = "clusters.md"
    ) -> None:
        self.folder = cluster.folder / f"{name}-{start}-{mpi}"
        self.folder.mkdir()
        (self.folder / "job.py").write_text(JOB)
        (self.folder / "job.sh").write_text(recipe(start, mpi, page))
        (self.folder / "tasks.txt").write_text(COMMANDS)
        self._cluster = cluster
        self._python = PYTHONS[mpi]
        self._options = ["--nodes=3", "--ntasks=3", "--time=10", "--output=out", *options]

    def slow(self) -> "Batch":
        """Let tasks take long."""
        (self.folder / "slow").touch()
        return self

    def submit(self) -> "Batch":
        """Hand it to Slurm."""
        command = ["sbatch", "--parsable", *self._options, "job.sh"]
        self.number = self._cluster.run(command, self.folder, self._python)
        assert self.number.isdecimal(), self.number
        return self

    def wait(self, state: str, restarts: int = 0) -> None:
        """Wait until Slurm says so of it, and that it has been requeued so often."""
        ending = time.monotonic() + LONG
        wanted = {"JobState": state, "Restarts": str(restarts)}
        while not wanted.items() <= (told := self._cluster.state(self.number)).items():
            ended = told.get("JobState") == "FAILED" or time.monotonic() > ending
            assert not ended, f"{told}\n{self.printed()}\n{self._cluster.logs()}"
            time.sleep(0.2)

    def end_soon(self, seconds: int) -> None:
        """Bring its limit forward as an operator may do, when its first tasks run."""
        ending = time.monotonic() + LONG
        while not (self.folder / "begun").exists():
            assert time.monotonic() < ending, f"{self.printed()}\n{self._cluster.logs()}"
            time.sleep(0.2)
        self.update(f"EndTime=now+{seconds}")

    def update(self, *words: str) -> None:
        """Change what Slurm has noted of it."""
        told = self._cluster.run(["scontrol", "update", f"JobId={self.number}", *words])
        assert not told, told

    def hasten(self) -> None:
        """Let tasks take no time from now on."""
        (self.folder / "slow").unlink()

    def printed(self) -> str:
        """What it has printed."""
        out = self.folder / "out"
        return out.read_text(errors="replace") if out.exists() else ""

    def values(self) -> bytes:
        """The map."""
        return (self.folder / "values.npy").read_bytes()


class Waiting:
    """Jobs that wait for their limits together, while other tests run."""

    def __init__(self, cluster: Slurm) -> None:
        self.warned: dict[tuple[str, str], Batch] = {}
        self.limited: dict[tuple[str, str], Batch] = {}
        self.commands: dict[str, Batch] = {}
        for mpi in [mpi for mpi in PYTHONS if PYTHONS[mpi].exists()]:
            job = Batch(cluster, "mpiexec", mpi, "commands", page="shell.md")
            self.commands[mpi] = job.slow().submit()
            for start in STARTS:
                sign = "--signal=B:USR1@30" if start == "mpiexec" else "--signal=USR1@30"
                self.warned[start, mpi] = Batch(cluster, start, mpi, "warned", sign).slow().submit()
                job = Batch(cluster, start, mpi, "limited", "--signal=USR1@0").slow().submit()
                self.limited[start, mpi] = job
        for job in self.limited.values():
            job.end_soon(10)
        # Slurm warns a minute early, or up to half a minute later than that.
        for job in self.warned.values():
            job.end_soon(60)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Slurm]:
    """A Slurm, if this machine lets it be started."""
    reason = missing()
    if reason:
        pytest.skip(reason)
    context = slurm()
    try:
        made = context.__enter__()
    except (OSError, subprocess.SubprocessError) as error:
        pytest.skip(f"no Slurm can be started here: {error}")
    try:
        yield made
    finally:
        context.__exit__(None, None, None)


@pytest.fixture(scope="module", autouse=True)
def waiting(cluster: Slurm) -> Waiting:
    return Waiting(cluster)


@pytest.fixture(scope="module")
def requeued(waiting: Waiting) -> dict[tuple[str, str], Batch]:
    """The jobs that were warned, in the queue again, and free to end."""
    jobs = waiting.warned
    all_jobs = [*jobs.values(), *waiting.commands.values()]
    for job in all_jobs:
        job.wait("PENDING", restarts=1)
        job.hasten()
    # Slurm would let them wait for two minutes. In the second in which it was stopped, a node takes a
    # job for the one whose credential was revoked; and with its new limit it would be warned once more.
    time.sleep(3)
    for job in all_jobs:
        job.update("StartTime=now", "TimeLimit=10")
    return jobs


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The map that one process computes."""
    folder = tmp_path_factory.mktemp("undisturbed")
    (folder / "job.py").write_text(JOB)
    words = [str(PYTHONS["mpich"]), "job.py"]
    subprocess.run(words, cwd=folder, check=True, timeout=240, stdout=subprocess.DEVNULL)
    return (folder / "values.npy").read_bytes()


@pytest.fixture(params=[(start, mpi) for mpi in PYTHONS for start in STARTS], ids="-".join)
def launch(request: pytest.FixtureRequest) -> tuple[str, str]:
    if not PYTHONS[request.param[1]].exists():
        pytest.skip(f"no environment with {request.param[1]}: run scripts/setup")
    return request.param


@pytest.fixture
def tof_map(cluster: Slurm, undisturbed: bytes) -> Callable[..., None]:
    """Run the example by some command, with the right answer."""

    def run(name: str, python: Path, *command: str) -> None:
        folder = cluster.folder / name
        folder.mkdir()
        words = ["run", str(ROOT / "examples/tof_map.py"), *OPTIONS]
        text = cluster.run([*command, "python", "-m", "taskfarm", *words], folder, python)
        assert "5 workers" in text
        assert (folder / "values.npy").read_bytes() == undisturbed

    return run


def test_tof_map_by_srun(python: Path, tof_map: Callable[..., None]) -> None:
    mpi = next(name for name in PYTHONS if PYTHONS[name] == python)
    tof_map(f"srun-{mpi}", python, "srun", "--nodes=3", "--ntasks=6", f"--mpi={PMI[mpi]}")


def test_tof_map_by_mpiexec(python: Path, tof_map: Callable[..., None]) -> None:
    mpi = next(name for name in PYTHONS if PYTHONS[name] == python)
    tof_map(f"salloc-{mpi}", python, "salloc", "--nodes=3", "--ntasks=6", "mpiexec")


def test_wrong_pmi_is_told(cluster: Slurm, python: Path) -> None:
    folder = cluster.folder / f"none-{python.parents[1].name}"
    folder.mkdir()
    (folder / "job.py").write_text(JOB)
    words = ["srun", "--ntasks=2", "--mpi=none", "python", "-m", "taskfarm", "run", "job.py"]
    text = cluster.run(words, folder, python)
    assert "the launcher started 2 processes, but each of them is alone in its MPI" in text
    assert "Exited with exit code 2" in text


def test_warned_requeued_finished(
    requeued: dict[tuple[str, str], Batch], launch: tuple[str, str], undisturbed: bytes
) -> None:
    job = requeued[launch]
    job.wait("COMPLETED", restarts=1)
    text = job.printed()
    assert re.search(r"taskfarm: SIGUSR1: \d+ of \d+ tasks are done; go on with: ", text), text
    assert re.search(r"taskfarm: \d+ results came from run.db", text), text
    assert job.values() == undisturbed


@pytest.mark.usefixtures("requeued")
def test_commands_are_requeued_at_the_walltime_and_go_on(waiting: Waiting, python: Path) -> None:
    job = waiting.commands[next(name for name in PYTHONS if PYTHONS[name] == python)]
    job.wait("COMPLETED", restarts=1)
    text = job.printed()
    assert re.search(r"taskfarm: the walltime: .*--resume", text), text
    assert re.search(r"taskfarm: \d+ commands are in log.tsv and do not run again", text), text
    assert sorted(map(int, (job.folder / "ran").read_text().split())) == list(range(1, 21))
    # What two ranks print may be mixed by the launcher.
    assert sorted((job.folder / "nested").read_text()) == sorted("2\n2\n")


def test_stopped_by_the_limit(waiting: Waiting, launch: tuple[str, str], undisturbed: bytes) -> None:
    job = waiting.limited[launch]
    job.wait("TIMEOUT")
    text = job.printed()
    assert "DUE TO TIME LIMIT" in text
    # Slurm's signal ends the processes of Open MPI's mpiexec, too: they may take the ranks with them.
    cut_off = re.search("Socket closed|lost communication|srun returned non-zero exit status", text)
    assert cut_off or re.search(r"taskfarm: SIGTERM: \d+ of \d+ tasks are done", text), text
    job.hasten()
    job.submit()
    job.wait("COMPLETED")
    assert re.search(r"taskfarm: \d+ results came from run.db", job.printed()), job.printed()
    assert job.values() == undisturbed
