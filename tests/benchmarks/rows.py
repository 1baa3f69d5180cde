"""The rows of the table: what is measured of each peer, and how."""

from collections.abc import Callable
from typing import Any, NamedTuple

from taskfarm.bench import measure
from tests.benchmarks.peers import Peer, tried

MB8, KB64 = 8_000_000, 64_000


class Bench(NamedTuple):
    """What a measurement gets.

    Attributes
    ----------
    pool : Any
        The executor.
    peer : Peer
        Whose it is.
    workers : int
        Tasks that can run at a time.
    seconds : float
        How long one measurement may take, about.
    """

    pool: Any
    peer: Peer
    workers: int
    seconds: float


Measurement = Callable[[Bench], float | None]


class Row(NamedTuple):
    """A line of the table.

    Attributes
    ----------
    title : str
        With the unit.
    measure : callable
        From a Bench to a figure; None where the peer has no such thing.
    more : bool
        Whether more is better.
    once : bool
        Whether it is taken in the first round only.
    against : str
        The row whose figure of taskfarm this one is compared with, if it has none of its own.
    """

    title: str
    measure: Measurement
    more: bool
    once: bool = False
    against: str = ""


def submits(bench: Bench) -> float | None:
    """Tasks a second through submit."""
    if not bench.peer.queues:
        return None
    rate = measure.submits(bench.pool, 300)
    return measure.submits(bench.pool, measure.fitting(rate, bench.seconds, 20_000, 300))


def best_rate(bench: Bench, options: list[dict[str, int]]) -> float:
    """Tasks a second through map, with the best of some options."""
    best = 0.0
    for option in options:
        rate = measure.mapped(bench.pool, 2 * option.get("chunksize", 500), **option)
        count = measure.fitting(rate, bench.seconds, 1_000_000, 8 * option.get("chunksize", 50))
        best = max(best, measure.mapped(bench.pool, count, **option))
    return best


def maps(bench: Bench) -> float:
    """Tasks a second through a map with its defaults."""
    return best_rate(bench, [{}])


def tuned_maps(bench: Bench) -> float | None:
    """The same with the best chunk size by hand."""
    if not bench.peer.chunks:
        return None
    return best_rate(bench, tried(bench.peer.chunks))


def round_trip(pause: float) -> Measurement:
    """Microseconds from a submit to its result, half are below."""

    def trips(bench: Bench) -> float | None:
        if not bench.peer.submits:
            return None
        spent = measure.quantile(measure.round_trips(bench.pool, 5), 0.5) + pause
        count = measure.fitting(1 / spent, max(bench.seconds, 15 * pause), 5_000, 10)
        return 1e6 * measure.quantile(measure.round_trips(bench.pool, count, pause), 0.5)

    return trips


def arrays(nbytes: int, one_by_one: bool) -> Measurement:
    """MB/s of arrays there and back, both directions counted."""

    def rate(bench: Bench) -> float | None:
        if one_by_one and not bench.peer.submits:
            return None
        trial = measure.arrays(bench.pool, nbytes, 4, one_by_one)
        count = measure.fitting(1e6 * trial / (2 * nbytes), bench.seconds, 2_000, 6)
        return measure.arrays(bench.pool, nbytes, count, one_by_one)

    return rate


def irregular(bench: Bench) -> float:
    """Time over the ideal time, defaults."""
    return measure.irregular(bench.pool, bench.workers)


def tuned_irregular(bench: Bench) -> float | None:
    """The same with the best chunk size by hand."""
    if not bench.peer.chunks:
        return None
    chunks = tried((1, 4, 16))
    return min(measure.irregular(bench.pool, bench.workers, **chunk) for chunk in chunks)


def metg(bench: Bench) -> float:
    """Microseconds; the best chunk size by hand, where there is one to choose."""
    options = tried(bench.peer.chunks and (64, 1024))
    return 1e6 * min(measure.metg(bench.pool, bench.workers, 0.05, **option) for option in options)


def idle(bench: Bench) -> float:
    """CPU milliseconds of a worker in an idle second, the first seconds after work."""
    return 1e3 * measure.idle(bench.pool, bench.workers, max(1.0, 10 * bench.seconds))


def memory(bench: Bench) -> float:
    """MB by which rank 0 grows for a million tasks that do nothing, with chunks of 1,024 for peers."""
    chunk = tried(bench.peer.chunks and (1024,))[0]
    rate = measure.mapped(bench.pool, 5_000, **chunk)
    count = measure.fitting(rate, 20 * bench.seconds, 10_000_000, 10_000)
    return 1e6 * measure.memory_growth(bench.pool, count, **chunk) / count


ROWS: dict[str, Row] = {
    # First: heap that other rows leave behind would hide the growth.
    "memory": Row("growth of rank 0 for each task, bytes", memory, more=False, once=True),
    "submit": Row("submit one by one, tasks/s", submits, more=True),
    "map": Row("map, defaults, tasks/s", maps, more=True),
    "tuned_map": Row("map, best chunk by hand, tasks/s", tuned_maps, more=True, against="map"),
    "round_trip": Row("round trip, p50, us", round_trip(0.0), more=False),
    "round_trip_idle": Row("round trip after 50 ms idle, p50, us", round_trip(0.05), more=False),
    "arrays_8mb": Row("8 MB arrays one by one, MB/s", arrays(MB8, True), more=True),
    "arrays_8mb_map": Row("8 MB arrays, map, MB/s", arrays(MB8, False), more=True),
    "arrays_64kb": Row("64 KB arrays one by one, MB/s", arrays(KB64, True), more=True),
    "arrays_64kb_map": Row("64 KB arrays, map, MB/s", arrays(KB64, False), more=True),
    "irregular": Row("irregular tasks, defaults, time / ideal", irregular, more=False),
    "tuned_irregular": Row(
        "irregular tasks, best chunk, time / ideal", tuned_irregular, more=False, against="irregular"
    ),
    "metg": Row("METG through map, us", metg, more=False, once=True),
    "idle": Row("CPU time of an idle worker, ms/s", idle, more=False, once=True),
}
