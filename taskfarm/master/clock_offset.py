"""A worker's clock beside the master's, from the messages that pass between them. Pure."""

import math


class ClockOffset:
    """What to add to the times of one worker to get the master's times.

    A batch starts after it was sent, and its outcomes arrive after it has ended; each time is by its own
    clock. So every batch bounds the offset from both sides, and the bounds of all earlier batches count
    too (Cristian, "Probabilistic clock synchronization", Distributed Computing 3, 1989).
    """

    __slots__ = ("_high", "_low")

    def __init__(self) -> None:
        self._low, self._high = -math.inf, math.inf

    def update(self, sent: float, started: float, ended: float, received: float) -> None:
        """Record a batch: when it was sent and received here, started and ended there, in seconds."""
        low, high = sent - started, received - ended
        if max(low, self._low) > min(high, self._high):
            # The clocks have drifted apart since the old bounds were taken.
            self._low, self._high = low, high
        self._low, self._high = max(low, self._low), min(high, self._high)

    @property
    def seconds(self) -> float:
        """The offset; 0 if the bounds allow it, since processes of one host share a clock."""
        if self._low <= 0 <= self._high:
            return 0.0
        return (self._low + self._high) / 2
