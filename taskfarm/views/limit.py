"""What limited a run, in one sentence: the largest loss in the budget, and what to do about it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from taskfarm.views.budget import Parts
from taskfarm.views.durations import in_words

SILENT = 1.0
"""Seconds; of a shorter run nothing is said: what it shows is the start."""

SMALL = 0.15
"""A loss below this share of the workers' time does not limit a run."""

SHORT = 1e-3
"""Seconds; tasks below this are short for one master."""

SERIAL = 1.5
"""Tasks that were running on average, below which they seem to wait for one another."""


class LongestCall(NamedTuple):
    """A long call: the id of its task, the name of its function, and its seconds."""

    task: int
    name: str
    seconds: float

    def __str__(self) -> str:
        return f"{self.task}, {self.name}"


@dataclass(frozen=True)
class RunFacts:
    """What the sentence needs to know of a run.

    Attributes
    ----------
    parts : Parts
        The budget.
    wall : float
        Seconds that the run took.
    workers, cores : int
        Number of workers, and of the cores that they share; 0 if that is not known.
    tasks, maps, submits : int
        Number of tasks, of maps, and of tasks that were submitted one by one.
    span : float
        Seconds from the first task sent to the last result.
    mean : float
        Mean seconds of a call.
    longest : LongestCall or None
        The longest call that has ended.
    unfinished : sequence of LongestCall
        Calls that have not ended, longest first.
    drawing : float
        Seconds for which rank 0 drew arguments from the iterables of the job.
    nbytes : int
        Bytes of arguments, results and functions.
    largest_function : (int, str)
        The bytes of the largest function, and its name.
    first_calls : float
        Seconds, over all workers, by which first calls took longer than later ones.
    """

    parts: Parts
    wall: float
    workers: int
    cores: int = 0
    tasks: int = 0
    maps: int = 0
    submits: int = 0
    span: float = 0.0
    mean: float = 0.0
    longest: LongestCall | None = None
    unfinished: Sequence[LongestCall] = ()
    drawing: float = 0.0
    nbytes: int = 0
    largest_function: tuple[int, str] = (0, "")
    first_calls: float = 0.0


class _Loss(NamedTuple):
    seconds: float
    sentence: str


def limit(facts: RunFacts) -> str:
    """The sentence; empty for a run that is too short to say anything.

    Parameters
    ----------
    facts : RunFacts
        The run.
    """
    if facts.wall < SILENT or not facts.parts.total:
        return ""
    if not facts.tasks and not facts.unfinished:
        return "no task ran"
    largest = max(_losses(facts), key=lambda loss: loss.seconds)
    if largest.seconds > SMALL * facts.parts.total:
        return largest.sentence
    share = f"the workers were in tasks for {facts.parts.in_tasks / facts.parts.total:.0%} of the time"
    if facts.parts.other_wait > 0.5 * facts.parts.in_tasks:
        return (
            f"{share}, and tasks mostly waited for files, the network or a sleep: more workers than cores "
            "help"
        )
    return f"{share}: more cores and workers help, if tasks do not compete for memory"


def _losses(facts: RunFacts) -> Iterator[_Loss]:
    parts, total = facts.parts, facts.parts.total

    def of_time(seconds: float) -> str:
        return f"{seconds / total:.0%} of the time"

    yield _Loss(parts.core_wait, _shared_cores(facts))
    yield _Loss(
        parts.wasted,
        f"calls that failed, were retried or were lost with their worker took {of_time(parts.wasted)}: "
        "look at the failures first",
    )
    if facts.unfinished:
        # While a task does not end, the others may wait for it, wherever they wait.
        yield _Loss(facts.unfinished[0].seconds * facts.workers, _unfinished(facts))
    yield _Loss(parts.start, f"the start of the workers took {of_time(parts.start)}: give a run more work")
    yield _Loss(
        parts.initializer,
        f"the initializer took {of_time(parts.initializer)}, "
        f"{in_words(parts.initializer / facts.workers)} on each worker: load less, or give a run more work",
    )
    yield _Loss(
        parts.before,
        f"rank 0 spent {of_time(parts.before)} outside the farm, before the first task: "
        "let tasks do that work, or submit the first ones sooner",
    )
    yield _Loss(parts.between, _between(facts, of_time(parts.between)))
    yield _Loss(
        parts.after,
        f"rank 0 spent {of_time(parts.after)} outside the farm, after the last task: "
        "the workers cannot help with that",
    )
    yield _Loss(parts.master, _master(facts, of_time(parts.master)))
    yield _Loss(parts.moving, _moving(facts, of_time(parts.moving)))
    yield _Loss(
        parts.not_ready,
        f"for {of_time(parts.not_ready)} no task was ready, because all that were left waited for others: "
        "make tasks shorter that others wait for, or submit other tasks beside them",
    )
    yield _Loss(parts.tail, _tail(facts, of_time(parts.tail)))
    yield _Loss(
        parts.held,
        f"workers were held for {of_time(parts.held)} for tasks on several ranks, until enough were free: "
        "give tasks on one rank expect=, make them shorter, or submit the large ones first",
    )
    yield _Loss(parts.lost, f"lost workers were missing for {of_time(parts.lost)}")
    first = facts.first_calls / facts.workers
    yield _Loss(
        facts.first_calls,
        f"first calls took {in_words(first)} longer than later ones: load and compile in the "
        "initializer, or give each worker more tasks",
    )


