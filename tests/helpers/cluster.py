"""A real Slurm of two nodes on this machine, in a folder of its own: munged, slurmctld, and a slurmd per node.

Needs root, and Debian's packages slurm-wlm and munge.  Its files, sockets and ports are its own, so that a Slurm of the machine
does not notice it.
"""

from __future__ import annotations

import dataclasses
import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

NODES = ("n1", "n2")
EXPIRE = 10
"""Seconds after which credentials expire, by default 120.  A job that is put back waits as long: one that starts sooner is killed,
since its node has revoked its credentials."""
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "srun", "scontrol", "scancel")
CONF = """\
ClusterName=t
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire={expire}
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
ReturnToService=2
SlurmdParameters=config_overrides
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SlurmctldPidFile={folder}/slurmctld.pid
SlurmctldLogFile={folder}/slurmctld.log
StateSaveLocation={folder}/state
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmdLogFile={folder}/slurmd.%n.log
SlurmdSpoolDir={folder}/spool.%n
SlurmdTimeout=10
KillWait=10
MinJobAge=60
{nodes}
PartitionName=p Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP
"""


def missing() -> list[str]:
    """Programs that a cluster needs and this machine lacks."""
    return [name for name in PROGRAMS if shutil.which(name, path=_path()) is None]


def _path() -> str:
    return os.pathsep.join([os.environ["PATH"], "/usr/sbin", "/sbin"])


def _free_port() -> int:
    with socket.socket() as there:
        there.bind(("127.0.0.1", 0))
        return int(there.getsockname()[1])


@dataclasses.dataclass(frozen=True)
class Cluster:
    """The cluster.

    Attributes:
        folder: its files.
        environment: the environment in which Slurm's commands find it.
    """

    folder: Path
    environment: dict[str, str]

    def call(self, *words: str) -> str:
        """What a command of Slurm's prints.

        Raises:
            CalledProcessError: it failed.
        """
        done = subprocess.run(words, env=self.environment, capture_output=True, text=True, check=True)
        return done.stdout

    def queue(self, form: str = "%i") -> list[str]:
        """A line per job that waits or runs, in squeue's format."""
        return self.call("squeue", "--noheader", "--array", "--format", form).splitlines()

    def start_node(self, name: str) -> None:
        """Start a node's daemon."""
        subprocess.run(["slurmd", "-N", name], env=self.environment, check=True)

    def kill_node(self, name: str) -> None:
        """Kill a node's daemon at once; what it has started goes on, as far as the machine is concerned."""
        os.kill(int((self.folder / f"slurmd.{name}.pid").read_text()), signal.SIGKILL)

    def wait_for(self, what: Callable[[], bool], seconds: float, *, every: float = 0.5) -> None:
        """Wait until something is so.

        Raises:
            TimeoutError: it is not, after so many seconds.
        """
        until = time.monotonic() + seconds
        while not what():
            if time.monotonic() > until:
                raise TimeoutError(f"{what} after {seconds} s; {self.queue('%i %t %r')}")
            time.sleep(every)


@contextmanager
def cluster(folder: Path) -> Iterator[Cluster]:
    """Start a cluster, and end it with every job at the end of the block."""
    folder.mkdir(parents=True)
    host = socket.gethostname().partition(".")[0]
    nodes = [
        f"NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={_free_port()} CPUs=1 RealMemory=8000"
        for name in NODES
    ]
    (folder / "slurm.conf").write_text(
        CONF.format(host=host, folder=folder, expire=EXPIRE, controller=_free_port(), nodes="\n".join(nodes))
    )
    key = folder / "munge.key"
    key.write_bytes(secrets.token_bytes(128))
    key.chmod(0o600)
    environment = {**os.environ, "PATH": _path(), "SLURM_CONF": str(folder / "slurm.conf")}
    made = Cluster(folder, environment)
    files = {
        "socket": "munge.socket",
        "key-file": "munge.key",
        "pid-file": "munged.pid",
        "log-file": "munged.log",
        "seed-file": "seed",
    }
    try:
        munged = ["munged", "--force", *(f"--{option}={folder / name}" for option, name in files.items())]
        subprocess.run(munged, env=environment, check=True)
        (folder / "state").mkdir()
        for name in NODES:
            (folder / f"spool.{name}").mkdir()
        subprocess.run(["slurmctld"], env=environment, check=True)
        for name in NODES:
            made.start_node(name)
        made.wait_for(lambda: made.call("sinfo", "--noheader", "--format=%T %D").split() == ["idle", "2"], 60)
        yield made
        made.call("scancel", "--user=root")
        made.wait_for(lambda: not made.queue(), 60)
    finally:
        for name in ("slurmctld", *(f"slurmd.{node}" for node in NODES), "munged"):
            _end(folder / f"{name}.pid")


def _end(pid: Path) -> None:
    try:
        process = int(pid.read_text())
        os.kill(process, signal.SIGTERM)
        for _ in range(50):
            os.kill(process, 0)
            time.sleep(0.1)
        os.kill(process, signal.SIGKILL)
    except (FileNotFoundError, ProcessLookupError, ValueError):
        pass
