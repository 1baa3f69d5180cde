"""A file beside the status file, by which another shell asks the run for something."""

import contextlib
import json
import os
from collections.abc import Callable
from typing import Any

from taskfarm.errors import UsageError
from taskfarm.views.own_files import write_json


class RequestFile:
    """The file of one kind of request.

    Parameters
    ----------
    path : str
        The file.
    is_request : callable
        Whether the content of a file is a request of this kind.
    """

    def __init__(self, path: str, is_request: Callable[[Any], bool]) -> None:
        self._path = path
        self._is_request = is_request

    def write(self, request: object) -> None:
        """Ask for something.

        Raises
        ------
        UsageError
            The file cannot be written.
        """
        try:
            write_json(self._path, request, self._is_own)
        except OSError as error:
            raise UsageError(f"cannot write {self._path!r}: {error.strerror or error}") from error

    def take(self) -> Any:
        """What somebody asks for, once; None if nobody asks."""
        with contextlib.suppress(OSError, ValueError):
            request = self._read(self._path)
            os.unlink(self._path)
            return request
        return None

    def _read(self, path: str) -> Any:
        with open(path) as file:
            request = json.load(file)
        if not self._is_request(request):
            raise ValueError("no request")
        return request

    def _is_own(self, path: str) -> bool:
        try:
            self._read(path)
        except (OSError, ValueError):
            return False
        return True
