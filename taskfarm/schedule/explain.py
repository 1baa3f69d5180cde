"""Why a task waits, in words. Pure."""

from taskfarm.schedule.amounts import shown, shown_needs, shown_seconds
from taskfarm.schedule.farm_queue import FarmQueue
from taskfarm.schedule.lanes import PLAIN
from taskfarm.schedule.resources import Pool
from taskfarm.schedule.scheduler import Scheduler
from taskfarm.schedule.spans import Span

SHOWN = 5
"""Workers that are named, at most."""


def explain(scheduler: Scheduler, task: int, now: float) -> str:
    """Return what a task does or waits for, as the rest of a sentence that begins with it.

    Parameters
    ----------
    scheduler : Scheduler
        What knows it.
    task : int
        Its id.
    now : float
        The current time of the scheduler's clock.
    """
    worker = scheduler.holder(task)
    if worker is not None:
        return _with_worker(scheduler, worker, task, now)
    if missing := scheduler.missing(task):
        more = f" and {len(missing) - SHOWN} more" if len(missing) > SHOWN else ""
        return f"waits for the results of the tasks {', '.join(map(str, missing[:SHOWN]))}{more}"
    found = scheduler.find(task)
    if found is None:
        return "has ended, was cancelled, or has not been submitted yet"
    farm, span, before = found
    reasons = _reasons(scheduler, farm, span, before, now)
    return f"is queued: {'; '.join(reasons)}"


def _with_worker(scheduler: Scheduler, worker: int, task: int, now: float) -> str:
    load = scheduler.load_of(worker)
    running = load.unfinished()
    if not any(span.first <= task < span.end for span in running):
        return f"has ended on rank {worker}, which keeps its result until it is combined with others"
    first = running[0]
    since = shown_seconds(now - load.last_answer)
    if task == first.first and first.count == 1:
        return f"has been running on rank {worker} for {since}"
    place = "it runs now, or" if first.first <= task < first.end else "it"
    return (
        f"is with rank {worker}, which got {load.tasks} tasks to run one after the other and last answered "
        f"{since} ago: {place} waits for those before it"
    )


def _reasons(scheduler: Scheduler, farm: FarmQueue, span: Span, before: int, now: float) -> list[str]:
    if scheduler.is_draining:
        return ["nothing starts any more, because the run ends"]
    if any(one.first == span.first for one in farm.late):
        seconds = scheduler.expected_seconds(span) or 0.0
        left = 0.0 if scheduler.walltime is None else max(0.0, scheduler.walltime.ends - now)
        return [
            f"it should take {shown_seconds(seconds)}, and only {shown_seconds(left)} of the walltime are "
            "left"
        ]
    if farm.draining:
        return ["its farm starts nothing more"]
    reasons = [f"{before:,} tasks come first" if before != 1 else "1 task comes first"] if before else []
    demand = scheduler.demands.get(span.function, PLAIN)
    if demand.ranks > 1:
        return [*reasons, _gang_in_words(scheduler, span.first, demand.ranks)]
    if farm.queue.lanes is None:
        able = sum(map(farm.accepts, scheduler.workers))
        lacking: list[tuple[Pool, int]] = []
    else:
        able, lacking = scheduler.lanes.obstacles(farm, span.function, now)
    if not able:
        limit = "" if farm.max_workers is None else f", or {farm.max_workers} that may run it are busy"
        return [*reasons, f"no worker is ready for it{limit}"]
    if lacking:
        words = [_in_words(scheduler, pool, kept) for pool, kept in lacking]
        return [*reasons, f"it needs {shown_needs(demand.needs)}", *words]
    if not reasons or not scheduler.idle:
        reasons.append(f"all {able} workers that could run it are busy")
    return reasons


def _gang_in_words(scheduler: Scheduler, task: int, ranks: int) -> str:
    """What a task on several ranks waits for."""
    gangs = scheduler.gangs
    reservation = gangs.reservation
    if gangs.paused:
        return f"it needs {ranks} ranks at a time, and {gangs.paused}"
    if reservation is None or reservation.task != task:
        return f"it needs {ranks} ranks at a time, and tasks that come first use or hold them"
    busy = [worker for worker in reservation.members if worker not in gangs.held_since]
    names = ", ".join(map(str, busy[:SHOWN])) + (" and others" if len(busy) > SHOWN else "")
    return (
        f"it needs {ranks} ranks at a time: {ranks - len(busy)} of those held for it are free, and "
        f"{'rank' if len(busy) == 1 else 'ranks'} {names} must first end what they run"
    )


def _in_words(scheduler: Scheduler, pool: Pool, kept: int) -> str:
    """What is not free."""
    free = shown(pool.free) if pool.free else "nothing"
    text = f"{free} of {pool.name}={shown(pool.capacity)} of {pool.where} is free"
    claims = scheduler.resources.claims
    holders = [
        f"rank {worker} holds {shown(amount)}"
        for worker in sorted(pool.workers & claims.keys())
        for name, amount in claims[worker]
        if name == pool.name
    ]
    if len(holders) > SHOWN:
        holders[SHOWN:] = [f"{len(holders) - SHOWN} more hold the rest"]
    if holders:
        text += f" ({', '.join(holders)})"
    if kept > 0:
        text += f", and {shown(kept)} of that is kept for tasks that come first"
    return text
