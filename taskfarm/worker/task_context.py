"""What a worker's thread is running now, as its tasks see it."""

from typing import TYPE_CHECKING, Any

from taskfarm.protocol.messages import Part
from taskfarm.worker.context import Current, Place

if TYPE_CHECKING:
    from numpy.random import Generator


class Present:
    """The part that is being run.

    Parameters
    ----------
    place : Place
        Rank and host.

    Attributes
    ----------
    part : Part or None
        The part; None between batches.
    ended : list
        The results so far; it grows while a block of calls is being run.
    seed : int
        The farm's.
    """

    def __init__(self, place: Place) -> None:
        self._place = place
        self.part: Part | None = None
        self._name = ""
        self.ended: list[Any] = []
        self.seed = 0
        self._generator: tuple[int, Generator] | None = None

    def begin(self, part: Part, name: str, ended: list[Any]) -> None:
        """Say what is run from now on, and where its results gather."""
        self.part, self._name, self.ended = part, name, ended
        self._generator = None

    def end(self) -> None:
        """Say that nothing is run any more."""
        self.part = self._generator = None

    @property
    def task(self) -> int:
        """The id of the task that is being run."""
        assert self.part is not None
        return self.part.first + len(self.ended)

    def current(self) -> Current:
        """The task that is being run."""
        assert self.part is not None
        return Current(self.task, self._name, self.part.attempt, self._place.rank, self._place.host)

    def rng(self) -> "Generator":
        """The generator of the task that is being run: the same for all of its calls."""
        import numpy as np

        assert self.part is not None
        at = len(self.ended)
        if self._generator is None or self._generator[0] != at:
            key = (self.part.stream, self.part.index + at)
            generator = np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=key))
            self._generator = (at, generator)
        return self._generator[1]
