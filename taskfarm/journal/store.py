"""The file of a journal: rows in SQLite, and large results in files beside it.

Every row has a digest of all its fields, so damage is detected before anything is unpickled.
"""

import contextlib
import os
import sqlite3
import time
import urllib.parse
from collections.abc import Iterator, Sequence
from errno import EACCES, EDQUOT, ENOENT, ENOSPC, EPERM, EROFS
from hashlib import blake2b
from typing import Any, NamedTuple

from taskfarm import __version__
from taskfarm.errors import JournalError
from taskfarm.journal.safety import APPLICATION, FORMAT, refuse_unsafe

SYNC_INTERVAL = 1.0
"""Interval in seconds after which written data is forced to disk."""

_TABLES = ("runs", "functions", "segments")

SCHEMA = (
    "CREATE TABLE runs (id INTEGER PRIMARY KEY, started REAL, ended REAL, version BLOB, digest BLOB)",
    "CREATE TABLE functions (id INTEGER PRIMARY KEY, name BLOB, code BLOB, parts BLOB, names BLOB, "
    "digest BLOB)",
    "CREATE TABLE segments (id INTEGER PRIMARY KEY, run INTEGER, function INTEGER, first INTEGER, "
    "count INTEGER, rank INTEGER, seconds REAL, plain INTEGER, keys BLOB, failures BLOB, sizes BLOB, "
    "data BLOB, file BLOB, checks BLOB, draws BLOB, arguments BLOB, digest BLOB)",
)

_FULL = "; free space on that disk, then continue with --resume"
_ELSEWHERE = "; name a file in an existing folder that you can write to"
_HINTS = {
    ENOSPC: _FULL,
    EDQUOT: _FULL,
    ENOENT: _ELSEWHERE,
    EACCES: _ELSEWHERE,
    EPERM: _ELSEWHERE,
    EROFS: _ELSEWHERE,
}

_NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
OPEN_HERE: set[str] = set()
"""Journals that this process writes: opening and closing such a file again would release the lock on it."""

READ_LOCK = (510, 0x40000002)
"""Number and offset of the bytes that SQLite locks for reading."""


class Segment(NamedTuple):
    """A row: the finished tasks of one part. Results are in `data`, or in the file named by `file`."""

    id: int
    run: int
    function: int
    first: int
    count: int  # type: ignore[assignment]  # a field, not tuple.count
    rank: int
    seconds: float
    plain: int
    """Whether the results are a single pickle of a list; otherwise there is one per task."""
    keys: bytes
    """16 bytes per task; zeros for a task whose outcome does not count."""
    failures: bytes
    """Summaries and tracebacks of the tasks that failed, by offset; compressed JSON."""
    sizes: bytes
    """The size of each pickle, in bytes."""
    data: bytes
    file: bytes
    checks: bytes
    """The digests of the pickles in the file, 16 bytes each."""
    draws: bytes
    """If a task drew random numbers: digest of the seed, stream, and index of the first task in it."""
    arguments: bytes
    """If the arguments are plain: a pickle of a list with a column for each position."""


def digest_of(fields: Sequence[Any]) -> bytes:
    """The digest of a row; it also depends on the types of the fields."""
    state = blake2b(digest_size=16)
    for field in fields:
        if isinstance(field, bytes):
            state.update(b"%d:" % len(field))
            state.update(field)
        else:
            state.update(repr(field).encode("utf-8", "backslashreplace") + b";")
    return state.digest()


def damaged_error(path: str) -> JournalError:
    """The error for a journal that does not hold what was written to it."""
    return JournalError(f"the journal {path} is damaged: name another file, or restore a copy of it")


def in_use_error(path: str) -> JournalError:
    """The error for a journal that another process has open."""
    return JournalError(f"the journal {path} is in use by a running job: wait until that job has ended")


@contextlib.contextmanager
def translate_errors(path: str, doing: str) -> Iterator[None]:
    """Turn errors of SQLite and of the operating system into a JournalError of one line."""
    try:
        yield
    except sqlite3.Error as error:
        code = (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise in_use_error(path) from error
        if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            raise damaged_error(path) from error
        hint = _FULL if code == sqlite3.SQLITE_FULL else ""
        raise JournalError(f"cannot {doing} the journal {path}: {error}{hint}") from error
    except OSError as error:
        hint = _HINTS.get(error.errno or 0, "")
        raise JournalError(f"cannot {doing} the journal {path}: {error.strerror or error}{hint}") from error
    except (ValueError, OverflowError) as error:
        raise damaged_error(path) from error


def connect(path: str, options: str) -> sqlite3.Connection:
    """Open a file with SQLite; text is returned as bytes."""
    uri = f"file:{urllib.parse.quote(os.fsencode(path))}?{options}"
    connection = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False, timeout=1)
    connection.text_factory = bytes
    # Exclusive locking from the first access on needs no shared memory, which network file systems do not
    # support.
    for pragma in ("locking_mode=EXCLUSIVE", "trusted_schema=OFF", "cell_size_check=ON"):
        connection.execute(f"PRAGMA {pragma}")
    return connection


