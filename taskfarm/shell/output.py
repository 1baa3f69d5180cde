"""Prints what commands have printed: whole, one command after the other."""

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator
from typing import IO, Any, NamedTuple

from taskfarm.console import say
from taskfarm.shell.execute import Ended, Spooled

PIECE = 1 << 20
"""Bytes of large output that are in memory at a time."""

HELD = 16 << 20
"""Bytes of output that wait in memory for that of earlier commands; more waits in a file."""


def pieces(output: bytes | Spooled) -> Iterator[bytes]:
    """The output of a command, in pieces of limited size."""
    if isinstance(output, bytes):
        if output:
            yield output
        return
    try:
        with open(output.path, "rb") as file:
            while piece := file.read(PIECE):
                yield piece
    except OSError as error:
        say(
            f"{output.size:,} bytes of output are in {output.path!r} on {output.host}, which rank 0 "
            f"cannot read ({error.strerror}): keep output in a shared folder with --results or --tmpdir"
        )


def discard(ended: Ended) -> None:
    """Remove the files of a command's output, unless the user wants to keep them."""
    for output in (ended.stdout, ended.stderr):
        if isinstance(output, Spooled) and not output.keep:
            with contextlib.suppress(OSError):
                os.unlink(output.path)


class _Held(NamedTuple):
    """Output that waits in the file: where each of the two streams begins and ends."""

    tag: str
    start: int
    middle: int
    end: int


class Printer:
    """Prints the output of commands as they end, or in the order of their numbers.

    Parameters
    ----------
    in_order : bool
        Whether the output of a command waits for that of the commands before it.
    tagged : bool
        Whether each line begins with the arguments of its command.
    silent : bool
        Whether nothing is printed.
    """

    def __init__(self, in_order: bool, tagged: bool, silent: bool = False) -> None:
        self._in_order = in_order and not silent
        self._silent = silent
        self._tagged = tagged
        self._next = 1
        self._waiting: dict[int, tuple[str, Ended] | _Held | None] = {}
        self._bytes = 0
        self._file: IO[bytes] | None = None

    def add(self, number: int, tag: str, ended: Ended | None) -> None:
        """Print the output of a command, when its turn comes; None: it has no result."""
        if not self._in_order:
            if ended is not None:
                self._print(tag, ended)
            return
        self._waiting[number] = None if ended is None else self._kept(tag, ended)
        while self._next in self._waiting:
            self._print_kept(self._waiting.pop(self._next))
            self._next += 1
        if not self._waiting and self._file is not None:
            self._file.truncate(0)

    def give_up_order(self) -> None:
        """Print what waits: some of the commands before it will not end."""
        for number in sorted(self._waiting):
            self._print_kept(self._waiting.pop(number))
        self._in_order = False

    def _kept(self, tag: str, ended: Ended) -> tuple[str, Ended] | _Held | None:
        outputs = [output for output in (ended.stdout, ended.stderr) if isinstance(output, bytes)]
        size = sum(map(len, outputs))
        if len(outputs) == 2 and not size:
            return None
        if self._bytes + size <= HELD or len(outputs) < 2:
            self._bytes += size
            return tag, ended
        if self._file is None:
            self._file = tempfile.TemporaryFile()  # noqa: SIM115
        start = self._file.seek(0, os.SEEK_END)
        self._file.write(outputs[0])
        self._file.write(outputs[1])
        return _Held(tag, start, start + len(outputs[0]), start + size)

    def _print_kept(self, kept: tuple[str, Ended] | _Held | None) -> None:
        if isinstance(kept, _Held):
            assert self._file is not None
            self._file.seek(kept.start)
            self._write(sys.stdout, kept.tag, iter([self._file.read(kept.middle - kept.start)]))
            self._write(sys.stderr, kept.tag, iter([self._file.read(kept.end - kept.middle)]))
        elif kept is not None:
            tag, ended = kept
            self._bytes -= sum(len(out) for out in (ended.stdout, ended.stderr) if isinstance(out, bytes))
            self._print(tag, ended)

    def _print(self, tag: str, ended: Ended) -> None:
        if not self._silent:
            self._write(sys.stdout, tag, pieces(ended.stdout))
            self._write(sys.stderr, tag, pieces(ended.stderr))
        discard(ended)

    def _write(self, stream: Any, tag: str, output: Iterator[bytes]) -> None:
        """Write output on a stream; each line begins with the tag, if tags are wanted."""
        prefix = os.fsencode(f"{tag}\t") if self._tagged else b""
        begins = True
        for piece in output:
            if prefix and piece:
                ends = piece.endswith(b"\n")
                body = piece.removesuffix(b"\n").replace(b"\n", b"\n" + prefix)
                piece = (prefix if begins else b"") + body + (b"\n" if ends else b"")
                begins = ends
            write_bytes(stream, piece)


def write_bytes(stream: Any, data: bytes) -> None:
    """Write bytes on a standard stream, which may be one that keeps a progress bar whole."""
    if not data or stream is None:
        return
    buffer = getattr(stream, "buffer", None)
    if buffer is None:
        stream.write(data.decode("utf-8", "backslashreplace"))
    else:
        buffer.write(data)
    stream.flush()
