"""Every message and its tag: the whole protocol between the master and a worker.

A message is a tuple of plain values and blobs. On the wire it is one pickle (protocol 5), with its large
buffers out of band, under the MPI tag of its class. Task ids are part of the content, never tags.

=============  ===========  ==================================================
to the worker  DefineNames  what names in the job's file stand for
               Define       a function, before the first batch that calls it
               Work         a batch of calls
               Forget       functions and definitions that are not needed any more
               SetPath      where modules are looked for
               Initialize   the initializer of a farm that opens
               Deliver      a request for results that the worker holds back
               Recall       a request to return the calls that have not started
               Abandon      a request to break off the task of a farm that was terminated
               Cancel       a request to end an isolated task, and to return what has not started
               Ping         a request for a heartbeat
               ReportStack  a request for the stack of the running task
               Reserve      a request to make room for shared data
               Give         shared data
               Expect       data that another worker sends
               PassOn       a request to send data to another worker
               Attach       where another process of this host has shared data
               Build        how to make shared data
               Unavailable  why there is no such shared data
               Drop         shared data that was freed
               SendKept     a request to send a kept result to rank 0
               Release      kept results that nobody needs any more
               StartGang    a call that several workers run together
               EndGang      a request to end such a call, because another worker failed
               DropComms    communicators that are not used any more
               Regroup      a request to agree on who is left, after a worker was lost
               Settled      the outcomes of calls that a task has submitted
               Withdrawn    the answer to Withdraw
               Stop         the poison pill
from a worker  Passed       data that another worker has sent
to the master  Hello        a worker has started
               Ready        the initializer has succeeded or failed
               Results      the outcomes of a batch
               Held         results that are large, and are held back until they are asked for
               Returned     the calls that have not started and will not start
               Pong         a heartbeat
               OutputLine   captured output of a task
               Fetch        a request for shared data
               Have         shared data that others of this host may use
               Failed       shared data that could not be had
               SentKept     a kept result
               GangResult   the outcome of a call that several workers run, on one of them
               Regrouped    the answer to Regroup
               Spawn        calls that a task submits
               Await        a task waits for calls that it has submitted
               GoOn         a task that waited goes on
               Withdraw     a request to cancel calls that a task has submitted
               Goodbye      the last message of a worker
=============  ===========  ==================================================
"""

import io
import pickle
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeAlias, TypeVar

IN_BAND = 1 << 15
"""Buffers smaller than this, in bytes, are part of the pickle; larger ones are sent out of band."""


class Blob(NamedTuple):
    """A pickle (protocol 5) and its out-of-band buffers. Only its final receiver unpickles it.

    Attributes
    ----------
    data : bytes-like
        The pickle stream; a `pickle.PickleBuffer` if it is large.
    buffers : list
        Objects with the buffer protocol, in the order in which the pickle refers to them.
    needs : tuple
        The definitions of names in ``__main__`` that must be in use when the receiver unpickles it, and
        when it runs what it has unpickled: on rank 0 the `Definition` objects, in a message their ids.
        In a result on its way to rank 0, the names themselves.
    results : tuple of (int, Blob or None)
        The results of other tasks to which the pickle refers (`protocol.references`), by task; None: that
        of a task before it in the same batch.
    """

    data: Any
    buffers: list[Any]
    needs: tuple[Any, ...] = ()
    results: tuple[tuple[int, Any], ...] = ()


NO_BLOB = Blob(b"", [])
"""Placeholder for a missing argument or result."""


class Failure(NamedTuple):
    """The failure of one task, in a form that can be sent.

    Attributes
    ----------
    exception : Blob
        The pickled exception.
    summary : str
        One line: the type and text of the exception.
    trace : str
        The remote traceback; its first line names task, rank and host.
    note : str
        That first line, and what to do about the error if that is known.
    cause : Failure or None
        The failure of another task that has caused this one.
    missing : bytes
        The kept result without which the call could not start; empty if it has failed.
    """

    exception: Blob
    summary: str
    trace: str
    note: str = ""
    cause: "Failure | None" = None
    missing: bytes = b""


