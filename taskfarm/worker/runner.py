"""Runs calls and gathers their outcomes: one failure never costs another task its result."""

import contextlib
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from types import CodeType, FrameType, FunctionType
from typing import TYPE_CHECKING, Any

from taskfarm import interrupts
from taskfarm.errors import SharedDataError
from taskfarm.fork_hooks import exit_forked_child, in_forked_children
from taskfarm.protocol.describe import describe_call
from taskfarm.protocol.failures import format_stack
from taskfarm.protocol.messages import (
    NO_BLOB,
    Blob,
    Calls,
    Define,
    DefineNames,
    Drop,
    Failure,
    Forget,
    Initialize,
    Limits,
    Outcomes,
    Part,
    SetPath,
    Values,
    new_tuple,
)
from taskfarm.protocol.serialize import dump_if_plain, dump_plain, dumps, load_plain, loads
from taskfarm.worker.claims import MAX_BLOCK_SECONDS, ClaimedCalls
from taskfarm.worker.context import IN_TASK, Place, TaskContext
from taskfarm.worker.cpu_time import CpuMeter
from taskfarm.worker.folder import TaskFolder
from taskfarm.worker.functions import LoadedFunction
from taskfarm.worker.namespace import Namespace
from taskfarm.worker.output_capture import OutputCapture, SendOutput
from taskfarm.worker.remote_failures import ForkedChildFailures, RemoteFailures
from taskfarm.worker.user_signals import Timers, UserSignals

if TYPE_CHECKING:
    from taskfarm.protocol.kept import Kept
    from taskfarm.protocol.reduction import Operation, Reduction
    from taskfarm.worker.chained_results import ChainedResults
    from taskfarm.worker.isolation import IsolatedRunner
    from taskfarm.worker.kept_results import KeptResults
    from taskfarm.worker.nesting import Nesting
    from taskfarm.worker.shared_data import SharedData, Supplier
    from taskfarm.worker.spawning import Spawner, Upstream


BREAK_OFF = signal.SIGURG
"""The signal that interrupts an abandoned task. Nobody else uses it, and by default it does nothing."""

BREAK_OFF_INTERVAL = 0.5
"""Seconds after which a task that goes on is interrupted again."""


class TaskAbandoned(BaseException):
    """Raised inside a task that nobody waits for any more, or that has failed on another rank."""


