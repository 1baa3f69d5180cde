"""Runs Python's cyclic garbage collector less often while a farm is open."""

import gc

THRESHOLD = 50_000
"""New containers after which the collector examines the youngest generation; Python's default is 700.

Every unfinished task is a few containers, and none of them is garbage: examining them at each 700
takes a third of the time of a loop of submits.
"""


class GcThreshold:
    """Raises the collector's first threshold until `restore`; a value that the user sets stays."""

    def __init__(self) -> None:
        self._found = gc.get_threshold()
        self._set = self._found
        # 0 means that the user has switched the collector off.
        if 0 < self._found[0] < THRESHOLD:
            self._set = (THRESHOLD, *self._found[1:])
            gc.set_threshold(*self._set)

    def restore(self) -> None:
        """Put back the old threshold, unless somebody has changed it since."""
        if gc.get_threshold() == self._set:
            gc.set_threshold(*self._found)
        self._set = self._found
