"""A Slurm of three nodes on one machine: a slurmd on each of three hosts of `hosts`, all in one folder."""

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from .hosts import Hosts, hosts

PROGRAMS = ("munged", "slurmctld", "slurmd", "srun", "sbatch", "scontrol", "sinfo")
PACKAGES = "slurmd slurmctld slurm-client munge libpmix-dev"

# Nothing here may need cgroups, a database or the machine's own munge: a container has none of them.
CONFIG = """
ClusterName=tests
SlurmctldHost={first}({address})
SlurmctldPort=16917
SlurmdPort=16918
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool.%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
CommunicationParameters=NoAddrCache,NoInAddrAny,NoCtldInAddrAny
ReturnToService=2
KillWait=5
# A busy machine may take long to end processes; by default their node takes no more jobs after a minute.
UnkillableStepTimeout=240
JobRequeue=1
PropagateResourceLimits=NONE
{nodes}
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


class Slurm:
    """Slurm on hosts that are up.

    Attributes
    ----------
    folder : Path
        Seen by all nodes; for jobs and their files.
    """

    def __init__(self, made: Hosts, cpus: int) -> None:
        self.folder = made.folder
        self._hosts = made
        self._inner = made.folder / "slurm"
        self._inner.mkdir(mode=0o755)
        (self._inner / "state").mkdir()
        addresses = dict(line.split()[::-1] for line in (made.folder / "hosts").read_text().splitlines())
        nodes = [
            f"NodeName={name} NodeAddr={addresses[name]} CPUs={cpus} RealMemory=2000 State=UNKNOWN"
            for name in made.names
        ]
        first = made.names[0]
        text = CONFIG.format(
            first=first, address=addresses[first], folder=self._inner, nodes="\n".join(nodes)
        )
        (self._inner / "slurm.conf").write_text(text)
        self._daemons: list[subprocess.Popen[bytes]] = []

    def up(self) -> None:
        """Start all daemons; raises OSError where they do not come up."""
        key = self._inner / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        files = [f"--{name}-file={self._inner}/munge.{name}" for name in ("pid", "log", "seed")]
        words = ["--foreground", "--force", f"--key-file={key}", f"--socket={self._inner}/munge.socket"]
        self._start(["munged", *words, *files], "munged")
        first = self._hosts.names[0]
        self._start(self._hosts.on(first, ["slurmctld", "-D"]), "slurmctld")
        for name in self._hosts.names:
            (self._inner / f"spool.{name}").mkdir()
            self._start(self._hosts.on(name, ["slurmd", "-D"]), f"slurmd.{name}")
        wanted = f"idle {len(self._hosts.names)}"
        ending = time.monotonic() + 120
        while (told := self.run(["sinfo", "-h", "-o", "%T %D"])) != wanted:
            if time.monotonic() > ending:
                raise OSError(f"Slurm does not come up: {told}\n{self.logs()}")
            time.sleep(0.1)

    def _start(self, command: Sequence[str], name: str) -> None:
        with (self._inner / f"{name}.out").open("wb") as out:
            daemon = subprocess.Popen(
                command,
                env=self.environ(),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._daemons.append(daemon)

    def environ(self, python: Path | None = None) -> dict[str, str]:
        """What a shell on the first node has in which the environment of this Python is active."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("SLURM")}
        path = kept["PATH"] if python is None else f"{python.parent}:{kept['PATH']}"
        return kept | {
            "PATH": path,
            "SLURM_CONF": str(self._inner / "slurm.conf"),
            # The nodes have more processors in Slurm's eyes than there are, and no other user than root.
            "PRTE_MCA_hwloc_default_binding_policy": "none",
            "OMPI_ALLOW_RUN_AS_ROOT": "1",
            "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
        }

    def run(self, command: Sequence[str], folder: Path | None = None, python: Path | None = None) -> str:
        """What a command on the first node prints, complaints and all; it is ended after four minutes."""
        folder = folder or self._inner
        there = self._hosts.on(self._hosts.names[0], ["env", f"--chdir={folder}", *command])
        # To a file: what a command leaves behind would hold a pipe open.
        with (folder / "printed").open("w+") as printed:
            subprocess.run(
                ["timeout", "-k", "5", "240", *there],
                env=self.environ(python),
                stdin=subprocess.DEVNULL,
                stdout=printed,
                stderr=subprocess.STDOUT,
                timeout=250,
            )
            printed.seek(0)
            return printed.read().strip()

    def state(self, job: str) -> dict[str, str]:
        """What Slurm says of a job."""
        words = self.run(["scontrol", "show", "job", "--oneliner", job]).split()
        return dict(word.split("=", 1) for word in words if "=" in word)

    def logs(self) -> str:
        """The last lines of every daemon."""
        parts = []
        for path in sorted(self._inner.glob("*.out")):
            parts += [f"== {path.name}", *path.read_text(errors="replace").splitlines()[-15:]]
        return "\n".join(parts)

    def down(self) -> None:
        """End all daemons, and with them their jobs."""
        for name in self._hosts.names:
            self._hosts.kill(name)
        for daemon in self._daemons:
            daemon.kill()
            daemon.wait()


def missing() -> str | None:
    """Why there can be no Slurm here."""
    if os.getuid() != 0:
        return "a Slurm for the tests needs root"
    lacking = [name for name in PROGRAMS if not shutil.which(name)]
    if lacking:
        return f"no {', '.join(lacking)}: run scripts/setup-system (apt-get install {PACKAGES})"
    return None


@contextlib.contextmanager
def slurm(count: int = 3, cpus: int = 16) -> Iterator[Slurm]:
    """A Slurm for as long as the context lasts.

    Raises
    ------
    OSError, CalledProcessError
        The hosts cannot be made here, or the daemons do not come up.
    """
    with hosts(count) as made:
        started = Slurm(made, cpus)
        try:
            started.up()
            yield started
        finally:
            started.down()
