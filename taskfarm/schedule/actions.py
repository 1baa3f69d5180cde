"""What the scheduler decides, for the master to carry out."""

from typing import NamedTuple

from taskfarm.schedule.spans import Span


class Assign(NamedTuple):
    """Action: send these spans to this worker as one batch."""

    worker: int
    spans: list[Span]


class Fail(NamedTuple):
    """Action: tell the owners of these spans that they have failed."""

    spans: list[Span]
