"""All views of a run: they are attached when it starts, and completed when it ends."""

import contextlib
import json
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

from taskfarm.console import say, write
from taskfarm.master.master import Master
from taskfarm.master.task_output import TaskOutput
from taskfarm.protocol.failures import summarize
from taskfarm.views.failure_causes import FailureCauses
from taskfarm.views.progress_bar import Bar, Lines, choose
from taskfarm.views.summary import Summary

if TYPE_CHECKING:
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
        self._bar: Bar | Lines | None = None
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
        self._bar = bar = choose(options.progress, master)
        if bar is not None:
            master.observers.append(bar)
        if isinstance(bar, Bar):
            master.output = TaskOutput(bar.external_write_mode)
        if options.status is not None:
            from taskfarm.views.stack import StackRequests
            from taskfarm.views.status import StatusFile

            self._status = StatusFile(options.status, master)
            master.observers += [self._status, StackRequests(options.status, master)]
        began = master.clock.now()
        if options.summary != "off" or options.report is not None:
            self._summary = Summary(began)
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

    def print_status(self) -> None:
        """Print the progress of the run."""
        from taskfarm.views.status import render, snapshot

        if self._master is not None:
            with _failure_said("the progress"):
                say(render(snapshot(self._master, self._began), time.time()))

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
        now = master.clock.now()
        if self._options.report is not None and self._timeline is not None:
            with _failure_said("the report"):
                self._write_report(self._options.report, self._timeline, summary, master, now)
        with _failure_said("the summary"):
            self._print_summary(summary, now)

    def _print_summary(self, summary: Summary, now: float) -> None:
        if not summary.rows or self._options.summary == "off":
            return
        if self._options.summary == "json":
            text = json.dumps({**summary.figures(now), "failures": self._causes.figures()})
        else:
            text = "\n".join(filter(None, (summary.table(now), self._causes.text())))
        write(text)

    def _write_report(
        self, path: str, timeline: "Timeline", summary: Summary, master: Master, now: float
    ) -> None:
        from taskfarm.views.report import report
        from taskfarm.views.report.about import about

        facts = about(master, self._options.argv, self._began)
        try:
            report.write(path, timeline, summary, self._causes.all, facts, now)
        except OSError as error:
            say(f"the report cannot be written: {error}")
