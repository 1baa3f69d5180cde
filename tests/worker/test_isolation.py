"""A task in a child process: whatever it does to its process, only its own call fails."""

import contextlib
import ctypes
import os
import signal
import stat
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy
import pytest

from taskfarm import interrupts
from taskfarm.errors import (
    CallNotLoadable,
    ResultNotPicklable,
    TaskCrashed,
    TaskExited,
    TaskMemory,
    TaskTimeout,
)
from taskfarm.protocol.arguments import Arguments
from taskfarm.protocol.messages import (
    TAGS,
    Blob,
    Define,
    Forget,
    Initialize,
    Limits,
    Part,
    Results,
    Work,
    decode,
    encode,
)
from taskfarm.protocol.outcomes import Completed, load_outcomes
from taskfarm.protocol.serialize import dumps
from taskfarm.worker.channel import MAGIC
from taskfarm.worker.child_process import child_environment
from taskfarm.worker.context import Place
from taskfarm.worker.local import copied
from taskfarm.worker.runner import Runner

ANY = Limits()


class Box:
    """A runner whose functions all run in its child."""

    def __init__(self, propagate: tuple[type[BaseException], ...] = ()) -> None:
        self.runner = Runner(Place(3, "node"), propagate)
        self.ids: dict[Any, int] = {}
        self.farm = 0

    def __call__(
        self, function: Callable[..., Any], *columns: list[Any], limits: Limits = ANY
    ) -> Completed:
        """What becomes of one part, as the master sees it."""
        if (function, limits) not in self.ids:
            number = self.ids[function, limits] = len(self.ids)
            self.runner.prepare(Define(number, function.__name__, dumps(function), limits, farm=self.farm))
        arguments = Arguments.from_columns(columns)
        calls = arguments.slice(0, arguments.count)
        work = encode(Work([Part(self.ids[function, limits], 100, 100, arguments.count, calls)]))
        parts, *_ = decode(copied(work))
        ended = self.runner.run(parts)
        count = arguments.count if self.runner.interrupted is None else len(ended)
        assert [outcomes.first for outcomes in ended] == [100 + k for k in range(count)]
        completed = [load_outcomes(outcomes) for outcomes in ended]
        failures = {k: each.failures[0] for k, each in enumerate(completed) if each.failures}
        return Completed(100, [each.values[0] for each in completed], failures, 0)

    def one(self, function: Callable[..., Any], *arguments: Any, limits: Limits = ANY) -> Any:
        """What one call returns or raises."""
        completed = self(function, *([argument] for argument in arguments), limits=limits)
        if completed.failures:
            raise completed.failures[0]
        return completed.values[0]


@pytest.fixture
def box() -> Iterator[Box]:
    made = Box()
    yield made
    made.runner.close()


def wait_until(holds: Callable[[], bool], seconds: float = 20.0) -> None:
    ended = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < ended
        time.sleep(0.01)


