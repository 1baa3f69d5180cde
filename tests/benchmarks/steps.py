"""The hot path step by step, in microseconds: python -m tests.benchmarks.steps

Each step is the farm's own code, run alone many times in one process, on messages that a farm really
exchanges; the least of several rounds counts. What MPI itself adds is measured between two ranks by
`python -m tests.benchmarks --only round_trip`.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from taskfarm.job.futures import Future
from taskfarm.master.deliveries import Deliveries
from taskfarm.master.master import Master
from taskfarm.master.pending_calls import PendingCalls, Source
from taskfarm.protocol import messages
from taskfarm.protocol.arguments import Arguments
from taskfarm.protocol.functions import FunctionTable
from taskfarm.protocol.messages import Define, Part, Results, Work
from taskfarm.protocol.outcomes import load_at_once, load_outcomes
from taskfarm.protocol.serialize import dumps
from taskfarm.schedule.scheduler import Scheduler
from taskfarm.schedule.spans import SINGLES, Span
from taskfarm.worker.context import Place
from taskfarm.worker.local import WorkerEnd
from taskfarm.worker.runner import Runner

Step = tuple[str, str, Callable[[], Any]]

ROUNDS, SECONDS = 5, 0.05


def microseconds(step: Callable[[], Any]) -> float:
    """Time of one call, in microseconds."""
    step()
    started = time.perf_counter()
    step()
    count = max(1, int(SECONDS / max(time.perf_counter() - started, 1e-7)))
    best = float("inf")
    for _ in range(ROUNDS):
        started = time.perf_counter()
        for _ in range(count):
            step()
        best = min(best, (time.perf_counter() - started) / count)
    return best * 1e6


def scheduled(count: int) -> Callable[[], Any]:
    """Queue a span, assign it, take its outcomes."""
    scheduler = Scheduler()
    scheduler.add_worker(1)
    first = 0

    def step() -> None:
        nonlocal first
        if count == 1:
            scheduler.assign_single(first, 0, 10, 0.0)
        else:
            scheduler.submit(Span(first, first, count, 0, count), 10)
            scheduler.assign(0.0)
        scheduler.finish(1, first, count, (), 1e-7 * count, 10 * count, 0.0)
        first += count

    return step


def completed(count: int, function: Any, outcomes: Any) -> Callable[[], Any]:
    """Add calls, and deliver their outcomes to their sink."""
    pending, deliveries = PendingCalls(), Deliveries()

    class Nobody:
        def mark_running(self) -> None:
            pass

        def complete_at_once(self, completed: Any, offset: int) -> bool:
            return count == 1

        def complete(self, completed: Any, offset: int) -> None:
            pass

    arguments = Arguments.from_columns([range(count)])
    result = load_outcomes(outcomes)

    def step() -> None:
        source: Any = Source(arguments, Nobody(), function, [], 0.0, 0, 0)  # type: ignore[arg-type]
        pending.add(0, source, count == 1)
        pending.complete(SINGLES if count == 1 else 0, result, deliveries, use_policy=True, at_once=True)
        deliveries.deliver()

    return step


def steps(count: int) -> Iterator[Step]:
    """The way of a batch of `count` calls of ``abs``, from the caller and back."""
    table = FunctionTable()
    function = table.register(abs)
    column = list(range(count))
    source = SINGLES if count == 1 else 0
    arguments = Arguments.from_call((5,), {}) if count == 1 else Arguments.from_columns([column])
    runner = Runner(Place(1, "node"), ())
    runner.prepare(Define(function.id, "abs", dumps(abs)))
    parts = [Part(function.id, source, 0, count, arguments.slice(0, count))]
    work = messages.encode(Work(parts))
    outcomes = runner.run(parts)
    load = load_at_once if count == 1 else load_outcomes
    results = messages.encode(Results(outcomes))
    if count == 1:
        master = Master(WorkerEnd(0, deque()))
        yield "master", "make a future, look the function up", lambda: (Future(master), table.register(abs))
        yield "master", "keep the arguments", lambda: Arguments.from_call((5,), {})
    else:
        yield (
            "master",
            "draw and keep the arguments",
            lambda: Arguments.from_columns([list(iter(range(count)))]),
        )
    yield "master", "schedule: queue, assign, finish", scheduled(count)
    yield (
        "master",
        "pickle the arguments, encode the message",
        lambda: messages.encode(Work([Part(function.id, source, 0, count, arguments.slice(0, count))])),
    )
    yield "worker", "decode the message", lambda: messages.decode(work)
    yield "worker", "run the calls, pickle the results", lambda: runner.run(parts)
    yield "worker", "encode the message", lambda: messages.encode(Results(outcomes))
    yield (
        "master",
        "decode the message, unpickle the results",
        lambda: [
            load(part)
            for part in messages.decode(results).parts  # type: ignore[union-attr]
        ],
    )
    yield "master", "deliver the outcomes", completed(count, function, outcomes[0])


def main() -> None:
    """Print a table for one call, and one for a batch of a map."""
    for count in (1, 4096):
        title, unit = ("one call", "us") if count == 1 else (f"{count} calls", "us a task")
        print(f"\n| {title} of `abs` | where | {unit} |\n|---|---|---|")
        total = {"master": 0.0, "worker": 0.0}
        for where, what, step in steps(count):
            spent = microseconds(step) / count
            total[where] += spent
            print(f"| {what} | {where} | {spent:.{2 if count == 1 else 4}f} |")
        for where, spent in total.items():
            print(f"| total | {where} | {spent:.{2 if count == 1 else 4}f} |")


if __name__ == "__main__":
    main()
