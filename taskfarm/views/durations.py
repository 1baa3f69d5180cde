"""A histogram of durations with logarithmic bins, from which percentiles are computed. Pure."""

import math
from dataclasses import dataclass, field

BINS_PER_OCTAVE = 8
"""Classes per factor of two: a percentile is accurate to within 5 %."""

LEAST = 1e-9
"""Seconds; shorter durations count as this."""


@dataclass
class Durations:
    """A histogram of durations in seconds.

    Attributes
    ----------
    slowest : float
        The longest duration.
    bins : dict of int to int
        Number of durations by bin; those in bin n are about 2**(n / `BINS_PER_OCTAVE`) s.
    """

    slowest: float = 0.0
    bins: dict[int, int] = field(default_factory=dict)

    def add(self, seconds: float, count: int = 1) -> None:
        """Count a duration, or several equal ones."""
        seconds = max(LEAST, seconds)
        self.slowest = max(self.slowest, seconds)
        index = round(BINS_PER_OCTAVE * math.log2(seconds))
        self.bins[index] = self.bins.get(index, 0) + count

    def percentile(self, share: float) -> float:
        """Return the seconds below which this share of the durations lies; 0 if there are none."""
        left = share * sum(self.bins.values())
        for index, count in sorted(self.bins.items()):
            left -= count
            if left <= 0:
                return min(self.slowest, float(2.0 ** (index / BINS_PER_OCTAVE)))
        return self.slowest


def in_words(seconds: float) -> str:
    """Format a duration with three digits and a unit."""
    units = ((3600.0, 36000.0, "h"), (60.0, 1000.0, "min"), (1.0, 1.0, "s"), (1e-3, 1e-3, "ms"))
    for scale, least, unit in units:
        if seconds >= least:
            return f"{seconds / scale:.3g} {unit}"
    return f"{seconds * 1e6:.3g} us" if seconds >= 1e-6 else f"{seconds * 1e6:.1g} us"