class Limits(NamedTuple):
    """Resource limits of a task that runs in a child process.

    Attributes
    ----------
    timeout : float or None
        Longest duration of a call, in seconds; None: no limit.
    memory : int or None
        Most memory that the process may hold, in bytes; None: no limit.
    max_tasks : int
        Tasks after which the process is replaced; 0: no limit.
    """

    timeout: float | None = None
    memory: int | None = None
    max_tasks: int = 0


Calls: TypeAlias = bytes | list[Blob]
"""Arguments of several calls: one pickle of a list of columns, or a blob ``(args, kwargs)`` per call."""

Values: TypeAlias = bytes | list[Blob]
"""Results of several calls: one pickle of a list, or a blob per call."""


class Part(NamedTuple):
    """Calls of one function with consecutive task ids.

    Attributes
    ----------
    function : int
        Id of the function.
    source : int
        Id of the calls that were queued together.
    first, count : int
        Id of the first task, and number of tasks.
    calls : Calls
        The arguments.
    attempt : int
        1 for the first attempt, 2 for the first retry.
    stream, index : int
        The random stream of the tasks, and the index of the first one in it. They identify a task among
        all tasks of a run, whatever the batches are. The stream of tasks that a task has submitted is a
        tuple: the stream and index of that task, and which of its streams it is.
    units : dict of str to tuple of int, or None
        Which units of each resource they need are theirs.
    chained : bool
        Whether the calls need results of others before them in the batch; such parts come last.
    """

    function: int
    source: int
    first: int
    count: int  # type: ignore[assignment]  # a field, not tuple.count
    calls: Calls
    attempt: int = 1
    stream: int | tuple[int, ...] = 0
    index: int = 0  # type: ignore[assignment]  # a field, not tuple.index
    units: dict[str, tuple[int, ...]] | None = None
    chained: bool = False


class Outcomes(NamedTuple):
    """The outcomes of a part.

    Attributes
    ----------
    source, first, count : int
        As in `Part`.
    values : Values
        The results, with a placeholder for each task that failed.
    failures : dict of int to Failure
        The failures, by offset.
    seconds : float
        Duration of all the calls together.
    started : float
        When the first call started, in seconds of the worker's clock.
    cpu, core_wait : float
        CPU seconds of the calls, and seconds for which they could have run but had no core.
    drew : bool
        Whether a call drew random numbers (`taskfarm.rng`).
    covers : list of (int, int) or None
        Of a reduction: the offset of the first task, and the number of tasks, that each of the values
        combines.
    joins : dict of int to list of int, or None
        The tasks that have returned futures, by offset: the numbers of the calls that these stand for.
    kept : dict of int to Kept or None
        Where the results are that stay with the worker, by offset; their values are references.
    """

    source: int
    first: int
    count: int  # type: ignore[assignment]  # a field, not tuple.count
    values: Values
    failures: dict[int, Failure]
    seconds: float
    started: float = 0.0
    cpu: float = 0.0
    core_wait: float = 0.0
    drew: bool = False
    covers: list[tuple[int, int]] | None = None
    joins: dict[int, list[int]] | None = None
    kept: dict[int, Any] | None = None


class DefineNames(NamedTuple):
    """To the worker: definitions of names in the job's ``__main__``, for blobs that need them.

    Attributes
    ----------
    definitions : list of (int, tuple of str, Blob)
        The id of each, the names that it defines, and the pickle of a dictionary with their values.
    """

    definitions: Sequence[tuple[int, tuple[str, ...], Blob]]


class Define(NamedTuple):
    """To the worker: function `function` of farm `farm` is `blob`.

    If `limits` is not None, calls of the function run in a child process with these limits. If `fresh` is
    true, the callable has a state that calls may change, so each call gets a copy of its own. If `keep`
    is true, large results of single calls stay with the worker.
    """

    function: int
    name: str
    blob: Blob
    limits: Limits | None = None
    fresh: bool = False
    farm: int = 0
    keep: bool = False


