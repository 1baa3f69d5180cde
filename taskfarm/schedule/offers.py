"""What a run offers: the resources of ``--resource NAME=AMOUNT[/SCOPE][@HOSTS]``. Pure."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import NamedTuple

from taskfarm.schedule.amounts import NAME, amount, shown

SCOPES = ("worker", "host", "run")
"""Who has an amount: each worker, the workers of a host together, or all of them."""

_RANGE = re.compile(r"(\d+)-(\d+)")
_LARGEST_RANGE = 100_000


class Offer(NamedTuple):
    """One resource that is offered.

    Attributes
    ----------
    name : str
        Its name.
    amount : int
        How much of it there is, in units of 1 / `SCALE`.
    scope : str
        Who has this amount, of `SCOPES`.
    hosts : tuple of str
        Patterns of the hosts that have it; empty: all.
    """

    name: str
    amount: int
    scope: str
    hosts: tuple[str, ...] = ()

    def is_on(self, host: str) -> bool:
        """Whether a host has it."""
        names = (host, host.partition(".")[0])
        return not self.hosts or any(fnmatchcase(name, one) for one in self.hosts for name in names)

    def __str__(self) -> str:
        return f"{self.name}={shown(self.amount)}/{self.scope}"


def parse_offer(text: str) -> Offer:
    """Return the offer that a ``--resource`` describes.

    Parameters
    ----------
    text : str
        ``NAME=AMOUNT``, then ``/worker``, ``/host`` or ``/run``, and ``@`` with hosts: names, lists such as
        ``node[1-4,7]``, or patterns with ``*``. An amount is a number, or a size such as ``100GB``.

    Raises
    ------
    ValueError
        It looks otherwise.
    """
    rest, at, hosts = text.partition("@")
    if at and "/" in hosts:
        hosts, _, scope = hosts.rpartition("/")
        rest += f"/{scope}"
    rest, slash, scope = rest.partition("/")
    name, equals, number = rest.partition("=")
    if not NAME.fullmatch(name) or (at and not hosts):
        raise ValueError(f"a resource must look like licence=2/run or bigmem=1@node[1-4], not {text!r}")
    if slash and scope not in SCOPES:
        raise ValueError(f"the scope in {text!r} must be worker, host or run, not {scope!r}")
    try:
        size = amount("the amount", number if equals else 1)
        patterns = tuple(expand_hosts(hosts))
    except ValueError as error:
        raise ValueError(f"{error}, in {text!r}") from None
    scope = scope or "worker"
    if scope == "run" and patterns:
        raise ValueError(
            f"what the whole run has is not on some hosts: leave out @{hosts} or /run in {text!r}"
        )
    return Offer(name, size, scope, patterns)


def expand_hosts(text: str) -> Iterator[str]:
    """Yield the hosts of a list such as ``node[01-04,7],login*``; patterns stay as they are.

    Raises
    ------
    ValueError
        A bracket is not closed, or does not contain numbers and ranges.
    """
    for word in filter(None, _split(text)):
        yield from _expand(word)


def _split(text: str) -> list[str]:
    """Split at the commas outside of brackets."""
    words, depth = [""], 0
    for letter in text:
        depth += (letter == "[") - (letter == "]")
        if depth not in (0, 1):
            raise ValueError(f"the brackets of the hosts {text!r} do not match")
        if letter == "," and not depth:
            words.append("")
        else:
            words[-1] += letter
    if depth:
        raise ValueError(f"the brackets of the hosts {text!r} do not match")
    return words


def _expand(word: str) -> Iterator[str]:
    before, bracket, rest = word.partition("[")
    if not bracket:
        yield word
        return
    inside, _, after = rest.partition("]")
    for number in _numbers(inside, word):
        for tail in _expand(after):
            yield before + number + tail


def _numbers(inside: str, word: str) -> Iterator[str]:
    for one in inside.split(","):
        match = _RANGE.fullmatch(one)
        if match is None:
            if not one.isdecimal():
                raise ValueError(f"the brackets of {word!r} must hold numbers and ranges such as 1-4")
            yield one
            continue
        low, high = int(match[1]), int(match[2])
        if not low <= high < low + _LARGEST_RANGE:
            raise ValueError(f"{one!r} in {word!r} is not a range of hosts")
        for number in range(low, high + 1):
            yield str(number).zfill(len(match[1]))


def check_offers(offers: Sequence[Offer], taken: Iterable[str] = ()) -> None:
    """Check that each resource has one scope.

    Parameters
    ----------
    offers : sequence of Offer
        What is offered.
    taken : iterable of str
        Names that stand for something else.

    Raises
    ------
    ValueError
        One has several, or a name is taken.
    """
    scopes: dict[str, str] = {}
    for offer in offers:
        if offer.name in taken:
            raise ValueError(
                f"--gpus-per-node offers {offer.name!r} already: give the resource another name"
            )
        if scopes.setdefault(offer.name, offer.scope) != offer.scope:
            raise ValueError(
                f"the resource {offer.name!r} has two scopes, /{scopes[offer.name]} and /{offer.scope}: "
                "give each a name of its own"
            )
        if offer.scope == "run" and sum(other.name == offer.name for other in offers) > 1:
            raise ValueError(f"the resource {offer.name!r} of the run is given twice")


def offered_on(offers: Sequence[Offer], hosts: Mapping[int, str]) -> Iterator[tuple[Offer, int, str]]:
    """Yield what each worker gets of each offer: the offer, the worker, and its host.

    Of several offers of a name for one host, the last counts.
    """
    for worker, host in hosts.items():
        yield from ((one, worker, host) for one in {o.name: o for o in offers if o.is_on(host)}.values())