def runs(pid: int) -> bool:
    """Whether a process exists and is no zombie."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        # The first thread may be a zombie while others of a killed process have still to end.
        threads = len(os.listdir(f"/proc/{pid}/task"))
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX" or threads > 1


def pid(_: Any = None) -> int:
    return os.getpid()


def twice(value: Any) -> Any:
    return value + value


def echo(value: Any) -> Any:
    return value


def test_values_go_there_and_back(box: Box) -> None:
    assert box(twice, [1, 2.5, "a"]).values == [2, 5.0, "aa"]
    assert box(twice, [[1], (2,)]).values == [[1, 1], (2, 2)]
    assert box.one(pid, 0) != os.getpid()


@pytest.mark.parametrize("size", [1 << 20, 9 << 20], ids=["8 MB", "70 MB"])
def test_arrays_go_there_and_back_again_and_again(box: Box, size: int) -> None:
    for k in range(3):
        array = numpy.full(size, k + 1.0)
        one, other = box.one(echo, {"a": array, "b": numpy.arange(100_000)}).values()
        assert (one == array).all()
        assert (other == numpy.arange(100_000)).all()
        one[0] = 0  # it is our own


def test_child_is_kept_between_calls_and_replaced_after_a_crash(box: Box) -> None:
    first = box(pid, [0, 0, 0]).values
    assert len(set(first)) == 1
    assert box.one(pid, 0) == first[0]
    with pytest.raises(TaskCrashed):
        box.one(os._exit, 3)
    assert box.one(pid, 0) not in (first[0], os.getpid())


def raises(value: Any) -> None:
    raise ValueError(f"no {value}")


def test_exceptions_carry_the_remote_traceback(box: Box) -> None:
    error = box(raises, ["good"]).failures[0]
    assert isinstance(error, ValueError)
    assert "task 100 raises('good') on rank 3 (node), child process" in str(error.__cause__)
    assert 'raise ValueError(f"no {value}")' in str(error.__cause__)
    assert isinstance(box(sys.exit, [3]).failures[0], TaskExited)


class Bad:
    """Does something when it is pickled or unpickled."""

    def __init__(self, pickled: Any = None, unpickled: Any = None) -> None:
        self.pickled, self.unpickled = pickled, unpickled

    def __reduce__(self) -> Any:
        if self.pickled:
            self.pickled[0](*self.pickled[1:])
        return self.unpickled[0], tuple(self.unpickled[1:])


def crash(how: str) -> Any:  # noqa: C901, PLR0912  # a way to crash each
    """Say `how`, or end the process."""
    if how == "segfault":
        ctypes.string_at(0)
    elif how == "abort":
        os.abort()
    elif how == "exit 0":
        os._exit(0)
    elif how == "exit 3":
        os._exit(3)
    elif how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif how == "term":
        os.kill(os.getpid(), signal.SIGTERM)
    elif how == "close":
        os.closerange(3, 1000)
    elif how == "close all and stay":
        os.closerange(0, 1000)
        time.sleep(1000)
    elif how == "print":
        for descriptor in range(3, 300):
            with contextlib.suppress(OSError):
                os.write(descriptor, b"hello")
    elif how == "forge":
        header = struct.pack("<4sBxxxIIQ", MAGIC, TAGS[Results], 0, 3, 0)
        for descriptor in range(3, 300):
            with contextlib.suppress(OSError):
                if stat.S_ISSOCK(os.fstat(descriptor).st_mode):
                    os.write(descriptor, header + b"odd")
    elif how == "fork and die":
        if os.fork():
            os._exit(4)
        time.sleep(1000)
    elif how == "die in the result":
        return Bad(pickled=(os._exit, 5))
    return how


CRASHES = {
    "segfault": "by SIGSEGV; look for the fault in the compiled code",
    "abort": "by SIGABRT",
    "exit 0": "with exit code 0; let it return or raise instead",
    "exit 3": "with exit code 3",
    "kill": "by SIGKILL, perhaps from the system's out-of-memory killer",
    "term": "by SIGTERM",
    "close": "broke the connection between its process",
    "close all and stay": "broke the connection between its process",
    "print": "broke the connection between its process",
    "forge": "a message cannot be decoded",
    "fork and die": "with exit code 4",
    "die in the result": "with exit code 5",
}


@pytest.mark.parametrize("how", CRASHES)
def test_crash_fails_its_own_call_and_no_other(box: Box, how: str) -> None:
    completed = box(crash, ["fine", how, "well"])
    assert (completed.values[0], completed.values[2]) == ("fine", "well")
    assert list(completed.failures) == [1]
    error = completed.failures[1]
    assert isinstance(error, TaskCrashed)
    assert str(error).startswith("task 101 crash ")
    assert "rank 3 (node)" in str(error)
    assert CRASHES[how] in str(error)
    assert "\n" not in str(error)


def test_traceback_of_a_segfault_says_where(box: Box) -> None:
    error = box(crash, ["segfault"]).failures[0]
    assert "Segmentation fault" in str(error.__cause__)
    assert "in crash" in str(error.__cause__)


def test_argument_that_crashes_its_loading(box: Box) -> None:
    completed = box(echo, [[1], Bad(unpickled=(os._exit, 6)), Bad(unpickled=(int, "x")), [2]])
    assert (completed.values[0], completed.values[3]) == ([1], [2])
    assert isinstance(completed.failures[1], TaskCrashed)
    assert isinstance(completed.failures[2], CallNotLoadable)


def generate(_: Any) -> Iterator[int]:
    yield 1


def test_result_that_cannot_be_pickled(box: Box) -> None:
    with pytest.raises(ResultNotPicklable, match="generate"):
        box.one(generate, 0)


def test_function_that_crashes_its_loading(box: Box) -> None:
    function = Bad(unpickled=(os._exit, 7))
    function.__name__ = "deadly"  # type: ignore[attr-defined]
    completed = box(function, [1, 2])  # type: ignore[arg-type]
    assert all("the loading of deadly" in str(completed.failures[k]) for k in (0, 1))
    assert box.one(twice, 4) == 8


def hold_the_interpreter(_: Any) -> None:
    10**10**8 % 7


def sleep(_: Any) -> None:
    time.sleep(1000)


@pytest.mark.parametrize("function", [hold_the_interpreter, sleep])
def test_limit_of_time_ends_whatever_the_task_does(box: Box, function: Callable[[Any], None]) -> None:
    error = box(function, [1], limits=Limits(timeout=0.3)).failures[0]
    assert isinstance(error, TaskTimeout)
    assert "task 100" in str(error)
    assert "passed its limit of 0.3 s on rank 3 (node), so its process was ended" in str(error)
    assert f"in {function.__name__}" in str(error.__cause__)
    assert box.one(twice, 4) == 8


def bomb(_: Any) -> None:
    held = []
    for _ in range(2000):
        held.append(numpy.ones(1 << 17))
        time.sleep(1e-3)


def test_limit_of_memory(box: Box) -> None:
    error = box(bomb, [1], limits=Limits(memory=200 * 10**6)).failures[0]
    assert isinstance(error, TaskMemory)
    assert "past its limit of 200 MB, on rank 3 (node)" in str(error)
    assert box.one(twice, 4) == 8


def test_shared_data_do_not_count_as_memory_of_the_task(box: Box) -> None:
    limits = Limits(timeout=60, memory=400 * 10**6)
    assert box.one(numpy.sum, numpy.ones(1 << 24), limits=limits) == 1 << 24


STATE: list[Any] = []


def remember(value: Any) -> None:
    STATE.append((value, os.getpid()))


def recall(_: Any) -> list[Any]:
    return STATE


@pytest.mark.parametrize("isolate", [True, False])
def test_every_child_runs_the_initializer(box: Box, isolate: bool) -> None:
    STATE.clear()
    opened = Initialize(1, [], dumps((remember, ("set",))), isolate)
    assert box.runner.initialize(opened) is None
    box.farm = 1
    assert STATE == ([] if isolate else [("set", os.getpid())])
    for _ in range(2):
        (value, process), *others = box.one(recall, 0)
        assert (value, others) == ("set", [])
        assert process not in (os.getpid(), None)
        with pytest.raises(TaskCrashed):
            box.one(os._exit, 1)


def test_initializer_that_fails_or_crashes_in_the_child(box: Box) -> None:
    failure = box.runner.initialize(Initialize(1, [], dumps((int, ("x",))), True))
    assert failure is not None
    assert failure.summary.startswith("ValueError")
    assert "initializer on rank 3 (node), child process" in failure.trace
    failure = box.runner.initialize(Initialize(2, [], dumps((os._exit, (3,))), True))
    assert failure is not None
    assert "the initializer ended its process on rank 3 (node) with exit code 3" in failure.summary
    assert box.runner.initialize(Initialize(3, [], None)) is None
    box.farm = 3
    assert box.one(twice, 4) == 8


def test_each_farm_has_its_initializer_in_the_one_child(box: Box) -> None:
    for farm in (1, 2):
        assert box.runner.initialize(Initialize(farm, [], dumps((remember, (farm,))), True)) is None
    for farm in (2, 1, 2):
        box.farm, box.ids = farm, {}
        assert [value for value, _ in box.one(recall, 0)] == [1, 2]
    assert box.runner.initialize(Initialize(3, [], dumps((remember, (3,))), forget=[1])) is None
    box.farm, box.ids = 3, {}
    (*_, (value, process)), first = box.one(recall, 0), box.one(pid, 0)
    assert (value, process) == (3, first)


def test_child_is_replaced_after_so_many_tasks(box: Box) -> None:
    opened = Initialize(1, [], dumps((remember, ("set",))), True)
    assert box.runner.initialize(opened) is None
    box.farm = 1
    one, two, three, four = box(pid, [0] * 4, limits=Limits(max_tasks=2)).values
    assert one == two != three == four
    ((value, process),) = box.one(recall, 0)
    assert (value, process == four) == ("set", False)
    assert box.one(pid, 0) == process, "functions without such a limit leave the process alone"


def test_functions_are_forgotten_in_the_child_too(box: Box) -> None:
    assert box.one(twice, 1) == 2
    box.runner.prepare(Forget([0], []))
    box.runner.prepare(Define(50, "abs", dumps(abs), ANY))
    box.ids = {(abs, ANY): 50}
    assert box.one(abs, -1) == 1
    box.ids[twice, ANY] = 0
    with pytest.raises(KeyError):
        box.one(twice, 1)


def interrupt_parent(_: Any) -> None:
    os.kill(os.getppid(), signal.SIGINT)
    time.sleep(1000)


def test_interrupt_of_the_worker_ends_the_child_and_gives_every_task_back() -> None:
    box = Box(propagate=(KeyboardInterrupt,))
    process = box.one(pid, 0)
    before = signal.signal(signal.SIGINT, interrupts.on_sigint)
    try:
        completed = box(interrupt_parent, [1, 2])
    finally:
        signal.signal(signal.SIGINT, before)
    assert isinstance(box.runner.interrupted, KeyboardInterrupt)
    assert completed.values == []
    assert box.runner.release_left() == [(100, 2)]
    assert not runs(process)
    box.runner.close()


def test_unstarted_calls_are_released_while_one_runs(box: Box) -> None:
    given: list[Any] = []

    def slow(_: Any) -> None:
        time.sleep(0.5)

    box.one(twice, 1)
    number = len(box.ids)
    box.runner.prepare(Define(number, "slow", dumps(slow), ANY))
    thread = threading.Timer(0.2, lambda: given.append(box.runner.release_unstarted()))
    thread.start()
    arguments = Arguments.from_columns([[1, 2, 3]])
    ended = box.runner.run([Part(number, 7, 7, 3, arguments.slice(0, 3)), Part(number, 20, 20, 1, b"")])
    thread.join()
    assert [outcomes.first for outcomes in ended] == [7]
    ((tasks, running),) = given
    assert tasks == [(20, 1), (8, 2)]
    assert running is not None
    assert running[:2] == (number, 1)


def test_child_is_gone_after_close(box: Box) -> None:
    process = box.one(pid, 0)
    assert runs(process)
    box.runner.close()
    assert not Path(f"/proc/{process}").exists()
    box.runner.close()


def test_child_outlives_the_thread_that_needed_it_first(box: Box) -> None:
    found: list[int] = []
    thread = threading.Thread(target=lambda: found.append(box.one(pid, 0)))
    thread.start()
    thread.join()
    time.sleep(0.1)
    assert box.one(pid, 0) == found[0]


def say(value: Any) -> None:
    print(value)
    if value == "die":
        os._exit(1)


def test_what_was_printed_is_not_lost_in_a_later_crash(box: Box, capfd: pytest.CaptureFixture[str]) -> None:
    assert list(box(say, ["one", "two", "die"]).failures) == [2]
    assert capfd.readouterr().out.startswith("one\ntwo\n")


def spawn(_: Any) -> int:
    return subprocess.Popen(["sleep", "1000"]).pid


def test_what_a_task_started_ends_with_the_child(box: Box) -> None:
    process = box.one(spawn, 0)
    assert runs(process)
    box.runner.close()
    wait_until(lambda: not runs(process))


def test_child_that_dies_between_calls_costs_no_call(box: Box) -> None:
    process = box.one(pid, 0)
    os.kill(process, signal.SIGKILL)
    wait_until(lambda: not runs(process))
    assert box.one(pid, 0) != process


HOLDER = """
import os, sys
from taskfarm.worker.context import Place
from taskfarm.protocol.messages import Define, DefineNames, Limits, Part, decode, encode
from taskfarm.protocol.arguments import Arguments
from taskfarm.worker.runner import Runner
from taskfarm.protocol.serialize import dumps
from taskfarm.worker.channel import MAGIC

