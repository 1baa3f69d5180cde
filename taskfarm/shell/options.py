"""The options of ``python -m taskfarm shell`` that are GNU parallel's, checked before any work."""

import argparse
import math
import re
from typing import Any, NoReturn

from taskfarm.shell.halting import Halt
from taskfarm.shell.request import Request, read_words

_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
_TIME = re.compile(r"(\d+(?:\.\d*)?|\.\d+)([smhd]?)")

_RANKS = "use -n N, which starts rank 0 and N - 1 workers, or mpiexec -n N"
_FARM = "start the run with mpiexec or srun on all hosts of the allocation"
_ONE = "each command gets one row of arguments; use a loop or xargs in the command"
_LINES = "commands read files by themselves; use `split` before, or ::: with the names of the files"

REFUSED = {
    "-j --jobs -P --max-procs --load --nice --memfree --memsuspend --noswap": _RANKS,
    "-S --sshlogin --slf --sshloginfile --onall --nonall --transfer --transferfile --tf --return --cleanup "
    "--trc --basefile --bf --workdir --wd --env --filter-hosts --ssh --controlmaster -M": _FARM,
    "--pipe --pipepart --spreadstdin --block --recstart --recend --fifo --cat --tee --round-robin": _LINES,
    "-X -m --xargs -N --max-args --max-replace-args -L -l --max-lines -s --max-chars --sem": _ONE,
    "-u --ungroup --lb --line-buffer --files": "output comes whole when a command ends; see --results DIR",
    "-I --plus --rpl --parens --replace -i -U --er": "use {} {.} {/} {//} {/.} {#} {%} {1} {1.}",
    "-0 --null -d --delimiter": "arguments are lines; change the input with tr",
    "-q --quote": "put the command in quotes as one word",
    "-x --exit -E --eof --trim --shuf --limit --skip-first-line -r": "change the input before",
    "--bar --eta --progress-bar": "use --progress on; a terminal shows a bar anyway",
    "-v --verbose -t": "use --dry-run to see the commands",
    "--termseq": "commands get SIGTERM, and SIGKILL 5 s later",
    "--tmux --interactive -p --tty --ctag --tagstring --sqlmaster --sqlworker --sql": "leave it out",
    "--output": "output comes whole, command by command; see --tag, -k and --results",
    "--isolate": "each command is a process of its own anyway",
    "--on-error": "use --halt",
    "--fail-on-unseen": "the exit code is 1 if a command failed",
    "--seed": "commands get no random numbers; use {#} as a seed",
}
"""What is not supported, with what to use instead."""


class _Refuse(argparse.Action):
    """An option that is not supported."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: Any, values: Any, option_string: str | None = None
    ) -> NoReturn:
        parser.error(f"{option_string} is not supported: {self.metavar}")


def duration(text: str) -> float:
    """Parse seconds, or a time such as ``10m`` and ``1h30m``."""
    parts = _TIME.findall(text)
    seconds = sum(float(number) * _UNITS[unit] for number, unit in parts)
    if not parts or "".join(map("".join, parts)) != text or not 0 < seconds < 1e9:
        raise argparse.ArgumentTypeError(f"must be seconds or a time such as 10m, not {text!r}")
    return seconds


def _timeout(text: str) -> tuple[float, bool]:
    if not text.endswith("%"):
        return duration(text), False
    percent = float(text[:-1]) if re.fullmatch(r"\d+(\.\d+)?%", text) else math.nan
    if not percent > 0:
        raise argparse.ArgumentTypeError(f"must be seconds, a time such as 10m, or 200%, not {text!r}")
    return percent, True


def _delay(text: str) -> float:
    return 0.0 if text == "0" else duration(text)


def _halt(text: str) -> str:
    try:
        Halt.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


def _tries(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of 1 or more, not {text!r}")
    return int(text)


def _colsep(text: str) -> str:
    try:
        matches_nothing = re.compile(text).match("") is not None
    except re.error as error:
        raise argparse.ArgumentTypeError(f"is not a regular expression: {error}") from None
    if matches_nothing:
        raise argparse.ArgumentTypeError(f"must match at least one character, not {text!r}")
    return text


def _header(text: str) -> bool:
    if text != ":":
        raise argparse.ArgumentTypeError(f"must be `:`, for the first line of each input, not {text!r}")
    return True


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options; those that `run` has by the same name are replaced."""
    for names, advice in REFUSED.items():
        parser.add_argument(
            *names.split(),
            action=_Refuse,
            nargs="?",
            metavar=advice,
            dest="refused",
            help=argparse.SUPPRESS,
        )
    given = parser.add_argument_group("arguments of commands")
    given.add_argument(
        "-a", "--arg-file", action="append", default=[], metavar="FILE",
        help="take arguments from the lines of FILE; - is standard input (default: none)",
    )  # fmt: skip
    given.add_argument(
        "-C", "--colsep", type=_colsep, metavar="REGEXP",
        help="split each line into the arguments {1}, {2}, ... (default: a line is one argument)",
    )  # fmt: skip
    given.add_argument(
        "--header", type=_header, default=False, metavar=":",
        help="the first line of each input has names, for {name} (default: it has arguments)",
    )  # fmt: skip
    given.add_argument(
        "--dry-run", "--dryrun", action="store_true", help="print the commands, and run none"
    )
    _add_output(parser)
    _add_limits(parser)
    _add_log(parser)
    absent = {"isolate": False, "on_error": None, "fail_on_unseen": False, "seed": None}
    parser.set_defaults(resume=False, retries=None, timeout=None, output="plain", **absent)


