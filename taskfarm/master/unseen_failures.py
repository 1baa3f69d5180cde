"""Failures that the job has not looked at: told at its end, since nothing else would tell them."""

import atexit
from itertools import count

from taskfarm.console import say
from taskfarm.protocol.failures import summary_of


class UnseenFailures:
    """Counts failures until the job asks for the result or the exception, or begins to consume the map."""

    def __init__(self) -> None:
        self._keys = count(1)
        self._unseen: dict[int, tuple[int, str]] = {}
        self._told = False

    def add(self, key: int, error: BaseException, failed: int = 1) -> int:
        """Count `failed` failures under a key that an earlier call has returned, or under a new one for 0.

        Returns the key.
        """
        if not self._unseen and not self._told:
            atexit.register(self.tell)
        key = key or next(self._keys)
        before, summary = self._unseen.get(key, (0, ""))
        if not summary and len(self._unseen) < 100:
            summary = summary_of(error)
        self._unseen[key] = before + failed, summary
        return key

    def discard(self, key: int) -> None:
        """Note that the job has looked at the failures under a key."""
        self._unseen.pop(key, None)

    @property
    def count(self) -> int:
        """Number of failures that the job has not looked at."""
        return sum(failed for failed, _ in list(self._unseen.values()))

    def tell(self) -> int:
        """Print one line about them, once; returns their number."""
        atexit.unregister(self.tell)
        number = self.count
        if number and not self._told:
            self._told = True
            _, first = next(iter(self._unseen.values()))
            what = "1 failure was" if number == 1 else f"{number:,} failures were"
            say(f"{what} never looked at: nobody asked for the result; the first: {first[:200]}")
        return number
