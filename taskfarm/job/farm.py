"""`Farm`, an executor on MPI ranks."""

import concurrent.futures
import operator
import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, Self, TypeVar, cast, overload

from taskfarm import interrupts
from taskfarm.errors import CallNotPicklable, UsageError, wrap
from taskfarm.job.arrays import Blocks, BlocksRun, Points, PointsRun, task_of_blocks
from taskfarm.job.background import background_thread
from taskfarm.job.current_farm import registry
from taskfarm.job.decorator import bind_constants, with_options
from taskfarm.job.expecting import expect_calls
from taskfarm.job.futures import Future
from taskfarm.job.gc_threshold import GcThreshold
from taskfarm.job.html import table
from taskfarm.job.maps import MapArguments, MapOptions, MapRun
from taskfarm.job.reducing import ReductionRun, task_to_reduce
from taskfarm.master.master import Master
from taskfarm.protocol.arguments import Arguments
from taskfarm.protocol.outcomes import Completed, apply_on_error
from taskfarm.protocol.reduction import NO_INITIAL
from taskfarm.protocol.serialize import dumps
from taskfarm.protocol.shared import as_value
from taskfarm.worker.context import IN_TASK, refuse_in_task

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from mpi4py import MPI

    from taskfarm.job.task_types import TaskWithReplacedErrors


P = ParamSpec("P")
T = TypeVar("T")
Run = TypeVar("Run", bound=MapRun)
E = TypeVar("E")
F = TypeVar("F", bound="Farm")


