"""Objects that stand for those of the job's classes, where the job's file is not at hand.

Results refer to classes of the job's file by their names, and a command that reads a journal does not run
the job. So these names stand for classes that keep what was pickled, and show it. A named tuple has its own
columns in a table, so the journal keeps the names of its fields.
"""

import sys
from collections import namedtuple
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any


class _Names(type):
    """A class that has every attribute: another such class."""

    def __getattr__(cls, name: str) -> Any:
        return stand_in(cls.__qualname__, name)


class StandIn(metaclass=_Names):
    """An object of a class that is not here."""

    _shown: list[str]

    def __new__(cls, *arguments: Any, **keywords: Any) -> "StandIn":
        """Keep the arguments, which may be those of ``__new__`` or of a function."""
        made = super().__new__(cls)
        made.__dict__["_shown"] = [*map(repr, arguments), *(f"{key}={keywords[key]!r}" for key in keywords)]
        return made

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        parts = state if isinstance(state, tuple) and len(state) == 2 else (state,)
        for part in parts:
            if isinstance(part, dict):
                self._shown += [f"{key}={value!r}" for key, value in part.items()]
            elif part is not None:
                self._shown.append(repr(part))

    def append(self, item: Any) -> None:
        """Keep an item of a list."""
        self._shown.append(repr(item))

    def extend(self, items: Any) -> None:
        """Keep items of a list."""
        self._shown += map(repr, items)

    def __setitem__(self, key: Any, value: Any) -> None:
        self._shown.append(f"{key!r}: {value!r}")

    def __repr__(self) -> str:
        return f"{type(self).__qualname__}({', '.join(self._shown)})"


def stand_in(*path: str) -> Any:
    """A class that stands for the one of this name."""
    if path[-1].startswith("__"):
        raise AttributeError(path[-1])
    return _Names(path[-1], (StandIn,), {"__qualname__": ".".join(path)})


class _Main(ModuleType):
    def __init__(self, tuples: Mapping[str, Sequence[str]]) -> None:
        super().__init__("__main__")
        for name, fields in tuples.items():
            setattr(self, name, namedtuple(name, fields, rename=True))

    def __getattr__(self, name: str) -> Any:
        return stand_in(name)


def install(tuples: Mapping[str, Sequence[str]]) -> None:
    """Let every name in ``__main__`` stand for a class that is not here.

    Parameters
    ----------
    tuples : mapping of str to sequence of str
        The fields of the named tuples that the job's file defines.
    """
    sys.modules["__main__"] = _Main(tuples)
