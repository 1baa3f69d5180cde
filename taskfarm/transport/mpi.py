"""MPI: the only importer of mpi4py.

Control messages and bulk frames (see `frames`) go over a communicator each. Both are duplicates: no
message of the user's can meet one of these.
"""

import os
import time
from typing import Any

import mpi4py
from mpi4py import MPI

from taskfarm.environment import end_mpiexec_later, fault_tolerant
from taskfarm.errors import MasterLost
from taskfarm.protocol.messages import IN_BAND, Parcel
from taskfarm.transport import frames
from taskfarm.transport.doorbell import MASTER_AWAKE_SECONDS, WORKER_AWAKE_SECONDS, Doorbell
from taskfarm.transport.frames import MAX_PIECE, Inbound, Incoming
from taskfarm.transport.interface import Received, Transport

RECEIVE_CREDIT = 1 << 30
"""Bytes of bulk frames that a rank receives at once; a single larger parcel comes alone."""


LINGER_SECONDS = 60.0
"""Seconds that a worker waits to be ended with all others, where some are lost."""

MPIEXEC_SECONDS = 5
"""Seconds that mpiexec has to end by itself."""


BARRIER_SHARE, MIN_BARRIER_SLEEP, MAX_BARRIER_SLEEP = 0.1, 1e-3, 20e-3
"""A rank that waits for all others sleeps for this share of the wait so far, within these seconds."""

FAILURES = (MPI.ERR_PROC_FAILED, MPI.ERR_PROC_FAILED_PENDING)
"""Classes of errors that say that a rank is dead."""


