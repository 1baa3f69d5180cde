"""Memory that the processes of a host share."""

import gc
import os
import subprocess
import sys

import numpy as np
import pytest

from taskfarm.errors import HostMemoryError
from taskfarm.transport import segments
from taskfarm.transport.segments import Reservation, Segment, free_memory, host_key

READ = """
import sys
from taskfarm.protocol.messages import Location
from taskfarm.transport.segments import Segment
view = Segment.open(Location(*map(int, sys.argv[1:]))).view
print(view.readonly, bytes(view[:5]).decode(), len(view))
"""


def made(content: bytes) -> Segment:
    reservation = Reservation(len(content))
    reservation.write([(0, memoryview(content)[:2]), (2, memoryview(content)[2:])])
    return reservation.complete()


def descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


def test_another_process_reads_the_same_memory() -> None:
    segment = made(b"hello" * 1000)
    words = [sys.executable, "-c", READ, *map(str, segment.location)]
    found = subprocess.run(words, capture_output=True, text=True, timeout=240)
    assert (found.returncode, found.stdout) == (0, "True hello 5000\n"), found.stderr


def test_nobody_can_write_to_it() -> None:
    segment = made(b"hello")
    for view in (segment.view, Segment.open(segment.location).view):
        assert view.readonly
        with pytest.raises(ValueError, match=r"WRITEABLE"):
            np.frombuffer(view, np.uint8).flags.writeable = True
    path = f"/proc/self/fd/{segment.location.descriptor}"
    with pytest.raises(OSError, match=r".*"), open(path, "r+b", buffering=0) as file:
        file.write(b"x")


def test_another_file_under_the_same_descriptor_is_recognized() -> None:
    segment, other = made(b"hello"), made(b"world")
    location = segment.location._replace(descriptor=other.location.descriptor)
    with pytest.raises(OSError, match="another file"):
        Segment.open(location)


def test_a_view_outlives_its_segment_and_nothing_is_left() -> None:
    gc.collect()
    before = descriptors()
    segment = made(b"hello")
    location, view = segment.location, segment.view
    del segment
    gc.collect()
    assert bytes(view) == b"hello"
    with pytest.raises(OSError, match=r".*"):
        Segment.open(location)
    del view
    gc.collect()
    assert descriptors() == before


def test_no_room_is_said_with_host_need_and_free_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    gc.collect()
    before = descriptors()
    monkeypatch.setattr(segments, "free_memory", lambda: 5_000_000)
    with pytest.raises(HostMemoryError, match=r"has no room .* 8 MB, and 5 MB are free") as caught:
        Reservation(8_000_000)
    assert os.uname().nodename in str(caught.value)
    assert isinstance(caught.value, MemoryError)
    monkeypatch.undo()
    with pytest.raises(HostMemoryError, match="no room"):
        Reservation(1 << 60)
    assert descriptors() == before


def test_free_memory_is_known_and_processes_of_a_host_agree() -> None:
    assert 0 < free_memory() < 1 << 60
    code = "from taskfarm.transport.segments import host_key; print(host_key())"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=240)
    assert found.stdout == f"{host_key()}\n"
