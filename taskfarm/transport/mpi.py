"""The transport over MPI, and the only module that imports mpi4py.

Control messages and bulk frames (see `frames`) use one communicator each. Both are duplicates, so that they
never match a message of the user's own.
"""

import mmap
import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import mpi4py
from mpi4py import MPI

from taskfarm.environment import claimed_size, end_mpiexec_later, fault_tolerant
from taskfarm.errors import LaunchError, MasterLost, UsageError
from taskfarm.protocol.messages import IN_BAND, Parcel, new_tuple
from taskfarm.transport import frames
from taskfarm.transport.doorbell import Doorbell, crowded
from taskfarm.transport.frames import MAX_PIECE, Allocate, IncomingParcel, ReceiveQueue
from taskfarm.transport.interface import Received, Transport
from taskfarm.transport.waiting import CLOCK, measure_wakeup

if TYPE_CHECKING:
    from taskfarm.transport.peers import PeerTransfers

RECEIVE_CREDIT = 1 << 30
"""Bytes of bulk frames that a rank receives at once. A larger parcel is received alone."""

LINGER_SECONDS = 60.0
"""Seconds that a worker waits to be ended together with all others if some ranks are lost."""

PEER_SECONDS = 5.0
"""Seconds that a rank waits at its end for what workers send each other."""

MPIEXEC_SECONDS = 5
"""Seconds that mpiexec gets to end on its own."""

BARRIER_SHARE, MIN_BARRIER_SLEEP, MAX_BARRIER_SLEEP = 0.1, 1e-3, 20e-3
"""In a barrier, a rank sleeps for this share of the wait so far, within these bounds in seconds."""

FAILURES = (MPI.ERR_PROC_FAILED, MPI.ERR_PROC_FAILED_PENDING)
"""MPI error classes that report a dead rank."""


