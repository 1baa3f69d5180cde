"""Communicators of some workers alone, for tasks on several ranks; loaded when the first one starts."""

import os
import signal
from typing import Any, NoReturn

from mpi4py import MPI

from taskfarm.transport.mpi import MpiTransport, survives_dead_ranks

TAG = 1
"""The tag of all creations: the master starts no two that overlap at a time."""


class Groups:
    """The communicators of a worker with others, by the number that the master has given to each.

    Parameters
    ----------
    transport : MpiTransport
        The way to the master; its ranks are those of the members.

    Attributes
    ----------
    can_revoke : bool
        Whether a call of MPI that waits for others can be ended.
    """

    def __init__(self, transport: MpiTransport) -> None:
        self._parent = transport.communicator
        self._comms: dict[int, Any] = {}
        self.can_revoke = survives_dead_ranks()
        if self.can_revoke:
            _end_by_signal()

    def get(self, number: int, members: tuple[int, ...]) -> Any:
        """The communicator of a number; collective over its members if it has to be made."""
        comm = self._comms.get(number)
        if comm is None:
            everyone = self._parent.Get_group()
            group = everyone.Incl(members)
            comm = self._comms[number] = self._parent.Create_group(group, TAG)
            group.Free()
            everyone.Free()
        return comm

    def revoke(self, number: int) -> None:
        """End all calls of MPI on a communicator, on all members."""
        comm = self._comms.get(number)
        if comm is not None and comm != MPI.COMM_NULL:
            comm.Revoke()

    def is_whole(self, number: int) -> bool:
        """Whether a communicator may be used again: no task has freed or revoked it."""
        comm = self._comms.get(number)
        return comm is not None and comm != MPI.COMM_NULL and not (self.can_revoke and comm.Is_revoked())

    def drop(self, numbers: list[int], free: bool) -> None:
        """Forget communicators; `free` releases them, in this order.

        What a failed task has sent may still arrive. MPICH uses the context of a freed communicator for the
        next one, so that of a failed task is never freed.
        """
        for number in numbers:
            comm = self._comms.pop(number, None)
            if free and comm is not None and comm != MPI.COMM_NULL:
                comm.Free()

    def close(self) -> None:
        """Release all communicators, in an order that all members agree on."""
        self.drop(sorted(self._comms), free=True)


def _end_by_signal() -> None:
    """Let ``os._exit`` end this process by a signal: Open MPI does not notice another end."""
    pid, exit_now = os.getpid(), os._exit

    def end(status: int) -> NoReturn:
        if os.getpid() == pid and status:
            os.kill(pid, signal.SIGKILL)
        exit_now(status)

    os._exit = end


def alone() -> Any:
    """The communicator of this process alone."""
    return MPI.COMM_SELF
