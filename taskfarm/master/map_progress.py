"""How far a map is."""

from dataclasses import dataclass


@dataclass(eq=False)
class MapProgress:
    """How far a map is.

    Attributes
    ----------
    name : str
        Its name in bars and messages.
    total : int or None
        Number of its tasks; None while that is unknown.
    ended, failed : int
        Tasks that have ended, and those of them that have failed.
    retried : int
        How many times one of its tasks was queued again.
    drawn : int
        Tasks that have been queued.
    closed : bool
        Whether its caller has stopped consuming it.
    number : int
        Maps are numbered from 1 on in the order in which they begin.
    """

    name: str
    total: int | None
    ended: int = 0
    failed: int = 0
    retried: int = 0
    drawn: int = 0
    closed: bool = False
    number: int = 0

    def add(self, ended: int, failed: int, retried: int) -> None:
        """Count tasks that have ended, those of them that have failed, and those that will be retried."""
        self.ended += ended
        self.failed += failed
        self.retried += retried

    @property
    def over(self) -> bool:
        """Whether the map will make no more progress."""
        return self.closed or self.ended == self.total
