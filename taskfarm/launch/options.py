"""The options of ``run``, each checked before any work starts."""

import argparse
import contextlib
import math
import os
import re
from collections.abc import Callable, Sequence
from typing import Any

from taskfarm.errors import LaunchError
from taskfarm.launch.config import GRACE, RunConfig

_CLOCK = re.compile(r"(?:(\d+)-)?(\d+):(\d{1,2})(?::(\d{1,2}))?")
_LENGTH = re.compile(r"(\d+(?:\.\d+)?)([smhd])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def ranks(text: str) -> int:
    """A number of ranks."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"the number of ranks must be 1 or more, not {text!r}")
    return int(text)


def worker(text: str) -> int:
    """The rank of a worker."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"workers have ranks from 1 on, not {text!r}")
    return int(text)


def within(least: float, most: float) -> Callable[[str], float]:
    """A checker of seconds between two bounds."""

    def seconds(text: str) -> float:
        with contextlib.suppress(ValueError):
            if least <= float(text) <= most:
                return float(text)
        raise argparse.ArgumentTypeError(
            f"the seconds must be a number from {least:g} to {most:g}, not {text!r}"
        )

    return seconds


def duration(text: str) -> float:
    """Seconds of a walltime: ``HH:MM:SS``, ``D-HH:MM:SS``, ``MM:SS``, or a number with s, m, h or d."""
    match = _CLOCK.fullmatch(text)
    if match:
        days, first, second, third = match.groups()
        parts = [int(first), int(second), int(third)] if third else [int(first), int(second)]
        if days and not third:
            parts.append(0)
        total = int(days or 0) * 86400
        for at, part in enumerate(reversed(parts)):
            total += part * 60**at
        if total > 0 and max(parts[1:]) < 60:
            return float(total)
    match = _LENGTH.fullmatch(text)
    if match and float(match[1]) > 0:
        return float(match[1]) * _SECONDS[match[2]]
    raise argparse.ArgumentTypeError(
        f"a time must look like 01:30:00, 2-00:00:00, 90m or 3600s, not {text!r}"
    )


def _count(least: int) -> Callable[[str], int]:
    def count(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"must be a whole number from {least} on, not {text!r}")
        return int(text)

    return count


def _task_option(name: str, convert: Callable[[str], Any]) -> Callable[[str], Any]:
    """A checker that uses the one of a task's option."""

    def checked(text: str) -> Any:
        # Not at the head of the file: ranks that are not given such an option never need it.
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
    parser.add_argument("-n", "-np", type=ranks, dest="ranks", help="start mpiexec with this many ranks")


def without_ranks(argv: Sequence[str]) -> list[str]:
    """The arguments of ``run`` without its ``-n N``."""
    words = list(argv)
    for at, word in enumerate(words):
        if word in ("-n", "-np"):
            return words[:at] + words[at + 2 :]
        if word.startswith("-n"):
            return words[:at] + words[at + 1 :]
    return words


def add_run(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``run`` that make a `RunConfig`."""
    parser.add_argument("--quiet", action="store_true", help="no bar, and no summary at the end")
    parser.add_argument(
        "--progress",
        choices=("auto", "on", "off"),
        default="auto",
        help="bars on a terminal, a line every 30 s in a log (default: auto)",
    )
    parser.add_argument("--summary", choices=("table", "json", "off"), default="table")
    parser.add_argument("--status", metavar="FILE", help="keep FILE up to date for `top FILE`")
    parser.add_argument("--report", metavar="FILE.html", help="write a page that shows how the run went")
    parser.add_argument(
        "--trace", metavar="FILE.json[.gz]", help="write what happened when, for Perfetto and `trace FILE`"
    )
    parser.add_argument(
        "--output",
        choices=("tag", "plain", "files", "drop"),
        default="tag",
        help="what tasks print: through rank 0 with rank and task before it (default), as it is, "
        "to a file for each worker in taskfarm-output, or nowhere",
    )
    _add_tasks(parser)
    losses = parser.add_argument_group("lost workers")
    losses.add_argument("--survive", action="store_true", help="go on when a rank dies (Open MPI)")
    losses.add_argument("--fail-on-loss", action="store_true", help="exit with 3 if workers were lost")
    losses.add_argument(
        "--max-kills", type=_count(1), metavar="N", help="workers that may die with a task (default: 3)"
    )
    seconds = within(1, 1e7)
    losses.add_argument(
        "--lost-after", type=seconds, metavar="S", help="give up a worker after S seconds of silence"
    )
    losses.add_argument(
        "--start-limit", type=seconds, metavar="S", help="seconds to become ready (default: 600)"
    )
    time = parser.add_argument_group("journal and time limit")
    time.add_argument("--journal", metavar="FILE", help="keep every outcome in FILE")
    time.add_argument("--resume", action="store_true", help="go on with the journal")
    time.add_argument("--walltime", type=duration, metavar="HH:MM:SS", help="end before this time is up")
    time.add_argument(
        "--grace", type=within(0, 1e6), default=GRACE, metavar="S", help="seconds for running tasks to end"
    )


def _add_tasks(parser: argparse.ArgumentParser) -> None:
    """Add the options that say how and where tasks run."""
    tasks = parser.add_argument_group("tasks, where their decorator does not say otherwise")
    tasks.add_argument("--retries", type=_count(0), metavar="N", help="times to try a failed task again")
    tasks.add_argument(
        "--timeout", type=_task_option("timeout", _number), metavar="S", help="end a call after S seconds"
    )
    tasks.add_argument(
        "--memory", type=_task_option("memory", str), metavar="SIZE", help="as in 2GB, a task"
    )
    tasks.add_argument("--isolate", action="store_true", help="run tasks in a child process of each worker")
    tasks.add_argument("--on-error", choices=("raise", "return"), help="default: raise")
    tasks.add_argument("--seed", type=_count(0), metavar="N", help="what taskfarm.rng() depends on")
    placed = parser.add_argument_group("cores and devices of workers")
    placed.add_argument(
        "--threads",
        type=_count(1),
        metavar="N",
        help="for BLAS and OpenMP (default: the share of cores)",
    )
    placed.add_argument(
        "--gpus-per-node", type=_count(1), metavar="N", dest="gpus", help="each worker sees one of N"
    )


def config(options: argparse.Namespace, words: Sequence[str]) -> RunConfig:
    """What the options of ``run`` say.

    Raises
    ------
    LaunchError
        They contradict each other, or name what is not there.
    """
    if options.resume and options.journal is None:
        raise LaunchError("--resume needs the journal to resume from: add --journal FILE")
    if options.walltime is not None and options.grace >= options.walltime:
        raise LaunchError(
            f"--grace {options.grace:g} leaves the tasks no time of --walltime {options.walltime:g} s"
        )
    _check_files(options)
    task_options = {
        name: value
        for name in ("retries", "timeout", "memory", "on_error")
        if (value := getattr(options, name)) is not None
    }
    if options.isolate:
        task_options["isolate"] = True
    same = {name: getattr(options, name) for name in RunConfig._fields if hasattr(options, name)}
    if options.quiet:
        same |= {"progress": "off", "summary": "off"}
    return RunConfig(task_options=task_options, words=words, **same)


def _check_files(options: argparse.Namespace) -> None:
    """Raise LaunchError if a file that is named cannot be one."""
    for name in ("journal", "status", "report", "trace"):
        if (path := getattr(options, name)) is not None:
            folder = os.path.dirname(os.path.abspath(path))
            if not os.path.isdir(folder):
                raise LaunchError(f"there is no folder {folder!r} for the {name}: make it first")
            if os.path.isdir(path):
                raise LaunchError(f"{path!r} is a folder: name a file for the {name}")
    if options.report is not None:
        from taskfarm.views.report import report

        report.check()
    if options.status is not None and os.path.exists(options.status):
        from taskfarm.views import status

        # Refuses a file that is something else, which must not be lost; an old status file is no loss.
        status.read(options.status)
