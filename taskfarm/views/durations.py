"""A histogram of durations with logarithmic bins, from which percentiles are computed. Pure."""

import math
from dataclasses import dataclass, field

FINENESS = 8
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
    classes : dict of int to int
        Number of durations by class; those of class n are about 2**(n / `FINENESS`) s.
    """

    slowest: float = 0.0
    classes: dict[int, int] = field(default_factory=dict)

    def add(self, seconds: float, count: int = 1) -> None:
        """Count a duration, or several equal ones."""
        seconds = max(LEAST, seconds)
        self.slowest = max(self.slowest, seconds)
        index = round(FINENESS * math.log2(seconds))
        self.classes[index] = self.classes.get(index, 0) + count

    def percentile(self, share: float) -> float:
        """Return the seconds below which this share of the durations lies; 0 if there are none."""
        left = share * sum(self.classes.values())
        for index, count in sorted(self.classes.items()):
            left -= count
            if left <= 0:
                return min(self.slowest, float(2.0 ** (index / FINENESS)))
        return self.slowest


def in_words(seconds: float) -> str:
    """Format a duration with three digits and a unit."""
    units = ((3600.0, 36000.0, "h"), (60.0, 1000.0, "min"), (1.0, 1.0, "s"), (1e-3, 1e-3, "ms"))
    for scale, least, unit in units:
        if seconds >= least:
            return f"{seconds / scale:.3g} {unit}"
    return f"{seconds * 1e6:.3g} us"