class MpiTransport(Transport):
    """Parcels over duplicates of an MPI communicator.

    Parameters
    ----------
    comm : MPI.Intracomm
        Its rank 0 is the master. Collective over all its num_ranks.
    piece : int
        Bytes in one bulk message, at most.
    credit : int
        Bytes of bulk frames that are received at once.
    """

    def __init__(self, comm: MPI.Intracomm, piece: int = MAX_PIECE, credit: int = RECEIVE_CREDIT) -> None:
        self.rank = comm.Get_rank()
        self.size = comm.Get_size()
        self.threads = MPI.Query_thread() >= MPI.THREAD_SERIALIZED
        self._world = comm
        _await_all(comm)
        self._control = comm.Dup()
        self._bulk = comm.Dup()
        self._piece = piece
        self._matched = bool(getattr(mpi4py.rc, "recv_mprobe", True))
        self._status = MPI.Status()
        self._outgoing: list[tuple[int, list[MPI.Request]]] = []
        # A worker hears only from the master; that other workers die is none of its business.
        self._peer = 0 if self.rank else MPI.ANY_SOURCE
        self._survives = survives()
        self._dead: set[int] = set()
        self._lost: list[int] = []
        self._abandoned: list[tuple[int, list[MPI.Request]]] = []
        self._inbound = Inbound(credit)
        self._bell = Doorbell()
        self._bells, self._all_rung = self._exchange_bells()
        # The other side may have begun to wait earlier than the last message tells.
        self._asleep = (MASTER_AWAKE_SECONDS if self.rank else WORKER_AWAKE_SECONDS) / 2
        self._heard = dict.fromkeys(self._bells, 0.0)

    def _exchange_bells(self) -> tuple[dict[int, str], bool]:
        """Doorbells of the ranks that this one talks to and can ring, and whether those are all."""
        everyone = self._control.gather(self._bell.card)
        masters = self._control.bcast(self._bell.card)
        return self._bell.reachable(dict(enumerate(everyone[1:], 1)) if everyone else {0: masters})

    def send(self, dest: int, parcel: Parcel) -> None:
        if dest in self._dead:
            return
        try:
            requests = self._start(dest, parcel)
        except MPI.Exception:
            self._failed(dest)
            return
        if not self._sent(dest, requests):
            self._outgoing.append((dest, requests))
        if dest in self._bells:
            now = time.perf_counter()
            if now - self._heard[dest] > self._asleep:
                self._bell.ring(self._bells[dest])
            self._heard[dest] = now

    def _start(self, dest: int, parcel: Parcel) -> list[MPI.Request]:
        tag, head, buffers = parcel
        if not buffers and len(head) <= IN_BAND:
            return [self._control.Isend([frames.BARE + head, MPI.BYTE], dest, tag)]
        control, bulk = frames.split(parcel)
        requests = [self._control.Isend([control, MPI.BYTE], dest, tag)]
        for frame in bulk:
            for piece in frames.pieces(frame, self._piece):
                requests.append(self._bulk.Isend([piece, MPI.BYTE], dest, 0))
        return requests

    def _sent(self, dest: int, requests: list[MPI.Request]) -> bool:
        """Whether a parcel has left, or never will."""
        try:
            return bool(MPI.Request.Testall(requests))
        except MPI.Exception:
            self._failed(dest)
            return True

    def _failed(self, rank: int) -> None:
        """Take in, while an error is handled, that a rank cannot be reached."""
        if not self._survives:
            raise
        if not rank:
            raise MasterLost("rank 0 is gone") from None
        self._lost.append(rank)
        self._abandon(rank)

    def poll(self) -> Received | None:
        try:
            return self._poll()
        except MPI.Exception as error:
            if not self._survives or not (self._find_dead() or error.Get_error_class() in FAILURES):
                raise
            if self.rank and 0 in self._dead:
                raise MasterLost("rank 0 is gone") from None
            return None

    def _poll(self) -> Received | None:
        if self._outgoing:
            self._retire()
        inbound = self._inbound
        if (done := self._completed()) is not None:
            return done
        # The first look moves a message in that has just come, and only the second one sees it.
        message = self._probe() or self._probe()
        if message is None:
            return None
        source, tag, control = message
        if source in self._dead:
            return None
        self._heard[source] = time.perf_counter()
        head = frames.bare(control)
        if head is not None and not inbound.expects(source):
            return Received(source, Parcel(tag, head, ()))
        inbound.add(source, Incoming(tag, control))
        self._receive_held()
        return self._completed()

    def _completed(self) -> Received | None:
        """A parcel that has come whole; in its place, the next ones may come."""
        done = self._inbound.completed(MPI.Request.Testall) if self._inbound else None
        if done is None:
            return None
        self._receive_held()
        return Received(*done)

    def _receive_held(self) -> None:
        """Start to receive what there is credit for; till then its sender waits."""
        for source, incoming in self._inbound.admitted():
            for frame in incoming.frames:
                for piece in frames.pieces(memoryview(frame), self._piece):
                    incoming.requests.append(self._bulk.Irecv([piece, MPI.BYTE], source, 0))

    def _probe(self) -> tuple[int, int, bytearray] | None:
        """Receive the next control message, if one is there."""
        status = self._status
        if self._matched:
            message = self._control.Improbe(self._peer, MPI.ANY_TAG, status)
            if message is None:
                return None
            control = bytearray(status.Get_count(MPI.BYTE))
            message.Recv([control, MPI.BYTE])
        else:
            # Some fabrics do not do matched probes; only one thread at a time is here, so this is safe.
            if not self._control.Iprobe(self._peer, MPI.ANY_TAG, status):
                return None
            control = bytearray(status.Get_count(MPI.BYTE))
            self._control.Recv([control, MPI.BYTE], status.Get_source(), status.Get_tag())
        return status.Get_source(), status.Get_tag(), control

    def _retire(self) -> None:
        """Let go of the parcels that have left; requests keep the buffers of the others alive."""
        outgoing, self._outgoing = self._outgoing, []
        # Those of a rank that is found dead meanwhile are dropped.
        left = [(dest, requests) for dest, requests in outgoing if not self._sent(dest, requests)]
        self._outgoing += [sent for sent in left if sent[0] not in self._dead]

    def unsent(self) -> int:
        return len(self._outgoing)

    @property
    def moving(self) -> bool:
        return bool(self._outgoing or self._inbound)

    def sleep(self, seconds: float) -> bool:
        if not self._all_rung:
            return False
        self._bell.wait(seconds)
        return True

    def _find_dead(self) -> bool:
        """Acknowledge the ranks that MPI has found dead; False if there is none that was not known."""
        if self._control.Is_revoked():
            raise MasterLost("rank 0 has ended the run") from None
        failed = self._control.Get_failed()
        self._bulk.Ack_failed()
        self._control.Ack_failed()
        num_ranks = MPI.Group.Translate_ranks(failed, None, self._control.Get_group())
        new = ({*num_ranks} | self._inbound.failed) - self._dead
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
        # MPI may still look at what was on its way: it stays in memory.
        self._abandoned += [sent for sent in self._outgoing if sent[0] == rank]
        self._outgoing = [sent for sent in self._outgoing if sent[0] != rank]
        self._abandoned += [(rank, requests) for requests in self._inbound.drop(rank)]
        self._receive_held()

    def lost(self) -> list[int]:
        lost, self._lost = self._lost, []
        return lost

    @property
    def damaged(self) -> bool:
        # Where ranks may die, one may do so while the others finalize, and all would wait for it.
        return self._survives or bool(self._dead)

    def close(self) -> None:
        self._bell.close()
        if not self.damaged:
            _await_all(self._control)
            self._control.Free()
            self._bulk.Free()

    def leave(self, code: int) -> None:
        if self.rank and not self._survives:
            # One that left before the master would be taken for a failure, and end it.
            time.sleep(LINGER_SECONDS)
        if self.has_unreachable and "Open MPI" in library():
            # Its mpiexec waits for a host that is cut off, and no gentler signal ends it.
            end_mpiexec_later(MPIEXEC_SECONDS)
        if self.has_unreachable and not self._survives:
            self._world.Abort(code)
        os._exit(code)

    def abort(self, code: int) -> None:
        if self.has_unreachable:
            self.leave(code)
        if self._survives:
            # MPI_Abort may wait for a dead rank for ever.
            self._control.Revoke()
            os._exit(code)
        self._world.Abort(code)


def _await_all(comm: MPI.Intracomm) -> None:
    """Sleep until every rank is here: in a call of MPI a rank that waits for others keeps its core busy."""
    started = time.perf_counter()
    request = comm.Ibarrier()
    while not request.Test():
        waited = time.perf_counter() - started
        time.sleep(min(MAX_BARRIER_SLEEP, max(MIN_BARRIER_SLEEP, waited * BARRIER_SHARE)))


def world() -> MPI.Intracomm:
    """The communicator of all ranks; the first call initialises MPI."""
    return MPI.COMM_WORLD


def num_ranks() -> int:
    """Ranks that this MPI knows of."""
    return world().Get_size()


def library() -> str:
    """Name and version of the MPI library that mpi4py loads, on one line."""
    return MPI.Get_library_version().replace("\n", " ").strip()


def thread_level() -> str:
    """Thread level that MPI granted, by its name in the standard."""
    names = ("SINGLE", "FUNNELED", "SERIALIZED", "MULTIPLE")
    level = {getattr(MPI, f"THREAD_{name}"): name for name in names}[MPI.Query_thread()]
    return f"MPI_THREAD_{level}"


def allgather(value: Any) -> list[Any]:
    """What every rank gives here, by rank. Collective over all ranks."""
    return world().allgather(value)


def survives() -> bool:
    """Whether this launch goes on when a rank dies: Open MPI under ``mpiexec --with-ft ulfm``."""
    return fault_tolerant(os.environ) and hasattr(MPI.Comm, "Ack_failed")