def _add_output(parser: argparse.ArgumentParser) -> None:
    output = parser.add_argument_group("output")
    output.add_argument(
        "-k", "--keep-order", action="store_true", help="print output in the order of the input"
    )
    output.add_argument("--tag", action="store_true", help="begin each line of output with the arguments")
    output.add_argument(
        "--results", default="", metavar="DIR|FILE",
        help="keep output and exit codes: in folders below DIR, or in a table, FILE.csv or FILE.jsonl "
        "(default: output is only printed)",
    )  # fmt: skip
    output.add_argument(
        "--tmpdir", default="", metavar="DIR",
        help="folder for output of more than 256 KiB until rank 0 has printed it; with several hosts they "
        "share it (default: $TMPDIR, with several hosts the current folder)",
    )  # fmt: skip


def _add_limits(parser: argparse.ArgumentParser) -> None:
    limits = parser.add_argument_group("limits and failures")
    limits.add_argument(
        "--retries", type=_tries, default=1, dest="tries", metavar="N",
        help="try a command that fails up to N times in all (default: 1)",
    )  # fmt: skip
    limits.add_argument(
        "--timeout", type=_timeout, default=(None, False), dest="limit", metavar="S|10m|N%",
        help="end a command after this time, or after N%% of the median of those that have ended "
        "(default: no limit)",
    )  # fmt: skip
    limits.add_argument(
        "--delay",
        type=_delay,
        default=0.0,
        metavar="S",
        help="start a command every S seconds (default: 0)",
    )
    limits.add_argument(
        "--halt", "--halt-on-error", type=_halt, default="never", metavar="WHEN",
        help="now,fail=1 ends the run when a command fails; soon,fail=3 starts no more after three; also "
        "success and done, and N%% (default: never)",
    )  # fmt: skip


def _add_log(parser: argparse.ArgumentParser) -> None:
    log = parser.add_argument_group("log and resuming")
    log.add_argument(
        "--joblog",
        default="",
        metavar="FILE",
        help="write a line for each command that has ended (default: none)",
    )
    which = log.add_mutually_exclusive_group()
    for name, text in (
        ("resume", "run what the log, or the journal, does not have"),
        ("resume-failed", "run what the log does not have, and what failed"),
        ("retry-failed", "run the commands that failed according to the log; give no command"),
    ):
        which.add_argument(
            f"--{name}", action="store_const", const=name, default="", dest="resumes", help=text
        )


def request(given: argparse.Namespace) -> Request:
    """Return what the options and words ask for.

    Raises
    ------
    UsageError
        They contradict each other, or there is nothing to run.
    """
    retries_log = given.resumes == "retry-failed"
    command, inputs = (
        ("", []) if retries_log and not given.words else read_words(given.words, given.arg_file)
    )
    timeout, percent = given.limit
    found = Request(
        command, inputs, given.colsep or "", given.header, given.keep_order, given.tag, given.delay,
        given.tries, timeout, percent, given.memory, given.halt, given.joblog, given.resumes,
        given.results, given.tmpdir, given.journal or "",
    )  # fmt: skip
    found.check()
    return found
