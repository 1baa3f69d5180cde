"""The ledger of resources: what workers, hosts and the run have, and which worker holds it. Pure."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias

from taskfarm.schedule.amounts import SCALE, Needs, shown, shown_needs
from taskfarm.schedule.offers import Offer, offered_on

MOST_UNITS = 4096
"""Units that have numbers, at most: nobody counts bytes."""


class Pool:
    """An amount of one resource that some workers share.

    Attributes
    ----------
    name : str
        The resource.
    where : str
        Who shares it, for messages: ``worker 3``, a host, or ``the run``.
    capacity, held : int
        How much there is, and how much workers hold.
    workers : set of int
        The workers that share it.
    """

    __slots__ = ("_held_units", "_units", "capacity", "held", "name", "where", "workers")

    def __init__(self, name: str, where: str, capacity: int, units: Sequence[int] = ()) -> None:
        self.name = name
        self.where = where
        self.capacity = capacity
        self.held = 0
        self.workers: set[int] = set()
        if not units and capacity % SCALE == 0 and capacity <= MOST_UNITS * SCALE:
            units = range(capacity // SCALE)
        # The next one is at the end.
        self._units = sorted(units, reverse=True)
        self._held_units: dict[int, list[int]] = {}

    def hold(self, worker: int, before: int, amount: int) -> None:
        """Let a worker hold an amount instead of what it held before."""
        self.held += amount - before
        units = self._held_units.setdefault(worker, [])
        while len(units) * SCALE > amount:
            self._units.append(units.pop())
            self._units.sort(reverse=True)
        while self._units and (len(units) + 1) * SCALE <= amount:
            units.append(self._units.pop())
        if not units:
            del self._held_units[worker]

    def units_of(self, worker: int, amount: int) -> tuple[int, ...]:
        """Which units a task on a worker has, if they can be counted: the first of those that it holds."""
        return tuple(self._held_units.get(worker, ())[: amount // SCALE])

    @property
    def free(self) -> int:
        """How much no worker holds."""
        return self.capacity - self.held


Shares: TypeAlias = tuple[tuple[Pool, int], ...]
"""Pools, and how much a task takes of each."""


class Resources:
    """What there is, and what the tasks that workers hold use of it.

    A worker runs one task at a time, so it holds the largest amount that any of its tasks needs.

    Parameters
    ----------
    offers : sequence of Offer
        What is offered.
    hosts : mapping of int to str
        The host of each worker.
    devices : mapping of int to str
        The device that a worker sees, of ``--gpus-per-node``: it is ``gpu=1`` for the workers that see the
        same one on their host.

    Attributes
    ----------
    claims : dict of int to Needs
        What each worker holds; a worker that holds nothing is absent.
    """

    def __init__(
        self,
        offers: Sequence[Offer] = (),
        hosts: Mapping[int, str] | None = None,
        devices: Mapping[int, str] | None = None,
    ) -> None:
        self.claims: dict[int, Needs] = {}
        self._workers = set(hosts or ())
        self._pools: dict[str, dict[int, Pool]] = {offer.name: {} for offer in offers}
        self._offers = list(offers)
        self._lost: list[tuple[str, str]] = []
        pools: dict[tuple[str, str], Pool] = {}

        def add(name: str, worker: int, where: str, capacity: int, units: Sequence[int] = ()) -> None:
            pool = pools.get((name, where))
            if pool is None:
                pool = pools[name, where] = Pool(name, where, capacity, units)
            pool.workers.add(worker)
            self._pools.setdefault(name, {})[worker] = pool

        for offer, worker, host in offered_on(offers, hosts or {}):
            where = {"worker": f"worker {worker}", "host": host}.get(offer.scope, "the run")
            add(offer.name, worker, where, offer.amount)
        for worker, device in (devices or {}).items():
            where = f"device {device} of {(hosts or {}).get(worker, 'its host')}"
            add("gpu", worker, where, SCALE, [int(device)] if device.isdecimal() else ())
        # Workers with the fewest special things come first for tasks that need none.
        self._special = Counter(worker for pools in self._pools.values() for worker in pools)
        self._found: dict[Needs, dict[int, Shares | None]] = {}

    def __bool__(self) -> bool:
        """Whether anything is offered."""
        return bool(self._pools)

    def pools(self, worker: int, needs: Needs) -> "Shares | None":
        """The pools from which a worker would take what a task needs; None if they never have that much."""
        by_worker = self._found.get(needs)
        if by_worker is None:
            by_worker = self._found[needs] = {one: self._find_pools(one, needs) for one in self._workers}
        return by_worker.get(worker)

    def _find_pools(self, worker: int, needs: Needs) -> "Shares | None":
        found: list[tuple[Pool, int]] = []
        for name, amount in needs:
            pool = self._pools.get(name, {}).get(worker)
            if pool is None or pool.capacity < amount:
                return None
            found.append((pool, amount))
        return tuple(found)

    def able(self, needs: Needs) -> dict["Shares", list[int]]:
        """The workers that could ever run a task with these needs, by the pools that they share."""
        groups: dict[Shares, list[int]] = {}
        for worker in self._workers:
            pools = self.pools(worker, needs)
            if pools is not None:
                groups.setdefault(pools, []).append(worker)
        return groups

    @property
    def is_uniform(self) -> bool:
        """Whether all workers have a share of the same number of resources."""
        return len(set(map(self._special.__getitem__, self._workers))) < 2

    def special(self, worker: int) -> int:
        """Number of resources that a worker has a share of."""
        return self._special[worker]

    def is_covered(self, worker: int, needs: Needs) -> bool:
        """Whether a worker already holds what a task needs."""
        claim = dict(self.claims.get(worker, ()))
        return all(claim.get(name, 0) >= amount for name, amount in needs)

    def claim(self, worker: int, needs: Iterable[Needs]) -> None:
        """Record that a worker holds what all these tasks need, one after the other, and nothing else."""
        largest: dict[str, int] = {}
        for one in needs:
            for name, amount in one:
                largest[name] = max(amount, largest.get(name, 0))
        before = dict(self.claims.pop(worker, ()))
        for name in before.keys() | largest.keys():
            self._pools[name][worker].hold(worker, before.get(name, 0), largest.get(name, 0))
        if largest:
            self.claims[worker] = tuple(sorted(largest.items()))

    def units(self, worker: int, needs: Needs) -> dict[str, tuple[int, ...]]:
        """Which units of each resource a task has on a worker that holds what it needs."""
        return {name: self._pools[name][worker].units_of(worker, amount) for name, amount in needs}

    def remove(self, worker: int) -> None:
        """Remove a lost worker, and what only it could use."""
        self.claim(worker, ())
        self._workers.discard(worker)
        self._found.clear()
        for name, pools in self._pools.items():
            pool = pools.pop(worker, None)
            if pool is not None:
                pool.workers.discard(worker)
                self._lost.append((name, f"{name}={shown(pool.capacity)} of worker {worker}"))

    def unmet(self, needs: Needs) -> str:
        """Why no worker can ever run a task with these needs, as a part of a sentence; empty if one can."""
        if any(self.pools(worker, needs) is not None for worker in self._workers):
            return ""
        single = [one for one in needs if all(self.pools(w, (one,)) is None for w in self._workers)]
        if single:
            return f"needs {shown_needs(tuple(single))}, which no worker offers"
        return f"needs {shown_needs(needs)}, which no worker offers together"

    @property
    def has_lost(self) -> bool:
        """Whether a worker was lost that had a share of something."""
        return bool(self._lost)

    def describe_lost(self, needs: Needs) -> str:
        """What lost workers had of these resources, in words."""
        return ", ".join(words for name, words in self._lost if name in dict(needs))

    def example(self, needs: Needs) -> str:
        """A ``--resource`` that would meet one of some needs that nothing meets."""
        lacking = [one for one in needs if self.unmet((one,))] or needs
        scopes = [f"/{offer.scope}" for offer in self._offers if offer.name == lacking[0][0]]
        return shown_needs(tuple(lacking[:1])) + "".join(scopes[:1])

    def describe(self) -> str:
        """What is offered, in words."""
        words = []
        for name, pools in self._pools.items():
            largest = max((pool.capacity for pool in pools.values()), default=0)
            if not pools:
                words.append(f"{name} on none of {len(self._workers)} workers")
            elif len(set(map(id, pools.values()))) == 1 and len(pools) == len(self._workers) > 1:
                words.append(f"{name}={shown(largest)} in all")
            else:
                words.append(
                    f"up to {name}={shown(largest)} on {len(pools)} of {len(self._workers)} workers"
                )
        return ", ".join(words) or "nothing"