class Farm(concurrent.futures.Executor):
    """An executor whose workers are the other MPI ranks; with a single rank, tasks run in this process.

    Several farms may be open at a time, also in several threads. They share the workers' time evenly; each
    has an initializer, a seed and a shutdown of its own. ``@task`` functions use the farm of the innermost
    ``with`` block of their thread, or else the farm that was opened last and is still open.

    Parameters
    ----------
    max_workers : int, optional
        Most workers that run tasks of this farm at a time; by default all.
    mp_context : object
        Has no effect; a warning says so.
    initializer : callable, optional
        Called on every worker before its first task of this farm.
    initargs : tuple
        The arguments of the initializer.
    max_tasks_per_child : int, optional
        If given, all tasks run in child processes of the workers, as with ``task(isolate=True)``, and
        each child is replaced after so many tasks.
    seed : int, optional
        The seed of `taskfarm.rng` in the tasks of this farm; they are numbered for themselves then. By
        default all farms share the seed of ``--seed``, or a random one, and the numbers.

    Raises
    ------
    ValueError, TypeError
        An argument is wrong, as for `concurrent.futures.ProcessPoolExecutor`.
    UsageError
        The caller is a task.
    LaunchError
        Several processes were started, but not by ``python -m taskfarm run``.
    CallNotPicklable
        The initializer or one of its arguments cannot be pickled.
    """

    _can_be_current = True
    _given_master: Master | None = None

    def __init__(
        self,
        max_workers: int | None = None,
        mp_context: object = None,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        *,
        max_tasks_per_child: int | None = None,
        seed: int | None = None,
    ) -> None:
        refuse_in_task()
        if registry.current_master is not None:
            registry.current_master.refuse_forked_child()
        registry.prepare_to_open()
        if mp_context is not None:
            warn_of_ignored("mp_context", stacklevel=3)
        limit = _check_max_workers(max_workers)
        max_tasks = _check_max_tasks(max_tasks_per_child)
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        blob = None
        if initializer is not None:
            try:
                blob = dumps((initializer, tuple(map(as_value, initargs))))
            except Exception as error:
                raise wrap(
                    CallNotPicklable, error, f"the initializer cannot be pickled: {error}"
                ) from error
        seed = None if seed is None else operator.index(seed)
        interrupts.install()
        self._owns_master = self._given_master is not None
        self._master = master = self._given_master or _current_master()
        self._background = background_thread(master)
        self._gc_threshold = GcThreshold()
        self._farm = master.open_farm(blob, seed, limit, max_tasks)
        chosen = master.chosen_seed if seed is None else seed
        master.outstanding.open_farm(self._farm.id, initializer, initargs, chosen)
        self._functions = self._farm.functions
        self._closed = self._closing = False
        # An executor that nobody refers to any more can get no tasks.
        weakref.finalize(self, master.dropped_farms.append, self._farm).atexit = False
        registry.add(self, self._can_be_current)

    @classmethod
    def from_comm(
        cls, comm: "MPI.Intracomm", root: int = 0, **kwargs: Any
    ) -> "AbstractContextManager[Farm | None]":
        """Open a farm on the ranks of a communicator, in a program that all of them run.

        Collective. On the root, returns the farm. The other ranks serve as its workers inside this call,
        and then return a context manager that yields None. A rank whose `comm` is ``MPI.COMM_NULL`` takes
        no part: it gets None at once.

        An exception of the block is raised on the root; the other ranks have left the block, and go on. A
        worker that is interrupted (``SIGINT``) leaves the block with KeyboardInterrupt. The root runs its
        tasks on other workers, and raises `WorkerLost` if there are none.

        Under ``python -m taskfarm run`` only rank 0 runs the program, and all other ranks are its workers,
        whatever `comm` and `root` are.

        Parameters
        ----------
        comm : mpi4py.MPI.Intracomm
            Any intracommunicator; the farm works on a duplicate of it.
        root : int
            The rank in `comm` that gets the farm. It counts as rank 0 in tasks and messages.
        **kwargs
            As for `Farm`.

        Raises
        ------
        TypeError, ValueError
            `comm` is not an intracommunicator, or `root` is not one of its ranks.
        UsageError
            The caller is a task, MPI is not running, or another farm is open.
        LaunchError
            The launcher belongs to another MPI than mpi4py.
        """
        from taskfarm.job.spmd import open_block

        return open_block(cls, comm, root, kwargs)

    def __repr__(self) -> str:
        """Show the number of workers and of unfinished tasks."""
        state = "closed" if self._closed else f"{self._master.scheduler.unfinished:,} tasks unfinished"
        return f"<Farm of {self.num_workers} workers: {state}>"

    def _repr_html_(self) -> str:
        """What a notebook shows: the workers, and the tasks of all farms by state."""
        counts = self._master.scheduler.counts()
        rows = {
            "state": "closed" if self._closed else "open",
            "workers": self.num_workers,
            "busy workers": counts.busy,
            "tasks queued": counts.queued,
            "waiting for others": counts.waiting,
            "running": counts.assigned,
            "done": counts.done,
            "failed": counts.failed,
            "not run": counts.not_run,
            "cancelled": counts.cancelled,
        }
        return table("Farm", rows)

    @property
    def num_workers(self) -> int:
        """Number of ranks that run tasks of this farm; 1 if this process runs them."""
        workers, limit = self._master.num_workers, self._farm.tasks.max_workers
        return workers if limit is None else min(workers, limit)

    @property
    def closed(self) -> bool:
        """Whether the farm takes no more tasks."""
        return self._closed

    def shares_master_with(self, other: object) -> bool:
        """Whether it has the same workers as another farm."""
        return isinstance(other, Farm) and other is not self and other._master is self._master

    @overload
    def submit(
        self, fn: "TaskWithReplacedErrors[P, T, E]", /, *args: P.args, **kwargs: P.kwargs
    ) -> "Future[T | E]": ...
    @overload
    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]: ...
    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Queue a call; see `concurrent.futures.Executor.submit`.

        Returns the future of the call.
        """
        self._check_open()
        master = self._master
        if master.scheduler.idle:
            master.rouse_worker()
        future: Future[Any] = Future(master, self._farm.id)
        try:
            function = self._functions.register(fn)
        except CallNotPicklable as error:
            future.complete(Completed.failed(0, error))
            return future
        arguments = Arguments.from_call(args, kwargs)
        if arguments.futures:
            arguments.refuse_others(master, self._farm.id)
        if arguments.errors:
            future.complete(
                apply_on_error(Completed.failed(0, arguments.errors[0]), None, function.policy.on_error)
            )
            return future
        if function.demand is not None:
            master.await_hosts(function)
            if function.demand.by_call:
                expect_calls(function, arguments)
        future.task_id = master.queue_call(function, arguments, future)
        if arguments.futures or function.futures:
            master.watch(function, arguments)
        if master.outstanding.journal is not None:
            master.deliver_restored()
        try:
            self._run_queued()
        except BaseException:
            # Of an interruption: nobody has this future.
            future.cancel()
            raise
        return future

    @overload
    def map(
        self,
        fn: "TaskWithReplacedErrors[..., T, E]",
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int | None = None,
        buffersize: int | None = None,
        unordered: bool = False,
        with_arguments: Literal[False] = False,
        priority: float | None = None,
        order: str | None = None,
    ) -> Iterator[T | E]: ...
    @overload
    def map(
        self,
        fn: "TaskWithReplacedErrors[..., T, E]",
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int | None = None,
        buffersize: int | None = None,
        unordered: bool = False,
        with_arguments: Literal[True],
        priority: float | None = None,
        order: str | None = None,
    ) -> Iterator[tuple[Any, T | E]]: ...
    @overload
    def map(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int | None = None,
        buffersize: int | None = None,
        unordered: bool = False,
        with_arguments: Literal[False] = False,
        priority: float | None = None,
        order: str | None = None,
    ) -> Iterator[T]: ...
    @overload
    def map(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int | None = None,
        buffersize: int | None = None,
        unordered: bool = False,
        with_arguments: Literal[True],
        priority: float | None = None,
        order: str | None = None,
    ) -> Iterator[tuple[Any, T]]: ...
    def map(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int | None = None,
        buffersize: int | None = None,
        unordered: bool = False,
        with_arguments: bool = False,
        priority: float | None = None,
        order: str | None = None,
    ) -> Iterator[Any]:
        """Call a function for all items of some iterables, which are drawn as needed.

        Parameters
        ----------
        fn : callable
            The function.
        *iterables : iterables
            One per positional argument; they may be infinite.
        timeout : float, optional
            Seconds from this call after which waiting for a result raises TimeoutError.
        chunksize : int, optional
            Tasks to send together; by default the farm measures the best number.
        buffersize : int, optional
            Maximum number of tasks drawn ahead of what the caller has consumed; by default the farm
            decides from run times and memory.
        unordered : bool
            Yield results as they arrive, not in the order of the arguments.
        with_arguments : bool
            Yield pairs: the arguments of a call (a tuple, or the item itself if there is one iterable), and
            its result.
        priority : float, optional
            Tasks with a higher one start sooner; by default that of the function, or 0.
        order : {"submitted", "longest"}, optional
            Which tasks start first. The longest first needs to know which they are: give the task
            ``expect=``, a function of its arguments. It looks at the next 65,536 calls.

        Returns
        -------
        iterator
            The results. An exception of a task is raised in place of its result, and ends the map.
        """
        options = MapOptions(timeout, chunksize, buffersize, unordered, with_arguments)
        fn = with_options(fn, priority=priority, order=order)
        return self._run_map(fn, MapArguments(iterables, star=False, keep=with_arguments), options)

    @overload
    def starmap(
        self,
        fn: "TaskWithReplacedErrors[..., T, E]",
        tuples: Iterable[Iterable[Any]],
        timeout: float | None = None,
        chunksize: int | None = None,
        buffersize: int | None = None,
        unordered: bool = False,
        with_arguments: Literal[False] = False,
        priority: float | None = None,
        order: str | None = None,
    ) -> Iterator[T | E]: ...
    @overload
    def starmap(
        self,
        fn: "TaskWithReplacedErrors[..., T, E]",
        tuples: Iterable[Iterable[Any]],
        timeout: float | None = None,
        chunksize: int | None = None,
        buffersize: int | None = None,
        unordered: bool = False,
        *,
        with_arguments: Literal[True],
        priority: float | None = None,
        order: str | None = None,
    ) -> Iterator[tuple[Any, T | E]]: ...
    @overload
    def starmap(
        self,
        fn: Callable[..., T],
        tuples: Iterable[Iterable[Any]],
        timeout: float | None = None,
        chunksize: int | None = None,
        buffersize: int | None = None,
        unordered: bool = False,
        with_arguments: Literal[False] = False,
        priority: float | None = None,
        order: str | None = None,
    ) -> Iterator[T]: ...
    @overload
    def starmap(
        self,
        fn: Callable[..., T],
        tuples: Iterable[Iterable[Any]],
        timeout: float | None = None,
        chunksize: int | None = None,
        buffersize: int | None = None,
        unordered: bool = False,
        *,
        with_arguments: Literal[True],
        priority: float | None = None,
        order: str | None = None,
    ) -> Iterator[tuple[Any, T]]: ...
    def starmap(
        self,
        fn: Callable[..., T],
        tuples: Iterable[Iterable[Any]],
        timeout: float | None = None,
        chunksize: int | None = None,
        buffersize: int | None = None,
        unordered: bool = False,
        with_arguments: bool = False,
        priority: float | None = None,
        order: str | None = None,
    ) -> Iterator[Any]:
        """Call a function with each tuple as its arguments; otherwise like `map`."""
        options = MapOptions(timeout, chunksize, buffersize, unordered, with_arguments)
        fn = with_options(fn, priority=priority, order=order)
        return self._run_map(fn, MapArguments([tuples], star=True, keep=with_arguments), options)

    def _run_map(self, fn: Callable[..., T], arguments: MapArguments, options: MapOptions) -> Iterator[T]:
        return self._start_map(MapRun, fn, arguments, options).results()

    def _start_map(
        self, kind: type[Run], fn: Callable[..., Any], arguments: MapArguments, options: MapOptions
    ) -> Run:
        self._check_open()
        self._farm.check_usable()
        options.checked()
        with self._master.working():
            function = self._functions.register(fn)
        if function.demand is not None:
            self._master.await_hosts(function)
            self._master.check_needs(function)
            if function.demand.longest and not function.demand.by_call:
                warnings.warn(
                    f"order='longest' has no effect on this map: give {function.name} expect=, a function "
                    "of its arguments",
                    stacklevel=4,
                )
        run = kind(self._master, function, arguments, options)
        run.feed()
        self._wake_background()
        return run

    @overload
    def reduce(
        self,
        fn: "TaskWithReplacedErrors[..., T, E]",
        operation: Callable[[T | E, T | E], T | E],
        *iterables: Iterable[Any],
        initial: T | E = ...,
        timeout: float | None = None,
        chunksize: int | None = None,
    ) -> T | E: ...
    @overload
    def reduce(
        self,
        fn: Callable[..., T],
        operation: Callable[[T, T], T],
        *iterables: Iterable[Any],
        initial: T = ...,
        timeout: float | None = None,
        chunksize: int | None = None,
    ) -> T: ...
    def reduce(
        self,
        fn: Callable[..., Any],
        operation: Callable[[Any, Any], Any],
        *iterables: Iterable[Any],
        initial: Any = NO_INITIAL,
        timeout: float | None = None,
        chunksize: int | None = None,
    ) -> Any:
        """Combine the results of a map to one value, on the workers as far as these have neighbours.

        The value is that of ``functools.reduce(operation, map(fn, *iterables), initial)`` if the operation
        is associative; it need not be commutative. The order in which results are combined depends only on
        their positions: results 0 and 1, results 2 and 3, then these two pairs, and so on. So
        floating-point numbers are the same to the last bit for any number of workers, after retries, losses
        and a resume, and their rounding error grows with the logarithm of their number: pairwise summation
        (N. J. Higham, SIAM J. Sci. Comput. 14, 783 (1993)). A loop adds in another order, so its last bits
        differ.

        Parameters
        ----------
        fn : callable
            The function.
        operation : callable
            Called with two neighbouring values, returns their combination, for example `operator.add` or
            ``numpy.add``. A numpy ufunc writes into arrays that it has made before.
        *iterables : iterables
            One per positional argument; they are drawn as needed.
        initial : object, optional
            Combined once, on the left of all results.
        timeout : float, optional
            Seconds after which waiting raises TimeoutError.
        chunksize : int, optional
            Tasks to send together; by default the farm measures the best number.

        Returns
        -------
        object
            The value; `initial` if there are no calls.

        Raises
        ------
        TypeError
            There are no calls, and no `initial`.
        TimeoutError
            Not all tasks have ended in time.
        BaseException
            What a call, the operation or an iterable has raised; of several calls, the first by position.
        """
        options = MapOptions(timeout, chunksize, unordered=True)
        arguments = MapArguments(iterables, star=False)
        run = self._start_map(ReductionRun, task_to_reduce(fn, operation), arguments, options)
        return run.reduce(operation, initial)

    def map_array(
        self,
        fn: Callable[..., Any],
        array: Any,
        /,
        *arrays: Any,
        rows: int | None = None,
        out: Any = None,
        axis: int = 0,
        timeout: float | None = None,
        **constants: Any,
    ) -> Any:
        """Call a function with blocks of whole rows of some arrays; the blocks it returns make one array.

        Parameters
        ----------
        fn : callable
            Called with one block of each array: a C-contiguous ndarray of the same number of dimensions, in
            memory that the call may write to; of a masked array or another subclass, one of that. It
            returns a block of the same length along `axis`.
        array, *arrays : array_like, shape (..., n, ...)
            The arrays, which are cut alike. What only has a shape, a dtype and slices is read block by
            block. An array that shares memory with other elements of `out` is copied first.
        rows : int, optional
            Rows in a block. By default there are about 256 blocks, of at least 256 KiB and at most 4 MiB,
            in and out together. This does not depend on the number of workers, and neither do random
            numbers, rounding and the journal.
        out : object, optional
            Where results go: an array or a memmap, cast as ufuncs do (``same_kind``), or anything that can
            be assigned to by index. By default a new array, whose type and other lengths are those of the
            first block by position.
        axis : int
            The axis along which the arrays are cut.
        timeout : float, optional
            Seconds after which waiting raises TimeoutError.
        **constants
            Passed to every call, and sent once.

        Returns
        -------
        ndarray
            All blocks, in order; or `out`.

        Raises
        ------
        ValueError
            The arrays cannot be cut alike, a block has a wrong shape, or there are no rows and no `out`.
        TypeError
            A block cannot be cast, or a keyword is no parameter of the function.
        TimeoutError
            Not all blocks have come back in time.
        BaseException
            What a call has raised; of several, the first by position. Other blocks may be in `out` by then.
        """
        rows = None if rows is None else _check_rows(rows)
        blocks = Blocks([array, *arrays], axis, rows, out)
        called = bind_constants(fn, (array, *arrays), constants, ("rows", "out", "axis", "timeout"))
        if not blocks.num_rows and out is None:
            raise ValueError(
                "map_array of arrays without rows does not know the shape of a result: pass out="
            )
        options = MapOptions(timeout, unordered=True)
        arguments = MapArguments([blocks], star=True)
        run = self._start_map(BlocksRun, task_of_blocks(called, blocks.axis), arguments, options)
        return run.fill_blocks(blocks, out)

    def over(
        self,
        fn: Callable[..., Any],
        /,
        *arrays: Any,
        out: Any = None,
        timeout: float | None = None,
        **constants: Any,
    ) -> Any:
        """Call a function of numbers for all elements of arrays, which are broadcast against each other.

        Each element is a task: with random numbers, an entry in the journal and retries of its own.

        Parameters
        ----------
        fn : callable
            Called with one Python number of each array. It returns a number, or an array, tuple or list
            whose shape is always the same.
        *arrays : array_like
            The arrays, for example ``x[:, None]`` and ``y`` for all pairs.
        out : ndarray, shape (broadcast shape, shape of a result), optional
            Where results go, cast as ufuncs do (``same_kind``). By default a new array of the type of the
            first result; of objects, if that is a text.
        timeout : float, optional
            Seconds after which waiting raises TimeoutError.
        **constants
            Passed to every call, and sent once.

        Returns
        -------
        ndarray, shape (broadcast shape, shape of a result)
            The results; or `out`.

        Raises
        ------
        ValueError
            The arrays cannot be broadcast or have masked elements, results differ in shape, or there are no
            elements and no `out`.
        TypeError
            A result cannot be cast, there is no array, or a keyword is no parameter of the function.
        TimeoutError
            Not all results have come in time.
        BaseException
            What a call has raised; of several, the first by position.
        """
        if not arrays:
            raise TypeError("over() takes at least one array: pass one for each parameter of the function")
        points = Points(arrays, out)
        called = bind_constants(fn, arrays, constants, ("out", "timeout"))
        if not points.size and out is None:
            raise ValueError(
                "over() of arrays without elements does not know the type of a result: pass out="
            )
        options = MapOptions(timeout, unordered=True)
        run = self._start_map(PointsRun, called, MapArguments(points.columns(), star=False), options)
        return run.fill_points(points, out)

    def _run_queued(self) -> None:
        """Run or send the tasks that were just queued, or make sure that a thread will."""
        master = self._master
        if master.transport.inline:
            # What a callback submits runs after it, not inside it.
            if not master.delivering:
                master.run_until(lambda: master.is_idle(self._farm))
            return
        if (background := self._background) is not None and not background.awake:
            background.wake()
        master.run_if_due()

    def _wake_background(self) -> None:
        if self._background is not None:
            self._background.wake()

    def _check_open(self) -> None:
        if IN_TASK.get() is not None:
            refuse_in_task()
        if not (self._closed or self._closing or registry.ending or registry.over):
            return
        in_callback = self._master.delivering
        if registry.over or (registry.ending and not in_callback):
            raise UsageError("cannot schedule new futures after interpreter shutdown")
        if self._closed or (self._closing and not in_callback):
            raise UsageError("cannot schedule new futures after shutdown")

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Accept no more tasks; see `concurrent.futures.Executor.shutdown`.

        Parameters
        ----------
        wait : bool
            Whether to wait until every task has ended and every callback has run, with the tasks that
            callbacks submit meanwhile, and those of maps that nobody has begun to consume.
        cancel_futures : bool
            Whether to cancel the tasks that have not started; without `wait`, only those in the queue.
        """
        try:
            self._shutdown(wait, cancel_futures)
        except BaseException:
            if self._owns_master:
                self._leave_block()
            raise

    def _shutdown(self, wait: bool, cancel_futures: bool) -> None:
        master, farm = self._master, self._farm
        if master.closed or master.forked:
            # In a forked process: it ends, and the farm is its parent's.
            return
        if not self._closed:
            # Only callbacks may still submit.
            self._closing = True
            try:
                if wait and not cancel_futures:
                    master.finish(farm)
                elif not cancel_futures:
                    master.finish_maps(farm.id)
            finally:
                self._close()
        if cancel_futures:
            self._cancel(wait or self._owns_master)
        if wait or self._owns_master:
            master.finish(farm)
            if not master.farms:
                with master.lock:
                    master.scheduler.check()
            self._end()

    def _close(self) -> None:
        """Accept no more tasks."""
        self._closed = True
        self._gc_threshold.restore()
        registry.remove(self)
        self._master.close_farm(self._farm)

    def _leave_block(self) -> None:
        """Let the ranks that serve only this farm leave it, whatever has kept it from ending properly."""
        self._close()
        self._master.cancel_all()
        self._master.drain()
        self._end()
        self._master.cancel_all()

    def abandon(self) -> None:
        """Shut down at once: cancel what has not started, and wait for nothing, not even at the end."""
        self.shutdown(wait=False, cancel_futures=True)
        self._master.abandon_farm(self._farm)
        registry.forget(self)

    def _cancel(self, wait: bool) -> None:
        """Cancel the tasks that have not started; with `wait`, also those that workers can return."""
        master, farm = self._master, self._farm
        for feeder in master.feeders_of(farm.id):
            feeder.close()
        if not farm.tasks.unfinished:
            return
        master.cancel_all(farm.id)
        if wait:
            master.drain(True, farm.id)
            try:
                master.run_until(lambda: not farm.tasks.assigned)
                master.cancel_all(farm.id)
            finally:
                master.drain(False, farm.id)
        # There may be no other thread that delivers the cancellations.
        master.run_once()

    def _end(self) -> None:
        registry.forget(self)
        master = self._master
        if self._owns_master:
            from taskfarm.job.spmd import end_block

            registry.close_others(self)
            try:
                end_block(master)
            finally:
                self._owns_master = not master.closed
                if master.closed and self._background is not None:
                    self._background.stop()
        if registry.any_open is None:
            interrupts.restore()

    def __enter__(self) -> Self:
        registry.enter(self)
        return self

    def __exit__(self, exc_type: type[BaseException] | None, *_: object) -> None:
        """Wait for all tasks; after an exception, cancel those that have not started and do not wait."""
        failed = exc_type is not None
        self.shutdown(wait=not failed, cancel_futures=failed)


