"""``python -m taskfarm shell`` on rank 0: submits commands, and records how they end. Runs as a job."""

import contextlib
import os
import shutil
import sys
import threading
import time
from array import array
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from taskfarm.console import say
from taskfarm.errors import CommandFailed, LaunchError, UsageError
from taskfarm.job.current_farm import registry
from taskfarm.job.decorator import Task
from taskfarm.job.farm import Farm
from taskfarm.job.futures import Future
from taskfarm.master.map_progress import MapProgress
from taskfarm.protocol.failures import summary_of
from taskfarm.shell.execute import Ended, Where, run_command
from taskfarm.shell.joblog import Joblog, Logged, failed_commands
from taskfarm.shell.output import Printer
from taskfarm.shell.request import Request, is_filled
from taskfarm.shell.results import Table, folder_of, is_table
from taskfarm.shell.template import SLOT, Template

AHEAD = 64
"""Commands that are submitted before they can start, at least; so short ones travel together."""

FEWEST_TIMES = 3
"""Commands that must have succeeded before a percentage of their median is a time limit."""

MOST_TIMES = 10_001
"""Run times from which the median is made: those of the first commands."""

WRONG_USE = 2


class Call(NamedTuple):
    """A command to run: its number, its arguments and its text."""

    number: int
    arguments: Sequence[str]
    text: str


def _key(text: str, *_: object) -> str:
    """What the journal knows a command by."""
    return text