def write_results_file(path: str, name: str, pieces: Sequence[bytes]) -> str:
    """Write a file of results; returns its path."""
    folder = f"{path}.d"
    final = os.path.join(folder, name)
    with translate_errors(path, "write"):
        os.makedirs(folder, 0o700, exist_ok=True)
        refuse_unsafe(folder, "the folder of results", directory=True)
        try:
            with open(os.open(f"{final}.tmp", _NEW, 0o600), "wb") as file:
                file.writelines(pieces)
            os.rename(f"{final}.tmp", final)
        except OSError:
            with contextlib.suppress(OSError):
                os.unlink(f"{final}.tmp")
            raise
    return final


def sync(path: str) -> None:
    """Force a file, or the entries of a folder, to disk."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def create(path: str) -> None:
    """Create an empty journal; it appears under its name only when it is complete."""
    with translate_errors(path, "create"), contextlib.ExitStack() as stack:
        new = f"{path}.{os.getpid()}.new"
        os.close(os.open(new, _NEW, 0o600))
        stack.callback(os.unlink, new)
        with contextlib.closing(connect(new, "mode=rw")) as connection:
            marks = (f"PRAGMA application_id={APPLICATION}", f"PRAGMA user_version={FORMAT}")
            for sql in ("PRAGMA journal_mode=MEMORY", "BEGIN", *marks, *SCHEMA, "COMMIT"):
                connection.execute(sql)
        os.link(new, path)
        sync(os.path.dirname(path))


class Writer:
    """Adds rows to a journal, and locks it until `close`. After an error it writes nothing more.

    Attributes
    ----------
    connection : sqlite3.Connection
        For looking up committed rows.
    run : int
        The id of this run's row.
    files : list of str
        Files beside the journal that have not been forced to disk yet.
    """

    def __init__(self, path: str) -> None:
        self.files: list[str] = []
        self._path = path
        self._rows: list[tuple[str, tuple[Any, ...]]] = []
        self._unsynced = False
        self._synced = float("-inf")
        self._failed = ""
        with translate_errors(path, "open"), contextlib.ExitStack() as stack:
            self.connection = stack.enter_context(contextlib.closing(connect(path, "mode=rw")))
            for pragma in ("journal_mode=WAL", "wal_autocheckpoint=4000"):
                self.connection.execute(f"PRAGMA {pragma}")
            # An empty transaction, which fails if SQLite has opened the file for reading only.
            for sql in ("BEGIN IMMEDIATE", "COMMIT"):
                self.connection.execute(sql)
            query = "SELECT coalesce(max(id), 0) FROM "
            self._last: dict[str, int] = {
                table: self.connection.execute(query + table).fetchone()[0] for table in _TABLES
            }
            stack.pop_all()
        OPEN_HERE.add(path)
        self._started = time.time()
        self.run = self._last["runs"] + 1

    def add(self, table: str, *fields: Any) -> int:
        """Add a row with the next commit; returns its id."""
        self._last[table] += 1
        self._rows.append((table, (self._last[table], *fields)))
        return self._last[table]

    def commit(self, now: float) -> None:
        """Pass the rows to the operating system, and every `SYNC_INTERVAL` seconds force them to disk."""
        if self._failed:
            raise JournalError(self._failed)
        due = bool(self._rows or self._unsynced) and now - self._synced >= SYNC_INTERVAL
        if not (self._rows or due):
            return
        try:
            with translate_errors(self._path, "write"):
                self._commit(due)
        except JournalError as error:
            self._failed = str(error)
            self._rows.clear()
            with contextlib.suppress(sqlite3.Error):
                self.connection.execute("ROLLBACK")
            raise
        self._unsynced = not due
        if due:
            self._synced = now

    def _commit(self, due: bool) -> None:
        rows = self._rows
        if due:
            rows = [*rows, ("runs", (self.run, self._started, time.time(), __version__.encode()))]
            for path in {*self.files, *map(os.path.dirname, self.files)}:
                sync(path)
            self.files.clear()
        execute = self.connection.execute
        execute(f"PRAGMA synchronous={'FULL' if due else 'NORMAL'}")
        execute("BEGIN")
        for table, row in rows:
            marks = ",?" * len(row)
            execute(f"INSERT OR REPLACE INTO {table} VALUES (?{marks})", (*row, digest_of(row)))
        execute("COMMIT")
        self._rows.clear()

    def close(self) -> None:
        """Write the remaining rows, and merge everything into one file."""
        if self._path not in OPEN_HERE:
            return
        try:
            if not self._failed:
                self.commit(float("inf"))
                with translate_errors(self._path, "close"):
                    self.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        finally:
            self.connection.close()
            OPEN_HERE.discard(self._path)
