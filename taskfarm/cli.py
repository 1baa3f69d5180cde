"""The command line: ``python -m taskfarm run|bench|info``. One function a command."""

import argparse
import contextlib
import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import NoReturn

from taskfarm import launcher
from taskfarm._version import __version__
from taskfarm.environment import claimed_rank, claimed_size
from taskfarm.errors import LaunchError, UsageError
from taskfarm.script import Script

WRONG_USE = 2

FIRST = 2.0
"""Seconds that rank 0 has to say what is wrong: mpiexec ends all ranks once the first has gone."""


def _refuse(line: str) -> int:
    """Print one line, from one rank; returns the exit code."""
    if claimed_rank(os.environ) == 0:
        print(line, file=sys.stderr, flush=True)
    else:
        time.sleep(FIRST)
    return WRONG_USE


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line, without the usage."""
        raise SystemExit(_refuse(f"{self.prog}: {message}; see `{self.prog} --help`"))


def _ranks(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"the number of ranks must be 1 or more, not {text!r}")
    return int(text)


def _seconds(text: str) -> float:
    with contextlib.suppress(ValueError):
        if 0.1 <= float(text) <= 3600:
            return float(text)
    raise argparse.ArgumentTypeError(f"the seconds must be a number from 0.1 to 3600, not {text!r}")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="python -m taskfarm", description="A task farm on MPI.", allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"taskfarm {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="run|bench|info")
    run = commands.add_parser(
        "run",
        help="run a job: rank 0 runs it, the other ranks run its tasks",
        usage="python -m taskfarm run [options] (job.py | -m module | -c code) [args ...]",
        allow_abbrev=False,
    )
    run.add_argument("-n", "-np", type=_ranks, dest="ranks", help="start mpiexec with this many ranks")
    run.add_argument(
        "--progress",
        choices=("auto", "on", "off"),
        default="auto",
        help="a bar on a terminal, a line every 30 s in a log (default: auto)",
    )
    run.add_argument("-m", nargs=argparse.REMAINDER, dest="module", help="run a module, with its args")
    run.add_argument("-c", nargs=argparse.REMAINDER, dest="code", help="run code, with its args")
    run.add_argument("job", nargs=argparse.REMAINDER, help="run a file, with its args")
    run.set_defaults(function=_run)
    bench = commands.add_parser(
        "bench",
        help="measure what these ranks can do, and say what it means",
        usage="python -m taskfarm bench [-n N] [--json] [--seconds S]",
        allow_abbrev=False,
    )
    bench.add_argument("-n", "-np", type=_ranks, dest="ranks", help="start mpiexec with this many ranks")
    bench.add_argument("--json", action="store_true", help="print one JSON object, units in its keys")
    bench.add_argument("--seconds", type=_seconds, help="how long it takes, about (default: 30)")
    bench.set_defaults(function=_bench)
    info = commands.add_parser("info", help="say which MPI there is, and what is wrong", allow_abbrev=False)
    info.set_defaults(function=_info)
    return parser


def _script(options: argparse.Namespace, error: Callable[[str], NoReturn]) -> Script:
    for kind, words in (("module", options.module), ("code", options.code), ("file", options.job)):
        if words:
            return Script(kind, words[0], words[1:])
        if words == [] and kind != "file":
            error(f"-{kind[0]} wants an argument")
    error("nothing to run: give job.py, -m module or -c code")


def _run(parser: argparse.ArgumentParser, options: argparse.Namespace, argv: Sequence[str]) -> int:
    script = _script(options, parser.error)
    script.check()
    if options.ranks is not None and claimed_size(os.environ) is None:
        launcher.start(options.ranks, launcher.without_ranks(argv))
    from taskfarm import launch, progress

    return launch.run(script, progress.choose(options.progress))


def _bench(parser: argparse.ArgumentParser, options: argparse.Namespace, argv: Sequence[str]) -> int:
    started = claimed_size(os.environ) is not None
    if options.ranks not in (None, 1) and not started:
        launcher.start(options.ranks, launcher.without_ranks(argv))
    from taskfarm import launch

    if launch.ranks() == 1:
        raise UsageError(
            "one rank has no workers, so there is nothing to measure; "
            "`python -m taskfarm bench -n 4` starts 4 ranks"
        )
    words = ["--json"] * options.json
    if options.seconds is not None:
        words += ["--seconds", str(options.seconds)]
    return launch.run(Script("module", "taskfarm.bench", words), None)


def _info(parser: argparse.ArgumentParser, options: argparse.Namespace, argv: Sequence[str]) -> int:
    return launcher.info()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    parser = _parser()
    options = parser.parse_args(words)
    try:
        return int(options.function(parser, options, words))
    except (LaunchError, UsageError) as error:
        return _refuse(f"taskfarm: {error}")
