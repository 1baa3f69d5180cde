"""Farms in programs that all ranks run: each lasts for one ``with`` block that all of them enter."""

import atexit
from contextlib import AbstractContextManager, ExitStack, nullcontext
from typing import TYPE_CHECKING, Any

from taskfarm.console import say
from taskfarm.errors import UsageError
from taskfarm.interrupts import on_sigint
from taskfarm.job.current_farm import registry
from taskfarm.master.master import Master
from taskfarm.schedule.heartbeats import START_LIMIT
from taskfarm.worker.context import refuse_in_task
from taskfarm.worker.spmd import Interrupts, serve_block

if TYPE_CHECKING:
    from mpi4py import MPI

    from taskfarm.job.farm import Farm
    from taskfarm.transport.mpi import MpiTransport


STOP_SECONDS = 30.0
"""Seconds within which a worker without a block must have received the poison pill."""


class Block:
    """The root's side of a block.

    Parameters
    ----------
    transport : MpiTransport
        The way to the workers.
    interrupts : Interrupts
        Handles SIGINT until the end of the block.
    at_end : contextlib.ExitStack
        Closed at the end.

    Attributes
    ----------
    master : Master
        The master of the block.
    farm : Farm or None
        Its farm, once it is open.
    """

    def __init__(self, transport: "MpiTransport", interrupts: Interrupts, at_end: ExitStack) -> None:
        self._transport = transport
        self._interrupts = interrupts
        self._at_end = at_end
        self.master = Master(transport)
        self.farm: Farm | None = None
        registry.blocks[self.master] = self

    def open(self, cls: "type[Farm]", options: dict[str, Any]) -> "Farm":
        """Open a farm of class `cls`, or end the block with the exception that this raises."""
        from taskfarm.job.farm import open_on

        try:
            self.farm = open_on(cls, self.master, **options)
        except BaseException:
            self.end()
            raise
        self._interrupts.hand_over(on_sigint)
        if self._interrupts.requested is not None:
            self.farm.shutdown(cancel_futures=True)
            raise KeyboardInterrupt
        return self.farm

    def give_way(self, comm: "MPI.Intracomm") -> None:
        """End the block, if its end was interrupted and its workers are needed for another one.

        Raises
        ------
        UsageError
            They are needed, but the farm is open.
        """
        if not self._transport.overlaps(comm):
            return
        if self.farm is None or not self.farm.closed:
            raise UsageError(
                "the ranks of this communicator serve another farm: leave its `with` block first, or use it"
            )
        self.farm.shutdown(cancel_futures=True)

    def end(self) -> None:
        """Let the workers leave the block, and release its communicators.

        KeyboardInterrupt is raised after that. If it takes long, a second SIGINT raises it at once, and
        `give_way` ends the block.
        """
        self._interrupts.postpone()
        if not self.master.stop_workers(START_LIMIT):
            say(f"some workers have not left their block within {START_LIMIT:.0f} s, so all ranks end")
            self._transport.abort(1)
        self.master.close()
        registry.blocks.pop(self.master, None)
        if self._transport.has_unreachable:
            say(f"lost {self.master.workers.lost[-1]}, so all ranks end by force when this program ends")
            # MPI would wait for that rank for ever.
            atexit.register(self._transport.leave, 1)
        self._at_end.close()


def open_block(
    cls: "type[Farm]", comm: "MPI.Intracomm", root: int, options: dict[str, Any]
) -> "AbstractContextManager[Farm | None]":
    """Open a farm of class `cls` on the root, and serve as its worker elsewhere; see `Farm.from_comm`."""
    refuse_in_task()
    _end_earlier(comm, root)
    launched = registry.current_master
    with ExitStack() as at_end:
        interrupts = at_end.enter_context(Interrupts())
        from taskfarm.transport import mpi

        if not mpi.takes_part(comm, root):
            return nullcontext(None)
        alone = mpi.num_ranks() == 1
        if alone or (launched is not None and not launched.transport.inline):
            at_end.close()
            return cls(**options)
        if comm.Get_size() == 1:
            at_end.close()
            from taskfarm.job.farm import open_on
            from taskfarm.worker.local import LocalTransport

            return open_on(cls, Master(LocalTransport()), **options)
        transport = mpi.MpiTransport(comm, root=root, shared=True, while_waiting=interrupts.while_waiting)
        if transport.rank:
            serve_block(transport, interrupts)
            return nullcontext(None)
        return Block(transport, interrupts, at_end.pop_all()).open(cls, options)


def _end_earlier(comm: "MPI.Intracomm", root: int) -> None:
    """End the blocks that were interrupted while they ended, if their workers are needed."""
    if registry.blocks:
        from taskfarm.transport.mpi import takes_part

        if takes_part(comm, root):
            for block in list(registry.blocks.values()):
                block.give_way(comm)


def end_block(master: Master) -> None:
    """End the block of a master that serves a single farm."""
    if master in registry.blocks:
        registry.blocks[master].end()
        return
    if not master.stop_workers(STOP_SECONDS):
        master.transport.abort(1)
    master.close()
