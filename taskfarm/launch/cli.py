"""The command line: ``python -m taskfarm COMMAND``, with one function for each command."""

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from taskfarm import __version__
from taskfarm.console import open_missing, say, write
from taskfarm.environment import (
    HANDED_WORDS,
    STREAMS,
    claimed_local_size,
    claimed_rank,
    claimed_size,
    current_folder,
    drop_streams,
    fault_tolerant,
)
from taskfarm.errors import JournalError, LaunchError, UsageError
from taskfarm.launch import options
from taskfarm.launch.config import RunConfig
from taskfarm.launch.early import early_interrupt
from taskfarm.launch.exit_codes import INTERRUPTED, WRONG_USE
from taskfarm.launch.script import Script

REFUSE_SECONDS = 2.0
"""Seconds that the other ranks wait for rank 0 to print: mpiexec ends all ranks when one exits."""

STARTS_RANKS = ("run", "shell", "bench")
"""The commands that start MPI and play a role in a run."""


def _refuse(line: str) -> int:
    """Print one line, on rank 0 only; returns the exit code."""
    if claimed_rank(os.environ) == 0:
        write(line)
    else:
        time.sleep(REFUSE_SECONDS)
    return WRONG_USE


class _Parser(argparse.ArgumentParser):
    """Reports an error in one line, and asks for the terminal's width only when it prints help.

    argparse creates a formatter for each option. A formatter that asks for the width imports the
    compression libraries, and every rank would pay for that.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(formatter_class=_fixed_width, **options)

    def format_help(self) -> str:
        """Return the help, as wide as the terminal, with examples and exit codes."""
        from taskfarm.launch.epilogs import EPILOGS

        self.formatter_class = argparse.RawDescriptionHelpFormatter
        self.epilog = EPILOGS.get(self.prog.rpartition(" ")[2], "").strip()
        return super().format_help()

    def format_usage(self) -> str:
        """Return the usage, as wide as the terminal."""
        self.formatter_class = argparse.HelpFormatter
        return super().format_usage()

    def error(self, message: str) -> NoReturn:
        """Print one line, without the usage, and exit."""
        raise SystemExit(_refuse(f"{self.prog}: {message}; see `{self.prog} --help`"))


def _fixed_width(prog: str) -> argparse.HelpFormatter:
    return argparse.HelpFormatter(prog, width=80)


Command = Callable[[argparse.ArgumentParser, argparse.Namespace, Sequence[str]], int]


def _add_reader(
    commands: "argparse._SubParsersAction[_Parser]", name: str, arguments: str, text: str, function: Command
) -> _Parser:
    """Add a command that reads a file of a run; the usage shows `arguments` after the file."""
    reader = commands.add_parser(
        name, help=text, usage=f"python -m taskfarm {name} FILE{arguments}", allow_abbrev=False
    )
    reader.set_defaults(function=function)
    return reader


def _add_readers(commands: "argparse._SubParsersAction[_Parser]") -> None:
    """Add the commands that read a file of a run."""
    export = " [--export results.csv|.parquet|.jsonl|.npz]"
    journal = _add_reader(commands, "journal", export, "list or export the contents of a journal", _journal)
    journal.add_argument("file", help="the FILE of `run --journal FILE`")
    journal.add_argument(
        "--export",
        metavar="FILE",
        help="also write all results to FILE: a table (.csv, or .parquet with pyarrow), lines of JSON "
        "(.jsonl) or arrays (.npz) (default: none)",
    )
    text = "show the progress of a run that was started with --status"
    top = _add_reader(commands, "top", " [--once | --explain TASK]", text, _top)
    top.add_argument("file", help="the FILE of `run --status FILE`")
    top.add_argument("--once", action="store_true", help="show it once instead of every second")
    top.add_argument(
        "--explain",
        type=options.task,
        metavar="TASK",
        help="tell why the task with this number waits: what comes first, what it needs, and who has that "
        "(default: show the whole run)",
    )
    trace = _add_reader(commands, "trace", "", "summarize the trace of a run", _trace)
    trace.add_argument("file", help="the FILE of `run --trace FILE`")
    text = "show the call stacks of running tasks, in a run that was started with --status"
    stack = _add_reader(commands, "stack", " [RANK ...]", text, _stack)
    stack.add_argument("file", help="the FILE of `run --status FILE`")
    stack.add_argument(
        "rank",
        nargs="*",
        type=options.worker,
        help="ranks of the workers to ask (default: the worker that has not answered for longest)",
    )


def _add_kernel(commands: "argparse._SubParsersAction[_Parser]") -> None:
    """Add the command that writes a kernel for notebooks."""
    kernel = commands.add_parser(
        "kernel",
        help="install a Jupyter kernel whose cells run on a farm",
        usage="python -m taskfarm kernel install [-n N] [--name NAME] [options of run ...]",
        allow_abbrev=False,
    )
    kernel.add_argument("action", choices=["install"], help="write the kernel's specification")
    options.add_ranks(kernel)
    kernel.add_argument("--name", default="taskfarm", help="its name (default: taskfarm)")
    kernel.add_argument(
        "--display-name", metavar="TEXT", help="what notebooks show (default: a text with name and ranks)"
    )
    kernel.add_argument(
        "--prefix",
        metavar="FOLDER",
        help="write to FOLDER/share/jupyter/kernels (default: the virtual environment of this Python, else "
        "the user's folder)",
    )
    options.add_run(kernel)
    kernel.set_defaults(function=_kernel)


def _add_shell(commands: "argparse._SubParsersAction[_Parser]", with_options: bool) -> None:
    """Add the command that runs shell commands; its options only if they are needed."""
    shell = commands.add_parser(
        "shell",
        help="run shell commands from a file, or one for each of some arguments, as GNU parallel does",
        usage="python -m taskfarm shell [-n N] [options] (FILE | 'command {}' ::: arguments ...)",
        allow_abbrev=False,
        conflict_handler="resolve",
    )
    if not with_options:
        return
    from taskfarm.shell.options import add_options

    options.add_ranks(shell)
    options.add_run(shell)
    add_options(shell)
    shell.add_argument(
        "words", nargs=argparse.REMAINDER, help="a FILE of commands, or a command and arguments"
    )
    shell.set_defaults(function=_shell)


def _parser(words: Sequence[str] | None = None) -> argparse.ArgumentParser:
    """The parser of the command line, as far as these words need it; None: all of it."""
    parser = _Parser(prog="python -m taskfarm", description="A task farm on MPI.", allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"taskfarm {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    run = commands.add_parser(
        "run",
        help="run a job: rank 0 runs the job, and the other ranks run its tasks",
        usage="python -m taskfarm run [-n N] [options] (job.py | -m module | -c code) [args ...]",
        allow_abbrev=False,
    )
    options.add_ranks(run)
    options.add_run(run)
    run.add_argument(
        "-m",
        nargs=argparse.REMAINDER,
        dest="module",
        metavar="module ...",
        help="run a module with its arguments",
    )
    run.add_argument(
        "-c",
        nargs=argparse.REMAINDER,
        dest="code",
        metavar="code ...",
        help="run Python code with its arguments",
    )
    run.add_argument("job", nargs=argparse.REMAINDER, help="run a file with its arguments")
    run.set_defaults(function=_run)
    bench = commands.add_parser(
        "bench",
        help="measure the performance of these ranks, and explain the results",
        usage="python -m taskfarm bench [-n N] [--json] [--seconds S]",
        allow_abbrev=False,
    )
    options.add_ranks(bench)
    bench.add_argument(
        "--json", action="store_true", help="print one JSON object, with the units in its keys"
    )
    bench.add_argument(
        "--seconds",
        type=options.within(0.1, 3600),
        metavar="S",
        help="approximate duration of all measurements, in seconds (default: 30)",
    )
    bench.set_defaults(function=_bench)
    _add_shell(commands, words is None or words[:1] == ["shell"])
    _add_readers(commands)
    _add_kernel(commands)
    info = commands.add_parser(
        "info",
        help="show the MPI library and the placement of the ranks, and check the installation",
        allow_abbrev=False,
    )
    info.set_defaults(function=_info)
    return parser


def _script(given: argparse.Namespace, error: Callable[[str], NoReturn]) -> Script:
    for kind, words in (("module", given.module), ("code", given.code), ("file", given.job)):
        if words:
            # argparse ends the words of an option at `--`; that word and the rest are in `job`.
            rest = [] if kind == "file" else given.job
            return Script(kind, words[0], words[1:] + rest)
        # Without -m or -c, their words are None; those of the file are an empty list.
        if words == [] and kind != "file":
            error(f"-{kind[0]} needs an argument")
    error("nothing to run: give job.py, -m module or -c code")


# The commands. Each imports only what it needs: on a cluster every rank pays for each file that it reads.


def _run(parser: argparse.ArgumentParser, given: argparse.Namespace, argv: Sequence[str]) -> int:
    script = _script(given, parser.error)
    script.check()
    words = list(argv) if given.ranks is None else options.without_ranks(argv)
    config = options.config(given, words)
    started = claimed_size(os.environ) is not None
    if given.ranks is None and not started and (misplaced := options.misplaced_ranks(script.args)):
        say(
            f"`{misplaced}` stands after the job, so the job gets it, and runs on one rank; "
            f"`run {misplaced} {script.target if script.kind == 'file' else '...'}` starts more"
        )
    return _start(given, script, config, words)


def _start(given: argparse.Namespace, script: Script, config: RunConfig, words: Sequence[str]) -> int:
    """Start the ranks that are wanted, or play the role of this one; returns the exit code."""
    if given.ranks is not None and claimed_size(os.environ) is None:
        from taskfarm.launch import mpiexec, output_files

        output_files.check(config, script)
        mpiexec.start(given.ranks, words, given.survive)
    if given.survive and not fault_tolerant(os.environ):
        raise LaunchError(
            "--survive needs Open MPI's `mpiexec --with-ft ulfm`: "
            f"`python -m taskfarm {words[0]} -n N --survive` starts it"
        )
    if claimed_rank(os.environ):
        from taskfarm.launch import placement

        # Numerical libraries read these variables when numpy is imported.
        placement.limit_threads(os.environ, config.threads, claimed_local_size(os.environ))
    from taskfarm.launch import run

    return run.run(script, config)


def _shell(parser: argparse.ArgumentParser, given: argparse.Namespace, argv: Sequence[str]) -> int:
    from taskfarm.shell.options import request as read

    request = read(given)
    if given.dry_run:
        from taskfarm.shell.dry_run import show

        return show(request) if claimed_rank(os.environ) == 0 else 0
    words = list(argv) if given.ranks is None else options.without_ranks(argv)
    started = claimed_size(os.environ) is not None
    if not started:
        request.check_files()
    is_local = claimed_local_size(os.environ) == (claimed_size(os.environ) or 1)
    request = request.with_spool("" if is_local else current_folder())
    given.memory = None
    config = options.config(given, words)._replace(joblog=request.joblog, resume=bool(request.resume))
    script = Script("module", "taskfarm.shell.job", [request.to_json()])
    return _start(given, script, config, words)


def _bench(parser: argparse.ArgumentParser, given: argparse.Namespace, argv: Sequence[str]) -> int:
    started = claimed_size(os.environ) is not None
    if given.ranks not in (None, 1) and not started:
        from taskfarm.launch import mpiexec

        mpiexec.start(given.ranks, options.without_ranks(argv))
    from taskfarm.launch import run

    if run.num_ranks() == 1:
        raise UsageError(
            "one rank has no workers, so there is nothing to measure; "
            "`python -m taskfarm bench -n 4` starts 4 ranks"
        )
    words = ["--json"] if given.json else []
    if given.seconds is not None:
        words += ["--seconds", str(given.seconds)]
    return run.run(Script("module", "taskfarm.bench.command", words), RunConfig())


def _journal(parser: argparse.ArgumentParser, given: argparse.Namespace, argv: Sequence[str]) -> int:
    from taskfarm.journal import report

    return report.report(given.file, given.export)


def _top(parser: argparse.ArgumentParser, given: argparse.Namespace, argv: Sequence[str]) -> int:
    if given.explain is not None:
        from taskfarm.views import explain

        return explain.ask(given.file, given.explain)
    from taskfarm.views import status

    return status.top(given.file, given.once)


def _stack(parser: argparse.ArgumentParser, given: argparse.Namespace, argv: Sequence[str]) -> int:
    from taskfarm.views import stack

    return stack.ask(given.file, given.rank)


def _trace(parser: argparse.ArgumentParser, given: argparse.Namespace, argv: Sequence[str]) -> int:
    from taskfarm.views import trace_report

    return trace_report.report(given.file)


def _kernel(parser: argparse.ArgumentParser, given: argparse.Namespace, argv: Sequence[str]) -> int:
    from taskfarm.launch import kernel

    own = ("--name", "--display-name", "--prefix")
    words = options.without(options.without_ranks(argv[argv.index("install") + 1 :]), own)
    ranks = "auto" if given.ranks is None else str(given.ranks)
    folder = kernel.install(ranks, given.name, given.display_name, given.prefix, words)
    print(f"installed {folder}; `jupyter lab` or `jupyter console --kernel {given.name.lower()}` runs it")
    return 0


def _info(parser: argparse.ArgumentParser, given: argparse.Namespace, argv: Sequence[str]) -> int:
    from taskfarm.launch import run

    run.load_mpi()
    from taskfarm.launch import info

    return info.info()


def _words() -> list[str]:
    """The words of the command line, which may have come in variables."""
    if len(sys.argv) == 1 and HANDED_WORDS in os.environ:
        from taskfarm.launch import handed_words

        return handed_words.take(os.environ)
    return sys.argv[1:]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    words = _words() if argv is None else list(argv)
    open_missing()
    parser = _parser(None if "_ARGCOMPLETE" in os.environ else words)
    if "_ARGCOMPLETE" in os.environ:
        # A shell asks for completions.
        import argcomplete

        argcomplete.autocomplete(parser)
    if claimed_rank(os.environ):
        drop_streams(os.environ)
    elif STREAMS in os.environ:
        from taskfarm.launch import standard_streams

        standard_streams.take(os.environ)
    given = parser.parse_args(words)
    starts_ranks = given.command in STARTS_RANKS
    if not starts_ranks:
        early_interrupt.release()
    try:
        code = int(given.function(parser, given, words))
        if not starts_ranks and sys.stdout is not None:
            sys.stdout.flush()
        return code
    except BrokenPipeError:
        # Whoever reads this has seen enough. Python would fail again when it flushes the stream at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1
    except (LaunchError, UsageError, JournalError) as error:
        return _refuse(f"taskfarm: {error}")
    except KeyboardInterrupt:
        if starts_ranks:
            raise
        return INTERRUPTED
