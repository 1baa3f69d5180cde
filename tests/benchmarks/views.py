"""What it costs to look at a run: the same work with each view on and off, alternately, in one run.

``python -m taskfarm run -n 3 --quiet -m tests.benchmarks.views`` prints medians of ratios to the round
without any view, and of differences in a task's time.
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from taskfarm import Farm
from taskfarm.job.current_farm import registry
from taskfarm.master.master import Master
from taskfarm.master.recorders import EventLog, PartTiming, Recorder
from taskfarm.schedule.spans import Span
from taskfarm.views.failure_causes import FailureCauses
from taskfarm.views.pace import Pace
from taskfarm.views.report.timeline import Timeline
from taskfarm.views.status import StatusFile
from taskfarm.views.summary import Summary
from taskfarm.views.trace import Trace

ROUNDS = 9
MAPPED, SUBMITTED, TRIPS = 2_000_000, 50_000, 1000


def views(master: Master, kind: str, folder: Path) -> list[Recorder]:
    """The recorders of one kind."""
    now, workers = master.clock.now(), master.transport.size - 1
    made: dict[str, Callable[[], list[Recorder]]] = {
        "off": list,
        "summary": lambda: [Summary(now, workers), FailureCauses()],
        "trace": lambda: [Trace(str(folder / "run.json"), now)],
        "trace, packed": lambda: [Trace(str(folder / "run.json.gz"), now)],
        "report": lambda: [Summary(now, workers), FailureCauses(), Timeline(workers, now)],
        "all": lambda: [
            Summary(now, workers), FailureCauses(), Timeline(workers, now),
            Trace(str(folder / "run.json.gz"), now),
        ],
    }  # fmt: skip
    return made[kind]() if kind in made else []


def look(master: Master, kind: str, folder: Path) -> None:
    """Attach the views of one kind to a master, in place of all others."""
    with master.lock:
        master.outstanding.events = records = EventLog()
        master.observers.clear()
        for recorder in views(master, kind, folder):
            records.add(recorder)
        if kind in ("status", "all"):
            master.observers.append(StatusFile(str(folder / "run.status"), master, Pace(master)))
        for worker, hello in master.workers.hellos.items():
            records.worker_joined(master.clock.now(), worker, hello.host)
        if records:
            master.observers.append(records.flush)


def timed(run: Callable[[], object]) -> float:
    """Seconds that something takes."""
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def measure(farm: Farm) -> tuple[float, float, float]:
    """Seconds of a task: mapped, submitted, and there and back."""
    mapped = timed(lambda: sum(farm.map(abs, range(MAPPED)))) / MAPPED

    def submit() -> None:
        for future in [farm.submit(abs, -i) for i in range(SUBMITTED)]:
            future.result()

    submitted = timed(submit) / SUBMITTED
    trips = [timed(lambda: farm.submit(abs, -1).result()) for _ in range(TRIPS)]
    return mapped, submitted, statistics.median(trips)


def alone(kind: str, folder: Path, master: Master, parts: int = 20_000) -> float:
    """Microseconds of rank 0 for a batch of one part, recorded by itself."""
    made = EventLog()
    for recorder in views(master, kind, folder):
        made.add(recorder)
    function = master.functions.register(abs)
    for worker in master.workers.hellos:
        made.worker_joined(0.0, worker, "here")
    workers = list(master.workers.hellos)
    began = time.perf_counter()
    for number in range(parts):
        now, worker = began + 1e-3 * number, workers[number % len(workers)]
        timing = PartTiming(number, 1, now + 1e-4, 1.5e-3)
        made.batch_sent(now, worker, [Span(number, number, 1, function.id)], len(workers))
        made.calls_finished(now + 2e-3, worker, function, now, timing, {}, (), 100)
    made.flush()
    return 1e6 * (time.perf_counter() - began) / parts


def main() -> None:
    """Measure and print."""
    kinds = ["off", "summary", "status", "trace", "trace, packed", "report", "all"]
    found: dict[str, list[tuple[float, float, float]]] = {kind: [] for kind in kinds}
    with tempfile.TemporaryDirectory() as folder, Farm() as farm:
        measure(farm)
        for number in range(ROUNDS):
            # Neighbours change places: what is warm after the one before does not always fall to the same.
            for kind in kinds[:: 1 if number % 2 else -1]:
                look(registry.master, kind, Path(folder))
                found[kind].append(measure(farm))
        look(registry.master, "off", Path(folder))
        batch = {
            kind: min(alone(kind, Path(folder), registry.master) for _ in range(3))
            if kind not in ("off", "status")
            else 0
            for kind in kinds
        }
    print(f"{'':15}{'map':>10}{'submit':>10}{'a task':>12}{'trip':>12}{'a batch':>12}")
    for kind in kinds:
        pairs = list(zip(found[kind], found["off"], strict=True))
        map_, submit = (statistics.median(off[at] / on[at] for on, off in pairs) for at in (0, 1))
        task, trip = (1e6 * statistics.median(on[at] - off[at] for on, off in pairs) for at in (1, 2))
        print(f"{kind:15}{map_:10.3f}{submit:10.3f}{task:+9.2f} us{trip:+9.2f} us{batch[kind]:9.2f} us")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