def _shared_cores(facts: RunFacts) -> str:
    parts = facts.parts
    share = parts.cpu / max(1e-12, parts.cpu + parts.core_wait)
    if facts.cores and facts.workers > facts.cores:
        return (
            f"{facts.workers} workers shared {facts.cores} cores: their tasks got {share:.0%} of a core "
            "each; more cores help, more workers do not"
        )
    return (
        f"tasks got {share:.0%} of a core each: other processes or threads use the cores, too; limit the "
        "threads of each rank, or start fewer ranks"
    )


def _unfinished(facts: RunFacts) -> str:
    first, *others = facts.unfinished
    more = f", and {len(others)} more" if others else ""
    return (
        f"one task ({first}){more} ran for {in_words(first.seconds)} and did not end: "
        "`timeout=` limits how long a task may take"
    )


def _between(facts: RunFacts, share: str) -> str:
    if facts.mean < SHORT and facts.submits > 0.5 * facts.tasks:
        return (
            f"tasks of {in_words(facts.mean)} are too short to be submitted one by one, which took "
            f"{share}: use map, or give each task more work"
        )
    if facts.drawing > 0.5 * facts.parts.between / facts.workers:
        return (
            f"the workers waited for {share} while rank 0 made the arguments, in the iterables of maps: "
            "let the tasks make them"
        )
    return (
        f"the workers waited for {share} while rank 0 was outside the farm, between tasks: "
        "let tasks do what the job does with results, or submit more before it begins"
    )


def _master(facts: RunFacts, share: str) -> str:
    if facts.mean < SHORT:
        return (
            f"tasks of {in_words(facts.mean)} are too short for one master, which took {share}: "
            "give each task more work"
        )
    return f"the workers waited for rank 0 as the master for {share}: it needs a core of its own"


def _moving(facts: RunFacts, share: str) -> str:
    nbytes, name = facts.largest_function
    if nbytes > 0.5 * facts.nbytes / max(1, facts.workers):
        return (
            f"moving the function {name}, which carries {in_bytes(nbytes)}, took {share}: load that data "
            "in the initializer"
        )
    return f"moving {in_bytes(facts.nbytes)} of arguments and results took {share}: send less a task"


def _tail(facts: RunFacts, share: str) -> str:
    longest = facts.longest
    if facts.tasks < 2 * facts.workers:
        return (
            f"there were too few tasks ({facts.tasks}) for {facts.workers} workers: split the work further"
        )
    if facts.workers > 1 and facts.parts.in_tasks < SERIAL * facts.span and not facts.maps:
        return (
            f"on average {facts.parts.in_tasks / facts.span:.1f} tasks were running, because the job waits "
            "for one before it submits the next: submit several, or use map"
        )
    tail = facts.parts.tail / facts.workers
    if longest is not None and longest.seconds > max(tail, 3 * facts.mean):
        return (
            f"one task ({longest}) took {in_words(longest.seconds)}, {longest.seconds / facts.mean:,.0f} "
            f"times the mean, and the others had nothing left to do for {share}: submit the longest tasks "
            "first, or split them"
        )
    if facts.maps > 1:
        return (
            f"the workers waited for {share} at the ends of {facts.maps} maps for the last tasks of each: "
            "start the next map before the results of the last one are all taken"
        )
    return f"for {share} no task was left for some workers while others still ran: make tasks shorter"


def in_bytes(value: float) -> str:
    """Format a size with three digits and a unit."""
    for scale, unit in ((1e9, "GB"), (1e6, "MB")):
        if value >= scale:
            return f"{value / scale:.3g} {unit}"
    return f"{value / 1e3:.3g} kB"
