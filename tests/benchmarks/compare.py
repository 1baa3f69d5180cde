"""Runs the rows for all peers alternately, and prints a table with ratios to taskfarm."""

import json
import os
import platform
import statistics
import sys
from pathlib import Path
from typing import Any

from mpi4py import MPI

from tests.benchmarks.peers import PEERS, Peer
from tests.benchmarks.rows import ROWS, Bench, Row

Figures = dict[str, dict[str, list[float]]]
"""By row, then by peer: one for each round."""


def present(names: list[str]) -> list[Peer]:
    """The peers that are installed, the same ones on all ranks."""
    peers = []
    for name in names:
        peer = PEERS[name]()
        try:
            peer.version()
            if name == "schwimmbad":
                import schwimmbad.mpi  # noqa: F401
        except ImportError:
            if MPI.COMM_WORLD.rank == 0:
                print(
                    f"{peer.name} is left out: `pip install 'mpi-taskfarm[bench]'` brings it",
                    file=sys.stderr,
                )
            continue
        peers.append(peer)
    return peers


def take(peers: list[Peer], rows: dict[str, Row], rounds: int, seconds: float) -> Figures:
    """Take all figures: a round of every peer, then the next round."""
    comm = MPI.COMM_WORLD
    workers = min(comm.size - 1, len(os.sched_getaffinity(0)))
    figures: Figures = {name: {} for name in rows}
    for number in range(rounds):
        for peer in peers:
            with peer.open(comm) as pool:
                for name, row in rows.items():
                    if pool is None or (row.once and number):
                        continue
                    value = row.measure(Bench(pool, peer, workers, seconds))
                    if value is not None:
                        figures[name].setdefault(peer.name, []).append(value)
                        print(f"round {number + 1}: {peer.name}: {row.title}: {value:.4g}", file=sys.stderr)
    return figures


def shown(value: float) -> str:
    """Three digits that count."""
    if value >= 1e6:
        return f"{value / 1e6:.3g} M"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def cell(values: list[float] | None, ours: list[float] | None, row: Row) -> str:
    """The median, and by how much taskfarm is better."""
    if not values:
        return "-"
    value = statistics.median(values)
    mine = statistics.median(ours) if ours else 0.0
    if values is ours or not value or not mine:
        return shown(value)
    better = mine / value if row.more else value / mine
    return f"{shown(value)} (x {shown(better)})"


def table(figures: Figures, peers: list[Peer], rows: dict[str, Row]) -> str:
    """In Markdown; in brackets by how many times taskfarm is better."""
    lines = ["| | " + " | ".join(peer.name for peer in peers) + " |", "|---" * (len(peers) + 1) + "|"]
    for name, row in rows.items():
        ours = figures.get(row.against or name, {}).get("taskfarm")
        cells = [cell(figures[name].get(peer.name), ours, row) for peer in peers]
        lines.append(f"| {row.title} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def processor() -> str:
    """The name of the processor."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


def main(options: Any) -> None:
    """Measure, and print on rank 0."""
    rows = {name: row for name, row in ROWS.items() if not options.only or name in options.only}
    peers = present(options.peers)
    rounds, seconds = (1, 0.05) if options.quick else (options.rounds, 0.4)
    figures = take(peers, rows, rounds, seconds)
    if MPI.COMM_WORLD.rank:
        return
    library = " ".join(MPI.Get_library_version().split(",")[0].split()[:4]).removesuffix(" MPICH")
    heading = (
        f"{MPI.COMM_WORLD.size} ranks, {os.cpu_count()} cores ({processor()}), {library}, "
        f"Python {platform.python_version()}, {', '.join(peer.version() for peer in peers)}; "
        f"median of {rounds}, in brackets by how many times taskfarm is better"
    )
    print(heading, "", table(figures, peers, rows), sep="\n")
    if options.json:
        Path(options.json).write_text(json.dumps({"about": heading, "figures": figures}, indent=2))
