"""Shared data across three hosts over TCP: each has it once, in its ranks and in their children."""

from pathlib import Path

import pytest

from .hosts import Hosts
from .test_hosts import Launch, three
from .test_share import FILES

__all__ = ["three"]

pytestmark = pytest.mark.xdist_group("hosts")

JOB = (
    FILES
    + """
import itertools, os, socket, time
import numpy as np
import taskfarm
from taskfarm import task

@task
def total(x, table):
    time.sleep(0.02)
    return float(table.sum()), socket.gethostname(), os.getpid(), files()

def sent():
    with open("/proc/net/dev") as file:
        return next(int(line.split()[9]) for line in file if line.strip().startswith("eth0:"))

class Made:
    def __init__(self, size):
        self.part = np.ones(size)
    def sum(self):
        return self.part.sum()

if __name__ == "__main__":
    for handle in (taskfarm.share(np.ones(9_000_000)), taskfarm.share(Made(500_000)),
                   taskfarm.build(Made, 500_000)):
        before = sent()
        for one in (total, total.options(isolate=True)):
            found = list(one.map(range(100), itertools.repeat(handle), chunksize=1))
            hosts = {host: set() for _, host, _, _ in found}
            ranks = {host: set() for host in hosts}
            for _, host, pid, inodes in found:
                hosts[host] |= inodes
                ranks[host].add(pid)
            print({value for value, *_ in found}, *sorted((h, len(ranks[h]), len(hosts[h])) for h in hosts))
        copies = (sent() - before) / max(handle.nbytes, 4e6)
        assert copies < (0.5 if handle.nbytes == 0 else 1.5), copies
        handle.free()
    open("done", "w").close()
"""
)


def test_each_host_has_one_copy_and_rank_0_sends_one_of_them(three: Hosts, python: Path) -> None:
    code, text = Launch(three, python, ["job.py"], JOB).end()
    assert code == 0, text
    where = "('h1', 1, 1) ('h2', 2, 1) ('h3', 2, 1)"
    # The first is larger than /dev/shm.
    lines = [f"{{{size}}} {where}" for size in [9e6] * 2 + [5e5] * 4]
    assert [found for found in text.splitlines() if found.startswith("{")] == lines, text
