"""The child process of a worker: as the worker holds it, and what runs in it."""

import contextlib
import ctypes
import faulthandler
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from taskfarm.environment import PACKAGE
from taskfarm.protocol import messages
from taskfarm.protocol.messages import Define, Initialize, Limits, OutputLine, Ready, Results, Stop, Work
from taskfarm.worker.channel import LOST, Broken, Channel, memory_file
from taskfarm.worker.context import Place
from taskfarm.worker.output_capture import Say

if TYPE_CHECKING:
    from taskfarm.worker.runner import Runner

LOOK, BEAT = 20e-3, 0.25
"""Seconds between two looks at a child that works: at the memory it holds, and whether it lives."""

LEAVING = 1.0
"""Seconds that a child gets to end by itself."""

TELLING = 0.1
"""Seconds that a child which has passed its limit gets to say where it is."""

SACRIFICE = 500
"""What is added to the score by which Linux chooses whom to kill when memory runs out."""

LAUNCHERS = (
    *("PMI_", "PMI2_", "PMIX_", "OMPI_", "OPAL_", "PRTE_", "MPIR_", "MPI_LOCAL"),
    *("HYDI_", "HYDRA_", "MV2_", "MPIEXEC_"),
)
"""How the environment variables begin by which an MPI launcher tells a process that it is a rank."""

# The package is imported from where it is here, but a job's random.py is not taken for Python's own.
_START = (
    "import sys; path = {path!r}; sys.path[:] = [*filter(None, sys.path), *path]; "
    "from taskfarm.worker.runner import Runner; from taskfarm.worker.child_process import main; "
    "sys.path[:] = path; "
    "main(sys.argv[1:], lambda place: Runner(place, ()))"
)
_PR_SET_PDEATHSIG = 1


def environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment of a child: a task that imports mpi4py there is alone in its MPI."""
    return {name: value for name, value in environ.items() if not name.startswith(LAUNCHERS)}


class Passed(NamedTuple):
    """Which limit a call has passed, and the memory it held."""

    timeout: float | None
    held: int


class Child:
    """A child process.

    Parameters
    ----------
    place : Place
        Where it is.
    speaks : bool
        Whether it sends what tasks print and log.

    Attributes
    ----------
    farm : int or None
        The farm whose initializer has run in it.
    functions : set of int
        The functions that it has.
    """

    def __init__(self, place: Place, speaks: bool) -> None:
        self.farm: int | None = None
        self.functions: set[int] = set()
        self._report = memory_file()
        self._from = 0
        self.channel, other = Channel.pair()
        inherited = (self._report, *other.descriptors)
        code = _START.format(path=[place for place in sys.path if isinstance(place, str)])
        flags = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
        command = [sys.executable, *flags, "-c", code, str(os.getpid())]
        command += [str(place.rank), place.host, str(int(speaks))]
        try:
            self._process = subprocess.Popen(
                [*command, *map(str, inherited)],
                stdin=subprocess.DEVNULL,
                pass_fds=inherited,
                env=environment(os.environ),
                process_group=0,
            )
        except BaseException:
            self.close()
            raise
        finally:
            other.close()

    @property
    def ended(self) -> bool:
        """Whether the process has ended."""
        return self._process.poll() is not None

    def held(self) -> int:
        """Bytes of memory that the process holds for itself; 0 where the system does not tell."""
        try:
            with open(f"/proc/{self._process.pid}/statm", "rb") as file:
                _, resident, shared, *_ = map(int, file.read().split())
        except (OSError, ValueError):
            return 0
        return (resident - shared) * os.sysconf("SC_PAGE_SIZE")

    def wait(self, limits: Limits, say: Say | None = None) -> messages.Message | Passed:
        """The answer of the child, or which limit it has passed; what it says meanwhile goes to `say`.

        Raises
        ------
        Broken
            The process has ended, or does not make sense.
        """
        timeout, memory = limits
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            seconds = BEAT if memory is None else LOOK
            if deadline is not None:
                seconds = min(seconds, max(0.0, deadline - time.monotonic()))
            gone = self.ended
            if (parcel := self.channel.receive(0.0 if gone else seconds)) is not None:
                try:
                    message = messages.decode(parcel)
                except Exception as error:
                    raise Broken(f"a message cannot be decoded: {error}") from error
                if not isinstance(message, OutputLine):
                    return message
                if say is not None:
                    say(message)
                continue
            if gone:
                # A process forked from it may hold the connection open.
                raise Broken("the process has ended")
            if deadline is not None and time.monotonic() >= deadline:
                return Passed(timeout, 0)
            if memory is not None and (held := self.held()) > memory:
                return Passed(None, held)

    def ask_where(self) -> None:
        """Let the process write to its report what it is doing."""
        self._from = told = os.fstat(self._report).st_size
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._process.pid, signal.SIGQUIT)
        ending = time.monotonic() + TELLING
        while time.monotonic() < ending:
            time.sleep(5e-3)
            before, told = told, os.fstat(self._report).st_size
            if told > self._from and told == before:
                return

    def report(self) -> str:
        """What the process was doing when it crashed, or was asked; the frames of its own left out."""
        text = os.pread(self._report, 1 << 16, self._from).decode(errors="replace")
        lines = text.splitlines(keepends=True)
        return "".join(line for line in lines if PACKAGE not in line and '"<string>"' not in line)

    def end(self, seconds: float = 0.0) -> int | None:
        """Let the process end, by force after so many seconds, and all that it started.

        Returns
        -------
        int or None
            How it ended, as in `subprocess.Popen.returncode`; None if by force.
        """
        ending = time.monotonic() + seconds
        while not self.ended and time.monotonic() < ending:
            time.sleep(1e-3)
        code = self._process.returncode
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        # One that hangs in the kernel is left behind.
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(LEAVING)
        return code

    def close(self) -> None:
        """Give back what belongs to a process that has ended."""
        self.channel.close()
        os.close(self._report)


def main(arguments: Sequence[str], make_runner: "Callable[[Place], Runner]") -> None:
    """Serve as a child until the poison pill.

    Parameters
    ----------
    arguments : sequence of str
        Process id of the worker, its rank and host, whether to send what tasks print, and the descriptors
        of the report for crashes and of the channel.
    make_runner : callable
        Makes what runs the calls, for a place.
    """
    parent, rank, host, speaks, *numbers = arguments
    report, *descriptors = map(int, numbers)
    del sys.argv[1:]
    _die_with(int(parent))
    # Ctrl-C is for the worker, which decides. A handler, unlike SIG_IGN, is not inherited by exec.
    signal.signal(signal.SIGINT, lambda *_: None)
    _offer_for_sacrifice()
    faulthandler.enable(report)
    # The supervisor asks so where a task is that has passed its limit, whoever holds the GIL.
    faulthandler.register(signal.SIGQUIT, report)
    channel, runner = Channel.inherited(descriptors), make_runner(Place(int(rank), host, child=True))
    if int(speaks):
        # Threads of a task print, too.
        lock = threading.Lock()

        def say(said: OutputLine) -> None:
            with lock:
                channel.send(messages.encode(said))

        runner.speak(say)
    try:
        while answer(channel, runner):
            pass
    except Broken:
        os._exit(LOST)


def answer(channel: Channel, runner: "Runner") -> bool:
    """Do what the next message asks for; False after the poison pill.

    Each message has a call of its own, so that nothing of it is kept while the next one is awaited.
    """
    parcel = channel.receive()
    assert parcel is not None
    message = messages.decode(parcel)
    match message:
        case Work(parts):
            channel.send(messages.encode(Results(runner.run(parts))))
            _flush()
        case Define():
            runner.define(message)
        case Initialize(farm):
            channel.send(messages.encode(Ready(farm, runner.initialize(message))))
            _flush()
        case Stop():
            return False
        case _:
            raise AssertionError(f"not for a child: {message!r}")
    return True


def _flush() -> None:
    """Let out what the task has printed: a later one may end the process."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()


def _die_with(parent: int) -> None:
    """See that this process does not outlive its worker, however busy it is."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(LOST)


def _offer_for_sacrifice() -> None:
    """Let the system's out-of-memory killer take this process before the rank."""
    with contextlib.suppress(OSError, ValueError), open("/proc/self/oom_score_adj", "r+") as file:
        score = min(1000, int(file.read()) + SACRIFICE)
        file.seek(0)
        file.write(str(score))
