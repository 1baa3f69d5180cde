"""Frames use memory again that others have freed."""

import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource, sys
from taskfarm.transport.frames import allocate, keep_freed_memory

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

if sys.argv[1] == "keep":
    keep_freed_memory()
for turn in range(12):
    if turn == 2:
        before = faults()
    frames = [allocate(800_000) for _ in range(6)]
    for frame in frames:
        frame[:] = 1
    del frame, frames
print((faults() - before) // 10)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc learns from what is freed")
def test_pages_are_not_cleared_again() -> None:
    found = {
        how: int(subprocess.check_output([sys.executable, "-c", FAULTS, how], text=True))
        for how in ("keep", "drop")
    }
    # Six frames have about 1,200 pages.
    assert found["keep"] < 100 < found["drop"], found
