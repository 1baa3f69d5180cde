"""Where tasks should run, because data that they need is there. Pure."""


class Locality:
    """Remembers on which host the most data is that a task needs. True if it does for any task.

    Attributes
    ----------
    hosts : dict of int to str
        The host of each worker.
    """

    def __init__(self) -> None:
        self.hosts: dict[int, str] = {}
        self._several = False
        self._preferred: dict[int, tuple[str, int]] = {}
        self._taken = -1

    def __bool__(self) -> bool:
        return bool(self._preferred)

    def add_worker(self, worker: int, host: str) -> None:
        """Note where a worker is."""
        self._several = self._several or any(host != other for other in self.hosts.values())
        self.hosts[worker] = host

    def prefer(self, task: int, worker: int, nbytes: int) -> None:
        """Let a task run on the host of a worker, which has `nbytes` of what it needs."""
        host = self.hosts.get(worker)
        if host is None or not self._several:
            return
        _, most = self._preferred.get(task, ("", -1))
        if nbytes > most:
            self._preferred[task] = (host, nbytes)

    def host(self, task: int) -> str | None:
        """The host where a task should run; None if it may run anywhere."""
        return self._preferred.get(task, (None, 0))[0]

    def take(self, task: int) -> str | None:
        """As `host`, once."""
        host, _ = self._preferred.pop(task, (None, 0))
        self._taken = -1 if host is None else task
        return host

    def had(self, task: int) -> bool:
        """Whether `take` has just told where a task should run: then it travels alone."""
        return task == self._taken

    def forget(self, first: int, count: int) -> None:
        """Drop what is remembered of tasks that run anywhere, or not at all."""
        if self._preferred:
            for task in [one for one in self._preferred if first <= one < first + count]:
                del self._preferred[task]
