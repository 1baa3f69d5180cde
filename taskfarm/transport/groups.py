"""Communicators of some workers alone, for tasks on several ranks; loaded when the first one starts."""

import contextlib
import functools
import os
import signal
from collections.abc import Callable
from itertools import accumulate, pairwise
from typing import Any, NoReturn

from mpi4py import MPI

from taskfarm.errors import TaskFarmError
from taskfarm.transport.mpi import FAILURES, MpiTransport

TAG = 1
"""The tag of all creations: the master starts no two that overlap at a time."""


LARGEST_LEFT = 1 << 20
"""Bytes of a message that a task has left, at most, if its communicator shall be used again."""


class RankDied(TaskFarmError):
    """A communicator was not made, because some rank has died."""


def _noted(name: str) -> Any:
    """A method of communicators that makes another one, which a failed task must be able to revoke."""
    make = getattr(MPI.Intracomm, name)

    @functools.wraps(make)
    def method(self: "TaskComm", *args: Any, **kwargs: Any) -> Any:
        made = make(self, *args, **kwargs)
        derived = getattr(self, "derived", None)
        if derived is not None:
            if isinstance(made, TaskComm):
                made.derived = derived
            derived.append(made)
        return made

    return method


class TaskComm(MPI.Intracomm):
    """The communicator of a task: as any other, but what waits in it can be ended.

    For reductions of objects, mpi4py duplicates a communicator when it first needs that. It holds the
    interpreter meanwhile, and nobody else can revoke the duplicate. So they are made of other calls here.

    Attributes
    ----------
    derived : list of MPI.Comm
        What the task has made from it.
    """

    derived: "list[MPI.Comm]"

    Dup = _noted("Dup")
    Split = _noted("Split")
    Split_type = _noted("Split_type")
    Create = _noted("Create")
    Create_group = _noted("Create_group")
    Create_cart = _noted("Create_cart")
    Create_graph = _noted("Create_graph")
    Create_dist_graph = _noted("Create_dist_graph")
    Create_dist_graph_adjacent = _noted("Create_dist_graph_adjacent")

    def reduce(self, sendobj: Any, op: Any = MPI.SUM, root: int = 0) -> Any:
        """Reduce objects to the root."""
        values = self.gather(sendobj, root)
        return None if values is None else functools.reduce(op, values)

    def allreduce(self, sendobj: Any, op: Any = MPI.SUM) -> Any:
        """Reduce objects, and give each rank the result."""
        return self.bcast(self.reduce(sendobj, op))

    def scan(self, sendobj: Any, op: Any = MPI.SUM) -> Any:
        """Reduce the objects of each rank and of those before it."""
        values = self.gather(sendobj)
        return self.scatter(None if values is None else list(accumulate(values, op)))

    def exscan(self, sendobj: Any, op: Any = MPI.SUM) -> Any:
        """Reduce the objects of the ranks before each; None on the first one."""
        values = self.gather(sendobj)
        return self.scatter(None if values is None else [None, *accumulate(values[:-1], op)])


class _Pair:
    """Two communicators of the same workers, of which their tasks use one and the other in turn.

    What a task has sent and nobody has received must not reach the next task. Nobody uses its communicator
    while the next task runs, so whatever arrives there until that one has ended is left over.
    """

    def __init__(self) -> None:
        self._comms: list[Any] = []
        self._at = 0

    def turn(self, make: Callable[[], Any]) -> Any:
        """The communicator of the next task; collective over the workers if it has to be made."""
        self._at = 1 - self._at if len(self._comms) == 2 else len(self._comms)
        if self._at == len(self._comms):
            self._comms.append(make())
        return self.current

    @property
    def is_made(self) -> bool:
        """Whether there is the communicator of the last task."""
        return self._at < len(self._comms)

    @property
    def current(self) -> Any:
        """The communicator of the last task."""
        return self._comms[self._at]

    def is_empty(self) -> bool:
        """Receive what the task before the last one has left; False if something is too large for that."""
        if len(self._comms) < 2:
            return True
        comm, status = self._comms[1 - self._at], MPI.Status()
        while comm.Iprobe(MPI.ANY_SOURCE, MPI.ANY_TAG, status):
            nbytes = status.Get_count(MPI.BYTE)
            if not 0 <= nbytes <= LARGEST_LEFT:
                return False
            comm.Recv([bytearray(nbytes), MPI.BYTE], status.Get_source(), status.Get_tag())
        return True

    def free(self) -> None:
        """Release both; collective over the workers."""
        for comm in self._comms:
            if comm != MPI.COMM_NULL:
                comm.Free()


