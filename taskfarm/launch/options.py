"""The options of ``run``, each checked before any work starts."""

import argparse
import contextlib
import math
import re
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, Any

from taskfarm.errors import LaunchError
from taskfarm.launch.config import GRACE, RunConfig

if TYPE_CHECKING:
    from taskfarm.schedule.offers import Offer


def ranks(text: str) -> int:
    """Parse a number of ranks; ``auto`` is one worker for each core of this host, and rank 0."""
    if text == "auto":
        # Imported here because ranks without such an option never need it.
        from taskfarm.launch import placement

        # Rank 0 sleeps most of the time, so it gets no core of its own.
        return placement.cores() + 1
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"the number of ranks must be 1 or more, or auto, not {text!r}")
    return int(text)


def worker(text: str) -> int:
    """Parse the rank of a worker."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"the rank of a worker must be 1 or more, not {text!r}")
    return int(text)


def task(text: str) -> int:
    """Parse the number of a task."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"the number of a task must be 0 or more, not {text!r}")
    return int(text)


def within(least: float, most: float) -> Callable[[str], float]:
    """Return a parser of seconds that checks two bounds."""

    def seconds(text: str) -> float:
        with contextlib.suppress(ValueError):
            if least <= float(text) <= most:
                return float(text)
        raise argparse.ArgumentTypeError(
            f"the seconds must be a number from {least:g} to {most:g}, not {text!r}"
        )

    return seconds


def duration(text: str) -> float:
    """Parse a walltime to seconds: ``HH:MM:SS``, ``D-HH:MM:SS``, ``MM:SS``, or a number with a unit."""
    # Imported here because ranks without such an option never need it.
    from taskfarm.schedule.amounts import seconds_of

    seconds = seconds_of(text)
    if seconds is not None:
        return seconds
    raise argparse.ArgumentTypeError(
        f"a time must look like 01:30:00, 2-00:00:00, 90m or 3600s, not {text!r}"
    )


def resource(text: str) -> "Offer":
    """Parse a resource: ``NAME=AMOUNT[/worker|/host|/run][@HOSTS]``."""
    from taskfarm.schedule.offers import parse_offer

    try:
        return parse_offer(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _count(least: int) -> Callable[[str], int]:
    def count(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"must be a whole number of {least} or more, not {text!r}")
        return int(text)

    return count


def _task_option(name: str, convert: Callable[[str], Any]) -> Callable[[str], Any]:
    """Return a parser that checks a value as the task option of this name does."""

    def checked(text: str) -> Any:
        # Imported here because ranks without such an option never need it.
        from taskfarm.schedule.policy import Policy

        try:
            return getattr(Policy().changed({name: convert(text)}), name)
        except (TypeError, ValueError) as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return checked


def _number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"must be a finite number, not {text!r}")
    return value


def add_ranks(parser: argparse.ArgumentParser) -> None:
    """Add ``-n``."""
    parser.add_argument(
        "-n",
        "-np",
        type=ranks,
        dest="ranks",
        metavar="N",
        help="start mpiexec with N ranks, of which rank 0 is the master; auto: rank 0, and one worker for "
        "each core that this process may use (default: the ranks that mpiexec or srun started, or 1)",
    )


def misplaced_ranks(words: Sequence[str]) -> str:
    """Return the ``-n N`` among the arguments of a job, as it stands there; empty if there is none."""
    for index, word in enumerate(words):
        if word in ("-n", "-np") and re.fullmatch(r"[1-9]\d*|auto", " ".join(words[index + 1 : index + 2])):
            return f"{word} {words[index + 1]}"
        if re.fullmatch(r"-np?[1-9]\d*", word):
            return word
    return ""


def without_ranks(argv: Sequence[str]) -> list[str]:
    """Return the arguments of ``run`` without its ``-n N``."""
    words = list(argv)
    for index, word in enumerate(words):
        if word in ("-n", "-np"):
            return words[:index] + words[index + 2 :]
        if word.startswith("-n"):
            return words[:index] + words[index + 1 :]
    return words


def without(argv: Sequence[str], names: Collection[str]) -> list[str]:
    """Return arguments without some options that have a value."""
    words: list[str] = []
    rest = iter(argv)
    for word in rest:
        if word in names:
            next(rest, None)
        elif word.partition("=")[0] not in names:
            words.append(word)
    return words


