"""Log records as messages carry them: every field that can travel, and text for the others."""

import logging
from typing import Any

from taskfarm.protocol.failures import summarize
from taskfarm.protocol.messages import LOG, Blob, OutputLine
from taskfarm.protocol.serialize import dumps, loads, plain_nbytes

_FORMATTER = logging.Formatter()


def _is_plain(values: Any) -> bool:
    try:
        return plain_nbytes(values) is not None
    except Exception:
        return False


def to_message(record: logging.LogRecord, task: int) -> OutputLine:
    """A log record as a message.

    The message and its arguments stay apart if the arguments are plain values. Otherwise the text is made
    here, where the objects are. Tracebacks travel as text.

    Raises
    ------
    Exception
        Whatever formatting the message raises.
    """
    text = record.getMessage()
    plain: dict[str, Any] = {}
    others: dict[str, Blob] = {}
    for name, value in vars(record).items():
        if name in ("msg", "args", "exc_info", "message", "asctime"):
            continue
        if _is_plain((value,)):
            plain[name] = value
        else:
            others[name] = _dumped(value)
    arguments = record.args or ()
    values = tuple(arguments.values()) if isinstance(arguments, dict) else arguments
    if isinstance(record.msg, str) and _is_plain(values):
        plain["msg"], plain["args"] = record.msg, record.args
    if record.exc_info and record.exc_info[0] is not None and not record.exc_text:
        plain["exc_text"] = _FORMATTER.formatException(record.exc_info)
    return OutputLine(LOG, record.levelno, record.name, task, text, plain, others)


def _dumped(value: object) -> Blob:
    try:
        blob = dumps(value)
        loads(blob)
    except BaseException:
        try:
            text = repr(value)
        except BaseException as error:
            text = f"<{type(value).__qualname__}: {summarize(error)}>"
        blob = dumps(text)
    return blob


def make_record(line: OutputLine, worker: int) -> logging.LogRecord:
    """The log record of a message, with the attributes ``rank`` and ``task`` unless it has its own."""
    fields: dict[str, Any] = {
        "name": line.name,
        "levelno": line.level,
        "levelname": logging.getLevelName(line.level),
        "msg": line.text,
        "args": None,
        "rank": worker,
        "task": line.task,
        **(line.fields or {}),
    }
    for name, blob in (line.extra or {}).items():
        try:
            fields[name] = loads(blob)
        except Exception as error:
            fields[name] = f"<cannot be unpickled: {summarize(error)}>"
    return logging.makeLogRecord(fields)