class Forget(NamedTuple):
    """To the worker: drop these functions and definitions."""

    functions: list[int]
    definitions: list[int]


class SetPath(NamedTuple):
    """To the worker: look for modules where the job does now."""

    path: list[str]


class Work(NamedTuple):
    """To the worker: run these parts, in order.

    If `levels` is not None, the levels of the job's loggers have changed. If `helps` is the id of a task,
    these are its descendants, for the time in which it waits.
    """

    parts: list[Part]
    levels: dict[str, int] | None = None
    helps: int = -1


class Initialize(NamedTuple):
    """To the worker: a farm opens; set ``sys.path``, and call the initializer if there is one.

    It comes before the functions of the farm. The worker answers if there is an initializer.

    Attributes
    ----------
    farm : int
        Id of the farm.
    path : list of str
        The ``sys.path`` of the job.
    blob : Blob or None
        The initializer and its arguments.
    isolate : bool
        Whether only child processes call the initializer.
    levels : dict of str to int or None
        The levels of the job's loggers, by name.
    seed : int
        The random streams of the farm's tasks derive from it.
    folder : str
        Where tasks run; empty: where the worker runs.
    forget : sequence of int
        Farms that have ended.
    """

    farm: int
    path: list[str]
    blob: Blob | None
    isolate: bool = False
    levels: dict[str, int] | None = None
    seed: int = 0
    folder: str = ""
    forget: Sequence[int] = ()


class Deliver(NamedTuple):
    """To the worker: send the `Results` that begin with task `first`."""

    first: int


class Recall(NamedTuple):
    """To the worker: return the calls that have not started."""


class Abandon(NamedTuple):
    """To the worker: break off the running task, if it belongs to this farm."""

    farm: int


class Cancel(NamedTuple):
    """To the worker: end the process that runs this task, if it is running; return what has not started."""

    task: int


class Ping(NamedTuple):
    """To the worker: send a heartbeat.

    Attributes
    ----------
    limit : float or None
        Seconds without a message from the master after which the worker must end itself.
    """

    limit: float | None


class ReportStack(NamedTuple):
    """To the worker: report the stack of the running task."""


class Location(NamedTuple):
    """Where a process has shared data: a file in memory, which others of the host can open.

    Attributes
    ----------
    pid, descriptor : int
        The process, and its descriptor of the file.
    device, inode : int
        Identify the file: another one may have the descriptor by now.
    size : int
        Its size in bytes.
    """

    pid: int
    descriptor: int
    device: int
    inode: int
    size: int


Definitions: TypeAlias = Sequence[tuple[int, tuple[str, ...], Blob]]
"""The definitions that go with a message: id, names and values of each, as in `DefineNames`."""


class Reserve(NamedTuple):
    """To the worker: reserve `size` bytes for shared data, and fetch it again with ``reserved``."""

    token: bytes
    size: int


class Give(NamedTuple):
    """To the worker: shared data, as `protocol.layout` writes it, and the definitions that it needs."""

    token: bytes
    data: Any
    needs: tuple[int, ...] = ()
    definitions: Definitions = ()


class PassOn(NamedTuple):
    """To the worker: send data to another worker, which expects it under this number."""

    token: bytes
    worker: int
    number: int


class Expect(NamedTuple):
    """To the worker: `source` sends the data for which there is room now; else as `Give`."""

    token: bytes
    source: int
    number: int
    needs: tuple[int, ...] = ()
    definitions: Definitions = ()


class Passed(NamedTuple):
    """In the receiver: data has come from another worker, or has not come for too long.

    Its transport makes this message, because only the data travels.
    """

    token: bytes
    number: int
    complete: bool


class Attach(NamedTuple):
    """To the worker: open shared data where another process of its host has it."""

    token: bytes
    location: Location
    needs: tuple[int, ...] = ()
    definitions: Definitions = ()


class Build(NamedTuple):
    """To the worker: make shared data by calling a function.

    Attributes
    ----------
    token : bytes
        Identifies the data.
    blob : Blob
        The function, its arguments and its keywords.
    for_host : bool
        Whether the other workers of the host wait for the result: the answer is `Have` or `Failed`.
    definitions : list
        What the blob needs.
    """

    token: bytes
    blob: Blob
    for_host: bool
    definitions: Definitions = ()