class _Calls:
    """The commands of a request, one after the other, without those that a log says not to run."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self.names: list[str] = []
        self.total: int | None = None
        self._source: Callable[[], Iterator[Call]] = self._all
        self._logged: Logged | None = None
        if request.resume == "retry-failed":
            failed = failed_commands(request.joblog)
            self.total = len(failed)
            self._source = lambda: (Call(number, [text], text) for number, text in failed.items())
            self.close: Callable[[], None] = lambda: None
            return
        has_log = bool(request.resume) and is_filled(request.joblog)
        percent = (halt := request.halts()) is not None and halt.percent
        self._inputs = request.open_inputs(again=has_log or percent)
        self.close = self._inputs.close
        self.names = self._inputs.names
        self._template = Template(request.command, self.names)
        self.total = self._inputs.count()
        if has_log:
            self._compare(Logged(request.joblog))

    def __iter__(self) -> Iterator[Call]:
        return self._source()

    def _all(self) -> Iterator[Call]:
        logged, failed_again = self._logged, self._request.resume == "resume-failed"
        for number, arguments in enumerate(self._inputs, 1):
            if logged is None or not logged.skips(number, failed_again):
                yield Call(number, arguments, self._template.render(arguments, number))

    def _compare(self, logged: Logged) -> None:
        """Compare all commands of the log with those of this run, before any of them runs."""
        number = skipped = 0
        for number, arguments in enumerate(self._inputs, 1):
            if number > logged.last:
                break
            if not self._template.uses_slot:
                logged.check(number, self._template.render(arguments, number))
            skipped += logged.skips(number, self._request.resume == "resume-failed")
        if number < logged.last:
            raise LaunchError(
                f"{self._request.joblog!r} is the log of another list: it has a command {logged.last:,}, "
                f"and this list ends after {number:,}"
            )
        self._logged = logged
        if self.total is not None:
            self.total -= skipped
        if skipped:
            say(f"{skipped:,} commands are in {self._request.joblog} and do not run again")


class CommandRun:
    """Runs the commands of a request.

    What is recorded is recorded in callbacks: also for commands that end while the run is ended early.

    Parameters
    ----------
    request : Request
        What to run.
    """

    def __init__(self, request: Request) -> None:
        self._request = request
        self._calls = _Calls(request)
        self._halt = request.halts()
        # As in GNU parallel, what is kept is not printed as well.
        self._printer = Printer(request.keep_order, request.tag, silent=bool(request.results))
        self._joblog = Joblog(request.joblog) if request.joblog else None
        has_table = bool(request.results) and is_table(request.results)
        self._table = Table(request.results, self._calls.names) if has_table else None
        token = os.urandom(6).hex()
        place = f"{request.journal}.output/" if request.journal else f"{request.tmpdir}/taskfarm-shell-"
        self._spool = os.path.abspath(place + token)
        options = {"name": "command", "retries": request.tries - 1, "key": _key}
        self._task = Task(run_command, options)
        self._recording = threading.RLock()
        self._futures: dict[int, Future[Ended]] = {}
        self._succeeded = self._failed = 0
        self._times = array("d")
        self._started = 0.0
        self._error: BaseException | None = None
        self._halted_by: Ended | None = None
        self._over = False

    def run(self) -> int:
        """Run them all; returns the exit code."""
        registry.with_ranks = "python -m taskfarm shell -n 4 ..."
        self._farm = farm = Farm()
        self._master = farm._master
        self._progress = MapProgress("command", self._calls.total, number=self._master.number_map())
        self._master.maps.add(self._progress)
        self._undrawn = self._calls.total or 0
        with self._master.lock:
            self._master.undrawn += self._undrawn
        try:
            self._submit_all()
        except KeyboardInterrupt:
            self._over = True
            self._printer.give_up_order()
            raise
        finally:
            self._calls.close()
        return self._end()

    def _submit_all(self) -> None:
        # These need to know what has started, or how long earlier commands took.
        exact = self._halt or self._request.delay or self._request.timeout_percent
        ahead = 0 if exact else max(AHEAD, 3 * self._farm.num_workers)
        window = self._farm.num_workers + ahead
        # Several start after each wait: then they travel together, and rank 0 wakes less often.
        room = max(1, ahead // 4)
        for order, call in enumerate(self._calls, 1):
            if len(self._futures) >= window:
                self._wait(lambda: len(self._futures) <= window - room)
            self._keep_delay()
            if self._over:
                break
            self._submit(call, order)
        self._progress.total = self._progress.drawn
        with self._master.lock:
            self._master.undrawn -= self._undrawn
            self._undrawn = 0
        self._wait(lambda: not self._futures)

    def _wait(self, done: Callable[[], bool], seconds: float | None = None) -> None:
        """Run the event loop until something is so, or the run is over and what runs has ended."""
        self._master.run_until(lambda: done() or self._ends_now(), self._master.deadline(seconds))
        if self._error is not None:
            raise self._error

    def _ends_now(self) -> bool:
        return self._over and (self._error is not None or (self._halt is not None and self._halt.now))

    def _keep_delay(self) -> None:
        if self._request.delay:
            left = self._started + self._request.delay - time.monotonic()
            if left > 0:
                self._wait(lambda: self._over, left)
            self._started = time.monotonic()

    def _submit(self, call: Call, order: int) -> None:
        folder = self._folder(call)
        keep = bool(self._request.journal)
        where = Where(self._spool, keep, folder, self._timeout(), self._request.memory)
        with self._recording:
            future = self._farm.submit(self._task, call.text, call.number, *where)
            self._progress.drawn += 1
            if self._undrawn:
                with self._master.lock:
                    self._undrawn -= 1
                    self._master.undrawn -= 1
            self._futures[call.number] = future
        future.add_done_callback(lambda ended: self._record(call, order, folder, ended))

    def _folder(self, call: Call) -> str:
        if not self._request.results or self._table is not None:
            return ""
        base = os.path.abspath(self._request.results)
        return folder_of(base, call.number, call.arguments, self._calls.names)

    def _timeout(self) -> float | None:
        if not self._request.timeout_percent:
            return self._request.timeout
        if len(self._times) < FEWEST_TIMES:
            return None
        import statistics

        return max(1e-3, statistics.median(self._times) * (self._request.timeout or 0.0) / 100)

    def _record(self, call: Call, order: int, folder: str, future: Any) -> None:
        """Record how a command has ended."""
        with self._recording:
            try:
                if not future.cancelled() and self._error is None:
                    self._record_end(call, order, folder, future)
            finally:
                # Last: another thread ends the run as soon as none is left.
                self._futures.pop(call.number, None)

    def _record_end(self, call: Call, order: int, folder: str, future: Any) -> None:
        error = future.exception()
        ended = error.ended if isinstance(error, CommandFailed) else None if error else future.result()
        self._progress.add(1, int(error is not None), 0)
        if ended is None:
            say(f"command {call.number} has no result: {summary_of(error)}")
        try:
            self._write(call, order, folder, ended)
        except BaseException as raised:
            # Results that cannot be kept end the run.
            self._error, self._over = raised, True
        self._count(ended)

    def _write(self, call: Call, order: int, folder: str, ended: Ended | None) -> None:
        if ended is not None:
            text = call.text.replace(SLOT, str(ended.slot))
            if folder:
                with open(os.path.join(folder, "seq"), "w") as file:
                    file.write(str(call.number))
            if self._table is not None:
                self._table.add(call.number, call.arguments, text, ended)
            if self._joblog is not None:
                self._joblog.add(call.number, ended, text)
            if ended.limit:
                say(f"command {call.number} {ended.words()}: {text}")
        self._printer.add(order, " ".join(call.arguments), ended)

    def _count(self, ended: Ended | None) -> None:
        """Count a command that has ended; the run may be over with it."""
        if ended is not None and ended.ok:
            self._succeeded += 1
            if self._request.timeout_percent and len(self._times) < MOST_TIMES:
                self._times.append(ended.seconds)
        else:
            self._failed += 1
        halt = self._halt
        if (
            halt is not None
            and not self._over
            and halt.reached(self._succeeded, self._failed, self._calls.total)
        ):
            self._over = True
            self._halted_by = ended
            for future in list(self._futures.values()):
                future.cancel()

    def _end(self) -> int:
        """Release everything; returns the exit code."""
        if self._over:
            self._printer.give_up_order()
            counts = f"{self._succeeded:,} commands succeeded, {self._failed:,} failed"
            say(f"--halt {self._halt}: {counts}; no more start")
        if self._ends_now() and self._futures:
            self._farm.abandon()
        if self._joblog is not None and not self._futures:
            self._joblog.close()
        if self._table is not None and not self._futures:
            self._table.close()
        if not self._request.journal:
            shutil.rmtree(self._spool, ignore_errors=True)
        if self._over and self._halt is not None:
            if self._halt.kind == "success":
                return 0
            if self._halt.now and self._halt.kind == "fail" and self._halted_by is not None:
                return self._halted_by.exit_code
        if self._failed:
            ended = self._succeeded + self._failed
            say(f"{self._failed:,} of {ended:,} commands failed")
        return int(self._failed > 0)


def main(words: Sequence[str]) -> int:
    """Run what the request in the first word asks for; returns the exit code."""
    request = Request.from_json(words[0])
    try:
        request.check_files()
        run = CommandRun(request)
    except (LaunchError, UsageError) as error:
        say(str(error))
        return WRONG_USE
    try:
        return run.run()
    except (LaunchError, OSError) as error:
        with contextlib.suppress(Exception):
            run._farm.abandon()
        say(f"the run ends: {error}")
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
