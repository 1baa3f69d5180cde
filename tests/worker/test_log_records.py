"""Log records of tasks reach the handlers of the job as they were made."""

import io
import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from taskfarm.master.log_levels import LogLevels as LevelsOfTheJob
from taskfarm.master.task_output import TaskOutput
from taskfarm.protocol.log_records import make_record
from taskfarm.protocol.messages import OutputLine
from taskfarm.worker.output_capture import LogForwarder, OutputCapture


class Bad:
    """Neither pickle nor repr work."""

    def __reduce__(self) -> Any:
        raise SystemExit

    def __repr__(self) -> str:
        raise ValueError


def sent_by(log: Callable[[logging.Logger], object]) -> OutputLine:
    """The message of what a function logs."""
    sent: list[OutputLine] = []
    logger = logging.Logger("sim.part")
    logger.addHandler(LogForwarder(sent.append))
    log(logger)
    return sent[0]


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    found = logging.getLogger("sim.part")
    yield found
    found.handlers.clear()
    found.filters.clear()
    found.propagate = True
    found.setLevel(logging.NOTSET)


def handled(logger: logging.Logger, output: TaskOutput, line: OutputLine, template: str) -> str:
    """What a handler of the job with this format makes of a message."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter(template))
    logger.addHandler(handler)
    output(3, line)
    output.write()
    return stream.getvalue()


def test_fields_arrive(logger: logging.Logger) -> None:
    logging.addLevelName(35, "ODD")
    line = sent_by(lambda one: one.log(35, "%s of %d", "x", 3, extra={"step": 7, "data": {"a": [1]}}))
    template = "%(levelname)s %(funcName)s %(threadName)s %(step)s %(data)s %(rank)s %(message)s"
    expected = f"ODD <lambda> {threading.current_thread().name} 7 {{'a': [1]}} 3 x of 3\n"
    assert handled(logger, TaskOutput(), line, template) == expected
    record = make_record(line, 3)
    assert (record.msg, record.args) == ("%s of %d", ("x", 3))


def test_what_cannot_travel_arrives_as_text(logger: logging.Logger) -> None:
    def log(one: logging.Logger) -> None:
        try:
            raise KeyError("missing")
        except KeyError:
            one.exception("%s", threading.Lock(), extra={"lock": threading.Lock(), "bad": Bad()})

    text = handled(logger, TaskOutput(), sent_by(log), "%(message)s %(lock)s %(bad)s")
    first, *rest = text.splitlines()
    assert first.startswith("<unlocked _thread.lock")
    assert first.endswith("<Bad: ValueError>")
    assert rest[-1] == "KeyError: 'missing'"


def test_what_handlers_raise_is_reported_and_no_more(
    logger: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    def filtered(record: logging.LogRecord) -> bool:
        raise SystemExit("in a filter")

    logger.addHandler(logging.NullHandler())
    line = sent_by(lambda one: one.error("told"))
    assert handled(logger, TaskOutput(), line, "%(nothing)s") == ""
    assert "KeyError: 'nothing'" in capsys.readouterr().err
    logger.addFilter(filtered)
    assert handled(logger, TaskOutput(), line, "%(message)s") == ""
    assert "in a filter" in capsys.readouterr().err


def test_a_handler_may_write_output_itself(logger: logging.Logger) -> None:
    output = TaskOutput()
    seen: list[str] = []

    class Waits(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            seen.append(record.getMessage())
            output.write()
            seen.append("end")

    logger.addHandler(Waits())
    logger.propagate = False
    output(1, sent_by(lambda one: one.error("one")))
    output(2, sent_by(lambda one: one.error("two")))
    output.write()
    assert seen == ["one", "end", "two", "end"]


def test_a_null_handler_of_a_library_keeps_nothing_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    sent: list[OutputLine] = []
    library = logging.getLogger("library")
    library.addHandler(logging.NullHandler())
    capture = OutputCapture(sent.append)
    try:
        library.warning("told")
    finally:
        capture.restore()
    assert [line.text for line in sent] == ["told"]


def test_levels_follow_the_job(logger: logging.Logger) -> None:
    job = LevelsOfTheJob()
    job.update()
    version = job.version
    job.update()
    assert job.version == version
    logger.setLevel(logging.DEBUG)
    job.update()
    assert (job.version, job.levels["sim.part"]) == (version + 1, logging.DEBUG)
    capture = OutputCapture(lambda line: None)
    try:
        logger.setLevel(logging.NOTSET)
        capture.follow_levels({"": logging.WARNING, "sim.part": logging.INFO})
        assert logger.level == logging.INFO
        logger.setLevel(logging.ERROR)  # by a task
        capture.follow_levels({"": logging.WARNING, "sim.part": logging.INFO})
        assert logger.level == logging.ERROR
        capture.follow_levels({"": logging.WARNING})
        assert logger.level == logging.NOTSET
    finally:
        capture.restore()
