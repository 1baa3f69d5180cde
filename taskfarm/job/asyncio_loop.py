"""Lets an event loop of asyncio run the farm's."""

import sys
from typing import TYPE_CHECKING

from taskfarm import interrupts
from taskfarm.master.master import Master
from taskfarm.transport.waiting import pause_seconds

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop


def run_in_asyncio(master: Master) -> None:
    """Let the asyncio loop of this thread, if there is one, run the farm until all tasks have ended.

    Needed if no background thread may: the loop sleeps until it is called, and nobody would call it.
    """
    asyncio = sys.modules.get("asyncio")
    loop = asyncio._get_running_loop() if asyncio else None
    if loop is not None and loop not in master.asyncio_loops:
        master.asyncio_loops.add(loop)
        loop.call_soon(_run_once, master, loop, master.clock.now())


def _run_once(master: Master, loop: "AbstractEventLoop", since: float) -> None:
    """Run the farm's loop once now, and again after a pause that grows while nothing happens."""
    goes_on = False
    try:
        if master.run_once():
            since = master.clock.now()
        interrupts.raise_pending()
        goes_on = not master.idle
    finally:
        if not goes_on:
            master.asyncio_loops.discard(loop)
    if goes_on:
        loop.call_later(pause_seconds(master.clock.now() - since), _run_once, master, loop, since)
