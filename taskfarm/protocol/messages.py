"""Every message and its tag: the whole protocol between the master and a worker.

A message is a tuple of plain values and blobs; on the wire it is one pickle (protocol 5) with its
large buffers beside it, under the MPI tag of its class. Task ids travel inside, never as tags.

====================  =========  ==============================================================
to the worker         Define     a function, before the first work that calls it
                      Work       a batch of calls
                      Initialize the initializer of a farm that opens
                      Recall     a request for the calls that have not started
                      Ping       a request for a sign of life
                      ReportStack      a request for the stack of the task that is being run
                      Stop       the poison pill
to the master         Hello      a worker has started
                      Ready      the initializer has run, or how it failed
                      Results    the outcomes of a batch
                      Returned   which calls have not started, and will not
                      Pong       a sign of life
                      OutputLine       what a task has printed or logged
                      Goodbye    the last message of a worker
====================  =========  ==============================================================
"""

import io
import pickle
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

IN_BAND = 1 << 15
"""Buffers of fewer bytes than this travel inside the pickle, larger ones beside it."""


class Blob(NamedTuple):
    """A pickle (protocol 5) and its out-of-band buffers, opaque to all that carry it.

    Attributes
    ----------
    data : bytes-like
        The pickle stream; a `pickle.PickleBuffer` if it is large.
    buffers : list
        Objects with the buffer protocol, in the order in which the pickle wants them.
    """

    data: Any
    buffers: list[Any]


NO_BLOB = Blob(b"", [])
"""Stands where there is nothing to carry."""


class Failure(NamedTuple):
    """How one task failed, ready to travel.

    Attributes
    ----------
    exception : Blob
        The pickled exception.
    summary : str
        One line: the type and text of the exception.
    trace : str
        The remote traceback, headed by task, rank and host.
    note : str
        That head, and what to do if it is known.
    """

    exception: Blob
    summary: str
    trace: str
    note: str = ""


class Limits(NamedTuple):
    """What a task that runs in a child process may use.

    Attributes
    ----------
    timeout : float or None
        Seconds that a call may take; None: any.
    memory : int or None
        Bytes of memory that the process may hold; None: any.
    """

    timeout: float | None = None
    memory: int | None = None


Calls: TypeAlias = bytes | list[Blob]
"""Arguments of a slice: one pickle of a list of columns, or a blob ``(args, kwargs)`` for each."""

Values: TypeAlias = bytes | list[Blob]
"""Results of a slice: one pickle of a list, or a blob for each."""


class Part(NamedTuple):
    """Calls of one function with consecutive ids; `attempt` counts how often one of them has been tried.

    `stream` and `index` tell the first one from all other tasks of a run, however they are cut.
    """

    function: int
    source: int
    first: int
    count: int  # type: ignore[assignment]  # a field, not tuple.count
    calls: Calls
    attempt: int = 1
    stream: int = 0
    index: int = 0  # type: ignore[assignment]  # a field, not tuple.index


class Outcomes(NamedTuple):
    """What became of a part: values, with an empty place where `failures` has the offset.

    The first call started at `started`, by the clock of the worker.
    """

    source: int
    first: int
    count: int  # type: ignore[assignment]  # a field, not tuple.count
    values: Values
    failures: dict[int, Failure]
    seconds: float
    started: float = 0.0


class Define(NamedTuple):
    """To the worker: function `function` is `blob`; forget the functions in `forget`.

    Where `limits` is not None, its calls run in a child process under them.
    """

    function: int
    name: str
    blob: Blob
    forget: list[int]
    limits: Limits | None = None


class Work(NamedTuple):
    """To the worker: run these parts, in order."""

    parts: list[Part]


class Initialize(NamedTuple):
    """To the worker: a farm opens; extend ``sys.path``, and call the initializer if there is one.

    Where `isolate` is true, only child processes call it. Loggers forward from `level` on. Tasks draw
    random numbers from `seed`.
    """

    farm: int
    path: list[str]
    blob: Blob | None
    isolate: bool = False
    level: int = 30
    seed: int = 0


class Recall(NamedTuple):
    """To the worker: give back what you have not started."""


class Ping(NamedTuple):
    """To the worker: give a sign of life.

    Attributes
    ----------
    limit : float or None
        Seconds without a word from the master after which the worker is to end itself.
    """

    limit: float | None