class Runner:
    """Runs the parts of a batch: itself, or in a child process if their function has limits.

    Parameters
    ----------
    place : Place
        Rank and host.
    propagate : tuple of exception types
        Exceptions that end the whole batch when a task raises them: the calls that have not started are
        kept for `release_left`. If a signal has brought the exception, so is the call that it
        interrupted, since it has not failed; otherwise that one fails.

    Attributes
    ----------
    place : Place
        As given.
    interrupted : BaseException or None
        The exception of `propagate` that ended the batch.
    num_tasks : int
        Calls run so far.
    output : OutputCapture or None
        What sends the output of tasks to the master, if it goes there.
    namespace : Namespace
        The ``__main__`` of the tasks.
    make_supplier : callable or None
        Makes what gets shared data from elsewhere; None: all there is, is in this process.
    make_upstream : callable or None
        Makes the way by which tasks submit tasks; None: they cannot.
    """

    def __init__(self, place: Place, propagate: tuple[type[BaseException], ...]) -> None:
        self.place = place
        self._failures = RemoteFailures(place)
        self._propagate = propagate
        self._functions: dict[int, LoadedFunction] = {}
        self._farm_of: dict[int, int] = {}
        self._limits: dict[int, tuple[str, Limits]] = {}
        self._isolated_runner: IsolatedRunner | None = None
        self._send_output: SendOutput | None = None
        self._farms: dict[int, Initialize] = {}
        self._namespaces: dict[int, Namespace] = {}
        self._waiting: deque[Part] = deque()
        self._claims: ClaimedCalls | None = None
        self._context = TaskContext(place, self)
        self._cpu = CpuMeter()
        self._folder = TaskFolder(self._stop_block)
        # What the calls are given: plain arguments by position, or their blobs. `_step` makes one call of
        # these; it restores the folder itself, or does not. `_called_with` is the last call of a blob in
        # words.
        self._columns: list[Any] = []
        self._called_with: str | None = None
        self._step: Callable[..., Any] = str
        self._step_restores = False
        self._path: list[str] = []
        self._thread: int | None = None
        self._abandoned: set[int] = set()
        self._last_break_off = 0.0
        # The task on several ranks that runs, and the last one that was to end, and why.
        self._gang = 0
        self._gang_ended = (-1, "")
        self._former_handler: Any = None
        self.interrupted: BaseException | None = None
        self._left: list[tuple[int, int]] = []
        self._chained: ChainedResults | None = None
        self.num_tasks = 0
        self.output: OutputCapture | None = None
        self.make_supplier: Callable[[], Supplier] | None = None
        self.make_upstream: Callable[[], Upstream] | None = None
        self._nesting: Nesting | None = None
        self._loaded: LoadedFunction | None = None
        # The part of the columns that is running, and its offset; what is cut off it does not start.
        self._block: list[list[Any]] = []
        self._block_start = 0
        self._unbreakable: set[CodeType] = set()
        self._shared_data: SharedData | None = None
        self._making_shared_data = threading.RLock()
        self._keeping: set[int] = set()
        self._kept_results: KeptResults | None = None
        self.namespace = Namespace(load_shared=self._load_shared, load_kept=self._load_kept)
        self._forked = False
        self._signals: UserSignals | None = None
        self._timers = Timers(place)
        in_forked_children(self._enter_forked_child)

    def _enter_forked_child(self) -> None:
        """In a process that a task has forked: run no other call, and send nothing."""
        self._forked = True
        self._failures = ForkedChildFailures(self.place)
        self._waiting.clear()
        if self._claims is not None:
            self._claims.abandon_unstarted()
        if self.output is not None:
            self.output.bypass()

    def guard_signals(self) -> None:
        """Keep the signal handlers of tasks from disturbing this process; once in a process."""
        self._signals = UserSignals(self.place)
        self._timers.expect_only_tasks()

    def capture_output(self, send: SendOutput) -> None:
        """From now on, send what tasks print and log here and in the child process through `send`."""
        self.output = OutputCapture(send)
        self._send_output = send
        if self._isolated_runner is not None:
            self._isolated_runner.send_output = send

    @property
    def shared_data(self) -> "SharedData":
        """The shared data of this process; most workers never need it."""
        # Threads of a task may be the first to need it.
        with self._making_shared_data:
            if self._shared_data is None:
                from taskfarm.worker.shared_data import SharedData, Supplier

                supplier = (self.make_supplier or Supplier)()
                self._shared_data = SharedData(self.place, supplier, self.namespace.define)
            return self._shared_data

    @property
    def context(self) -> TaskContext:
        """The context of the tasks that run now."""
        return self._context

    @property
    def nesting(self) -> "Nesting":
        """What lets tasks submit tasks and wait for them; most workers never need it."""
        if self._nesting is None:
            from taskfarm.worker.nesting import Nesting

            self._nesting = Nesting(self, self.make_upstream)
        return self._nesting

    @property
    def spawner(self) -> "Spawner":
        """The farm of the task that runs, for the task itself."""
        return self.nesting.spawner

    def _load_shared(self, namespace: Namespace, token: bytes) -> Any:
        if self._forked:
            # It must neither send anything nor wait for a lock of its parent's threads.
            if token not in namespace.shared_values:
                raise SharedDataError(
                    "a process that a task has forked has only the shared data that the task has used: "
                    "take `.value` before the fork"
                )
            return namespace.shared_values[token]
        return self.shared_data.load(namespace, token)

    @property
    def kept_results(self) -> "KeptResults":
        """The kept results of this process; most workers never need them."""
        with self._making_shared_data:
            if self._kept_results is None:
                from taskfarm.worker.kept_results import KeptResults

                self._kept_results = KeptResults(self.place, self.shared_data)
            return self._kept_results

    def memory_of(self, token: bytes) -> memoryview | None:
        """Shared data, or a kept result, if this process has it still."""
        kept = None if self._kept_results is None else self._kept_results.memory_of(token)
        if kept is not None:
            return kept
        segment = self.shared_data.held(token)
        return None if segment is None else segment.view

    def _load_kept(self, kept: "Kept") -> Any:
        return self.kept_results.load(kept)

    def _drop_shared(self, tokens: list[bytes]) -> None:
        """Drop shared data that was freed."""
        if self._shared_data is not None:
            self._shared_data.drop(tokens)
            for namespace in (self.namespace, *self._namespaces.values()):
                for token in tokens:
                    namespace.shared_values.pop(token, None)
            for loaded in self._functions.values():
                loaded.unload_if_it_has(tokens)
            # The last part may still refer to its arguments.
            self._step, self._columns, self._block, self._called_with = str, [], [], None
        for isolated in self._each_isolated():
            isolated.drop_shared(tokens)

    def prepare(self, message: DefineNames | Define | Forget | SetPath | Drop) -> None:
        """Keep, or drop, what calls need."""
        match message:
            case DefineNames():
                self.namespace.define(message)
            case Define():
                self._define(message)
            case Forget():
                self._forget(message)
            case SetPath(path):
                self._set_path(path)
            case Drop(tokens):
                self._drop_shared(tokens)

    def _define(self, message: Define) -> None:
        """Keep a function; it is loaded when it is called."""
        self._farm_of[message.function] = message.farm
        if message.keep:
            self._keeping.add(message.function)
        if message.limits is not None:
            self._limits[message.function] = (message.name, message.limits)
            self._isolated().define(message)
        else:
            namespace = self._namespaces.get(message.farm, self.namespace)
            self._functions[message.function] = LoadedFunction(message, namespace)

    def load(self, function: int) -> None:
        """Load a function now; if that fails, its calls will fail with the reason."""
        with contextlib.suppress(BaseException):
            self._functions[function].load()
        self._timers.ask_again()

    def _forget(self, message: Forget) -> None:
        """Drop functions and definitions."""
        for function in message.functions:
            self._functions.pop(function, None)
            self._limits.pop(function, None)
            self._farm_of.pop(function, None)
            self._keeping.discard(function)
        self.namespace.forget(message.definitions)
        if self._isolated_runner is not None:
            self._isolated_runner.forget(message.functions)

    def _set_path(self, path: list[str]) -> None:
        """Look for modules where the job does; entries that only this worker has come last."""
        if not path or path == self._path:
            return
        own = [entry for entry in sys.path if entry not in self._path and entry not in path]
        sys.path[:] = [*path, *own]
        self._path = path

    def follow_levels(self, levels: dict[str, int] | None) -> None:
        """Let loggers have the levels that they have on rank 0, if that is where records go."""
        if levels is not None and self.output is not None:
            self.output.follow_levels(levels)
            for farm, opening in self._farms.items():
                self._farms[farm] = opening._replace(levels=levels)

    def initialize(self, message: Initialize) -> Failure | None:
        """Set the path, and call the initializer if there is one; returns its failure, if it failed."""
        failure = self._initialize(message)
        self._timers.ask_again()
        if self._forked:
            exit_forked_child(0)
        return failure

    def _initialize(self, message: Initialize) -> Failure | None:
        self._set_path(message.path)
        if message.farm:
            self.follow_levels(message.levels)
        for farm in message.forget:
            self._farms.pop(farm, None)
            self._namespaces.pop(farm, None)
            self._abandoned.discard(farm)
        if message.farm:
            self._farms[message.farm] = message
        try:
            failure = None
            if message.blob is not None and message.isolate:
                failure = self._isolated().call_initializer(message.farm)
            if message.blob is not None and not message.isolate:
                namespace = self._namespaces[message.farm] = Namespace(
                    self.namespace, self._load_shared, self._load_kept
                )
                self._folder.home = message.folder
                with self._folder, namespace.installed():
                    namespace.initialize(message.blob)
        except self._propagate:
            raise
        except BaseException as error:
            return self._failures.of("initializer", error)
        return failure

    def run(self, parts: list[Part]) -> list[Outcomes]:
        """Run the calls of a batch in order, except those that `release_unstarted` releases meanwhile."""
        self.interrupted = None
        self._left = []
        self._chained = _chained_results() if parts[-1].chained else None
        waiting = self._waiting
        waiting.extend(parts)
        outcomes: list[Outcomes] = []
        timers = self._timers.before_batch()
        token, self._thread = IN_TASK.set(self._context), threading.get_ident()
        try:
            self._folder.home = self._folder_of(parts[0].function)
            with self._folder:
                while waiting and not self._left and self.interrupted is None:
                    try:
                        part = waiting.popleft()
                    except IndexError:  # released just now
                        break
                    run = self._run_isolated if part.function in self._limits else self._run_part
                    done = run(part)
                    outcomes.extend(
                        map(self.kept_results.keep, done) if part.function in self._keeping else done
                    )
        finally:
            left = self._timers.switch_off_others(timers)
            if self.output is not None:
                self.output.flush_lines()
            IN_TASK.reset(token)
            if waiting:
                self._left.extend((part.first, part.count) for part in waiting)
                waiting.clear()
            self._claims = self._thread = self._chained = None
            self._context.end()
            if left:
                self._timers.warn(left, parts[-1].first, self._name_of(parts[-1].function))
        if self._forked:
            # A task has forked this process, and returned in it, too; its outcomes are the parent's.
            exit_forked_child(0)
        return outcomes

    def run_in_gang(self, part: Part, comm: Any, rank: int, gang: int) -> list[Outcomes]:
        """Run a call together with other workers; this one has a rank in their communicator."""
        self._context.comm, self._context.gang_rank = comm, rank
        self._gang = gang
        try:
            return self.run([part])
        finally:
            self._gang = 0
            self._context.comm = self._context.gang_rank = None

    def end_gang(self, gang: int, why: str) -> None:
        """Break off the call that runs together with others, and no other one; for another thread."""
        self._gang_ended = gang, why
        self._last_break_off = 0.0
        self.break_off()

    def failed(self, part: Part, error: BaseException) -> Outcomes:
        """The outcome of a call that could not be made."""
        failure = self._failures.of_task(part.first, self._name_of(part.function), part.attempt, error)
        return Outcomes(part.source, part.first, 1, [NO_BLOB], {0: failure}, 0.0, time.perf_counter())

    @property
    def is_running(self) -> bool:
        """Whether the calls of a batch are running."""
        return self._thread is not None

    def release_left(self) -> list[tuple[int, int]]:
        """Release the calls that did not run because the batch has ended early: first task and number.

        It was interrupted, or a call needs the result of another one of the batch, which has none.
        """
        left, self._left = self._left, []
        return left

    def _interrupt(self, error: BaseException, claims: ClaimedCalls, done: int) -> bool:
        """End the batch if the call after `done` calls was interrupted; True if that one has not failed."""
        if self._chained is not None and self._chained.is_missing(error):
            self._left.append((claims.first + done, claims.give_back(done)))
            return True
        if not issubclass(type(error), self._propagate):
            return False
        self.interrupted = error
        unfailed = interrupts.is_interrupt(error)
        ended = done if unfailed else done + 1
        if count := claims.give_back(ended):
            self._left.append((claims.first + ended, count))
        return unfailed

    def release_unstarted(self) -> tuple[list[tuple[int, int]], tuple[int, int, float] | None]:
        """Release the calls that have not started; for another thread than the one that runs them.

        Returns
        -------
        tasks, running
            As in `Returned`.
        """
        tasks = []
        while self._waiting:
            try:
                part = self._waiting.pop()
            except IndexError:  # started just now
                break
            tasks.append((part.first, part.count))
        claims = self._claims
        if claims is None:
            return tasks, None
        if count := claims.release_unstarted():
            tasks.append((claims.first + claims.end, count))
        return tasks, (claims.function, max(1, claims.claimed), time.perf_counter() - claims.started)

    def never_break_off_in(self, function: FunctionType) -> None:
        """Let a call of this function end before a task is broken off that it is a part of."""
        self._unbreakable.add(function.__code__)

    def let_others_break_off(self) -> None:
        """Let another thread break off the tasks of this one, if this is the main thread."""
        if threading.current_thread() is threading.main_thread():
            self._former_handler = signal.signal(BREAK_OFF, self._on_break_off)

    def abandon(self, farm: int) -> None:
        """Break off the task that runs, if it belongs to this farm; for another thread."""
        self._abandoned.add(farm)
        self._last_break_off = 0.0
        self.break_off()

    def cancel(self, task: int) -> None:
        """End the child process that runs a task, if one does; for another thread."""
        if self._isolated_runner is not None:
            self._isolated_runner.cancel(task)

    def break_off(self) -> None:
        """Interrupt an abandoned task, again if it goes on; for another thread."""
        if not (self._abandoned or self._gang):
            return
        claims, thread, now = self._claims, self._thread, time.perf_counter()
        if claims is None or thread is None or not self._is_abandoned(claims):
            return
        if now - self._last_break_off < BREAK_OFF_INTERVAL:
            return
        self._last_break_off = now
        if claims.function in self._limits:
            self._isolated().kill()
        else:
            signal.pthread_kill(thread, BREAK_OFF)

    def _is_abandoned(self, claims: ClaimedCalls) -> bool:
        return self._gang_ended[0] == self._gang or self._farm_of.get(claims.function) in self._abandoned

    def _on_break_off(self, signum: int, frame: FrameType | None) -> None:
        """Raise if this is inside a call of an abandoned farm: exceptions are expected only there."""
        claims = self._claims
        if claims is None or not self._is_abandoned(claims):
            return
        while frame is not None and frame.f_code not in _CALLS_TASKS:
            if frame.f_code in self._unbreakable:
                # It moves messages, which would be lost; it comes to an end, and then it is asked again.
                return
            frame = frame.f_back
        if frame is not None:
            raise TaskAbandoned(self._gang_ended[1] if self._gang else "")

    def current_stack(self) -> tuple[int, str]:
        """The task that is running, -1 if none is, and the stack of its thread; for another thread."""
        claims = self._claims
        frame = sys._current_frames().get(self._thread or 0)
        if claims is None or frame is None:
            return -1, "no task is running"
        if claims.function in self._limits:
            name, _ = self._limits[claims.function]
            task, stack = claims.first + claims.claimed - 1, self._isolated().current_stack()
        else:
            name = self._functions[claims.function].name
            task, stack = self._context.task, format_stack(frame)
        return task, f"task {task} {name}:\n{stack}"

    def _folder_of(self, function: int) -> str:
        opening = self._farms.get(self._farm_of.get(function, 0))
        return "" if opening is None else opening.folder

    def _name_of(self, function: int) -> str:
        if function in self._limits:
            return self._limits[function][0]
        return self._functions[function].name

    def close(self) -> None:
        """End the child process, if there is one, and restore the standard streams."""
        if self._signals is not None:
            self._signals.end()
        for isolated in self._each_isolated():
            isolated.close()
        self._shared_data = self._kept_results = None
        for namespace in (self.namespace, *self._namespaces.values()):
            namespace.shared_values.clear()
        if self._former_handler is not None:
            signal.signal(BREAK_OFF, self._former_handler)
            self._former_handler = None
        self.restore_output()

    def restore_output(self) -> None:
        """Restore the standard streams."""
        if self.output is not None:
            self.output.restore()
            self.output = None

    # Calls in a child process

    def _isolated(self) -> "IsolatedRunner":
        """What runs calls in a child process; most workers never need it."""
        if self._isolated_runner is None:
            from taskfarm.worker.isolation import IsolatedRunner

            self._isolated_runner = IsolatedRunner(
                self.place,
                self.namespace.definitions,
                self._farms,
                lambda: self.shared_data,
                lambda: self.nesting,
            )
            self._isolated_runner.send_output = self._send_output
        return self._isolated_runner

    def _run_isolated(self, part: Part) -> Iterator[Outcomes]:
        """Run the calls of a part one by one; their pickled results are passed on as they come."""
        function, source, first, count, calls, attempt, stream, index, units, _ = part
        name, limits = self._limits[function]
        claims = self._claims = ClaimedCalls(function, first, count, time.perf_counter())
        singles = _singles(calls)
        while claims.claim(1):
            task = first + claims.claimed - 1
            position = (stream, index + claims.claimed - 1)
            single = Part(function, source, task, 1, next(singles), attempt, *position, units)
            try:
                outcomes = _run_child(self._isolated(), single, limits)
            except BaseException as error:
                if self._interrupt(error, claims, claims.claimed - 1):
                    return
                failure = self._failures.of_task(task, name, attempt, error)
                outcomes = Outcomes(source, task, 1, [NO_BLOB], {0: failure}, 0.0, time.perf_counter())
            self.num_tasks += 1
            yield outcomes

    def _each_isolated(self) -> "list[IsolatedRunner]":
        """What runs calls in child processes: more than one if a task in one has waited."""
        spare = [] if self._nesting is None else self._nesting.spare
        return spare if self._isolated_runner is None else [self._isolated_runner, *spare]

    # Calls in this process

    def _run_part(self, part: Part) -> tuple[Outcomes, ...]:
        function, source, first, count, calls, attempt, _, _, _, _ = part
        self._loaded = loaded = self._functions[function]
        name, opening = loaded.name, self._farms.get(loaded.farm)
        results: list[Any] = []
        self._context.begin(part, name, results, 0 if opening is None else opening.seed)
        failures: dict[int, Failure] = {}
        if self._chained is not None:
            self._chained.begin(first, results, failures)
        reduction = None
        self._cpu.start()
        claims = self._claims = ClaimedCalls(function, first, count, time.perf_counter())
        try:
            failure = self._load(loaded, calls)
        except BaseException as error:
            # Only an interruption comes here.
            self._interrupt(error, claims, 0)
            return ()
        if failure is not None:
            count = self._claim_failed(part, claims)
            results = [None] * count
            failures = dict.fromkeys(range(count), failure)
        else:
            if loaded.operation is None:
                while claims.claimed < claims.end and claims.claim_next(time.perf_counter()):
                    self._collect(loaded, claims, attempt, results, failures)
            else:
                reduction = _reduction(loaded.operation)
                self._run_and_combine(reduction, loaded, claims, part, results, failures)
        seconds = time.perf_counter() - claims.started
        used = self._cpu.stop(seconds)
        self.num_tasks += claims.end
        values: Values
        covers = None
        if self._context.gang_rank:
            # The value of the first rank is the result.
            values = [NO_BLOB] * len(results)
        elif reduction is None:
            values = self._pack(results, failures, name, first)
        else:
            values, covers = self._pack_partials(reduction, part, failures, name)
        joins = self._end_nested(first) if self._context.spawned else None
        ended, started, drew = claims.end, claims.started, self._context.drew
        if not ended:
            return ()
        made = (source, first, ended, values, failures, seconds, started, *used, drew, covers, joins, None)
        return (new_tuple(Outcomes, made),)

    def _load(self, loaded: LoadedFunction, calls: Calls) -> Failure | None:
        """Make a function ready for its calls; returns why it cannot be called, if it cannot."""
        try:
            loaded.load()
            self._start(loaded, calls)
        except BaseException as error:
            if interrupts.is_interrupt(error):
                raise
            wrapped = self._failures.not_loadable("the function", error)
            return self._failures.of(f"function {loaded.name}", wrapped)
        return None

    def _claim_failed(self, part: Part, claims: ClaimedCalls) -> int:
        """Claim the calls of a part whose function cannot be loaded; returns how many fail for that."""
        if part.chained:
            # What they need may have failed for the same reason, and that comes first.
            self._left.append((part.first, claims.give_back(0)))
            return 0
        return claims.claim(part.count)

    def _start(self, loaded: LoadedFunction, calls: Calls) -> None:
        """Prepare to call a function for each call of a part."""
        if isinstance(calls, bytes):
            self._columns, self._called_with = _load_columns(calls), None
            self._step = self._moving(loaded.called) if loaded.moves else loaded.called
            self._step_restores = loaded.moves
        else:
            self._columns, self._called_with = [calls], loaded.name
            self._step, self._step_restores = self._call, True

    @interrupts.interruptible
    def _call(self, blob: Blob) -> Any:
        """Call the function of a part with the arguments in a blob."""
        loaded, chained = self._loaded, self._chained
        assert loaded is not None
        self._called_with = loaded.name
        if chained is not None and blob.results:
            blob = chained.completed(blob, usable=not self._context.spawned)
        try:
            if blob.needs:
                loaded.namespace.use(blob.needs)
            arguments, keywords = loads(blob)
        except self._propagate:
            raise
        except BaseException as error:
            wrapped = self._failures.not_loadable("an argument", error)
            if wrapped is error:
                raise
            raise wrapped from error
        try:
            return loaded.called(*arguments, **keywords)
        except BaseException:
            self._called_with = describe_call(loaded.name, arguments, keywords)
            raise
        finally:
            if self._folder.moved:
                self._folder.restore()

    def _describe_call(self, offset: int) -> str:
        """The call that has failed, in words; that of a blob must be the last one."""
        if self._called_with is not None:
            return self._called_with
        assert self._loaded is not None
        return describe_call(self._loaded.name, [column[offset] for column in self._columns], {})

    def _moving(self, called: Callable[..., Any]) -> Callable[..., Any]:
        """A function whose calls change the current folder, so that it is put back after each."""

        def call(*arguments: Any) -> Any:
            try:
                return called(*arguments)
            finally:
                if self._folder.moved:
                    self._folder.restore()

        return call

    def _next_block(self, start: int, end: int) -> Iterator[Any]:
        """An iterator that makes one of the calls from `start` to `end` a step.

        It can go on after a call that raised, and ends early if `_cut_block` has cut it.
        """
        # Copies: a call that fails later still is described.
        self._block = [
            column[start:end] if type(column) is list else list(column[start:end])
            for column in self._columns
        ]
        self._block_start = start
        return map(self._step, *self._block)

    def _stop_block(self) -> None:
        """Let the block end with the call that is running, if nothing restores the folder after that."""
        if not self._step_restores:
            self._cut_block()

    def _cut_block(self) -> int:
        """Let the block of calls that runs in C end with the call that is running; returns its end."""
        # Between two calls, what waits is a result of one that has ended.
        end = len(self._context.results) + (self._context.finished is None)
        for column in self._block:
            del column[end - self._block_start :]
        return end

    def _collect(
        self,
        loaded: LoadedFunction,
        claims: ClaimedCalls,
        attempt: int,
        results: list[Any],
        failures: dict[int, Failure],
    ) -> None:
        """Draw a result for each claimed call; one that raises leaves None there, and a failure."""
        steps: Iterator[Any] | None = None
        while (offset := len(results)) < claims.claimed:
            steps = steps or self._next_block(offset, claims.claimed)
            error: BaseException | None = None
            try:
                _call_next(results, steps)
                if not self._folder.moved:
                    if len(results) >= claims.claimed:
                        return
                    error = StopIteration()
            except BaseException as raised:
                error = raised
            # What was raised after the last of these calls came too late for them.
            if error is not None and (len(results) < claims.claimed or interrupts.is_interrupt(error)):
                offset = len(results)
                if self._interrupt(error, claims, offset):
                    return
                call = self._describe_call(offset)
                failures[offset] = self._failures.of_task(claims.first + offset, call, attempt, error)
                results.append(None)
            if self._folder.moved:
                self._folder.restore()
                # Look after each call from now on.
                loaded.moves = self._step_restores = True
                self._step, steps = self._moving(loaded.called), None

    def _run_and_combine(
        self,
        reduction: "Reduction",
        loaded: LoadedFunction,
        claims: ClaimedCalls,
        part: Part,
        results: list[Any],
        failures: dict[int, Failure],
    ) -> None:
        """Run calls, and combine their results as soon as there are some worth the while.

        Many small results in a row are combined at little cost; results that take longer may be large.
        """
        start, since = 0, claims.started
        while claims.claimed < claims.end and claims.claim_next(time.perf_counter()):
            self._collect(loaded, claims, part.attempt, results, failures)
            if time.perf_counter() - since >= MAX_BLOCK_SECONDS:
                self._combine(reduction, part, claims, start, results, failures)
                start, since = len(results), time.perf_counter()
        if start < len(results):
            self._combine(reduction, part, claims, start, results, failures)

    def _combine(
        self,
        reduction: "Reduction",
        part: Part,
        claims: ClaimedCalls,
        start: int,
        results: list[Any],
        failures: dict[int, Failure],
    ) -> None:
        """Hand the results from offset `start` on to a reduction; None takes their place.

        What the operation raises is left to rank 0, where it is called with the same values again.
        """
        if self._context.spawned:
            self._await_returned(claims, part.attempt, start, results, failures)
        stop = len(results)
        for end in [*sorted(offset for offset in failures if offset >= start), stop]:
            run, results[start:end] = results[start:end], [None] * (end - start)
            try:
                _combine_next(reduction, part.index + start, run)
            except BaseException as error:
                if interrupts.is_interrupt(error) and not self._interrupt(error, claims, stop):
                    interrupts.postpone(error)
            start = end + 1

    def _pack_partials(
        self, reduction: "Reduction", part: Part, failures: dict[int, Failure], name: str
    ) -> tuple[Values, list[tuple[int, int]]]:
        """Pickle partial values as `_pack` does results; also returns which tasks each of them covers."""
        nodes = [(place - part.index, size, value) for place, size, value in reduction.nodes()]
        values = [value for _, _, value in nodes]
        if (plain := dump_if_plain(values)) is not None:
            return plain, [(offset, size) for offset, size, _ in nodes]
        blobs, covers = [], []
        for offset, size, value in nodes:
            failed: dict[int, Failure] = {}
            (blob,) = self._pickled([value], failed, name, part.first + offset)
            if failed:
                failures.update(dict.fromkeys(range(offset, offset + size), failed[0]))
            else:
                blobs.append(blob)
                covers.append((offset, size))
        return blobs, covers

    def _pack(self, results: list[Any], failures: dict[int, Failure], name: str, first: int) -> Values:
        """Pickle results together if all are plain, else each by itself; a bad one becomes a failure."""
        try:
            plain = dump_if_plain(results)
        except MemoryError:
            plain = None
        return self._pickled(results, failures, name, first) if plain is None else plain

    def _pickled(
        self, results: list[Any], failures: dict[int, Failure], name: str, first: int
    ) -> list[Blob]:
        blobs = []
        for offset, result in enumerate(results):
            blob = NO_BLOB
            if offset not in failures:
                try:
                    blob = self._pickled_one(first + offset, offset, result)
                except self._propagate:
                    raise
                except BaseException as error:
                    failures[offset] = self._failures.of_result(first + offset, name, result, error)
            blobs.append(blob)
        return blobs

    def _pickled_one(self, task: int, offset: int, result: Any) -> Blob:
        if self._context.spawned:
            return self._dumps(offset, result)
        known = None if self._chained is None else self._chained.pickled(task)
        return dumps(result) if known is None else known

    # Tasks that submit tasks

    def _dumps(self, offset: int, result: Any) -> Blob:
        """Pickle a result that may contain futures."""
        from taskfarm.worker.child_futures import pickled_with_futures

        self._context.finished = offset
        try:
            blob, numbers = pickled_with_futures(result, dumps)
        finally:
            self._context.finished = None
        if numbers:
            self._context.joins[offset] = numbers
        return blob  # type: ignore[no-any-return]

    def _await_returned(
        self,
        claims: ClaimedCalls,
        attempt: int,
        start: int,
        results: list[Any],
        failures: dict[int, Failure],
    ) -> None:
        """Replace futures in the results from offset `start` on: they are combined here and now."""
        from taskfarm.worker.child_futures import without_futures

        for offset in range(start, len(results)):
            if offset in failures:
                continue
            self._context.finished = offset
            try:
                results[offset] = without_futures(results[offset], dumps, self.nesting.load)
            except BaseException as error:
                if interrupts.is_interrupt(error):
                    raise
                call = self._describe_call(offset)
                failures[offset] = self._failures.of_task(claims.first + offset, call, attempt, error)
                results[offset] = None
            finally:
                self._context.finished = None

    def _end_nested(self, first: int) -> dict[int, list[int]] | None:
        """Forget what the tasks of a part have submitted; returns the futures in their results."""
        if self._chained is not None:
            self._chained.forget(first)
        self.spawner.end_tasks(self._context.spawned)
        joins, self._context.joins = self._context.joins, {}
        return joins or None

    def release_behind(self) -> list[tuple[int, int]]:
        """Release the calls of this batch that would wait behind the one that is running."""
        tasks, _ = self.release_unstarted()
        claims, loaded = self._claims, self._loaded
        if claims is None or claims.function in self._limits or loaded is None or loaded.moves:
            return tasks
        done = self._cut_block()
        if count := claims.give_back(done):
            tasks.append((claims.first + done, count))
        return tasks


