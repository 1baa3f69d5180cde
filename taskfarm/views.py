"""All that shows a run: attached when it starts, and told when it ends."""

import contextlib
import json
import sys
import time

from taskfarm.causes import Causes
from taskfarm.ending import say
from taskfarm.master import Master
from taskfarm.output import Output
from taskfarm.plan import Plan
from taskfarm.progress import Bar, Lines, choose
from taskfarm.signals import Signals
from taskfarm.stack import Desk
from taskfarm.status import StatusFile, render, snapshot
from taskfarm.summary import Summary


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
        self._master: Master | None = None

    def attach(self, master: Master, caught: Signals) -> None:
        """Begin to look at a master."""
        plan, records = self._plan, master.accounts.records
        self._master = master
        self._bar = bar = choose(plan.progress, master)
        if bar is not None:
            master.observers.append(bar)
        if isinstance(bar, Bar):
            master.output = Output(bar.aside)
        caught.tell = lambda: say(render(snapshot(master, caught.began), time.time()))
        if plan.status is not None:
            self._status = StatusFile(plan.status, master)
            master.observers += [self._status, Desk(plan.status, master)]
        if plan.summary != "off":
            self._summary = Summary(master.clock.now())
            records.add(self._summary)
            records.add(self._causes)
        if records:
            master.observers.append(records.flush)

    def end_bar(self) -> None:
        """The job has ended: nothing is drawn over what follows."""
        if self._bar is not None:
            self._bar.close()

    def end_files(self) -> None:
        """Complete the files that show how the run went on, even if it ends in a hurry."""
        if self._status is not None:
            self._status.close()

    def sum_up(self) -> None:
        """Say what was done, if anything was."""
        if self._master is None or self._summary is None:
            return
        with self._master.lock:
            self._master.accounts.records.flush()
        if self._summary.rows:
            now = self._master.clock.now()
            if self._plan.summary == "json":
                found = {**self._summary.figures(now), "failures": self._causes.figures()}
                text = json.dumps(found)
            else:
                text = "\n".join(filter(None, (self._summary.table(now), self._causes.text())))
            with contextlib.suppress(OSError, ValueError):
                print(text, file=sys.stderr, flush=True)