def add_run(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``run``, from which `config` makes a `RunConfig`."""
    parser.add_argument("--quiet", action="store_true", help="show no progress, and no summary at the end")
    parser.add_argument(
        "--progress",
        choices=("auto", "on", "off"),
        default="auto",
        help="show progress: bars on a terminal, elsewhere a line every 5 to 30 s; on: also a line at the "
        "end of a log (default: auto)",
    )
    parser.add_argument(
        "--summary",
        choices=("table", "json", "off"),
        default="table",
        help="summarize the run at its end, as a table or as one JSON object (default: table)",
    )
    parser.add_argument(
        "--status",
        metavar="FILE",
        help="keep FILE up to date during the run, for `top FILE` and `stack FILE` (default: none)",
    )
    parser.add_argument(
        "--report", metavar="FILE.html", help="write a report of the run as a web page (default: none)"
    )
    parser.add_argument(
        "--trace",
        metavar="FILE.json[.gz]",
        help="write a trace of all tasks, for Perfetto and `trace FILE` (default: none)",
    )
    parser.add_argument(
        "--output",
        choices=("tag", "plain", "files", "drop"),
        default="tag",
        help="output of tasks: tag sends it to rank 0, which prints each line after its rank and task "
        "(default); plain leaves it to MPI; files writes one file per worker in taskfarm-output; "
        "drop discards it",
    )
    _add_tasks(parser)
    losses = parser.add_argument_group("lost workers")
    losses.add_argument(
        "--survive", action="store_true", help="continue when a rank dies (needs Open MPI 5)"
    )
    losses.add_argument(
        "--fail-on-loss", action="store_true", help="exit with code 3 instead of 0 if workers were lost"
    )
    losses.add_argument(
        "--max-kills",
        type=_count(1),
        metavar="N",
        help="fail a task when N workers have died while they ran it (default: 3)",
    )
    seconds = within(1, 1e7)
    losses.add_argument(
        "--lost-after",
        type=seconds,
        metavar="S",
        help="treat a worker as lost after S seconds without a heartbeat "
        "(default: 120 for an idle worker, 86400 for a busy one)",
    )
    losses.add_argument(
        "--start-limit",
        type=seconds,
        metavar="S",
        help="seconds within which MPI must start and each worker must become ready (default: 600)",
    )
    time = parser.add_argument_group("journal and time limit")
    time.add_argument("--journal", metavar="FILE", help="record every outcome in FILE (default: none)")
    time.add_argument(
        "--resume",
        action="store_true",
        help="continue with an existing journal: tasks with a result in it do not run again",
    )
    time.add_argument(
        "--walltime",
        type=duration,
        metavar="HH:MM:SS",
        help="end the run before this time is up; D-HH:MM:SS, 90m and 3600s work, too (default: no limit)",
    )
    time.add_argument(
        "--grace",
        type=within(0, 1e6),
        default=GRACE,
        metavar="S",
        help="seconds that running tasks get to finish before the walltime is up or after a signal "
        f"(default: {GRACE:g})",
    )


def _add_tasks(parser: argparse.ArgumentParser) -> None:
    """Add the options that specify how and where tasks run."""
    tasks = parser.add_argument_group("tasks (options of a decorator take precedence)")
    tasks.add_argument(
        "--retries", type=_count(0), metavar="N", help="retry a failed task up to N times (default: 0)"
    )
    tasks.add_argument(
        "--timeout",
        type=_task_option("timeout", _number),
        metavar="S",
        help="end a call after S seconds; implies --isolate (default: no limit)",
    )
    tasks.add_argument(
        "--memory",
        type=_task_option("memory", str),
        metavar="SIZE",
        help="limit the memory of a task to SIZE, such as 2GB or a number of bytes; implies --isolate "
        "(default: no limit)",
    )
    tasks.add_argument("--isolate", action="store_true", help="run tasks in a child process of each worker")
    tasks.add_argument(
        "--on-error",
        choices=("raise", "return"),
        help="raise the exception of a failed task in the job, or return it as the result (default: raise)",
    )
    tasks.add_argument(
        "--fail-on-unseen",
        action="store_true",
        help="exit with code 4 instead of 0 if tasks failed and the job did not ask for their results",
    )
    tasks.add_argument(
        "--seed",
        type=_count(0),
        metavar="N",
        help="seed of the random numbers of taskfarm.rng() (default: a random seed)",
    )
    placed = parser.add_argument_group("cores and devices of workers")
    placed.add_argument(
        "--threads",
        type=_count(1),
        metavar="N",
        help="threads of BLAS and OpenMP in each worker (default: its share of the cores of its host)",
    )
    placed.add_argument(
        "--gpus-per-node",
        type=_count(1),
        metavar="N",
        dest="gpus",
        help="GPUs of each host; each worker sees one of them, and offers gpu=1 to tasks that need it "
        "(default: devices are left alone)",
    )
    placed.add_argument(
        "--resource",
        type=resource,
        action="append",
        default=[],
        dest="resources",
        metavar="NAME=AMOUNT[/SCOPE][@HOSTS]",
        help="offer something to tasks that need it; SCOPE is worker (default: each has the amount), "
        "host (the workers of a host share it) or run (all share it), for example licence=2/run, "
        "scratch=100GB/host or bigmem=1@node[1-4]; may be repeated",
    )


def config(options: argparse.Namespace, argv: Sequence[str]) -> RunConfig:
    """Return the configuration that the options of ``run`` specify.

    Raises
    ------
    LaunchError
        The options contradict each other.
    """
    if options.resume and options.journal is None:
        raise LaunchError("--resume needs the journal to resume from: add --journal FILE")
    if options.walltime is not None and options.grace >= options.walltime:
        raise LaunchError(
            f"--grace {options.grace:g} leaves the tasks no time within --walltime {options.walltime:g} s"
        )
    if options.resources:
        from taskfarm.schedule.offers import check_offers

        try:
            check_offers(options.resources, ["gpu"] if options.gpus else [])
        except ValueError as error:
            raise LaunchError(f"--resource: {error}") from None
    task_options = {
        name: value
        for name in ("retries", "timeout", "memory", "on_error")
        if (value := getattr(options, name)) is not None
    }
    if options.isolate:
        task_options["isolate"] = True
    values = {name: getattr(options, name) for name in RunConfig._fields if hasattr(options, name)}
    if options.quiet:
        values |= {"progress": "off", "summary": "off"}
    return RunConfig(task_options=task_options, argv=argv, **values)
