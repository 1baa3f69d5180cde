"""Durations by class, of which percentiles can be told without keeping each. Pure."""

import math
from dataclasses import dataclass, field

FINENESS = 8
"""Classes to each doubling: a percentile is right to within 5 %."""

LEAST = 1e-9
"""Seconds; what is shorter counts as this."""


@dataclass
class Durations:
    """Durations in seconds.

    Attributes
    ----------
    slowest : float
        The longest one.
    classes : dict of int to int
        How many there are in each class; those of class n are about 2**(n / `FINENESS`) s.
    """

    slowest: float = 0.0
    classes: dict[int, int] = field(default_factory=dict)

    def add(self, seconds: float, count: int = 1) -> None:
        """Take in some that are equal."""
        seconds = max(LEAST, seconds)
        self.slowest = max(self.slowest, seconds)
        number = round(FINENESS * math.log2(seconds))
        self.classes[number] = self.classes.get(number, 0) + count

    def percentile(self, share: float) -> float:
        """Seconds within which this share of them lies; 0 if there are none."""
        left = share * sum(self.classes.values())
        for number, count in sorted(self.classes.items()):
            left -= count
            if left <= 0:
                return min(self.slowest, float(2.0 ** (number / FINENESS)))
        return self.slowest


def in_words(seconds: float) -> str:
    """A time with three digits and its unit."""
    units = ((3600.0, 36000.0, "h"), (60.0, 1000.0, "min"), (1.0, 1.0, "s"), (1e-3, 1e-3, "ms"))
    for scale, least, unit in units:
        if seconds >= least:
            return f"{seconds / scale:.3g} {unit}"
    return f"{seconds * 1e6:.3g} us"
