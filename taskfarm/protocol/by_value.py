"""Pickling by value: functions and classes of ``__main__``, lambdas and closures, with cloudpickle."""

import io
from collections.abc import Callable
from pickle import PickleBuffer
from types import CodeType
from typing import Any

import cloudpickle

_reduce_code = cloudpickle.Pickler.dispatch_table[CodeType]


def _code(filename: str, make: Callable[..., CodeType], arguments: tuple[Any, ...]) -> CodeType:
    return make(*arguments).replace(co_filename=filename)


def _reduce_code_with_file(code: CodeType) -> tuple[Any, ...]:
    return _code, (code.co_filename, *_reduce_code(code))


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]
    """Keeps the file name of code objects, which cloudpickle 3.1.3 drops and tracebacks need."""

    dispatch_table = cloudpickle.Pickler.dispatch_table.new_child({CodeType: _reduce_code_with_file})


def dumps(obj: object, buffer_callback: Callable[[PickleBuffer], bool]) -> bytes:
    """Pickle an object with protocol 5; `buffer_callback` is as in `pickle.dumps`.

    Raises
    ------
    Exception
        Whatever the object's own pickling raises.
    """
    file = io.BytesIO()
    _Pickler(file, protocol=5, buffer_callback=buffer_callback).dump(obj)
    return file.getvalue()