class MpiTransport(Transport):
    """Sends parcels over duplicates of an MPI communicator.

    Parameters
    ----------
    comm : MPI.Intracomm
        The ranks. Collective over all of them.
    piece : int
        Largest bulk message, in bytes.
    credit : int
        Bytes of bulk frames to receive at once.
    root : int
        The rank in `comm` that is the master, rank 0 of the transport.
    shared : bool
        Whether the program uses MPI by itself, too, and goes on after `close`. Then a thread of taskfarm
        may use MPI only if any thread may, and no rank waits for another one in `close`.
    while_waiting : callable
        Called again and again while some ranks have not come yet.
    """

    def __init__(
        self,
        comm: MPI.Intracomm,
        piece: int = MAX_PIECE,
        credit: int = RECEIVE_CREDIT,
        root: int = 0,
        shared: bool = False,
        while_waiting: Callable[[], object] = lambda: None,
    ) -> None:
        self._shared = shared
        self.threads = MPI.Query_thread() >= (MPI.THREAD_MULTIPLE if shared else MPI.THREAD_SERIALIZED)
        self.gangs = MPI.Query_thread() >= MPI.THREAD_MULTIPLE
        # Not a subclass of the user's, which may send in another way.
        self._world = comm = MPI.Intracomm(comm)
        _sleeping_barrier(comm, while_waiting)
        self._control: Any = comm.Split(0, int(comm.Get_rank() != root)) if root else comm.Dup()
        self._bulk = self._control.Dup()
        self.rank = self._control.Get_rank()
        self.size = self._control.Get_size()
        self._survives = self.survives = survives_dead_ranks()
        self._workers: Any = self._control
        if self._survives:
            # Those that are left after a loss can agree on who they are without rank 0.
            self._workers = self._control.Split(0 if self.rank else MPI.UNDEFINED, self.rank)
        self._piece = piece
        # Reserved while there is memory; its pages stay untouched until a frame has to be dropped.
        self._scratch = memoryview(mmap.mmap(-1, piece))
        self._matched = bool(getattr(mpi4py.rc, "recv_mprobe", True))
        self._status = MPI.Status()
        self._outgoing: list[tuple[int, list[MPI.Request]]] = []
        # A worker receives only from the master, so the death of another worker must not disturb it.
        self._peer = 0 if self.rank else MPI.ANY_SOURCE
        self._dead: set[int] = set()
        self._lost: list[int] = []
        self._abandoned: list[tuple[int, list[MPI.Request]]] = []
        self._abandoned_receives: list[IncomingParcel] = []
        self._receive_queue = ReceiveQueue(credit)
        self._allocators: dict[int, Allocate] = {}
        self._peers: PeerTransfers | None = None
        self._doorbell = Doorbell(self.rank, self.size)
        self.crowded = self._exchange_contacts()
        self.wakeup_seconds = measure_wakeup(CLOCK)

    @property
    def communicator(self) -> MPI.Intracomm:
        """The communicator of all ranks; only its group may be used."""
        communicator: MPI.Intracomm = self._control
        return communicator

    @property
    def workers(self) -> MPI.Intracomm:
        """A communicator of all workers, from which groups of them make others; it may have rank 0, too."""
        workers: MPI.Intracomm = self._workers
        return workers

    def _exchange_contacts(self) -> bool:
        """Let ranks wake each other where they can; returns whether this rank's host is crowded."""
        doorbell, comm = self._doorbell, self._control
        contacts = comm.gather(doorbell.contact)
        if contacts is None:  # a worker
            is_crowded = bool(comm.scatter(None))
            comm.gather(doorbell.take())
            return is_crowded
        has_bell = doorbell.hand_out(contacts)
        is_crowded = bool(comm.scatter(crowded(contacts)))
        doorbell.rung_by_all = all(comm.gather(has_bell))
        return is_crowded

    def receive_into(self, tag: int, allocate: Allocate | None) -> None:
        if allocate is None:
            self._allocators.pop(tag, None)
        else:
            self._allocators[tag] = allocate

    def receives_into(self, memory: Any) -> bool:
        return self._receive_queue.receives_into(memory) or any(
            incoming.writes_into(memory) for incoming in self._abandoned_receives
        )

    def pass_on(self, dest: int, number: int, memory: memoryview) -> None:
        self._peer_transfers().send(dest, number, memory)

    def expect(
        self, source: int, number: int, memory: memoryview, complete: Parcel, overdue: Parcel
    ) -> None:
        self._peer_transfers().receive(source, number, memory, complete, overdue)

    def _peer_transfers(self) -> "PeerTransfers":
        """What workers send each other; most never do."""
        if self._peers is None:
            from taskfarm.transport.peers import PeerTransfers

            self._peers = PeerTransfers(self._bulk, self._piece)
        return self._peers

    def send(self, dest: int, parcel: Parcel) -> None:
        if dest in self._dead:
            return
        tag, head, buffers = parcel
        try:
            if not buffers and len(head) <= IN_BAND:
                requests = [self._control.Isend([frames.NO_FRAMES + head, MPI.BYTE], dest, tag)]
            else:
                requests = self._start(dest, parcel)
            sent = MPI.Request.Testall(requests)
        except MPI.Exception:
            self._mark_unreachable(dest)
            return
        if not sent:
            self._outgoing.append((dest, requests))
        if self._doorbell.asleep[dest]:
            self._doorbell.ring(dest)

    def rouse(self, rank: int) -> None:
        if self._doorbell.asleep[rank]:
            self._doorbell.ring(rank)

    def _start(self, dest: int, parcel: Parcel) -> list[MPI.Request]:
        """Start to send a parcel with bulk frames."""
        tag = parcel.tag
        control, bulk = frames.split(parcel)
        requests = [self._control.Isend([control, MPI.BYTE], dest, tag)]
        for frame in bulk:
            for piece in frames.pieces(frame, self._piece):
                requests.append(self._bulk.Isend([piece, MPI.BYTE], dest, 0))
        return requests

    def _sent(self, dest: int, requests: list[MPI.Request]) -> bool:
        """Whether a parcel has been sent, or never will be."""
        try:
            return bool(MPI.Request.Testall(requests))
        except MPI.Exception:
            self._mark_unreachable(dest)
            return True

    def _mark_unreachable(self, rank: int) -> None:
        """Mark a rank that cannot be reached as lost, inside the handler of the error that reported it."""
        if not self._survives:
            raise
        if not rank:
            raise MasterLost("rank 0 is gone") from None
        self._lost.append(rank)
        self._abandon(rank)

    def poll(self) -> Received | None:
        try:
            if self._outgoing:
                self._drop_sent()
            if self._peers is not None and (passed := self._peers.poll()) is not None:
                return passed
            if self._receive_queue.parcels and (done := self._completed()) is not None:
                return done
            message = self._receive_control()
            return None if message is None else self._begin(*message)
        except MPI.Exception as error:
            if not self._survives or not (self._find_dead() or error.Get_error_class() in FAILURES):
                raise
            if self.rank and 0 in self._dead:
                raise MasterLost("rank 0 is gone") from None
            return None

    def _begin(self, source: int, tag: int, control: bytearray) -> Received | None:
        """Begin to receive a parcel; returns the next one that is complete."""
        if source in self._dead:
            return None
        queue = self._receive_queue
        if control.startswith(frames.NO_FRAMES) and source not in queue.parcels:
            parcel = new_tuple(Parcel, (tag, control[len(frames.NO_FRAMES) :], ()))
            return new_tuple(Received, (source, parcel))
        queue.add(source, IncomingParcel(tag, control, self._allocators.get(tag, frames.allocate_each)))
        self._receive_admitted()
        return self._completed()

    def _completed(self) -> Received | None:
        """The next complete parcel, if there is one; its credit goes to the parcels that wait for it."""
        done = self._receive_queue.completed(MPI.Request.Testall)
        if done is None:
            return None
        self._receive_admitted()
        return Received(*done)

    def _receive_admitted(self) -> None:
        """Start to receive the parcels for which there is credit; the senders of the others wait."""
        for source, incoming in self._receive_queue.admitted():
            for target in incoming.targets(self._piece, self._scratch):
                incoming.requests.append(self._bulk.Irecv([target, MPI.BYTE], source, 0))

    def _receive_control(self) -> tuple[int, int, bytearray] | None:
        """Receive the next control message, if one has arrived: its source and tag, and itself."""
        status, peer = self._status, self._peer
        # The first probe progresses a message that has just arrived; only the second one finds it.
        if self._matched:
            probe = self._control.Improbe
            message = probe(peer, MPI.ANY_TAG, status) or probe(peer, MPI.ANY_TAG, status)
            if message is None:
                return None
            control = bytearray(status.Get_count(MPI.BYTE))
            message.Recv([control, MPI.BYTE])
        else:
            # Some fabrics do not support matched probes. This is safe: one thread at a time is here.
            probe = self._control.Iprobe
            if not (probe(peer, MPI.ANY_TAG, status) or probe(peer, MPI.ANY_TAG, status)):
                return None
            control = bytearray(status.Get_count(MPI.BYTE))
            self._control.Recv([control, MPI.BYTE], status.Get_source(), status.Get_tag())
        return status.Get_source(), status.Get_tag(), control

    def _drop_sent(self) -> None:
        """Drop the parcels that have been sent; requests keep the buffers of the others alive."""
        outgoing, self._outgoing = self._outgoing, []
        unsent = [(dest, requests) for dest, requests in outgoing if not self._sent(dest, requests)]
        # The tests above may have found a rank dead; its parcels are dropped, too.
        self._outgoing += [entry for entry in unsent if entry[0] not in self._dead]

    def unsent(self) -> int:
        return len(self._outgoing)

    @property
    def moving(self) -> bool:
        if self._outgoing or self._receive_queue.parcels:
            return True
        return self._peers is not None and self._peers.moving

    def sleep(self, seconds: float) -> bool | None:
        doorbell = self._doorbell
        if not doorbell.rung_by_all:
            return None
        return False if doorbell.announce_sleep() else doorbell.wait(seconds)

    def _find_dead(self) -> bool:
        """Acknowledge the ranks that MPI has found dead; False if all of them were known."""
        if self._control.Is_revoked():
            raise MasterLost("rank 0 has ended the run") from None
        failed = self._control.Get_failed()
        self._bulk.Ack_failed()
        self._control.Ack_failed()
        dead = MPI.Group.Translate_ranks(failed, None, self._control.Get_group())
        new = ({*dead} | self._receive_queue.failed) - self._dead
        for rank in new:
            self._abandon(rank)
        self._lost += sorted(new)
        return bool(new)

    def forget(self, rank: int) -> None:
        if rank not in self._dead:
            self.has_unreachable = True
            self._abandon(rank)

    def _abandon(self, rank: int) -> None:
        self._dead.add(rank)
        # MPI may still access the buffers of pending requests, so they are kept.
        self._abandoned += [entry for entry in self._outgoing if entry[0] == rank]
        self._outgoing = [entry for entry in self._outgoing if entry[0] != rank]
        self._abandoned_receives += self._receive_queue.drop(rank)
        self._receive_admitted()

    def lost(self) -> list[int]:
        lost, self._lost = self._lost, []
        return lost

    @property
    def damaged(self) -> bool:
        # If a rank died while the others finalize MPI, all of them would wait for it.
        return self._survives or bool(self._dead)

    def close(self) -> None:
        self._doorbell.close()
        if not self.damaged:
            self._finish_transfers()
            if not self._shared:
                _sleeping_barrier(self._control)
            self._control.Free()
            self._bulk.Free()

    def _finish_transfers(self) -> None:
        """Wait, not for long, for what workers send each other: nobody may need it any more."""
        started = time.perf_counter()
        while self._peers is not None and self._peers.pending:
            self._peers.poll()
            if time.perf_counter() - started > PEER_SECONDS:
                return
            time.sleep(MIN_BARRIER_SLEEP)

    def overlaps(self, comm: MPI.Intracomm) -> bool:
        """Whether another rank of this transport belongs to `comm`, too."""
        groups = [self._control.Get_group(), comm.Get_group()]
        groups.append(MPI.Group.Intersection(*groups))
        common = groups[-1].Get_size()
        for group in groups:
            group.Free()
        return bool(common > 1)

    def finalize(self) -> None:
        if not MPI.Is_finalized():
            _sleeping_barrier(self._world)
            MPI.Finalize()

    def leave(self, code: int) -> None:
        if self.rank and not self._survives:
            # MPI would report a worker that ends before the master as failed, and end the master.
            time.sleep(LINGER_SECONDS)
        if self.has_unreachable and "Open MPI" in library():
            # Its mpiexec waits for an unreachable host, and no weaker signal than SIGKILL ends it.
            end_mpiexec_later(MPIEXEC_SECONDS)
        if self.has_unreachable and not self._survives:
            self._world.Abort(code)
        os._exit(code)

    def abort(self, code: int) -> None:
        if self.has_unreachable:
            self.leave(code)
        if self._survives:
            # MPI_Abort may wait forever for a dead rank.
            self._control.Revoke()
            os._exit(code)
        self._world.Abort(code)


