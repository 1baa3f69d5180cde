"""The scheduler's decisions, which the master carries out."""

from typing import NamedTuple

from taskfarm.schedule.spans import Span


class Assign(NamedTuple):
    """Action: send these spans to this worker as one batch."""

    worker: int
    spans: list[Span]


class Help(NamedTuple):
    """Action: send these spans to this worker, whose task waits for them or for their descendants."""

    worker: int
    spans: list[Span]
    task: int


class Fail(NamedTuple):
    """Action: deliver a failure for every task of these spans."""

    spans: list[Span]