def _chained_results() -> "ChainedResults":
    """What keeps the results of a batch for calls of the same batch; most batches need none."""
    from taskfarm.worker.chained_results import ChainedResults

    return ChainedResults()


def _reduction(operation: "Operation") -> "Reduction":
    """What combines the results of a part; most workers never need it."""
    from taskfarm.protocol.reduction import Reduction

    return Reduction(operation)


@interrupts.interruptible
def _call_next(results: list[Any], steps: Iterator[Any]) -> None:
    """Make the calls of a block; all code of a task runs in here."""
    # extend runs the loop in C, and keeps what it has when a step raises.
    results.extend(steps)


@interrupts.interruptible
def _combine_next(reduction: "Reduction", first: int, values: list[Any]) -> None:
    reduction.extend(first, values)


_CALLS_TASKS = (_call_next.__code__, _combine_next.__code__)
"""The code of the frames below which an exception may come."""


@interrupts.interruptible
def _run_child(isolated: "IsolatedRunner", part: Part, limits: Limits) -> Outcomes:
    return isolated.run(part, limits)


def _load_columns(calls: bytes) -> list[Any]:
    """The columns of plain calls; a column of handles is replaced by their values."""
    columns: list[Any] = load_plain(calls)
    # Without a handle, no worker has loaded this.
    shared = sys.modules.get("taskfarm.protocol.shared")
    if shared is None:
        return columns
    return [
        list(map(shared.value_of, column)) if type(column[0]) is shared.Shared else column
        for column in columns
    ]


def _singles(calls: Calls) -> Iterator[Calls]:
    """The calls of a part, each in the form of a part with one call."""
    if isinstance(calls, bytes):
        for row in zip(*load_plain(calls), strict=True):
            yield dump_plain([(cell,) for cell in row])
    else:
        for blob in calls:
            yield [blob]
