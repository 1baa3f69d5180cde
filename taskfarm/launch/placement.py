"""Which cores and devices a worker uses: its share of those of its host."""

import os
from collections.abc import Mapping, MutableMapping, Sequence

THREADS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
)
"""What tells numerical libraries how many threads to start."""

DEVICES = ("CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES")
"""What tells them which devices there are."""


def cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def limit_threads(environ: MutableMapping[str, str], threads: int | None, neighbours: int) -> None:
    """Say how many threads numerical libraries may start here; to be called before they are loaded.

    Parameters
    ----------
    environ : mutable mapping
        The environment variables.
    threads : int or None
        How many; None: the share of the cores, unless some variable says how many already.
    neighbours : int
        Ranks on this host.
    """
    if threads is None:
        if any(name in environ for name in THREADS):
            return
        threads = max(1, cores() // max(1, neighbours))
    environ.update(dict.fromkeys(THREADS, str(threads)))


def choose_device(environ: MutableMapping[str, str], index: int, devices: int) -> None:
    """Let this process see one device only.

    Parameters
    ----------
    environ : mutable mapping
        The environment variables. Devices that a batch system has chosen are listed there.
    index : int
        How many workers of this host come before this one.
    devices : int
        Devices of this host; workers take them in turns.
    """
    for name in DEVICES:
        given = [one for one in environ.get(name, "").split(",") if one]
        environ[name] = given[index % min(devices, len(given))] if given else str(index % devices)


def index_among(hosts: Sequence[str], rank: int) -> int:
    """How many workers on the host of a rank come before it; `hosts` are those of all ranks."""
    return sum(host == hosts[rank] for host in hosts[1:rank])


def seen_devices(environ: Mapping[str, str]) -> str:
    """The devices that this process sees, in words."""
    import glob

    for name in DEVICES:
        if environ.get(name):
            return environ[name]
    found = glob.glob("/dev/nvidia[0-9]*") or glob.glob("/dev/dri/renderD*")
    return str(len(found)) if found else "none"
