"""Messages of which the receiver could not hold every buffer: what is missing fails its own task only."""

import io
import os
import pickle
import socket
from typing import Any, NoReturn

from taskfarm.protocol.describe import megabytes
from taskfarm.protocol.messages import CLASSES, Blob, Message, Parcel, TooLarge, restored
from taskfarm.protocol.serialize import PickledCall


class _Checked(Blob):
    """Takes the place of `Blob` while a message is unpickled."""

    def __new__(  # type: ignore[misc]
        cls, data: Any, buffers: list[Any], needs: tuple[Any, ...] = (), results: tuple[Any, ...] = ()
    ) -> Blob:
        missing = [found for one in (data, *buffers) if (found := _placeholder(one)) is not None]
        if not missing:
            return Blob(data, buffers, needs, results)
        total = sum(map(_size, (data, *buffers)))
        place = f"in process {os.getpid()} on {socket.gethostname()}"
        text = f"no memory for its {megabytes(total)} {place}"
        return Blob(pickle.dumps(PickledCall(_raise_memory_error, text), protocol=5), [])


def _placeholder(buffer: Any) -> TooLarge | None:
    # The pickle may have wrapped the placeholder, to make it read-only.
    found = buffer.obj if isinstance(buffer, memoryview) else buffer
    return found if isinstance(found, TooLarge) else None


def _size(buffer: Any) -> int:
    missing = _placeholder(buffer)
    return memoryview(buffer).nbytes if missing is None else missing.size


def _raise_memory_error(text: str) -> NoReturn:
    raise MemoryError(text)


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """The class or function of a name, as usual, except for `Blob`."""
        found = super().find_class(module, name)
        return _Checked if found is Blob else found


def decode(parcel: Parcel) -> Message:
    """Decode a message; a blob with a missing buffer becomes one whose unpickling raises MemoryError."""
    unpickler = _Unpickler(io.BytesIO(parcel.head), buffers=parcel.buffers)
    return restored(CLASSES[parcel.tag], unpickler.load())
