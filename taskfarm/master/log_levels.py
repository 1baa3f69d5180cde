"""The levels of the job's loggers, which workers have to know: they send only what somebody may want."""

import logging
from typing import Any


class LogLevels:
    """Finds out when the job changes the level of a logger.

    Attributes
    ----------
    levels : dict of str to int
        The loggers with a level of their own; the name of the root logger is empty.
    version : int
        Counts the changes.
    """

    def __init__(self) -> None:
        self.levels: dict[str, int] = {}
        self.version = 0
        # Every change of a level empties the caches of all loggers. That costs nothing to look at, while
        # there may be a thousand loggers to ask.
        self._cache: dict[Any, Any] = getattr(logging.root, "_cache", {})

    def update(self) -> None:
        """Look again, if any level may have changed."""
        if self not in self._cache:
            self._cache[self] = True
            loggers = list(logging.root.manager.loggerDict.items())
            self.levels = {
                name: logger.level
                for name, logger in loggers
                if isinstance(logger, logging.Logger) and logger.level != logging.NOTSET
            }
            self.levels[""] = logging.root.level
            self.version += 1
