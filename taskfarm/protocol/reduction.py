"""The order in which a reduction combines results: a binary tree that their positions alone determine.

The results at positions ``2k`` and ``2k + 1`` are combined first, then the neighbours among these pairs,
and so on. Whoever has two neighbours combines them, a worker or rank 0, and the value is the same for any
batches. For floating-point sums this is pairwise summation, whose rounding error grows with the logarithm
of their number (N. J. Higham, "The accuracy of floating point summation", SIAM J. Sci. Comput. 14, 783
(1993)).

To a numpy ufunc, large arrays are no neighbours in this sense. They are combined from left to right,
because a tree needs memory for an array on each of its levels. What is large depends on the array alone.
"""

import functools
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, cast

from taskfarm import interrupts
from taskfarm.protocol.describe import name_of

Operation = Callable[[Any, Any], Any]

NO_INITIAL: Any = object()
"""Stands for an initial value that was not given."""


LARGE = 1 << 24
"""Bytes from which on a ufunc combines arrays from left to right."""


class Partial(NamedTuple):
    """The combined results of consecutive tasks, in the place of the first one's result.

    Attributes
    ----------
    size : int
        Number of tasks, a power of two.
    value : object
        The value.
    """

    size: int
    value: Any


def call_to_reduce(function: Callable[..., Any], operation: Operation, /, *args: Any, **kwargs: Any) -> Any:
    """Call `function`: what a task of a reduction does. Its runner finds the operation with `split`."""
    return function(*args, **kwargs)


def reducing(function: Callable[..., Any], operation: Operation) -> Callable[..., Any]:
    """The function of a reduction's tasks, from which `split` gets both arguments back."""
    return functools.partial(call_to_reduce, function, operation)


def split(called: Any) -> tuple[Any, Operation | None]:
    """What tasks call, and how their results are combined; None if they are not."""
    if type(called) is functools.partial and called.func is call_to_reduce:
        function, operation = called.args
        return function, operation
    return called, None


def key_to_reduce(key: Callable[..., Any], operation: str, /, *args: Any, **kwargs: Any) -> Any:
    """What identifies a call in a journal, if its result is combined with others."""
    return "reduce", operation, key(*args, **kwargs)


def reducing_key(key: Callable[..., Any], operation: Operation) -> Callable[..., Any]:
    """The ``key=`` of a reduction's tasks, from that of the function."""
    return functools.partial(key_to_reduce, key, name_of(operation))


def spread(values: Sequence[Any], covers: Sequence[tuple[int, int]], count: int) -> list[Any]:
    """One value for each of `count` tasks, from partial values.

    Parameters
    ----------
    values : sequence
        The partial values.
    covers : sequence of (int, int)
        The offset of the first task of each, and the number of tasks.
    count : int
        Number of tasks. None stands for those that are not the first of a partial value.
    """
    places: list[Any] = [None] * count
    for value, (offset, size) in zip(values, covers, strict=True):
        places[offset] = Partial(size, value)
    return places


