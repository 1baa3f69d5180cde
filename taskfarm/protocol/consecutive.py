"""Numbers in runs of consecutive ones: so they travel, and so tasks are counted."""

from collections.abc import Iterable, Iterator


def runs(numbers: Iterable[int]) -> Iterator[range]:
    """Yield the runs of consecutive ones among numbers that are in order."""
    start = end = 0
    for number in numbers:
        if number != end and end > start:
            yield range(start, end)
        if number != end or end == start:
            start = number
        end = number + 1
    if end > start:
        yield range(start, end)