class SendKept(NamedTuple):
    """To the worker: send a result that it keeps to rank 0, as `SentKept`."""

    token: bytes


class Release(NamedTuple):
    """To the worker: drop kept results."""

    tokens: list[bytes]


FREED, NO_BUILD, NO_ROOM, LOST = "freed", "build", "memory", "lost"
"""Why there is no shared data: nobody refers to it, its function failed, its host has no room, or the
workers that had it are lost."""


class Unavailable(NamedTuple):
    """To the worker: there is no such data, for the reason `why`, which `text` puts into words."""

    token: bytes
    why: str
    text: str


class Drop(NamedTuple):
    """To the worker: drop shared data that was freed."""

    tokens: list[bytes]


class StartGang(NamedTuple):
    """To the worker: run this call together with others.

    Attributes
    ----------
    gang : int
        Identifies this attempt; the next one has a higher number.
    comm : int
        The number of the communicator; its members make it if they do not have it.
    members : tuple of int
        The workers, in the order of their ranks in the communicator.
    part : Part
        The call.
    levels : dict of str to int or None
        As in `Work`.
    """

    gang: int
    comm: int
    members: tuple[int, ...]
    part: Part
    levels: dict[str, int] | None = None


class EndGang(NamedTuple):
    """To the worker: a call that it runs together with others has failed, for the reason `why`; end it.

    A worker that has not after `grace` seconds ends itself, if that is not None.
    """

    gang: int
    why: str
    grace: float | None


class DropComms(NamedTuple):
    """To the worker: forget communicators; if `free`, release them."""

    numbers: list[int]
    free: bool


class Regroup(NamedTuple):
    """To the worker: agree with all others that are left on who they are, to make communicators again.

    The requests have numbers; all workers get them in the same order.
    """

    number: int


class Stop(NamedTuple):
    """To the worker: the poison pill.

    Attributes
    ----------
    leave : bool
        Whether to end without finalizing MPI, which would wait for a lost rank.
    """

    leave: bool = False


class Hello(NamedTuple):
    """To the master: a worker has started."""

    version: str
    python: str
    host: str
    pid: int


class Ready(NamedTuple):
    """To the master: the initializer of `farm` has succeeded here, or failed with `failure`.

    `seconds` is how long it took.
    """

    farm: int
    failure: Failure | None
    seconds: float = 0.0


class Results(NamedTuple):
    """To the master: the outcomes of a batch."""

    parts: list[Outcomes]


class Held(NamedTuple):
    """To the master: these tasks have ended, and their results wait here until they are asked for.

    Attributes
    ----------
    first, count : int
        Id of the first task, and number of tasks.
    seconds : float
        Duration of all the calls together.
    nbytes : int
        Size of the pickled results, in bytes.
    """

    first: int
    count: int  # type: ignore[assignment]  # a field, not tuple.count
    seconds: float
    nbytes: int


class Returned(NamedTuple):
    """To the master: these tasks have not started, and will not start on this worker.

    Attributes
    ----------
    tasks : list of (int, int)
        First id and number of each run of consecutive tasks.
    running : (int, int, float) or None
        Id of the running function, number of calls that have started, and seconds since the first one
        started; None if nothing is running.
    """

    tasks: list[tuple[int, int]]
    running: tuple[int, int, float] | None


class Pong(NamedTuple):
    """To the master: a heartbeat."""


OUT, ERR, LOG, STACK = 1, 2, 3, 4
"""Kinds of output: standard output, standard error, a log record, or the answer to `ReportStack`."""


class OutputLine(NamedTuple):
    """To the master: a task has printed or logged something.

    Attributes
    ----------
    kind : int
        `OUT`, `ERR`, `LOG` or `STACK`.
    level, name : int, str
        Level and logger name of a log record.
    task : int
        Id of the task; -1 if it is not known.
    text : str
        One or more complete lines; of a log record, its message.
    fields : dict of str to object
        The other attributes of a log record that are plain values.
    extra : dict of str to Blob
        Its attributes that are not.
    """

    kind: int
    level: int
    name: str
    task: int
    text: str
    fields: dict[str, Any] | None = None
    extra: dict[str, Blob] | None = None


