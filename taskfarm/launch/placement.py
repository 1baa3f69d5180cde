"""Assigns to each worker its share of the cores and devices of its host."""

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
"""Environment variables that set the number of threads of numerical libraries."""

DEVICES = ("CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES")
"""Environment variables that set which devices a process sees."""


def cores() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def limit_threads(environ: MutableMapping[str, str], threads: int | None, neighbours: int) -> None:
    """Set the number of threads of numerical libraries in this process, before they are loaded.

    Parameters
    ----------
    environ : mutable mapping
        The environment variables.
    threads : int or None
        Number of threads; None: this rank's share of the cores, unless a variable is set already.
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
        The environment variables. If a batch system has chosen devices, they list them.
    index : int
        Number of workers of this host before this one.
    devices : int
        Devices of this host, which are assigned round-robin.
    """
    for name in DEVICES:
        listed = [device for device in environ.get(name, "").split(",") if device]
        if listed:
            environ[name] = listed[index % min(devices, len(listed))]
        else:
            environ[name] = str(index % devices)


def index_among(hosts: Sequence[str], rank: int) -> int:
    """Count the workers before a rank on the same host; `hosts` lists the hosts of all ranks."""
    return sum(host == hosts[rank] for host in hosts[1:rank])


def seen_devices(environ: Mapping[str, str]) -> str:
    """Describe the devices that this process sees."""
    import glob

    for name in DEVICES:
        if environ.get(name):
            return environ[name]
    found = glob.glob("/dev/nvidia[0-9]*") or glob.glob("/dev/dri/renderD*")
    return str(len(found)) if found else "none"