def work(path):
    import os, time
    with open(path + ".new", "w") as file:
        file.write(str(os.getpid()))
    os.rename(path + ".new", path)
    while HOW == "busy":
        10 ** 10 ** 8 % 7
    time.sleep(1000)

HOW = sys.argv[2]
runner = Runner(Place(1, "node"), ())
blob = dumps(work)
runner.prepare(DefineNames([(one.id, one.names, one.blob) for one in blob.needs]))
runner.prepare(decode(encode(Define(0, "work", blob, Limits()))))
runner.run([Part(0, 0, 0, 1, Arguments.from_columns([[sys.argv[1]]]).slice(0, 1))])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a busy child outlives its worker")
@pytest.mark.parametrize("how", ["busy", "asleep"])
def test_child_dies_with_its_worker(tmp_path: Path, how: str) -> None:
    told = tmp_path / "pid"
    worker = subprocess.Popen([sys.executable, "-c", HOLDER, str(told), how])
    try:
        wait_until(told.exists)
        process = int(told.read_text())
        assert runs(process)
    finally:
        worker.kill()
        worker.wait()
    wait_until(lambda: not runs(process))


def variables(_: Any) -> dict[str, str]:
    return dict(os.environ)


def test_child_knows_nothing_of_the_launcher(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = ("PMI_FD", "PMI_SIZE", "PMIX_RANK", "OMPI_COMM_WORLD_SIZE", "HYDI_CONTROL_FD")
    for name in (*gone, "OMP_NUM_THREADS", "SLURM_JOB_ID"):
        monkeypatch.setenv(name, "1")
    found = box.one(variables, 0)
    assert not set(gone) & set(found)
    assert {name: found[name] for name in ("OMP_NUM_THREADS", "SLURM_JOB_ID")} == {
        "OMP_NUM_THREADS": "1",
        "SLURM_JOB_ID": "1",
    }
    assert child_environment({"A": "1", "PMI_FD": "2"}) == {"A": "1"}


def surroundings(_: Any) -> tuple[list[str], str, Any]:
    return sys.path, os.getcwd(), sys.stdin.read()


def test_child_finds_what_its_worker_finds(
    box: Box, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "only_here.py").write_text("VALUE = 3\n")
    (tmp_path / "random.py").write_text("raise SystemExit\n")
    sys.modules.pop("only_here", None)
    assert box.one(surroundings, 0) == (sys.path, os.getcwd(), "")
    assert box.one(eval, "__import__('only_here').VALUE") == 3
    assert box.runner.initialize(Initialize(9, [str(tmp_path / "more")], None)) is None
    box.farm, box.ids = 9, {}
    assert box.one(surroundings, 0)[0][0] == str(tmp_path / "more")


def test_blobs_that_are_no_pickles_fail_alone(box: Box) -> None:
    box.runner.prepare(Define(0, "abs", dumps(abs), ANY))
    (outcomes,) = box.runner.run([Part(0, 1, 1, 1, [Blob(b"garbage", [])])])
    assert isinstance(load_outcomes(outcomes).failures[0], CallNotLoadable)
