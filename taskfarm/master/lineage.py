"""How kept results were made, so that lost ones can be made again."""

from typing import NamedTuple

from taskfarm.master.interfaces import Dependency, Position
from taskfarm.protocol.arguments import Arguments
from taskfarm.protocol.functions import RegisteredFunction

MAX_DEPTH = 10_000
"""Calls on which a call depends, one after the other, that are remembered with it."""


class Lineage(NamedTuple):
    """A call, and what it needs: not the results that workers keep, but how these are made.

    Attributes
    ----------
    task : int
        The id under which other calls refer to its result.
    function : RegisteredFunction
        The function.
    arguments : Arguments
        The call, with the results that rank 0 has.
    needs : tuple of Dependency or Lineage
        What the call refers to besides.
    stream, index : int
        The random stream of the call, and its index there.
    depth : int
        Calls that depend on each other, up to this one; 0 if those before are forgotten.
    """

    task: int
    function: RegisteredFunction
    arguments: Arguments
    needs: "tuple[Dependency | Lineage, ...]"
    stream: int | tuple[int, ...]
    index: int  # type: ignore[assignment]  # a field, not tuple.index
    depth: int = 1

    @property
    def complete(self) -> bool:
        """Whether the call can be made again."""
        return self.depth > 0


def lineage_of(
    task: int,
    function: RegisteredFunction,
    arguments: Arguments,
    needs: "tuple[Dependency | Lineage, ...]",
    position: Position,
) -> Lineage:
    """How a result was made; a call with too many others before it cannot be made again."""
    depth = 1 + max((one.depth for one in needs if isinstance(one, Lineage)), default=0)
    if depth > MAX_DEPTH:
        # Its own chain begins anew, and the memory of the calls before is given back.
        return Lineage(task, function, arguments, (), *position, 0)
    return Lineage(task, function, arguments, needs, *position, depth)
