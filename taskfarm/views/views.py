"""All that shows a run: attached when it starts, and told when it ends."""

import contextlib
import json
import sys
import time

from taskfarm.launch.config import Plan
from taskfarm.launch.exit import say
from taskfarm.launch.signals import Signals
from taskfarm.master.master import Master
from taskfarm.master.task_output import TaskOutput
from taskfarm.views.failure_causes import Causes
from taskfarm.views.progress_bar import Bar, Lines, choose
from taskfarm.views.report import report
from taskfarm.views.report.about import about
from taskfarm.views.report.timeline import Timeline
from taskfarm.views.stack import Desk
from taskfarm.views.status import StatusFile, render, snapshot
from taskfarm.views.summary import Summary
from taskfarm.views.trace import Trace


class Views:
    """What the command line wants to be shown of a run.

    Parameters
    ----------
    plan : Plan
        What it wants.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._bar: Bar | Lines | None = None
        self._summary: Summary | None = None
        self._causes = Causes()
        self._status: StatusFile | None = None
        self._trace: Trace | None = None
        self._timeline: Timeline | None = None
        self._master: Master | None = None
        self._began = time.time()

    def attach(self, master: Master, caught: Signals) -> None:
        """Begin to look at a master."""
        plan, records = self._plan, master.outstanding.events
        self._master = master
        self._bar = bar = choose(plan.progress, master)
        if bar is not None:
            master.observers.append(bar)
        if isinstance(bar, Bar):
            master.output = TaskOutput(bar.aside)
        caught.tell = lambda: say(render(snapshot(master, caught.began), time.time()))
        if plan.status is not None:
            self._status = StatusFile(plan.status, master)
            master.observers += [self._status, Desk(plan.status, master)]
        began = master.clock.now()
        if plan.summary != "off" or plan.report is not None:
            self._summary = Summary(began)
            records.add(self._summary)
            records.add(self._causes)
        if plan.trace is not None:
            self._trace = Trace(plan.trace, began)
            records.add(self._trace)
        if plan.report is not None:
            self._timeline = Timeline(max(1, master.transport.size - 1), began)
            records.add(self._timeline)
        if records:
            master.observers.append(records.flush)

    def end_bar(self) -> None:
        """The job has ended: nothing is drawn over what follows."""
        if self._bar is not None:
            self._bar.close()

    def end_files(self) -> None:
        """Complete the files that show how the run went on, even if it ends in a hurry."""
        if self._master is not None:
            with self._master.lock:
                self._master.outstanding.events.flush()
        if self._status is not None:
            self._status.close()
        if self._trace is not None:
            self._trace.close()
            if self._trace.trouble is not None:
                say(f"the trace is not complete: {self._trace.trouble}")

    def sum_up(self) -> None:
        """Say what was done, if anything was."""
        master, summary = self._master, self._summary
        if master is None or summary is None:
            return
        now = master.clock.now()
        if self._plan.report is not None and self._timeline is not None:
            facts = about(master, self._plan.words, self._began)
            try:
                report.write(self._plan.report, self._timeline, summary, self._causes.all, facts, now)
            except OSError as error:
                say(f"the report cannot be written: {error}")
        if not summary.rows or self._plan.summary == "off":
            return
        if self._plan.summary == "json":
            text = json.dumps({**summary.figures(now), "failures": self._causes.figures()})
        else:
            text = "\n".join(filter(None, (summary.table(now), self._causes.text())))
        with contextlib.suppress(OSError, ValueError):
            print(text, file=sys.stderr, flush=True)
