"""Seconds of several kinds as functions of time, in bounded memory."""

BINS, FINEST = 2048, 1e-3
"""Bins, and seconds of a bin when a run begins; neighbouring bins are merged as it gets longer."""


class BinnedTime:
    """Adds up intervals of several kinds.

    Parameters
    ----------
    began : float
        When the run began, in seconds; what was before does not count.
    kinds : str
        The names of the kinds.

    Attributes
    ----------
    width : float
        Seconds of a bin.
    """

    def __init__(self, began: float, *kinds: str) -> None:
        self._began = began
        self.width = FINEST
        self._bins = {kind: [0.0] * BINS for kind in kinds}

    def add(self, kind: str, start: float, end: float) -> None:
        """Add an interval of one kind."""
        start, end = start - self._began, end - self._began
        while end >= self.width * BINS:
            for name, bins in self._bins.items():
                merged = [a + b for a, b in zip(bins[::2], bins[1::2], strict=True)]
                self._bins[name] = merged + [0.0] * (BINS - len(merged))
            self.width *= 2
        bins = self._bins[kind]
        for index, overlap in self._overlaps(start, end):
            bins[index] += overlap

    def between(self, start: float, end: float) -> dict[str, float]:
        """Seconds of each kind between two times; those of a bin count as spread evenly over it."""
        overlaps = self._overlaps(start - self._began, end - self._began)
        return {
            name: sum(bins[index] * overlap for index, overlap in overlaps) / self.width
            for name, bins in self._bins.items()
        }

    def _overlaps(self, start: float, end: float) -> list[tuple[int, float]]:
        """The bins between two times since the beginning, and the seconds of each that lie between them."""
        start = max(0.0, start)
        if end <= start:
            return []
        width = self.width
        low, high = int(start / width), int(end / width)
        if low == high:
            return [(low, end - start)] if low < BINS else []
        found = [(low, (low + 1) * width - start)]
        found += [(index, width) for index in range(low + 1, min(high, BINS))]
        found.append((high, end - high * width))
        return [(index, overlap) for index, overlap in found if index < BINS]
