"""Counts of failures and of worker deaths per task. Pure."""

from taskfarm.schedule.spans import Span

MAX_KILLS = 3
"""Workers that may die while they run a task, before the task fails."""


class Attempts:
    """Remembers the tasks that have failed or may have killed a worker, until they end.

    Attributes
    ----------
    max_kills : int
        Workers that may die while they run a task, before the task fails.
    retries : dict of int to int
        Maximum number of retries of a task, by function. Functions without retries are absent.
    """

    def __init__(self) -> None:
        self.retries: dict[int, int] = {}
        self.max_kills = MAX_KILLS
        self._failures: dict[int, int] = {}
        self._kills: dict[int, int] = {}

    def __bool__(self) -> bool:
        """Whether any task has a recorded failure or worker death."""
        return bool(self._failures or self._kills)

    def __contains__(self, task: int) -> bool:
        """Whether a task has one."""
        return task in self._failures or task in self._kills

    def attempt(self, task: int) -> int:
        """The number of a task's next attempt, from 1 on."""
        return self._failures.get(task, 0) + 1

    def may_retry(self, function: int, task: int) -> bool:
        """Record a failure of a task; returns whether the task is to be requeued."""
        allowed = self.retries.get(function, 0)
        if not allowed:
            return False
        failures = self._failures[task] = self._failures.get(task, 0) + 1
        return failures <= allowed

    def give_up(self, function: int, task: int) -> None:
        """Retry a task no more: to run it again would run again all that it has submitted."""
        if allowed := self.retries.get(function, 0):
            self._failures[task] = allowed

    def worker_died(self, suspects: list[Span]) -> tuple[list[Span], list[Span]]:
        """Record the death of a worker that may have been running any of these tasks.

        Returns
        -------
        requeued, failed : list of Span
            The tasks to run again, one per batch, so that the next death identifies the culprit; and
            the tasks that have reached `max_kills`.
        """
        requeued: list[Span] = []
        failed: list[Span] = []
        for span in suspects:
            for task in range(span.first, span.end):
                kills = self._kills[task] = self._kills.get(task, 0) + 1
                single = Span(span.source, task, 1, span.function, 1)
                if kills >= self.max_kills:
                    failed.append(single)
                elif requeued and requeued[-1].precedes(single):
                    requeued[-1] = requeued[-1]._replace(count=requeued[-1].count + 1)
                else:
                    requeued.append(single)
        for span in failed:
            self.forget(span.first, 1)
        return requeued, failed

    def forget(self, first: int, count: int) -> None:
        """Drop the records of tasks that have ended."""
        for records in (self._failures, self._kills):
            if len(records) < count:
                for task in [task for task in records if first <= task < first + count]:
                    del records[task]
            else:
                for task in range(first, first + count):
                    records.pop(task, None)
