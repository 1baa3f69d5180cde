"""Makes what recorders are told."""

from collections.abc import Collection

from taskfarm.master.recorders import FinishedCalls
from taskfarm.protocol.functions import RegisteredFunction
from taskfarm.protocol.messages import Blob
from taskfarm.schedule.policy import Policy
from taskfarm.schedule.spans import Span


def registered(name: str = "work") -> RegisteredFunction:
    """A function of this name."""
    return RegisteredFunction(1, name, Blob(b"", []), (b"", Policy(), b""))


def span(first: int = 0, count: int = 1) -> Span:
    """A span of tasks."""
    return Span(first, first, count, 1)


def ran(
    received: float, name: str = "work", count: int = 1, *,
    seconds: float = 0.0, first: int = 0, worker: int = 1,
    failures: dict[int, BaseException] | None = None, again: Collection[int] = (), nbytes: int = 0,
    batch: int = 1, attempt: int = 1, queued: float | None = None, sent: float | None = None,
) -> FinishedCalls:  # fmt: skip
    """Calls that a worker made: queued, sent and started all at once unless specified otherwise."""
    started = received - seconds
    sent = started if sent is None else sent
    return FinishedCalls(
        worker, registered(name), first, count, attempt, batch, failures or {}, again,
        sent if queued is None else queued, sent, started, seconds, received, nbytes,
    )  # fmt: skip
