"""`Farm`, an executor over the ranks of MPI."""

import atexit
import concurrent.futures
import operator
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from taskfarm.errors import CallNotPicklable, UsageError
from taskfarm.job.background import Background
from taskfarm.job.current_farm import home, refuse_in_task
from taskfarm.job.futures import Future
from taskfarm.job.gc_threshold import Seldom
from taskfarm.job.maps import ArgumentSource, MapOptions, MapRun
from taskfarm.master.master import Master
from taskfarm.protocol.arguments import Arguments
from taskfarm.protocol.outcomes import Completed, apply_on_error
from taskfarm.protocol.serialize import dumps

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from mpi4py import MPI

P = ParamSpec("P")
T = TypeVar("T")


class Farm(concurrent.futures.Executor):
    """An executor whose workers are the other ranks of MPI; with one rank, this process itself.

    Parameters
    ----------
    initializer : callable, optional
        Called on every worker before its first task.
    initargs : tuple
        Its arguments.
    seed : int, optional
        What `taskfarm.rng` in its tasks depends on; by default that of ``--seed``, or a random one.

    Raises
    ------
    UsageError
        Another farm is open, or the caller is a task.
    LaunchError
        Several processes were started, but not by ``python -m taskfarm run``.
    CallNotPicklable
        The initializer or an argument of it cannot be pickled.
    """

    def __init__(
        self,
        *,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        seed: int | None = None,
        _master: Master | None = None,
        _default: bool = False,
    ) -> None:
        refuse_in_task()
        if home.farm is not None:
            raise UsageError("a farm is open already: leave its `with` block first, or use it")
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        blob = None
        if initializer is not None:
            try:
                blob = dumps((initializer, tuple(initargs)))
            except Exception as error:
                raise CallNotPicklable(f"the initializer cannot be pickled: {error}") from error
        home.close_default()
        self._owns_master = _master is not None
        self._master = _master or home.master
        if seed is not None:
            self._master.seed = operator.index(seed)
        # An earlier farm that was shut down without waiting may still have running tasks.
        self._master.run_until(lambda: not self._master.scheduler.unfinished)
        self._closed = False
        self._background: Background | None = None
        if self._master.transport.threads:
            self._background = Background(self._master)
            self._background.start()
        if not _default:
            home.farm = self
        self._at_exit = partial(self.shutdown, cancel_futures=True)
        atexit.register(self._at_exit)
        self._collector = Seldom()
        self._master.accepting = True
        self._master.open_farm(blob)

    @classmethod
    def from_comm(cls, comm: "MPI.Intracomm", **kwargs: Any) -> "AbstractContextManager[Farm | None]":
        """A farm over the ranks of a communicator, in a program that all of them run.

        Collective. Rank 0 gets the farm; the others serve as its workers inside this call, and
        then get a context manager that gives None.

        Parameters
        ----------
        comm : mpi4py.MPI.Intracomm
            Any intracommunicator; a duplicate of it is used.
        **kwargs
            As for `Farm`.
        """
        import contextlib

        from taskfarm.transport.mpi import MpiTransport
        from taskfarm.worker.worker import Worker

        if comm.Get_size() == 1:
            from taskfarm.worker.local import LocalTransport

            return cls(_master=Master(LocalTransport()), **kwargs)
        transport = MpiTransport(comm)
        if transport.rank:
            Worker(transport).serve()
            transport.close()
            return contextlib.nullcontext(None)
        master = Master(transport)
        try:
            return cls(_master=master, **kwargs)
        except BaseException:
            master.stop_workers(30)
            master.close()
            raise

    @property
    def num_workers(self) -> int:
        """Ranks that run tasks; 1 where this process runs them itself."""
        return self._master.num_workers

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Queue a call; see `concurrent.futures.Executor.submit`.

        Returns the future of what the call returns or raises.
        """
        self._check_open()
        future: Future[T] = Future(self._master)
        try:
            function = self._master.functions.register(fn)
        except CallNotPicklable as error:
            future.complete(Completed.failed(0, error))
            return future
        arguments = Arguments.from_call(args, kwargs)
        if arguments.errors:
            future.complete(
                apply_on_error(Completed.failed(0, arguments.errors[0]), None, function.policy.on_error)
            )
            return future
        future.task_id = self._master.queue_call(function, arguments, future)
        self._master.deliver_restored()
        self._go()
        return future

    def map(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int | None = None,
        buffersize: int | None = None,
        unordered: bool = False,
    ) -> Iterator[T]:
        """Call a function for all items of iterables, drawn as they are needed.

        Parameters
        ----------
        fn : callable
            The function.
        *iterables : iterables
            One for each of its positional arguments; endless ones are fine.
        timeout : float, optional
            Seconds, from this call on, after which waiting for a result raises TimeoutError.
        chunksize : int, optional
            Tasks to send at once; by default the farm measures how many are best.
        buffersize : int, optional
            Tasks drawn ahead of what the caller has consumed, at most; by default the farm
            chooses, by time and memory.
        unordered : bool
            Give results as they come.

        Returns
        -------
        iterator
            The results. What a task raises is raised in its place and ends the map.
        """
        options = MapOptions(timeout, chunksize, buffersize, unordered)
        return self._run_map(fn, ArgumentSource(iterables, star=False), options)

    def starmap(
        self,
        fn: Callable[..., T],
        tuples: Iterable[Iterable[Any]],
        timeout: float | None = None,
        chunksize: int | None = None,
        buffersize: int | None = None,
        unordered: bool = False,
    ) -> Iterator[T]:
        """Call a function with the arguments of each tuple; otherwise as `map`."""
        options = MapOptions(timeout, chunksize, buffersize, unordered)
        return self._run_map(fn, ArgumentSource([tuples], star=True), options)

    def _run_map(self, fn: Callable[..., T], source: ArgumentSource, options: MapOptions) -> Iterator[T]:
        self._check_open()
        options.checked()
        run = MapRun(self._master, self._master.functions.register(fn), source, options)
        run.feed()
        if self._background:
            self._background.wake()
        return run.results()

    def _go(self) -> None:
        """Move what was just queued."""
        master = self._master
        if master.transport.inline:
            master.run_until(lambda: not master.scheduler.unfinished)
            return
        if self._background:
            self._background.wake()
        master.run_if_due()

    def _check_open(self) -> None:
        refuse_in_task()
        if self._closed:
            raise UsageError("cannot schedule new futures after shutdown")

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more tasks; see `concurrent.futures.Executor.shutdown`.

        Parameters
        ----------
        wait : bool
            Return only when every task has ended.
        cancel_futures : bool
            Cancel the tasks that have not started; without `wait`, only those that no worker has yet.
        """
        master = self._master
        if not self._closed:
            if not cancel_futures:
                master.finish_maps()
            self._closed = True
            self._collector.end()
            master.accepting = False
            if home.farm is self:
                home.farm = None
            if home.default is self:
                home.default = None
        if cancel_futures:
            self._cancel(wait)
        if wait or self._owns_master:
            master.run_until(lambda: not master.scheduler.unfinished)
            master.scheduler.check()
            self._end()

    def _cancel(self, wait: bool) -> None:
        """Cancel what has not started; that which workers hold, too, if there is time to ask them."""
        master = self._master
        master.cancel_all()
        if wait:
            master.drain()
            try:
                master.run_until(lambda: not master.scheduler.assigned)
                master.cancel_all()
            finally:
                master.drain(False)
        # Nobody may be left who would tell those who wait for what was cancelled.
        master.run_once()

    def _end(self) -> None:
        if self._background:
            self._background.stop()
            self._background = None
        atexit.unregister(self._at_exit)
        self._master.pause()
        if self._owns_master:
            self._owns_master = False
            if not self._master.stop_workers(30):
                self._master.transport.abort(1)
            self._master.close()

    def __exit__(self, exc_type: type[BaseException] | None, *_: object) -> None:
        """Wait for all tasks; after an exception, cancel what has not started and do not wait."""
        failed = exc_type is not None
        self.shutdown(wait=not failed, cancel_futures=failed)


def current() -> Farm:
    """The farm that is open, or a default one, opened at the first call.

    Raises
    ------
    UsageError
        The caller is a task: tasks cannot submit tasks.
    """
    refuse_in_task()
    farm = home.farm or home.default
    if farm is None:
        farm = home.default = Farm(_default=True)
    assert isinstance(farm, Farm)
    return farm
