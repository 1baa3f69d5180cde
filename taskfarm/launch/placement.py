"""Assigns to each worker its share of the cores and devices of its host."""

import contextlib
import os
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from itertools import takewhile

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


NO_DEVICES = ("", "-1", "NoDevFiles")
"""Values of these variables that mean that there are none; CUDA ignores what follows an invalid one."""


def _mask(pid: int) -> set[int]:
    """The cores to which a process is bound; 0: this one."""
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(pid)
    return set(range(os.cpu_count() or 1))


def cores() -> int:
    """Return the number of cores that this process may use."""
    return max(1, min(len(_mask(0)), int(quota() or len(_mask(0)))))


def core_share(mine: set[int], others: Sequence[set[int]], neighbours: int, limit: float | None) -> int:
    """Return a rank's share of the cores of its host, at least 1. Pure.

    Parameters
    ----------
    mine : set of int
        The cores to which it is bound. Ranks that are bound to the same core share it.
    others : sequence of sets of int
        The cores of the other ranks of this host, as far as they are known.
    neighbours : int
        Ranks on this host, this one included. Those whose cores are not known are taken to have the same
        ones as this rank.
    limit : float or None
        Cores' worth of time that all ranks of this host may use together.
    """
    if len(others) >= neighbours:  # they are not ranks
        others = []
    others = [*others, *[mine] * (neighbours - 1 - len(others))]
    share = sum(1 / (1 + sum(core in other for other in others)) for core in mine)
    if limit is not None:
        share = min(share, limit / neighbours)
    # The sum of 1/3 and 2/3 must not become 0.
    return max(1, int(share + 1e-9))


def _masks_of_siblings() -> list[set[int]]:
    """The cores of the other processes that this one's parent, usually the launcher, has started."""
    parent = os.getppid()
    try:
        with open(f"/proc/{parent}/task/{parent}/children") as children:
            pids = [int(pid) for pid in children.read().split()]
    except OSError:
        return []
    masks = []
    for pid in pids:
        if pid != os.getpid():
            with contextlib.suppress(OSError):
                masks.append(_mask(pid))
    return masks


def quota(root: str = "/sys/fs/cgroup", membership: str = "/proc/self/cgroup") -> float | None:
    """Return the number of cores' worth of time that the control groups of this process may use.

    Parameters
    ----------
    root : str
        Where control groups are mounted.
    membership : str
        The file that names the groups of this process.

    Returns
    -------
    float or None
        None if there is no limit.
    """
    try:
        with open(membership) as file:
            lines = [line.rstrip("\n").split(":", 2) for line in file]
    except OSError:
        return None
    limits = []
    for _, controllers, path in lines:
        if not controllers:
            limits += _limits(root, path, _limit_of_v2)
        elif "cpu" in controllers.split(","):
            for name in (controllers, "cpu"):
                limits += _limits(os.path.join(root, name), path, _limit_of_v1)
    return min(limits, default=None)


def _limits(base: str, path: str, read: Callable[[str], float | None]) -> list[float]:
    """The limits of a group and of those around it; in a container, the innermost is mounted at `base`."""
    parts = path.strip("/").split("/")
    folders = [os.path.join(base, *parts[:depth]) for depth in range(len(parts) + 1)]
    limits = []
    for folder in folders:
        with contextlib.suppress(OSError, ValueError, ZeroDivisionError):
            if (limit := read(folder)) is not None:
                limits.append(limit)
    return limits


def _limit_of_v2(folder: str) -> float | None:
    allowed, period = _read(os.path.join(folder, "cpu.max")).split()
    return None if allowed == "max" else int(allowed) / int(period)


def _limit_of_v1(folder: str) -> float | None:
    allowed = int(_read(os.path.join(folder, "cpu.cfs_quota_us")))
    return None if allowed < 0 else allowed / int(_read(os.path.join(folder, "cpu.cfs_period_us")))


def _read(path: str) -> str:
    with open(path) as file:
        return file.read()


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
        threads = core_share(_mask(0), _masks_of_siblings(), max(1, neighbours), quota())
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
        if name not in environ:
            environ[name] = str(index % devices)
        elif listed := _listed(environ[name]):
            environ[name] = listed[index % min(devices, len(listed))]


def _listed(value: str) -> list[str]:
    """The devices that such a variable lists: numbers, or identifiers of devices or of parts of them."""
    devices = [device.strip() for device in value.split(",")]
    return list(takewhile(lambda device: device not in NO_DEVICES, devices))


def index_among(hosts: Sequence[str], rank: int) -> int:
    """Count the workers before a rank on the same host; `hosts` lists the hosts of all ranks."""
    return sum(host == hosts[rank] for host in hosts[1:rank])


def seen_devices(environ: Mapping[str, str]) -> str:
    """Describe the devices that this process sees."""
    import glob

    for name in DEVICES:
        if name in environ:
            return ",".join(_listed(environ[name])) or "none"
    found = glob.glob("/dev/nvidia[0-9]*") or glob.glob("/dev/dri/renderD*")
    return str(len(found)) if found else "none"
