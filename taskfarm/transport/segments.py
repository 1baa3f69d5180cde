"""Read-only memory that the processes of one host share: files in memory, which have no name.

A process finds the file of another one as ``/proc/PID/fd/N``, without any help from that process, which may
be inside of a long task. The file is opened and mapped for reading only. It is gone when nobody has it any
more, however that came about. ``/dev/shm``, which is small in containers, is not involved.
"""

import contextlib
import fcntl
import mmap
import os
import socket
import tempfile
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from typing import Any

from taskfarm.errors import HostMemoryError
from taskfarm.protocol import layout
from taskfarm.protocol.describe import megabytes
from taskfarm.protocol.messages import Blob, Location

COPIED = 1 << 20
"""Copies up to this size, in bytes, are made at once, by default: that takes no longer than a mapping."""

_SEALS = 0x0002 | 0x0004 | 0x0010
"""F_SEAL_SHRINK, F_SEAL_GROW, F_SEAL_FUTURE_WRITE: `fcntl` does not have the last one everywhere."""


class Segment:
    """A file in memory that is complete.

    Parameters
    ----------
    descriptor : int
        The descriptor of the file, which this object closes.
    mapped : bool
        Whether to map it for reading now; a mapping takes another descriptor.
    """

    def __init__(self, descriptor: int, mapped: bool = True) -> None:
        self._descriptor = descriptor
        self._status = os.fstat(descriptor)
        if mapped:
            self.view  # noqa: B018  # a limit on addresses shows here

    @cached_property
    def view(self) -> memoryview:
        """The content, read-only. It outlives this object."""
        return _map(self._descriptor, self.nbytes, mmap.PROT_READ)

    @property
    def nbytes(self) -> int:
        """Size of the content, in bytes."""
        return self._status.st_size

    def copy(self, most: int = COPIED) -> memoryview:
        """A copy of the content; one of more than `most` bytes takes memory only where somebody changes it.

        Such a copy is a mapping, which takes a descriptor as long as it is used.
        """
        if self.nbytes <= most:
            return self._read()
        access = mmap.PROT_READ | mmap.PROT_WRITE
        return _map(self._descriptor, self.nbytes, access, mmap.MAP_PRIVATE)

    def _read(self) -> memoryview:
        from taskfarm.transport.frames import allocate

        memory = memoryview(allocate(self.nbytes))
        if memory.nbytes != self.nbytes:
            raise MemoryError(f"no memory for a result of {megabytes(self.nbytes)}")
        done = 0
        while done < self.nbytes:
            done += os.preadv(self._descriptor, [memory[done:]], done)
        return memory

    @classmethod
    def open(cls, location: Location, mapped: bool = True) -> "Segment":
        """The segment that another process of this host has.

        Raises
        ------
        OSError
            It does not have it any more, or the system does not let this process open it.
        """
        path = f"/proc/{location.pid}/fd/{location.descriptor}"
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        status = os.fstat(descriptor)
        if (status.st_dev, status.st_ino, status.st_size) != location[2:]:
            os.close(descriptor)
            raise FileNotFoundError(f"{path} is another file by now")
        return cls(descriptor, mapped)

    @property
    def location(self) -> Location:
        """Where other processes find it."""
        status = self._status
        return Location(os.getpid(), self._descriptor, status.st_dev, status.st_ino, status.st_size)

    def __del__(self, close: Callable[[int], None] = os.close) -> None:
        close(self._descriptor)