class Fetch(NamedTuple):
    """To the master: a task needs shared data.

    Attributes
    ----------
    token : bytes
        Identifies the data.
    host : str
        Identifies the processes that can open each other's files in memory.
    reserved : bool
        Whether the worker has made room for it.
    again : bool
        Whether the worker that should have sent it does not.
    """

    token: bytes
    host: str
    reserved: bool = False
    again: bool = False


class Have(NamedTuple):
    """To the master: this worker has shared data, which others on the same `host` can open.

    `sends` tells whether it can send the data to other hosts while it runs tasks.
    """

    token: bytes
    host: str
    location: Location
    sends: bool = False


class Failed(NamedTuple):
    """To the master: this worker could not reserve or build shared data, for the reason `why`.

    If `final`, there is no point in trying again on this host.
    """

    token: bytes
    host: str
    why: str
    text: str
    final: bool


class SentKept(NamedTuple):
    """To the master: a result that this worker has kept."""

    token: bytes
    result: Blob


class GangResult(NamedTuple):
    """To the master: a call that several workers run has ended on this one.

    Attributes
    ----------
    gang : int
        As in `StartGang`.
    outcomes : Outcomes
        Its outcome; only the first member sends a value.
    is_secondary : bool
        Whether it was ended here because it had failed elsewhere.
    keeps : bool
        Whether its communicator may be used again.
    is_void : bool
        Whether it could not begin here, because some rank died while the communicator was made.
    """

    gang: int
    outcomes: Outcomes
    is_secondary: bool
    keeps: bool
    is_void: bool = False


class Regrouped(NamedTuple):
    """To the master: the answer to `Regroup`; `why` says why it failed, and is empty if it did not."""

    number: int
    why: str


class Goodbye(NamedTuple):
    """To the master: the worker stops after having run `tasks` calls; no message follows.

    Attributes
    ----------
    tasks : int
        Number of calls.
    why : str
        Why it stops before the poison pill; empty if it does not.
    """

    tasks: int
    why: str = ""


class NewFunction(NamedTuple):
    """A function whose calls a task submits.

    Attributes
    ----------
    name : str
        Its name in messages.
    blob : Blob
        Its pickle; `needs` has the names in ``__main__`` to which it refers.
    policy : dict of str to object
        The options that say how workers run its calls.
    by_name : bool
        Whether the pickle is no more than the name under which the function is found; only such functions
        are called by their number again.
    """

    name: str
    blob: Blob
    policy: dict[str, Any]
    by_name: bool


class Spawn(NamedTuple):
    """To the master: a task submits calls.

    Attributes
    ----------
    task, source : int
        The id of the task, and the source of its part.
    first, count : int
        The worker's number of the first call, which the others follow, and how many there are.
    function : int
        The worker's number of the function.
    calls : Calls
        The arguments; `needs` of a blob has the names in ``__main__`` to which it refers.
    stream : tuple of int
        The random stream of the calls.
    index : int
        The index of the first call in it.
    new : NewFunction or None
        The function, if the master does not know it under this number.
    futures : dict of int to list of int, or None
        The calls that need the results of others of the task, by offset: the numbers of those.
    """

    task: int
    source: int
    first: int
    count: int  # type: ignore[assignment]  # a field, not tuple.count
    function: int
    calls: Calls
    stream: tuple[int, ...]
    index: int  # type: ignore[assignment]  # a field, not tuple.index
    new: NewFunction | None = None
    futures: dict[int, list[int]] | None = None


