"""An event loop of asyncio as the one who waits, and so turns the farm."""

import sys
from typing import TYPE_CHECKING

from taskfarm.master.master import Master
from taskfarm.transport.waiting import pause

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop


def tend(master: Master) -> None:
    """Let the event loop that runs in this thread, if one does, turn the farm until all tasks have ended.

    Needed where no background thread may: the loop sleeps until it is called, and nobody would call.
    """
    asyncio = sys.modules.get("asyncio")
    loop = asyncio._get_running_loop() if asyncio else None
    if loop is not None and loop not in master.asyncio_loops:
        master.asyncio_loops.add(loop)
        loop.call_soon(_turn, master, loop, master.clock.now())


def _turn(master: Master, loop: "AbstractEventLoop", since: float) -> None:
    """Turn the farm now, and again after a pause that grows while nothing happens."""
    goes_on = False
    try:
        if master.run_once():
            since = master.clock.now()
        goes_on = master.scheduler.unfinished > 0
    finally:
        if not goes_on:
            master.asyncio_loops.discard(loop)
    if goes_on:
        loop.call_later(pause(master.clock.now() - since), _turn, master, loop, since)
