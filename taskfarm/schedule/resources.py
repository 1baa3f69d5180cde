"""The ledger of resources: what workers, hosts and the run have, and which worker holds it. Pure."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from taskfarm.schedule.amounts import SCALE, Needs, shown, shown_needs
from taskfarm.schedule.offers import Offer, offered_on


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

    __slots__ = ("capacity", "held", "name", "where", "workers")

    def __init__(self, name: str, where: str, capacity: int) -> None:
        self.name = name
        self.where = where
        self.capacity = capacity
        self.held = 0
        self.workers: set[int] = set()

    @property
    def free(self) -> int:
        """How much no worker holds."""
        return self.capacity - self.held


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
        self._lost: list[str] = []
        pools: dict[tuple[str, str], Pool] = {}

        def add(name: str, worker: int, where: str, capacity: int) -> None:
            pool = pools.get((name, where))
            if pool is None:
                pool = pools[name, where] = Pool(name, where, capacity)
            pool.workers.add(worker)
            self._pools.setdefault(name, {})[worker] = pool

        for offer, worker, host in offered_on(offers, hosts or {}):
            where = {"worker": f"worker {worker}", "host": host}.get(offer.scope, "the run")
            add(offer.name, worker, where, offer.amount)
        for worker, device in (devices or {}).items():
            add("gpu", worker, f"device {device} of {(hosts or {}).get(worker, 'its host')}", SCALE)
        # Workers with the fewest special things come first for tasks that need none.
        self._special = Counter(worker for pools in self._pools.values() for worker in pools)

    def __bool__(self) -> bool:
        """Whether anything is offered."""
        return bool(self._pools)

    def pools(self, worker: int, needs: Needs) -> list[tuple[Pool, int]] | None:
        """The pools from which a worker would take what a task needs; None if they never have that much."""
        found: list[tuple[Pool, int]] = []
        for name, amount in needs:
            pool = self._pools.get(name, {}).get(worker)
            if pool is None or pool.capacity < amount:
                return None
            found.append((pool, amount))
        return found

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
        for name, amount in self.claims.pop(worker, ()):
            self._pools[name][worker].held -= amount
        for name, amount in largest.items():
            self._pools[name][worker].held += amount
        if largest:
            self.claims[worker] = tuple(sorted(largest.items()))

    def remove(self, worker: int) -> None:
        """Remove a lost worker, and what only it could use."""
        self.claim(worker, ())
        self._workers.discard(worker)
        for name, pools in self._pools.items():
            pool = pools.pop(worker, None)
            if pool is not None:
                pool.workers.discard(worker)
                self._lost.append(f"{name}={shown(pool.capacity)} of worker {worker}")

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

    def describe_lost(self) -> str:
        """What lost workers had, in words."""
        return ", ".join(self._lost)

    def example(self, needs: Needs) -> str:
        """A ``--resource`` that would meet one of some needs that nothing meets."""
        lacking = [one for one in needs if self.unmet((one,))] or needs
        return shown_needs(tuple(lacking[:1]))

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
