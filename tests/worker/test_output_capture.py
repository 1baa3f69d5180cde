"""What tasks print: whole lines, whoever prints when."""

import io
import logging
import sys
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskfarm.master.task_output import TaskOutput
from taskfarm.protocol.messages import ERR, LOG, OUT, OutputLine
from taskfarm.worker.output_capture import LineStream, OutputCapture


@given(st.lists(st.text(alphabet="ab\n", max_size=8), max_size=30))
def test_pieces_come_together_as_whole_lines(pieces: list[str]) -> None:
    sent: list[OutputLine] = []
    stream = LineStream(OUT, sys.__stdout__, sent.append)
    for piece in pieces:
        assert stream.write(piece) == len(piece)
    assert all(one.text.endswith("\n") for one in sent)
    stream.flush_lines()
    text = "".join(pieces)
    assert "".join(one.text for one in sent) == text + ("" if text.endswith("\n") or not text else "\n")


def test_threads_do_not_mix_their_lines() -> None:
    sent: list[OutputLine] = []
    stream = LineStream(OUT, sys.__stdout__, sent.append)
    barrier = threading.Barrier(4)

    def write(character: str) -> None:
        barrier.wait()
        for _ in range(50):
            stream.write(character)
            stream.write(character + "\n")

    threads = [threading.Thread(target=write, args=(character,)) for character in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted({one.text for one in sent}) == ["aa\n", "bb\n", "cc\n", "dd\n"]
    assert len(sent) == 200


def test_line_without_end_is_not_kept_for_ever() -> None:
    sent: list[OutputLine] = []
    stream = LineStream(OUT, sys.__stdout__, sent.append)
    for _ in range(100):
        stream.write("x" * 1000)
    assert sent


def test_streams_are_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    before = (sys.stdout, sys.stderr, logging.lastResort)
    sent: list[OutputLine] = []
    capture = OutputCapture(sent.append)
    try:
        print("one")
        print("two", end="", file=sys.stderr)
        logging.getLogger("some").error("three %d", 3)
        assert sys.stdout.buffer is before[0].buffer
        own = io.StringIO()
        logging.basicConfig(stream=own, format="%(message)s")
        logging.getLogger("some").error("four")
    finally:
        capture.restore()
    assert (sys.stdout, sys.stderr, logging.lastResort) == before
    assert [(one.kind, one.text) for one in sent] == [(OUT, "one\n"), (LOG, "three 3"), (ERR, "two\n")]
    assert own.getvalue() == "four\n", "a task may set up logging of its own"


def test_lines_are_tagged(capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    output = TaskOutput()
    output(3, OutputLine(OUT, 0, "", 17, "one\ntwo\n"))
    output(4, OutputLine(ERR, 0, "", -1, "lost\n"))
    with caplog.at_level(logging.INFO):
        output(5, OutputLine(LOG, logging.INFO, "mine", 8, "told"))
        output(5, OutputLine(LOG, logging.DEBUG, "mine", 8, "not told"))
        output.write()
    out, err = capsys.readouterr()
    assert out == "[rank 3 task 17] one\n[rank 3 task 17] two\n"
    assert "[rank 4] lost\n" in err
    assert [(r.levelname, r.getMessage(), vars(r)["rank"]) for r in caplog.records] == [("INFO", "told", 5)]


def test_closed_terminal_does_no_harm(monkeypatch: pytest.MonkeyPatch) -> None:
    closed = io.StringIO()
    closed.close()
    monkeypatch.setattr(sys, "stdout", closed)
    output = TaskOutput()
    output(1, OutputLine(OUT, 0, "", 1, "nobody reads this\n"))
    output.write()