def _sleeping_barrier(comm: MPI.Intracomm, while_waiting: Callable[[], object] = lambda: None) -> None:
    """Wait for all ranks, asleep: in a blocking MPI call, a waiting rank keeps its core busy."""
    started = time.perf_counter()
    request = comm.Ibarrier()
    while not request.Test():
        while_waiting()
        waited = time.perf_counter() - started
        time.sleep(min(MAX_BARRIER_SLEEP, max(MIN_BARRIER_SLEEP, waited * BARRIER_SHARE)))


def world() -> MPI.Intracomm:
    """The communicator of all ranks."""
    return MPI.COMM_WORLD


def num_ranks() -> int:
    """Number of ranks of this launch.

    Raises
    ------
    LaunchError
        The launcher started several processes, but MPI sees only one: they belong to different MPIs.
    """
    size, claimed = world().Get_size(), claimed_size(os.environ) or 1
    if size == 1 < claimed:
        raise LaunchError(
            f"the launcher started {claimed} processes, but each of them is alone in its MPI: "
            f"mpiexec (or srun --mpi=...) belongs to another MPI than mpi4py, which loads "
            f"{library()[:40].strip()}. Start with `python -m taskfarm run -n {claimed} ...`, "
            "which finds the right mpiexec, or with `srun --mpi=pmi2` (MPICH) or `--mpi=pmix` "
            "(Open MPI); `python -m taskfarm info` says more"
        )
    return size


