"""Rows of a terminal that are written over, such as progress bars: only their last state is kept."""

import re

MAX_ROWS = 64
"""Rows that are kept at most; beyond that the topmost one is final."""

_STEPS = re.compile(r"(\n|\x1b\[\d*A)")


class TerminalRows:
    """Interprets line ends, carriage returns, and the moves upwards by which several bars share a terminal.

    A row that was written over, or is blank, may be written over again. It is final when a row below it is
    final, or at the end of the batch.
    """

    def __init__(self) -> None:
        self._rows = [""]
        self._at = 0

    def __bool__(self) -> bool:
        return self._rows != [""]

    def __len__(self) -> int:
        return sum(map(len, self._rows))

    def write(self, text: str) -> str:
        """Write text; returns the rows that have become final."""
        final = ""
        for step in _STEPS.split(text):
            if step == "\n":
                final += self._end_row()
            elif step.startswith("\x1b[") and step.endswith("A"):
                self._at = max(0, self._at - int(step[2:-1] or 1))
            elif step:
                self._rows[self._at] = _shortened(self._rows[self._at] + step)
        return final

    def _end_row(self) -> str:
        row = self._rows[self._at]
        self._at += 1
        if self._at == len(self._rows):
            self._rows.append("")
        if _is_rewritten(row):
            return self._take(1) if len(self._rows) > MAX_ROWS else ""
        return self._take(self._at)

    def _take(self, count: int) -> str:
        taken, self._rows = self._rows[:count], self._rows[count:]
        self._at -= count
        return "".join(f"{_last_state(row)}\n" for row in taken)

    def flush(self) -> str:
        """All rows, of which those from the current one on may be blank only if something follows."""
        rows = [_last_state(row) for row in self._rows]
        ended, rest = rows[: self._at], [row for row in rows[self._at :] if row.strip()]
        self._rows, self._at = [""], 0
        return "".join(f"{row}\n" for row in (*ended, *rest))


def _shortened(row: str) -> str:
    """A row without the states before the last two, which tell whether it was cleared in between."""
    states = row.split("\r")
    return row if len(states) < 4 else "\r".join(states[-3:])


def _is_rewritten(row: str) -> bool:
    """Whether a row is blank, or was written over; text after a row was cleared with spaces is new."""
    states = row.removesuffix("\r").split("\r")
    if len(states) == 1:
        return not states[0]
    return not states[-1].strip() or not states[-2] or bool(states[-2].strip())


def _last_state(row: str) -> str:
    """What a terminal shows of a row, if each state covers the one before."""
    return next((state for state in reversed(row.split("\r")) if state), "")