def _current_master() -> Master:
    """The master of the current farm, which may be one on a communicator; else that of this run."""
    farm = registry.current
    if farm is None and registry.current_master is None:
        farm = registry.any_open
    return registry.master if farm is None else cast("Farm", farm)._master


def warn_of_ignored(argument: str, stacklevel: int) -> None:
    """Warn that an argument of another library's constructor has no effect."""
    text = f"the argument {argument!r} has no effect: workers are ranks that run already"
    warnings.warn(text, UserWarning, stacklevel=stacklevel)


def _check_max_workers(value: int | None) -> int | None:
    """Return the number as an integer; raises what the standard library raises."""
    if value is None:
        return None
    if value <= 0:
        raise ValueError("max_workers must be greater than 0")
    return operator.index(value)


def _check_rows(value: int) -> int:
    """Return the number of rows in a block as an integer."""
    rows = operator.index(value)
    if rows < 1:
        raise ValueError(f"rows must be at least 1, not {rows}")
    return rows


def _check_max_tasks(value: int | None) -> int:
    """Return the number, 0 for None; raises what the standard library raises."""
    if value is None:
        return 0
    if not isinstance(value, int):
        raise TypeError("max_tasks_per_child must be an integer")
    if value <= 0:
        raise ValueError("max_tasks_per_child must be >= 1")
    return value


def open_on(cls: type[F], master: Master | None, can_be_current: bool = True, **options: Any) -> F:
    """Open a farm of a class, with these options.

    Parameters
    ----------
    cls : type
        The class.
    master : Master or None
        What runs its tasks, and ends with it; None: the master of this process, for all farms.
    can_be_current : bool
        Whether tasks use it that name no farm.
    **options
        As for the class.
    """
    farm = cls.__new__(cls)
    farm._given_master = master
    farm._can_be_current = cls._can_be_current and can_be_current
    farm.__init__(**options)  # type: ignore[misc]
    return farm


def current_farm() -> Farm:
    """Return the current farm, or the default one, which the first call opens.

    Raises
    ------
    UsageError
        The caller is a task.
    """
    refuse_in_task()
    farm = registry.current
    if farm is None:
        with registry.lock:
            farm = registry.current
            if farm is None:
                if registry.ending:
                    raise UsageError("cannot schedule new futures after interpreter shutdown")
                farm = registry.default = open_on(Farm, None, can_be_current=False)
    return cast("Farm", farm)
