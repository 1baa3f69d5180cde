"""Three hosts on one machine: namespaces with a network of their own, on a switch without an uplink."""

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

NET = "10.78.3"
ROOT = Path(__file__).parents[2]

BOOT = """
hostname "$0"
groups=/sys/fs/cgroup
mkdir -p "$1/groups" && mount -n --rbind $groups "$1/groups"
mount -n -t sysfs sysfs /sys && mount -n --move "$1/groups" $groups
mount -n -t tmpfs -o size=64m tmpfs /dev/shm
mount -n --bind "$1/hosts" /etc/hosts
mount -n --bind "$1/nothing" /etc/resolv.conf
mkdir -m 1777 -p "$1/$0.tmp"
case $2 in /tmp/*) mkdir -p "$1/$0.tmp/${2#/tmp/}"; mount -n --rbind "$2" "$1/$0.tmp/${2#/tmp/}";; esac
mount -n --rbind "$1/$0.tmp" /tmp
ip link set lo up
touch "$1/$0.ready"
exec sleep infinity
"""

RSH = """#!/bin/sh
# What a launcher takes for ssh: options, a host, a command.
while :; do case $1 in -o|-p|-l) shift 2;; -*) shift;; *) break;; esac; done
pid=$(cat {folder}/$1.pid); shift
clean="env -i HOME=/root PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"
exec nsenter -t $pid -n -u -i -m -- $clean sh -c "cd; $*"
"""


class Hosts:
    """Hosts h1, h2, ...; each has its own /tmp and a small /dev/shm, all see `folder` and the repository.

    Attributes
    ----------
    folder : Path
        For jobs and their files.
    """

    def __init__(self, count: int = 3) -> None:
        self.folder = Path(tempfile.mkdtemp(dir="/var/tmp"))
        self.names = [f"h{number}" for number in range(1, count + 1)]
        self._holders: dict[str, subprocess.Popen[bytes]] = {}
        (self.folder / "nothing").touch()
        lines = [f"{NET}.{number} {name}" for number, name in enumerate(self.names, 1)]
        (self.folder / "hosts").write_text("\n".join(["127.0.0.1 localhost", *lines]) + "\n")
        self.rsh = self.folder / "rsh"
        self.rsh.write_text(RSH.format(folder=self.folder))
        self.rsh.chmod(0o755)

    def up(self) -> None:
        """Make the hosts; raises CalledProcessError or OSError where that is not allowed."""
        bridge = "ip link add br0 type bridge && ip link set br0 up && touch $0/switch.ready"
        switch = f"{bridge}; exec sleep infinity"
        self._start_holder("switch", ["unshare", "-n", "sh", "-c", switch, str(self.folder)])
        for number, name in enumerate(self.names, 1):
            spaces = ["unshare", "-n", "-u", "-i", "-m", "--propagation", "private"]
            self._start_holder(name, [*spaces, "bash", "-c", BOOT, name, str(self.folder), str(ROOT)])
            peer = ["peer", "name", "eth0", "netns", str(self._holders[name].pid)]
            self._on_switch("ip", "link", "add", f"p{number}", "type", "veth", *peer)
            self._on_switch("ip", "link", "set", f"p{number}", "master", "br0", "up")
            self.run(name, ["ip", "addr", "add", f"{NET}.{number}/24", "dev", "eth0"])
            self.run(name, ["ip", "link", "set", "eth0", "up"])

    def _start_holder(self, name: str, command: list[str]) -> None:
        holder = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        self._holders[name] = holder
        (self.folder / f"{name}.pid").write_text(str(holder.pid))
        ending = time.monotonic() + 60
        while not (self.folder / f"{name}.ready").exists():
            if holder.poll() is not None or time.monotonic() > ending:
                raise OSError(f"{name} does not start")
            time.sleep(0.01)

    def _on_switch(self, *command: str) -> None:
        pid = str(self._holders["switch"].pid)
        subprocess.run(["nsenter", "-t", pid, "-n", "--", *command], check=True, timeout=60)

    def on(self, name: str, command: Sequence[str]) -> list[str]:
        """The command that runs another one on a host."""
        pid = str(self._holders[name].pid)
        return ["nsenter", "-t", pid, "-n", "-u", "-i", "-m", f"--wd={self.folder}", "--", *command]

    def run(self, name: str, command: Sequence[str]) -> None:
        """Run a command on a host."""
        subprocess.run(self.on(name, command), check=True, timeout=60)

    def cut(self, name: str) -> None:
        """Pull the cable."""
        self._on_switch("ip", "link", "set", f"p{name[1:]}", "down")

    def mend(self, name: str) -> None:
        """Plug the cable in again, and wait until the host answers."""
        self._on_switch("ip", "link", "set", f"p{name[1:]}", "up")
        for other in self.names:
            self.run(other, ["ip", "neigh", "flush", "all"])
        far = next(other for other in self.names if other != name)
        # A closed port that refuses is one that can be reached.
        knock = ["timeout", "1", "bash", "-c", f"</dev/tcp/{NET}.{name[1:]}/9"]
        for _ in range(100):
            done = subprocess.run(self.on(far, knock), capture_output=True, text=True, timeout=60)
            if "refused" in done.stderr:
                return
            time.sleep(0.05)

    def pids(self, name: str) -> list[int]:
        """Processes on a host, except the one that holds its namespaces."""
        holder = self._holders[name].pid
        space = os.readlink(f"/proc/{holder}/ns/net")
        found = []
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if entry.name.isdecimal() and os.readlink(entry / "ns/net") == space:
                    found.append(int(entry.name))
        return [pid for pid in found if pid != holder]

    def kill(self, name: str) -> None:
        """Kill all processes on a host."""
        for pid in self.pids(name):
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)

    def down(self) -> None:
        """Remove all that was made."""
        for name in self.names:
            if name in self._holders and self._holders[name].poll() is None:
                self.kill(name)
        for holder in self._holders.values():
            holder.kill()
            holder.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


@contextlib.contextmanager
def hosts(count: int = 3) -> Iterator[Hosts]:
    """Hosts for as long as the context lasts.

    Raises
    ------
    OSError, CalledProcessError
        They cannot be made here.
    """
    made = Hosts(count)
    try:
        made.up()
        yield made
    finally:
        made.down()