class ReportStack(NamedTuple):
    """To the worker: say where the task is that you are running."""


class Stop(NamedTuple):
    """To the worker: the poison pill.

    Attributes
    ----------
    leave : bool
        Whether to end without a word to MPI, which would wait for a rank that is lost.
    """

    leave: bool = False


class Hello(NamedTuple):
    """To the master: a worker has started."""

    version: str
    python: str
    host: str
    pid: int


class Ready(NamedTuple):
    """To the master: the initializer of `farm` has run here, or failed."""

    farm: int
    failure: Failure | None


class Results(NamedTuple):
    """To the master: the outcomes of a batch."""

    parts: list[Outcomes]


class Returned(NamedTuple):
    """To the master: these tasks have not started, and will not here.

    Attributes
    ----------
    tasks : list of (int, int)
        First id and number of consecutive tasks.
    running : (int, int, float) or None
        Function, tasks and seconds so far of the calls that are being run, if any.
    """

    tasks: list[tuple[int, int]]
    running: tuple[int, int, float] | None


class Pong(NamedTuple):
    """To the master: a sign of life."""


OUT, ERR, LOG, STACK = 1, 2, 3, 4
"""Kinds of output: standard output, standard error, a log record, or the answer to `ReportStack`."""


class OutputLine(NamedTuple):
    """To the master: a task has printed or logged something.

    Attributes
    ----------
    kind : int
        `OUT`, `ERR`, `LOG` or `STACK`.
    level, name : int, str
        Those of a log record.
    task : int
        The task; -1 if it is not known.
    text : str
        Whole lines.
    """

    kind: int
    level: int
    name: str
    task: int
    text: str


class Goodbye(NamedTuple):
    """To the master: the worker has taken the poison pill; nothing follows."""

    tasks: int


ToWorker: TypeAlias = Define | Work | Initialize | Recall | Ping | ReportStack | Stop
ToMaster: TypeAlias = Hello | Ready | Results | Returned | Pong | OutputLine | Goodbye
Message: TypeAlias = ToWorker | ToMaster

CLASSES: dict[int, type[Message]] = {
    1: Define,
    2: Work,
    3: Initialize,
    4: Stop,
    5: Recall,
    6: Ping,
    7: ReportStack,
    11: Hello,
    12: Ready,
    13: Results,
    14: Goodbye,
    15: Returned,
    16: Pong,
    17: OutputLine,
}
"""The class of each tag."""

TAGS: dict[type[Message], int] = {cls: tag for tag, cls in CLASSES.items()}
"""The tag of each class."""

Buffer: TypeAlias = Any
"""Contiguous bytes: a memoryview on the way out, a numpy array of uint8 on the way in."""


class Parcel(NamedTuple):
    """A message on the wire.

    Attributes
    ----------
    tag : int
        The tag of its class.
    head : bytes or bytearray
        The pickle.
    buffers : sequence of Buffer
        The large buffers, in the order in which the pickle wants them.
    """

    tag: int
    head: bytes | bytearray
    buffers: Sequence[Buffer]

    @property
    def nbytes(self) -> int:
        """Size on the wire, in bytes."""
        return len(self.head) + sum(memoryview(b).nbytes for b in self.buffers)


def encode(message: Message) -> Parcel:
    """Turn a message into what a transport sends; large buffers are not copied."""
    buffers: list[Buffer] = []

    def keep(buffer: pickle.PickleBuffer) -> None:
        buffers.append(buffer.raw())

    try:
        head = pickle.dumps(tuple(message), protocol=5, buffer_callback=keep)
    except TypeError:
        # What a child process takes or gives is passed on as it came: large pickles are memoryviews.
        buffers.clear()
        file = io.BytesIO()
        pickler = pickle.Pickler(file, protocol=5, buffer_callback=keep)
        pickler.dispatch_table = {memoryview: lambda view: (_same, (pickle.PickleBuffer(view),))}
        pickler.dump(tuple(message))
        head = file.getvalue()
    return Parcel(TAGS[type(message)], head, buffers)


def _same(buffer: Buffer) -> Buffer:
    return buffer


def decode(parcel: Parcel) -> Message:
    """Turn what a transport received into a message; large buffers are not copied."""
    return CLASSES[parcel.tag](*pickle.loads(parcel.head, buffers=parcel.buffers))