class Reservation:
    """Memory for a segment, reserved and not yet filled.

    Parameters
    ----------
    size : int
        Its size in bytes, which is not 0.

    Attributes
    ----------
    size : int
        As given.

    Raises
    ------
    HostMemoryError
        The host has no room; nothing has been written then.
    """

    def __init__(self, size: int) -> None:
        self._descriptor = -1
        # Asked before: the system would take memory page by page, and end processes when there is no more.
        if size > (free := free_memory()):
            raise _no_room(size, free)
        self.size = size
        self._memory: memoryview | None = None
        self._descriptor = memory_file("taskfarm-shared")
        try:
            os.posix_fallocate(self._descriptor, 0, size)
        except OSError as error:
            raise _no_room(size, free_memory(), f" ({error})") from None

    @property
    def memory(self) -> memoryview:
        """The memory, to receive its content into."""
        if self._memory is None:
            self._memory = _map(self._descriptor, self.size, mmap.PROT_READ | mmap.PROT_WRITE)
        return self._memory

    def write(self, pieces: Iterable[tuple[int, memoryview]]) -> None:
        """Write pieces of its content, each at its offset."""
        # The kernel needs half the time that a copy to mapped memory takes, and other threads can run.
        for start, piece in pieces:
            while piece:
                written = os.pwrite(self._descriptor, piece, start)
                piece, start = piece[written:], start + written

    def complete(self, mapped: bool = True) -> Segment:
        """The segment, whose content does not change any more; `mapped` is as for `Segment`."""
        # An old kernel refuses. Nobody else writes even so, because the others open it for reading.
        with contextlib.suppress(OSError):
            fcntl.fcntl(self._descriptor, fcntl.F_ADD_SEALS, _SEALS)
        self._memory = None
        segment = Segment(self._descriptor, mapped)
        self._descriptor = -1
        return segment

    def __del__(self, close: Callable[[int], None] = os.close) -> None:
        if self._descriptor >= 0:
            close(self._descriptor)


def store(blob: Blob, mapped: bool = True) -> Segment:
    """A segment that holds a pickle and its buffers, as `protocol.layout` writes them.

    `mapped` is as for `Segment`.

    Raises
    ------
    HostMemoryError
        The host has no room.
    """
    reservation = Reservation(layout.block_size(blob))
    reservation.write(layout.pieces(blob))
    return reservation.complete(mapped)


def memory_file(label: str = "taskfarm") -> int:
    """The descriptor of a new, empty file without a name; in memory if the system supports that.

    The system shows the label where it shows what the memory of a process is.
    """
    if hasattr(os, "memfd_create"):
        return os.memfd_create(label, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def _map(descriptor: int, size: int, access: int, flags: int = mmap.MAP_SHARED) -> memoryview:
    try:
        return memoryview(mmap.mmap(descriptor, size, flags, access))
    except OSError as error:
        # Of a limit on addresses (`ulimit -v`).
        raise _no_room(size, free_memory(), f" ({error})") from None


def _no_room(size: int, free: int, why: str = "") -> HostMemoryError:
    return HostMemoryError(
        f"{socket.gethostname()} has no room for shared data: it needs {megabytes(size)}, and "
        f"{megabytes(free)} are free{why}; share less, or start the job on hosts with more memory"
    )


def host_key() -> str:
    """Identifies the host and its namespaces: processes with the same text can open each other's files."""
    key = socket.gethostname()
    for path, read in (
        ("/proc/sys/kernel/random/boot_id", _text),
        ("/proc/self/ns/pid", os.readlink),
        ("/proc/self/ns/net", os.readlink),
    ):
        try:
            key += f" {read(path)}"
        except OSError:
            # Without /proc each process is alone.
            key += f" {os.getpid()}"
    return key


def free_memory() -> int:
    """Bytes of memory that this process may still get, in its control groups, too."""
    known = [*_free_in_groups(), os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    try:
        lines = dict(line.split(":") for line in _text("/proc/meminfo").splitlines())
        known.append(int(lines["MemAvailable"].split()[0]) * 1024)
    except (OSError, KeyError, ValueError):
        pass
    return min(known)


def _free_in_groups() -> Iterator[int]:
    """What each limit on the memory of this process leaves, in bytes."""
    try:
        entries = [line.split(":", 2) for line in _text("/proc/self/cgroup").splitlines()]
    except (OSError, ValueError):
        return
    for _, controllers, path in entries:
        root, names = "/sys/fs/cgroup", ("memory.max", "memory.current", "inactive_file")
        if "memory" in controllers.split(","):
            root = "/sys/fs/cgroup/memory"
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        elif controllers:
            continue
        folder = root + path.rstrip("/")
        while folder.startswith(root):
            free = _free_in(folder, *names)
            if free is not None:
                yield free
            folder = os.path.dirname(folder)


def _free_in(folder: str, limit: str, used: str, reclaimable: str) -> int | None:
    try:
        most, now = int(_text(f"{folder}/{limit}")), int(_text(f"{folder}/{used}"))
        statistics: dict[str, Any] = dict(
            line.split() for line in _text(f"{folder}/memory.stat").splitlines()
        )
        return max(0, most - now + int(statistics[reclaimable]))
    except (OSError, ValueError, KeyError):
        # There is no limit, or no such group is visible.
        return None


def _text(path: str) -> str:
    with open(path) as file:
        return file.read().strip()
