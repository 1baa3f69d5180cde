"""Outcomes on their way to futures and maps, and the callbacks that follow."""

import contextlib
import logging
import threading
from collections import deque
from collections.abc import Callable, Set
from typing import Any

from taskfarm import interrupts
from taskfarm.master.interfaces import ResultSink
from taskfarm.protocol.messages import Outcomes
from taskfarm.protocol.outcomes import Completed, apply_on_error, load_outcomes
from taskfarm.schedule.policy import OnError
from taskfarm.schedule.spans import Span

LOGGER = logging.getLogger("concurrent.futures")
"""The logger to which the standard library reports exceptions of callbacks."""

Settle = Callable[[int, Span, Outcomes, Completed], None]


class Deliveries:
    """Queues of what calls users' code: results to unpickle, outcomes for their sinks, and callbacks.

    Users' code may submit tasks, or wait and so run the event loop. So it never runs under the master's
    lock, and nothing here calls itself: code that is called from here only adds to the queues, and the
    outermost `deliver` of its thread takes from them. If that code waits for a result, the nested
    `deliver` loads results and completes futures, but leaves all callbacks to the outermost one.

    Attributes
    ----------
    settle : callable
        Called with a worker, a span that it was sent, outcomes of that, and the same unpickled; it passes
        them on to `add`.
    """

    def __init__(self) -> None:
        self.settle: Settle = lambda worker, span, outcomes, completed: None
        self._packed: deque[tuple[int, Span, Outcomes]] = deque()
        self._waiting: deque[tuple[ResultSink, Completed, int | None, OnError]] = deque()
        self._calls: deque[tuple[Callable[[Any], object], Any]] = deque()
        self._delivering: set[int] = set()
        self._steps: tuple[tuple[Callable[[], bool], deque[Any]], ...] = (
            (self._load, self._packed),
            (self._complete, self._waiting),
            (self._call, self._calls),
        )

    def load_later(self, worker: int, span: Span, outcomes: Outcomes) -> None:
        """Queue outcomes whose unpickling calls users' code."""
        self._packed.append((worker, span, outcomes))

    def add(self, sink: ResultSink, completed: Completed, offset: int | None, on_error: OnError) -> None:
        """Queue outcomes for their sink: the one at `offset`, or all."""
        self._waiting.append((sink, completed, offset, on_error))

    def call(self, function: Callable[[Any], object], argument: Any) -> None:
        """Queue a callback: `deliver` calls it outside of any other callback of its thread."""
        self._calls.append((function, argument))

    def fail_all(self, error: BaseException) -> None:
        """Replace every outcome that has not been delivered by an error."""
        for _ in range(len(self._waiting)):
            try:
                sink, completed, offset, _ = self._waiting.popleft()
            except IndexError:  # another thread was faster
                return
            failed = Completed.failed(completed.first, error, len(completed.values))
            self.add(sink, failed, offset, "raise")

    @property
    def delivering(self) -> bool:
        """Whether this thread is delivering, further up its stack."""
        return threading.get_ident() in self._delivering

    @property
    def threads(self) -> Set[int]:
        """The threads that are delivering."""
        return self._delivering

    @property
    def waiting(self) -> bool:
        """Whether anything is queued."""
        return bool(self._packed or self._waiting or self._calls)

    @property
    def idle(self) -> bool:
        """Whether nothing is left to deliver, in any thread; exact only under the master's lock.

        For a thread that is itself delivering, what remains for its outermost `deliver` does not count.
        """
        if self.delivering:
            return not (self._packed or self._waiting)
        # What is taken from a queue is accounted for by its thread, which was added before.
        return not (self.waiting or self._delivering)

    def deliver(self) -> bool:
        """Hand on what is queued now; True if there was anything."""
        if not (self._packed or self._waiting or self._calls):
            return False
        if self.delivering:
            return self._deliver_nested()
        me = threading.get_ident()
        self._delivering.add(me)
        try:
            # What callbacks add meanwhile is for the next time: a chain of them may have no end.
            for step, queue in self._steps:
                for _ in range(len(queue)):
                    if interrupts.pending() or not step():
                        break
        finally:
            self._delivering.discard(me)
        return True

    def _deliver_nested(self) -> bool:
        """Hand on what can be without users' code; if nothing can, what was queued last.

        That is most likely what the caller of this thread waits for, and if its loading waits in turn, the
        stack grows by no more than it must.
        """
        moved = False
        for _ in range(len(self._waiting)):
            try:
                entry = self._waiting.popleft()
            except IndexError:  # another thread was faster
                break
            if callable(entry[3]):
                self._waiting.append(entry)
            else:
                self._complete_one(entry)
                moved = True
        if not moved:
            moved = self._load(-1) if self._packed else bool(self._waiting) and self._complete(-1)
        return moved

    def _load(self, at: int = 0) -> bool:
        """Unpickle the first or the last results."""
        try:
            worker, span, outcomes = self._packed.popleft() if at == 0 else self._packed.pop()
        except IndexError:  # another thread was faster
            return False
        try:
            completed = load_outcomes(outcomes)
        except BaseException as error:
            # Only what interrupts the job comes here: nothing is lost, it is unpickled again.
            self._packed.appendleft((worker, span, outcomes))
            interrupts.postpone(error)
            return False
        self.settle(worker, span, outcomes, completed)
        return True

    def _complete(self, at: int = 0) -> bool:
        """Hand the first or the last outcomes to their sink."""
        try:
            entry = self._waiting.popleft() if at == 0 else self._waiting.pop()
        except IndexError:  # another thread was faster
            return False
        return self._complete_one(entry)

    def _complete_one(self, entry: tuple[ResultSink, Completed, int | None, OnError]) -> bool:
        sink, completed, offset, on_error = entry
        if on_error != "raise":
            try:
                completed = apply_on_error(completed, offset, on_error)
                if entry[1].failures:
                    sink.note_key(b"")
            except BaseException as error:  # as above
                self._waiting.appendleft(entry)
                interrupts.postpone(error)
                return False
        sink.complete(completed, offset or 0)
        return True

    def _call(self) -> bool:
        """Call the first callback; what it raises is logged, as the standard library does."""
        try:
            function, argument = self._calls.popleft()
        except IndexError:  # another thread was faster
            return False
        try:
            _call_back(function, argument)
        except BaseException as error:
            if interrupts.is_interrupt(error):
                interrupts.postpone(error)
            else:
                log_exception(argument)
        return True


@interrupts.interruptible
def _call_back(function: Callable[[Any], object], argument: Any) -> None:
    function(argument)


def log_exception(argument: Any) -> None:
    """Log the exception that a callback has raised, whatever it and the handlers of the log do."""
    with contextlib.suppress(BaseException):
        LOGGER.exception("exception calling callback for %s", _shown(argument))


def _shown(argument: Any) -> str:
    try:
        return repr(argument)
    except BaseException:
        return f"<{type(argument).__name__}>"