class Await(NamedTuple):
    """To the master: a task waits; meanwhile its worker runs descendants of it.

    Attributes
    ----------
    task : int
        The id of the task.
    function : int
        The id of its function.
    wanted : list of (int, int)
        First number and number of calls whose outcomes it wants as soon as they are there.
    tasks : list of (int, int)
        As in `Returned`: these would have to wait behind it.
    seconds : float or None
        From a child process: how long it waits at most; None: without a limit.
    """

    task: int
    function: int
    wanted: list[tuple[int, int]]
    tasks: list[tuple[int, int]]
    seconds: float | None = None


class GoOn(NamedTuple):
    """To the master: the task that waited last on this worker goes on; it needs no descendants to run."""


class Withdraw(NamedTuple):
    """To the master: cancel those of `count` calls of a task, from number `first` on, that are queued."""

    task: int
    first: int
    count: int  # type: ignore[assignment]  # a field, not tuple.count


class Withdrawn(NamedTuple):
    """To the worker: these of its calls are cancelled; first number and number of each run of them.

    From the worker to its child process, it also is the last answer to `Await`; `error` says why the task
    cannot wait.
    """

    calls: list[tuple[int, int]]
    error: str = ""


class Settled(NamedTuple):
    """To the worker: outcomes of calls that one of its tasks has submitted.

    Attributes
    ----------
    first, count : int
        The worker's number of the first call, and how many there are.
    values : Values
        The results, with a placeholder for each call that has failed.
    failures : dict of int to Failure
        The failures, by offset.
    definitions : list
        What the values need, as far as the worker may not have it.
    """

    first: int
    count: int  # type: ignore[assignment]  # a field, not tuple.count
    values: Values
    failures: dict[int, Failure]
    definitions: Definitions = ()


Answer: TypeAlias = Reserve | Give | Expect | Passed | Attach | Build | Unavailable
ANSWERS = (Reserve, Give, Expect, Passed, Attach, Build, Unavailable)
"""The messages for which the sender of `Fetch` waits."""

Asked: TypeAlias = Fetch | Have | Failed | Spawn | Await | Withdraw
ASKED_BY_CHILD = (Fetch, Have, Failed, Spawn, Await, Withdraw)
"""What a task in a child process asks its worker for."""

ToWorker: TypeAlias = (
    DefineNames
    | Define
    | Forget
    | SetPath
    | Work
    | Initialize
    | Deliver
    | Recall
    | Abandon
    | Cancel
    | Ping
    | ReportStack
    | Stop
    | Reserve
    | Give
    | Expect
    | PassOn
    | Passed
    | Attach
    | Build
    | Unavailable
    | Drop
    | SendKept
    | Release
    | StartGang
    | EndGang
    | DropComms
    | Regroup
    | Settled
    | Withdrawn
)
ToMaster: TypeAlias = (
    Hello
    | Ready
    | Results
    | Held
    | Returned
    | Pong
    | OutputLine
    | Goodbye
    | Fetch
    | Have
    | Failed
    | SentKept
    | GangResult
    | Regrouped
    | Spawn
    | Await
    | GoOn
    | Withdraw
)
Message: TypeAlias = ToWorker | ToMaster
AnyMessage = TypeVar("AnyMessage", bound=Message)

CLASSES: dict[int, type[Message]] = {
    1: Define,
    2: Work,
    3: Initialize,
    4: Stop,
    5: Recall,
    6: Ping,
    7: ReportStack,
    8: DefineNames,
    9: Forget,
    10: SetPath,
    18: Abandon,
    60: Cancel,
    11: Hello,
    12: Ready,
    13: Results,
    14: Goodbye,
    15: Returned,
    16: Pong,
    17: OutputLine,
    19: Reserve,
    20: Give,
    21: Attach,
    22: Build,
    23: Unavailable,
    24: Drop,
    25: Fetch,
    26: Have,
    27: Failed,
    61: SendKept,
    62: Release,
    63: SentKept,
    70: StartGang,
    71: EndGang,
    72: DropComms,
    73: GangResult,
    74: Regroup,
    75: Regrouped,
    40: PassOn,
    41: Expect,
    42: Passed,
    43: Held,
    44: Deliver,
    50: Spawn,
    51: Await,
    52: GoOn,
    53: Withdraw,
    54: Settled,
    55: Withdrawn,
}
"""The class of each tag."""

