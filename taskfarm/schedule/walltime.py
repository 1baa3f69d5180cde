"""When a run ends, as the scheduler knows it. Pure."""

from typing import NamedTuple


class Walltime(NamedTuple):
    """The time of a run.

    Attributes
    ----------
    ends : float
        When tasks must have ended, in seconds of the scheduler's clock.
    """

    ends: float
