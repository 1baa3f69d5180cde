"""The scheduler's decisions, which the master carries out."""

from typing import NamedTuple

from taskfarm.schedule.spans import Span


class Assign(NamedTuple):
    """Action: send these spans to this worker as one batch."""

    worker: int
    spans: list[Span]


class Fail(NamedTuple):
    """Action: deliver a failure for every task of these spans."""

    spans: list[Span]
