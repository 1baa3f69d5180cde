"""What type checkers and editors know about tasks. Nothing loads this file while a job runs."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Concatenate, Generic, Literal, ParamSpec, TypedDict, TypeVar, overload

from taskfarm.job.decorator import Task
from taskfarm.job.futures import Future

P = ParamSpec("P")
Q = ParamSpec("Q")
R = TypeVar("R")
E = TypeVar("E")

class TaskOptions(TypedDict, total=False):
    """Options of `@task` and `Task.options`, except ``on_error``."""

    name: str
    """The name of the task in messages; by default that of the function."""
    chunksize: int | None
    """Default of `map`: tasks to send together; None: the farm measures the best number."""
    buffersize: int | None
    """Default of `map`: maximum number of tasks drawn ahead; None: the farm decides."""
    unordered: bool
    """Default of `map`: yield results as they arrive."""
    retries: int
    """How often a failed task is retried."""
    timeout: float | None
    """Seconds after which a call is ended by force."""
    memory: int | str | None
    """Memory that a task may use, in bytes or as a string such as ``"2GB"``."""
    isolate: bool
    """Run the tasks in a child process of the worker."""
    key: Callable[..., Any] | None
    """Called with the arguments of a call, returns what identifies the call in a journal."""
    keep: bool
    """Let large results of `submit` stay with the worker that made them until somebody needs them."""
    priority: float
    """Tasks with a higher one start sooner."""
    needs: Mapping[str, float | str] | str | Sequence[str] | None
    """The resources that a task holds while it runs, of ``--resource`` and ``--gpus-per-node``."""
    expect: float | str | Callable[..., float | str] | None
    """How long a task should take: seconds, ``"10m"``, or a function of the arguments of a call."""
    order: Literal["submitted", "longest"]
    """Which tasks start first."""
    max_tasks: int | None
    """Tasks after which the child process that runs them is replaced."""
    ranks: int
    """Workers that run a task together, as the ranks of `taskfarm.comm`."""
    hosts: Literal[1] | None
    """1 if all of them must be on one host; None: they may be anywhere."""

class TaskWithReplacedErrors(Task[P, R], Generic[P, R, E]):
    """A task whose option ``on_error`` puts something else in the place of results."""

    @overload
    def __get__(self, instance: None, owner: type, /) -> TaskWithReplacedErrors[P, R, E]: ...
    @overload
    def __get__(
        self: TaskWithReplacedErrors[Concatenate[Any, Q], R, E],
        instance: object,
        owner: type | None = None,
        /,
    ) -> TaskWithReplacedErrors[Q, R, E]: ...
    def submit(self, *args: P.args, **kwargs: P.kwargs) -> Future[R | E]: ...  # type: ignore[override]
    @overload  # type: ignore[override]
    def map(
        self,
        *iterables: Iterable[Any],
        with_arguments: Literal[True],
        timeout: float | None = None,
        chunksize: int | None = None,
        buffersize: int | None = None,
        unordered: bool | None = None,
        priority: float | None = None,
        order: str | None = None,
        **constants: Any,
    ) -> Iterator[tuple[Any, R | E]]: ...
    @overload
    def map(
        self,
        *iterables: Iterable[Any],
        with_arguments: Literal[False] = False,
        timeout: float | None = None,
        chunksize: int | None = None,
        buffersize: int | None = None,
        unordered: bool | None = None,
        priority: float | None = None,
        order: str | None = None,
        **constants: Any,
    ) -> Iterator[R | E]: ...
    @overload  # type: ignore[override]
    def starmap(
        self,
        tuples: Iterable[Iterable[Any]],
        /,
        *,
        with_arguments: Literal[True],
        timeout: float | None = None,
        chunksize: int | None = None,
        buffersize: int | None = None,
        unordered: bool | None = None,
        priority: float | None = None,
        order: str | None = None,
        **constants: Any,
    ) -> Iterator[tuple[Any, R | E]]: ...
    @overload
    def starmap(
        self,
        tuples: Iterable[Iterable[Any]],
        /,
        *,
        with_arguments: Literal[False] = False,
        timeout: float | None = None,
        chunksize: int | None = None,
        buffersize: int | None = None,
        unordered: bool | None = None,
        priority: float | None = None,
        order: str | None = None,
        **constants: Any,
    ) -> Iterator[R | E]: ...
    def reduce(  # type: ignore[override]
        self,
        operation: Callable[[R | E, R | E], R | E],
        *iterables: Iterable[Any],
        initial: R | E = ...,
        timeout: float | None = None,
        chunksize: int | None = None,
        **constants: Any,
    ) -> R | E: ...
