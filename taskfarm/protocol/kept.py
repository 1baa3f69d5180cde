"""Results that stay with the worker that made them: what travels in their place.

The result of a call is a pickle. That of a kept one says only where the value is: it is unpickled to the
value in a task, and to a `Kept` in the job, which fetches the value when somebody asks for it. So whoever
passes results on need not know which of them are kept.
"""

import pickle
from typing import Any, NamedTuple

from taskfarm.protocol.describe import megabytes
from taskfarm.protocol.messages import Blob, Location
from taskfarm.protocol.serialize import PickledCall
from taskfarm.protocol.sides import here

KEEP_BYTES = 1 << 16
"""Results whose pickle is smaller than this, in bytes, travel as usual."""

MARK = b"kept result:"
"""What the token of each kept result begins with."""


class Kept(NamedTuple):
    """Where a result is.

    Attributes
    ----------
    token : bytes
        Identifies it.
    worker : int
        The rank that has it.
    nbytes : int
        Its size, in bytes.
    host : str
        Identifies the processes that can open each other's files in memory.
    location : Location
        The file, as `protocol.layout` writes it.
    """

    token: bytes
    worker: int
    nbytes: int
    host: str
    location: Location

    def __repr__(self) -> str:
        """Show the size."""
        return f"<kept: {megabytes(self.nbytes)}, made again when it is needed>"


def reference(kept: Kept, tokens: tuple[bytes, ...] = ()) -> Blob:
    """What travels in the place of the value.

    `tokens` are those of the shared data to which the value refers: whoever looks for some finds them here.
    """
    *rest, location = kept
    return Blob(pickle.dumps(PickledCall(_restore, tokens, *rest, *location), protocol=5), [])


def _restore(
    tokens: tuple[bytes, ...], token: bytes, worker: int, nbytes: int, host: str, *location: int
) -> Any:
    kept = Kept(token, worker, nbytes, host, Location(*location))
    side = here()
    return kept if side.is_job or side.load_kept is None else side.load_kept(kept)
