"""An ensemble of heat equations in 2-D, each solved by several ranks, beside tasks on one rank.

Every member of the ensemble is a plate whose left edge is hot, with another diffusivity. Four ranks solve
it together: each has a stripe of rows, and exchanges the rows at its borders with its neighbours in each
step. As soon as one is solved, a task on one rank finds how far the heat has come. Start it with at least
five ranks, or in one process, where each solver has one rank; the numbers are the same::

    python -m taskfarm run -n 9 examples/heat_ensemble.py --output heat_ensemble.png
    python examples/heat_ensemble.py --ranks 1
"""

import argparse

import numpy as np
from numpy.typing import NDArray

import taskfarm
from taskfarm import as_completed, task


@task(ranks=4)
def solve(diffusivity: float, size: int, steps: int) -> NDArray[np.float64] | None:
    """Solve the heat equation on a plate whose left edge is at 1, the others at 0.

    Returns
    -------
    array of shape (size, size), or None
        The temperature, on rank 0 of the task.
    """
    from mpi4py import MPI

    comm = taskfarm.comm()
    borders = [size * rank // comm.size for rank in range(comm.size + 1)]
    rows = borders[comm.rank + 1] - borders[comm.rank]
    # One more row and column on each side: the neighbour's, or the edge of the plate.
    heat = np.zeros((rows + 2, size + 2))
    heat[:, 0] = 1.0
    above = comm.rank - 1 if comm.rank else MPI.PROC_NULL
    below = comm.rank + 1 if comm.rank + 1 < comm.size else MPI.PROC_NULL
    for _ in range(steps):
        comm.Sendrecv(heat[1], above, recvbuf=heat[-1], source=below)
        comm.Sendrecv(heat[-2], below, recvbuf=heat[0], source=above)
        around = heat[:-2, 1:-1] + heat[2:, 1:-1] + heat[1:-1, :-2] + heat[1:-1, 2:]
        heat[1:-1, 1:-1] += diffusivity * (around - 4.0 * heat[1:-1, 1:-1])
    stripes = comm.gather(heat[1:-1, 1:-1])
    return None if stripes is None else np.concatenate(stripes)


@task
def reach(heat: NDArray[np.float64]) -> float:
    """How far the temperature 0.1 has come along the middle row, as a share of the width."""
    middle = heat[heat.shape[0] // 2]
    return float(np.count_nonzero(middle > 0.1) / middle.size)


def main() -> None:
    """Solve the ensemble, and print or draw how far the heat has come."""
    parser = argparse.ArgumentParser(description="An ensemble of heat equations, each on several ranks.")
    parser.add_argument("--members", type=int, default=12, help="plates (default: 12)")
    parser.add_argument("--size", type=int, default=128, help="rows and columns of a plate (default: 128)")
    parser.add_argument("--steps", type=int, default=400, help="steps in time (default: 400)")
    parser.add_argument("--ranks", type=int, default=4, help="ranks that solve one plate (default: 4)")
    parser.add_argument("--output", help="draw the plates into this file (needs matplotlib)")
    given = parser.parse_args()
    if not 1 <= given.ranks <= given.size:
        parser.error("--ranks must be at least 1, and at most --size")
    diffusivities = np.linspace(0.02, 0.24, given.members).tolist()
    solver = solve.options(ranks=given.ranks)
    solving = {solver.submit(each, given.size, given.steps): each for each in diffusivities}
    plates, reaching = {}, {}
    for future in as_completed(solving):
        plates[solving[future]] = future.result()
        reaching[solving[future]] = reach.submit(future.result())
    for each in diffusivities:
        print(f"diffusivity {each:.2f}: {reaching[each].result():.3f} of the width")
    if given.output:
        draw(plates, given.output)


def draw(plates: dict[float, NDArray[np.float64] | None], path: str) -> None:
    """Draw all plates."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    columns = min(6, len(plates))
    rows = -(-len(plates) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(1.6 * columns, 1.75 * rows), squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for axis, each in zip(axes.flat, sorted(plates), strict=False):
        axis.imshow(plates[each], cmap="inferno", vmin=0, vmax=1)
        axis.set_title(f"{each:.2f}", fontsize=9)
    figure.tight_layout()
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
