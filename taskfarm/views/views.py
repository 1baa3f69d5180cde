"""All views of a run: they are attached when it starts, and completed when it ends."""

import contextlib
import json
import os
import socket
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

from taskfarm.console import say, write
from taskfarm.environment import seconds_since_start
from taskfarm.master.farm_time import FarmTime
from taskfarm.master.master import Master
from taskfarm.master.task_output import TaskOutput
from taskfarm.protocol.failures import summarize
from taskfarm.views.failure_causes import FailureCauses
from taskfarm.views.pace import Pace
from taskfarm.views.progress_bar import Bar, Lines, choose
from taskfarm.views.summary import RunState, Summary

if TYPE_CHECKING:
    from taskfarm.views.notebook_bars import NotebookBars
    from taskfarm.views.report.timeline import Timeline
    from taskfarm.views.status import StatusFile
    from taskfarm.views.trace import Trace


class ViewOptions(Protocol):
    """The options that select views; see `taskfarm.launch.config.RunConfig`."""

    @property
    def progress(self) -> str: ...
    @property
    def summary(self) -> str: ...
    @property
    def status(self) -> str | None: ...
    @property
    def report(self) -> str | None: ...
    @property
    def trace(self) -> str | None: ...
    @property
    def argv(self) -> Sequence[str]: ...


@contextlib.contextmanager
def _failure_said(view: str) -> Iterator[None]:
    """Say that a view has failed: the exit code of a run does not depend on it."""
    try:
        yield
    except (Exception, SystemExit) as error:
        say(f"{view} has failed: {summarize(error)}")


class Views:
    """The views of a run that the command line selects.

    Parameters
    ----------
    options : ViewOptions
        The options that select them.
    """

    def __init__(self, options: ViewOptions) -> None:
        self._options = options
        self._pace: Pace | None = None
        self._bar: Bar | Lines | NotebookBars | None = None
        self._summary: Summary | None = None
        self._causes = FailureCauses()
        self._status: StatusFile | None = None
        self._trace: Trace | None = None
        self._timeline: Timeline | None = None
        self._master: Master | None = None
        self._began = time.time()

    def attach(self, master: Master) -> None:
        """Begin to observe a master. The modules of other views are not even imported."""
        options, events = self._options, master.outstanding.events
        self._master = master
        self._pace = pace = Pace(master)
        master.observers.append(pace)
        self._bar = bar = self._choose_bar(master, pace)
        if bar is not None:
            master.observers.append(bar)
        if isinstance(bar, Bar):
            master.output = TaskOutput(bar.external_write_mode)
        if options.status is not None:
            from taskfarm.views.explain import ExplainRequests
            from taskfarm.views.stack import StackRequests
            from taskfarm.views.status import StatusFile

            self._status = StatusFile(options.status, master, pace)
            master.observers += [
                self._status,
                StackRequests(options.status, master),
                ExplainRequests(options.status, master, self._status),
            ]
        now = master.clock.now()
        began = now - seconds_since_start()
        if options.summary != "off" or options.report is not None:
            master.farm_time = FarmTime(master.clock.now, began)
            self._summary = Summary(began, max(1, master.transport.size - 1), master.farm_time, now)
            events.add(self._summary)
            events.add(self._causes)
        if options.trace is not None:
            from taskfarm.views.trace import Trace

            self._trace = Trace(options.trace, began)
            events.add(self._trace)
        if options.report is not None:
            from taskfarm.views.report.timeline import Timeline

            self._timeline = Timeline(max(1, master.transport.size - 1), began)
            events.add(self._timeline)
        if events:
            master.observers.append(events.flush)

    def _choose_bar(self, master: Master, pace: Pace) -> "Bar | Lines | NotebookBars | None":
        if self._options.progress != "off" and any(
            word.startswith("ipykernel") for word in self._options.argv
        ):
            from taskfarm.views.notebook_bars import NotebookBars

            return NotebookBars(master, pace)
        return choose(self._options.progress, master, pace)

    def print_status(self) -> None:
        """Print the progress of the run."""
        from taskfarm.views.status import render, snapshot

        if self._master is not None and self._pace is not None:
            with _failure_said("the progress"):
                say(render(snapshot(self._master, self._began, self._pace), time.time()))

    def end_bar(self) -> None:
        """Close the bar when the job has ended, so that it does not overwrite later output."""
        if self._bar is not None:
            with _failure_said("the progress bar"):
                self._bar.close()

    def end_files(self) -> None:
        """Complete the status file and the trace; this is quick enough for a run that is being killed."""
        if self._master is not None:
            with _failure_said("a view"), self._master.lock:
                self._master.outstanding.events.flush()
        if self._status is not None:
            with _failure_said("the status file"):
                self._status.close()
        if self._trace is not None:
            with _failure_said("the trace"):
                self._trace.close()
            if self._trace.error is not None:
                say(f"the trace is incomplete: {self._trace.error}")

    def sum_up(self) -> None:
        """Write the report, and print the summary if any task ran."""
        master, summary = self._master, self._summary
        if master is None or summary is None:
            return
        now, state = master.clock.now(), _state(master)
        if self._options.report is not None and self._timeline is not None:
            with _failure_said("the report"):
                self._write_report(self._options.report, self._timeline, summary, state, now)
        with _failure_said("the summary"):
            self._print_summary(summary, state, now)

    def _print_summary(self, summary: Summary, state: RunState, now: float) -> None:
        if not summary.rows or self._options.summary == "off":
            return
        if self._options.summary == "json":
            text = json.dumps({**summary.figures(now, state), "failures": self._causes.figures()})
        else:
            text = "\n".join(filter(None, (summary.table(now, state), self._causes.text())))
        write(text)

    def _write_report(
        self, path: str, timeline: "Timeline", summary: Summary, state: RunState, now: float
    ) -> None:
        from taskfarm.views.report import report
        from taskfarm.views.report.about import about

        assert self._master is not None
        facts = about(self._master, self._options.argv, self._began)
        try:
            report.write(path, timeline, summary, self._causes.all, facts, now, state)
        except OSError as error:
            say(f"the report cannot be written: {error}")


def _state(master: Master) -> RunState:
    """What the summary needs to know of the master at the end of a run."""
    with master.lock:
        name = master.outstanding.pending.function_of
        running = [
            (worker, name(span).name, span.first, since)
            for worker, span, since in master.scheduler.running()
        ]
        hosts = {hello.host for hello in master.workers.hellos.values()}
    maps, submits = master.num_maps, master.outstanding.submits
    return RunState(running, maps, submits, _shared_cores() if hosts == {socket.gethostname()} else 0)


def _shared_cores() -> int:
    """Cores that the ranks of this host share; 0 if this rank may be bound to some of its own."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 0
    return cores if cores > 2 or cores == os.cpu_count() else 0