class Groups:
    """The communicators of a worker with others, by the number that the master has given to each pair.

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
        self._everyone = transport.communicator.Get_group()
        self._parent = transport.workers
        self._pairs: dict[int, _Pair] = {}
        self.can_revoke = transport.survives
        if self.can_revoke:
            _end_by_signal()

    def get(self, number: int, members: tuple[int, ...]) -> Any:
        """The communicator of the next task; collective over its members if it has to be made."""
        pair = self._pairs.get(number)
        if pair is None:
            pair = self._pairs[number] = _Pair()
        return pair.turn(lambda: self._make(members))

    def _make(self, members: tuple[int, ...]) -> TaskComm:
        parent = self._parent
        left = parent.Get_group()
        ranks = MPI.Group.Translate_ranks(self._everyone, members, left)
        if self.can_revoke and not self._nobody_died([*ranks]):
            raise RankDied("a rank died before the communicator of this task was made")
        group = left.Incl(ranks)
        comm = TaskComm(parent.Create_group(group, TAG))
        comm.derived = []
        group.Free()
        left.Free()
        return comm

    def _current(self, number: int) -> Any:
        """The communicator of the last task with a number; None if there is none, or it was freed."""
        pair = self._pairs.get(number)
        comm = None if pair is None or not pair.is_made else pair.current
        return None if comm == MPI.COMM_NULL else comm

    def regroup(self) -> None:
        """Agree with the other workers that are left on who they are; collective over these.

        Nobody can make a communicator from one in which a rank has died.
        """
        self._parent = MPI.Intracomm(self._parent.Shrink())

    def _nobody_died(self, ranks: list[int]) -> bool:
        """Whether no rank of the parent has died, as far as any of the members knows.

        If some know of one and others do not, the latter wait in `Create_group` for ever.
        """
        parent, lead = self._parent, ranks[0]
        failed = parent.Get_failed()
        fine = not failed.Get_size()
        failed.Free()
        others = ranks[1:] if parent.Get_rank() == lead else [lead]
        told = [parent.isend(fine, one, TAG + 1) for one in others if parent.Get_rank() != lead]
        for one in others:
            try:
                fine &= parent.recv(source=one, tag=TAG + 1)
            except MPI.Exception:
                fine = False
        if parent.Get_rank() == lead:
            told = [parent.isend(fine, one, TAG + 1) for one in others]
        for request in told:
            with contextlib.suppress(MPI.Exception):
                request.wait()
        return fine

    @staticmethod
    def is_death(error: BaseException) -> bool:
        """Whether a communicator could not be made because a rank has died."""
        return isinstance(error, RankDied) or (
            isinstance(error, MPI.Exception) and error.Get_error_class() in FAILURES
        )

    def revoke(self, number: int) -> None:
        """End all calls of MPI on a communicator, on all members."""
        comm = self._current(number)
        for one in () if comm is None else (comm, *comm.derived):
            if one != MPI.COMM_NULL:
                one.Revoke()

    def is_whole(self, number: int) -> bool:
        """Whether communicators may be used again: no task has freed or revoked one, or left much in it."""
        comm = self._current(number)
        if comm is None:
            return False
        comm.derived.clear()
        with contextlib.suppress(MPI.Exception):
            return not self.is_revoked(number) and self._pairs[number].is_empty()
        return False

    def is_revoked(self, number: int) -> bool:
        """Whether another member, or the task, has ended what waits in a communicator."""
        comm = self._current(number)
        return self.can_revoke and comm is not None and bool(comm.Is_revoked())

    def drop(self, numbers: list[int], free: bool) -> None:
        """Forget communicators; `free` releases them, in this order.

        What a failed task has sent may still arrive. MPICH uses the context of a freed communicator for the
        next one, so that of a failed task is never freed.
        """
        for number in numbers:
            pair = self._pairs.pop(number, None)
            if free and pair is not None:
                pair.free()

    def close(self) -> None:
        """Release all communicators, in an order that all members agree on."""
        self.drop(sorted(self._pairs), free=True)


def creation_seconds(repeats: int = 20) -> float:
    """Seconds that ranks 1, 2, ... take to make a communicator of their own; the median of some creations.

    Collective over all ranks, of which there must be three; the figure is known on rank 0.
    """
    world = MPI.COMM_WORLD
    everyone = world.Get_group()
    group = everyone.Excl([0])
    times = [0.0]
    if world.Get_rank():
        # The first one sets up connections.
        made = [world.Create_group(group, TAG)]
        made[0].Barrier()
        moments = [MPI.Wtime()]
        for _ in range(repeats):
            made.append(world.Create_group(group, TAG))
            moments.append(MPI.Wtime())
        times = sorted(later - sooner for sooner, later in pairwise(moments))
        for comm in made:
            comm.Free()
    group.Free()
    everyone.Free()
    return float(max(world.allgather(times[len(times) // 2])))


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
