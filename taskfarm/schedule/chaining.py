"""Waiting tasks that are sent together with those whose results they need. Pure.

A chain of short tasks would cost a round trip for each of them: the result travels to rank 0, and the next
task to a worker. So a batch is extended by tasks that wait only for results of this batch, as long as it is
not full. Their worker has these results before rank 0 has.

That costs no parallelism. A task is added only if nothing else waits for the results that it needs: so no
result that another worker could use is held up, and what is added could not start elsewhere before its
needs have ended here. A batch with one task of its own therefore grows to a chain, and one with several to
chains and trees beside each other, of which the worker may return what it has not started.
"""

from collections.abc import Callable, Iterator

from taskfarm.schedule.spans import SINGLES, Span
from taskfarm.schedule.waiting import WaitingTasks

Needs = frozenset[int]


class ChainedTasks:
    """The tasks that were sent before the results that they need were known. True if there are any.

    Attributes
    ----------
    returned : list of Span
        Single tasks of these that wait again, because they have not run; the master takes them from here.
    """

    def __init__(self) -> None:
        self.returned: list[Span] = []
        self._needs: dict[int, Needs] = {}

    def __bool__(self) -> bool:
        return bool(self._needs)

    def __contains__(self, task: int) -> bool:
        return task in self._needs

    def needs(self, task: int) -> Needs:
        """The tasks whose results a task needs and was not given."""
        return self._needs[task]

    def extend(
        self, spans: list[Span], waiting: WaitingTasks, room: float, share: Callable[[Span], float]
    ) -> list[Span]:
        """Take off those that wait what can be sent together with a batch.

        Parameters
        ----------
        spans : list of Span
            The batch.
        waiting : WaitingTasks
            The tasks that wait.
        room : float
            The part of a batch that is left.
        share : callable
            Returns the part of a batch that a task takes; infinite if it must be sent by itself.

        Returns
        -------
        list of Span
            Tasks in an order in which each comes after what it needs, with consecutive ones in one span.
        """
        added: list[Span] = []
        left: dict[int, int] = {}
        tasks = [task for span in spans for task in range(span.first, span.end)]
        # It grows on the way.
        for task in tasks:
            dependent = waiting.only_dependent(task)
            if dependent is None:
                continue
            first = dependent.first
            left[first] = left.get(first, waiting.num_missing(first)) - 1
            if left[first]:
                continue
            size = share(dependent)
            if size > room:
                continue
            room -= size
            self._needs[first] = waiting.take(first)
            tasks.append(first)
            if added and added[-1].precedes(dependent):
                added[-1] = added[-1]._replace(count=added[-1].count + 1)
            else:
                added.append(dependent)
        return added

    def take_back(self, span: Span) -> Iterator[tuple[Span, Needs | None]]:
        """Forget the tasks of a span that have not run: yields each with what it needs, and the others."""
        rest = span
        while rest.count:
            first = rest.first
            if first in self._needs:
                single, rest = rest.split(1)
                yield single, self._needs.pop(first)
                continue
            plain = next((task for task in range(first, rest.end) if task in self._needs), rest.end)
            before, rest = rest.split(plain - first)
            yield before, None

    def end(self, first: int, count: int) -> dict[int, Needs]:
        """Forget tasks that have been answered; returns what each of them needed."""
        return {task: self._needs.pop(task) for task in range(first, first + count) if task in self._needs}

    def check(self, held: set[int], answered: int) -> None:
        """Raise AssertionError unless workers hold, or have `answered`, the tasks that are remembered."""
        if len(unknown := self._needs.keys() - held) > answered:
            raise AssertionError(f"no worker has the chained tasks {sorted(unknown)}")


def may_chain(span: Span) -> bool:
    """Whether tasks of a span may be sent together with those that need them, or that they need.

    A chunk is what the user wants to be sent together, or means that a task has failed or may have ended a
    worker.
    """
    return span.source == SINGLES and not span.chunk