def takes_part(comm: Any, root: int) -> bool:
    """Whether this rank belongs to a communicator on which a farm shall open.

    Raises
    ------
    UsageError
        MPI has not started, or has ended.
    TypeError, ValueError
        `comm` is not an intracommunicator, or `root` is not one of its ranks.
    """
    if not hasattr(comm, "Is_inter"):
        raise TypeError(f"expecting an intracommunicator, such as MPI.COMM_WORLD, not {comm!r}")
    if not MPI.Is_initialized() or MPI.Is_finalized():
        raise UsageError("MPI is not running: open the farm after MPI.Init() and before MPI.Finalize()")
    if comm == MPI.COMM_NULL:
        return False
    if comm.Is_inter():
        raise ValueError("expecting an intracommunicator, such as MPI.COMM_WORLD")
    if not 0 <= root < comm.Get_size():
        raise ValueError(f"expecting root in range(comm.size), that is, from 0 to {comm.Get_size() - 1}")
    return True


def library() -> str:
    """Name and version of the MPI library that mpi4py loads, on one line."""
    return MPI.Get_library_version().replace("\n", " ").strip()


def thread_level() -> str:
    """Thread level that MPI provides, by its name in the standard."""
    names = ("SINGLE", "FUNNELED", "SERIALIZED", "MULTIPLE")
    level = {getattr(MPI, f"THREAD_{name}"): name for name in names}[MPI.Query_thread()]
    return f"MPI_THREAD_{level}"


def allgather(value: Any) -> list[Any]:
    """The values of all ranks, in the order of ranks. Collective over all ranks."""
    return world().allgather(value)


def survives_dead_ranks() -> bool:
    """Whether this launch continues when a rank dies: Open MPI under ``mpiexec --with-ft ulfm``."""
    return fault_tolerant(os.environ) and hasattr(MPI.Comm, "Ack_failed")
