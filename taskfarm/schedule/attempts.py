"""How often tasks have failed, and how many workers have died with them. Pure."""

from taskfarm.schedule.spans import Span

MAX_KILLS = 3
"""Workers that may die while they run a task, before it is not tried again."""


class Attempts:
    """Remembers the tasks that have failed or been at a worker that died, until they end.

    Attributes
    ----------
    max_kills : int
        Workers that may die with a task before it fails.
    retries : dict of int to int
        Times that a task may be tried again, by function; those that may not are left out.
    """

    def __init__(self) -> None:
        self.retries: dict[int, int] = {}
        self.max_kills = MAX_KILLS
        self._failed: dict[int, int] = {}
        self._killed: dict[int, int] = {}

    def __bool__(self) -> bool:
        """Whether anything is known of some task."""
        return bool(self._failed or self._killed)

    def attempt(self, task: int) -> int:
        """Which try of a task the next one is, from 1 on."""
        return self._failed.get(task, 0) + 1

    def may_retry(self, function: int, task: int) -> bool:
        """Take in that a task has failed; whether it is to be tried again."""
        allowed = self.retries.get(function, 0)
        if not allowed:
            return False
        failed = self._failed[task] = self._failed.get(task, 0) + 1
        return failed <= allowed

    def worker_died(self, suspects: list[Span]) -> tuple[list[Span], list[Span]]:
        """Take in that a worker died that may have been running any of these.

        Returns
        -------
        again, over : list of Span
            Those to try again, one by one, so that the next death tells which it was; and those
            that have had their chances.
        """
        again: list[Span] = []
        over: list[Span] = []
        for span in suspects:
            for task in range(span.first, span.end):
                killed = self._killed[task] = self._killed.get(task, 0) + 1
                single = Span(span.source, task, 1, span.function, 1)
                if killed >= self.max_kills:
                    over.append(single)
                elif again and again[-1].end == task and again[-1].source == span.source:
                    again[-1] = again[-1]._replace(count=again[-1].count + 1)
                else:
                    again.append(single)
        for span in over:
            self.forget(span.first, 1)
        return again, over

    def forget(self, first: int, count: int) -> None:
        """Drop what is known of tasks that have ended."""
        for book in (self._failed, self._killed):
            if len(book) < count:
                for task in [task for task in book if first <= task < first + count]:
                    del book[task]
            else:
                for task in range(first, first + count):
                    book.pop(task, None)