class Reduction:
    """Combines results with their neighbours; they come in any order.

    A numpy ufunc that works element by element writes into arrays that it has made before, or that nobody
    else refers to.

    Parameters
    ----------
    operation : callable
        Combines two neighbours; it must be associative, but need not be commutative.

    Attributes
    ----------
    elementwise : bool
        Whether it is a numpy ufunc that works element by element.
    """

    def __init__(self, operation: Operation) -> None:
        self._operation: Any = operation
        numpy = sys.modules.get("numpy")
        self._array = None
        self.elementwise = False
        # One with a signature, such as matmul, does not work element by element.
        if numpy is not None and type(operation) is numpy.ufunc and cast(Any, operation).signature is None:
            self._array = numpy.ndarray
            self.elementwise = True
        self._nodes: dict[tuple[int, int], tuple[Any, bool]] = {}
        self._has_large = False
        self._left: tuple[Any, bool] | None = None
        self._end = 0
        self._failed = False

    def __len__(self) -> int:
        return len(self._nodes) + (self._left is not None)

    def nodes(self) -> Iterator[tuple[int, int, Any]]:
        """Position, number of results, and value of what could not be combined further, by position."""
        for (first, size), (value, _) in sorted(self._nodes.items(), key=_position):
            yield first, size, value

    def add(self, first: int, size: int, value: Any, owned: bool = False) -> None:
        """Add the value of `size` results from position `first` on; raises what the operation raises.

        `owned` tells that nobody else refers to the value.
        """
        while not self._failed:
            is_right = first // size % 2
            place = (first - size if is_right else first + size, size)
            neighbour = self._nodes.get(place)
            if self._is_large(value):
                self._has_large = True
                break
            if neighbour is None or self._is_large(neighbour[0]):
                break
            del self._nodes[place]
            node = (value, owned)
            left, right = (neighbour, node) if is_right else (node, neighbour)
            if is_right:
                first -= size
            try:
                value, owned = self._combine(left, right), True
            except BaseException:
                self._failed = True
                self._nodes[first, size] = left
                self._nodes[first + size, size] = right
                raise
            size *= 2
        self._nodes[first, size] = (value, owned)

    def extend(self, first: int, values: list[Any]) -> None:
        """Add consecutive results from position `first` on; empties the list.

        If the operation raises, all values are kept, nothing is combined from then on, and this raises the
        same.
        """
        found: list[tuple[int, int, Any, bool]] = []
        error = self._climb(first, values, found)
        for node in found:
            try:
                self.add(*node)
            except BaseException as raised:
                error = error or raised
        if error is not None:
            raise error

    def _climb(
        self, first: int, values: list[Any], found: list[tuple[int, int, Any, bool]]
    ) -> BaseException | None:
        """Combine neighbours level by level; what has none goes to `found`. Returns what was raised."""
        size, owned = 1, False
        while values and not self._failed and not self._has_any_large(values):
            if first // size % 2:
                found.append((first, size, values.pop(0), owned))
                first += size
            if len(values) % 2:
                found.append((first + size * (len(values) - 1), size, values.pop(), owned))
            lefts, rights, values = values[0::2], values[1::2], []
            try:
                self._combine_pairs(values, lefts, rights, owned)
            except BaseException as error:
                self._failed = True
                done = len(values)
                rest = [value for pair in zip(lefts[done:], rights[done:], strict=True) for value in pair]
                found += _placed(first, 2 * size, values, True)
                found += _placed(first + 2 * size * done, size, rest, owned)
                return error
            size, owned = 2 * size, True
        found += _placed(first, size, values, owned)
        return None

    def _is_large(self, value: Any) -> bool:
        return self._array is not None and isinstance(value, self._array) and value.nbytes >= LARGE

    def _has_any_large(self, values: list[Any]) -> bool:
        return self._array is not None and any(map(self._is_large, values))

    def _combine_pairs(self, into: list[Any], lefts: list[Any], rights: list[Any], owned: bool) -> None:
        if self._array is None:
            _extend(into, map(self._operation, lefts, rights))
        else:
            pairs = zip(lefts, rights, strict=True)
            _extend(into, (self._combine((left, owned), (right, owned)) for left, right in pairs))

    def _combine(self, left: tuple[Any, bool], right: tuple[Any, bool]) -> Any:
        (one, one_is_owned), (two, two_is_owned) = left, right
        if self._array is not None and (one_is_owned or two_is_owned):
            target = one if one_is_owned else two
            if self._fits(one, two, target):
                return call(functools.partial(self._operation, out=target), one, two)
        return call(self._operation, one, two)

    def _fits(self, one: Any, two: Any, target: Any) -> bool:
        """Whether the result of a ufunc has the shape and the type of `target`, so that it can go there."""
        return (
            type(one) is self._array
            and type(two) is self._array
            and one.ndim > 0
            and one.shape == two.shape
            and target.flags.writeable
            and self._operation(one[:0], two[:0]).dtype == target.dtype
        )

    def combine_large(self) -> None:
        """Combine large arrays from left to right, as far as there is none missing."""
        while self._has_large and not self._failed:
            place = next((place for place in self._nodes if place[0] == self._end), None)
            if place is None or not self._is_large(self._nodes[place][0]):
                return
            self._append(self._nodes.pop(place))
            self._end += place[1]

    def _append(self, node: tuple[Any, bool]) -> None:
        """Combine what is on the left with what follows."""
        self._left = node if self._left is None else (self._combine(self._left, node), True)

    def finish(self, initial: Any = NO_INITIAL) -> Any:
        """Return the value of all results, once they are there, with `initial` on their left.

        Raises
        ------
        TypeError
            There is neither a result nor an initial value.
        """
        if not self:
            if initial is NO_INITIAL:
                raise TypeError("reduce() of empty iterable with no initial value: pass initial=")
            return initial
        value = self.result()
        return value if initial is NO_INITIAL else call(self._operation, initial, value)

    def result(self) -> Any:
        """Combine what is left, once all results are there.

        Of what follows the last large array, the last two come first.
        """
        nodes = [node for _, node in sorted(self._nodes.items(), key=_position)]
        self._nodes.clear()
        tail: tuple[Any, bool] | None = None
        while nodes and not self._is_large(nodes[-1][0]):
            node = nodes.pop()
            tail = node if tail is None else (self._combine(node, tail), True)
        for node in [*nodes, *([] if tail is None else [tail])]:
            self._append(node)
        assert self._left is not None
        return self._left[0]


def _placed(first: int, size: int, values: list[Any], owned: bool) -> list[tuple[int, int, Any, bool]]:
    return [(first + size * offset, size, value, owned) for offset, value in enumerate(values)]


def _position(item: tuple[tuple[int, int], Any]) -> int:
    return item[0][0]


@interrupts.interruptible
def call(operation: Operation, left: Any, right: Any) -> Any:
    """Call an operation so that a signal may interrupt it."""
    return operation(left, right)


@interrupts.interruptible
def _extend(values: list[Any], more: Iterator[Any]) -> None:
    values.extend(more)
