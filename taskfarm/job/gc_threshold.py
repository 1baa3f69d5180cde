"""Python's cyclic garbage collector, which looks more seldom while a farm is open."""

import gc

SELDOM = 50_000
"""New containers after which the youngest generation is looked through; Python's own default is 700.

Every unfinished task is some containers, and none of them is garbage: looking through them at each 700
takes a third of the time of a loop of submits.
"""


class Seldom:
    """Raises the collector's first threshold, until `end`; what the user has set or sets stays."""

    def __init__(self) -> None:
        self._found = gc.get_threshold()
        self._set = self._found
        # 0 means that the user does not want it to run by itself.
        if 0 < self._found[0] < SELDOM:
            self._set = (SELDOM, *self._found[1:])
            gc.set_threshold(*self._set)

    def end(self) -> None:
        """Put back what was found, unless somebody has changed it since."""
        if gc.get_threshold() == self._set:
            gc.set_threshold(*self._found)
        self._set = self._found
