"""Progress bars in tasks: the last state of each, and everything else as it was printed."""

import io
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tqdm import tqdm

from taskfarm.protocol.messages import ERR, OutputLine
from taskfarm.worker.output_capture import LineStream


class Printed(LineStream):
    """What arrives of what is written."""

    def __init__(self) -> None:
        self.sent: list[str] = []
        super().__init__(ERR, sys.__stderr__, lambda line: self.sent.append(line.text))

    def lines(self) -> list[str]:
        self.flush_lines()
        return "".join(self.sent).splitlines()


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("10%\r20%\r30%\n", ["30%"]),
        ("\r10%\r20%", ["20%"]),
        ("10%\r20%\r", ["20%"]),
        ("one\r\ntwo\r\n", ["one", "two"]),
        ("\n\none\n\n", ["", "", "one", ""]),
        ("\r10%\r    \rdone\n", ["done"]),
        ("\r10%\r    \r", []),
        ("\ra\n\rb\x1b[A\rc\n\rd\x1b[A\n\n", ["c", "d"]),
        ("\x1b[31mred\x1b[0m\n", ["\x1b[31mred\x1b[0m"]),
        ("\x1b[A\x1b[2Aup\n", ["\x1b[A\x1b[2Aup"]),
    ],
)
def test_the_last_state_of_each_row(text: str, lines: list[str]) -> None:
    whole, single = Printed(), Printed()
    whole.write(text)
    for character in text:
        single.write(character)
    assert whole.lines() == lines
    assert "\x1b[A" in text or single.lines() == lines


@given(st.lists(st.text(alphabet="ab\n", max_size=8), max_size=30))
def test_without_returns_nothing_changes(pieces: list[str]) -> None:
    stream = Printed()
    for piece in pieces:
        stream.write(piece)
    assert stream.lines() == "".join(pieces).splitlines()


def test_bars_of_tqdm() -> None:
    stream = Printed()
    stream.write("begin\n")
    for _ in tqdm(range(200), file=stream, mininterval=0):
        pass
    assert [line[:5] for line in stream.lines()] == ["begin", "100%|"]


@pytest.mark.parametrize(("leave", "count"), [(True, 3), (False, 1)])
def test_nested_bars_of_tqdm_and_text_between_them(leave: bool, count: int) -> None:
    stream = Printed()
    for step in tqdm(range(2), file=stream, mininterval=0):
        for _ in tqdm(range(50), file=stream, mininterval=0, leave=leave):
            pass
        tqdm.write(f"step {step}", file=stream)
    lines = stream.lines()
    assert [line for line in lines if line.startswith("step")] == ["step 0", "step 1"]
    assert sum(line.startswith("100%") for line in lines) == count
    assert len(lines) <= 2 + count + 1, lines


def test_rows_are_bounded() -> None:
    sent: list[OutputLine] = []
    stream = LineStream(ERR, sys.__stderr__, sent.append)
    for _ in range(1000):
        stream.write("\r" + "x" * 1000 + "\n")
    assert sent
    assert sum(line.text.count("\n") for line in sent) > 900


def test_only_text_can_be_written() -> None:
    for stream in (Printed(), io.StringIO()):
        with pytest.raises(TypeError):
            stream.write(b"bytes")  # type: ignore[arg-type]