TAGS: dict[type[Message], int] = {cls: tag for tag, cls in CLASSES.items()}
"""The tag of each class."""

new_tuple = tuple.__new__
"""Makes a named tuple of all its fields in one call of C; its own constructor is a function in Python."""

ROWS: dict[type[Any], Callable[[tuple[Any, ...]], Any]] = {
    Work: partial(new_tuple, Part),
    Results: partial(new_tuple, Outcomes),
}
"""What makes the rows in the first field of a message. To pickle a named tuple takes three times as long as
a plain one, so these travel as plain ones."""

Buffer: TypeAlias = Any
"""Contiguous bytes: a memoryview in the sender, a numpy array of uint8 in the receiver."""


class TooLarge(bytes):
    """Stands for a buffer for which its receiver had no memory.

    Attributes
    ----------
    size : int
        Size of the buffer, in bytes.
    """

    size: int

    @classmethod
    def of(cls, size: int) -> "TooLarge":
        """The placeholder of a buffer of `size` bytes."""
        self = cls()
        self.size = size
        return self


class Parcel(NamedTuple):
    """A message on the wire.

    Attributes
    ----------
    tag : int
        The tag of its class.
    head : bytes or bytearray
        The pickle.
    buffers : sequence of Buffer
        The large buffers, in the order in which the pickle refers to them; `TooLarge` where the receiver
        had no memory for one.
    """

    tag: int
    head: bytes | bytearray
    buffers: Sequence[Buffer]

    @property
    def nbytes(self) -> int:
        """Size on the wire, in bytes."""
        return len(self.head) + sum(memoryview(b).nbytes for b in self.buffers)


def encode(message: Message) -> Parcel:
    """Encode a message for a transport; large buffers are not copied."""
    kind = type(message)
    fields = tuple(message)
    if kind in ROWS:
        fields = ([*map(tuple, fields[0])], *fields[1:])
    buffers: list[Buffer] = []

    def keep(buffer: pickle.PickleBuffer) -> None:
        buffers.append(buffer.raw())

    try:
        head = pickle.dumps(fields, protocol=5, buffer_callback=keep)
    except TypeError:
        # Blobs to and from a child process are forwarded as received: large pickles are memoryviews.
        buffers.clear()
        file = io.BytesIO()
        pickler = pickle.Pickler(file, protocol=5, buffer_callback=keep)
        pickler.dispatch_table = {memoryview: lambda view: (_same, (pickle.PickleBuffer(view),))}
        pickler.dump(fields)
        head = file.getvalue()
    return new_tuple(Parcel, (TAGS[kind], head, buffers))


def _same(buffer: Buffer) -> Buffer:
    return buffer


def decode(parcel: Parcel) -> Message:
    """Decode a message that a transport received; large buffers are not copied.

    A blob of which a buffer is missing is replaced by one whose unpickling raises MemoryError, so that it
    fails its own task only.
    """
    if parcel.buffers and TooLarge in map(type, parcel.buffers):
        from taskfarm.protocol import incomplete

        return incomplete.decode(parcel)
    tag, head, buffers = parcel
    return restored(CLASSES[tag], pickle.loads(head, buffers=buffers))


def restored(kind: type[AnyMessage], fields: tuple[Any, ...]) -> AnyMessage:
    """A message from what `encode` has pickled of it."""
    if (row := ROWS.get(kind)) is not None:
        fields = ([*map(row, fields[0])], *fields[1:])
    return new_tuple(kind, fields)


def decode_head(cls: type[AnyMessage], head: bytes | bytearray, count: int) -> AnyMessage:
    """Decode a message whose `count` large buffers have not arrived; `buffer_number` tells them apart."""
    buffers = [number.to_bytes(4, "big") for number in range(count)]
    return restored(cls, pickle.loads(head, buffers=buffers))


def buffer_number(buffer: Buffer) -> int:
    """Which of the buffers this is that `decode_head` has put in the place of one."""
    return int.from_bytes(buffer, "big")
