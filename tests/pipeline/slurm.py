"""A real Slurm of one node on the loopback: Debian's munged, slurmctld and slurmd, started by the test."""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel")
SECONDS = 60.0
CONFIGURATION = """
ClusterName=loopback
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
SlurmctldPort={controller}
SlurmdPort={node}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_min_interval=0,sched_interval=1
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=20
MaxArraySize=4
NodeName={host} NodeAddr=127.0.0.1 Port={node} CPUs=2 RealMemory=1000 State=UNKNOWN
PartitionName=batch Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def lacking() -> str:
    """Say why no Slurm can be started here; empty where one can."""
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
    absent = [name for name in PROGRAMS if shutil.which(name, path=path) is None]
    return (
        f"not installed: {', '.join(absent)} (Debian: slurmctld slurmd slurm-client munge)" if absent else ""
    )


@dataclass
class Slurm:
    """The daemons, and the environment in which Slurm's commands find them."""

    folder: Path
    environment: dict[str, str]

    def command(self, *words: str) -> str:
        """Run one of Slurm's commands and return what it printed."""
        return subprocess.run(
            words, env=self.environment, capture_output=True, text=True, check=True, timeout=SECONDS
        ).stdout

    def queue(self) -> dict[str, str]:
        """State of every job, by number."""
        lines = self.command("squeue", "--noheader", "--array", "--states=all", "--format=%i|%T").splitlines()
        return dict(line.strip().split("|") for line in lines)

    def wait_for(self, state: str, count: int = 1) -> list[str]:
        """Wait until so many jobs are in a state, and return their numbers."""
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            found = sorted(number for number, its in self.queue().items() if its == state)
            if len(found) >= count:
                return found
            time.sleep(0.1)
        raise AssertionError(f"no {count} jobs {state}: {self.queue()}")


@contextlib.contextmanager
def slurm() -> Iterator[Slurm]:
    """Run the daemons; everything ends with the block."""
    with tempfile.TemporaryDirectory(
        prefix="slurm", ignore_cleanup_errors=True
    ) as name:  # a socket's path is short
        folder = Path(name)
        folder.chmod(0o711)
        environment = _configure(folder)
        daemons: list[subprocess.Popen[bytes]] = []
        try:
            files = [
                f"--{what}={folder}/munge.{what.partition('-')[0]}"
                for what in ("key-file", "pid-file", "seed-file")
            ]
            daemons.append(
                _start(
                    ["munged", "--foreground", "--force", f"--socket={folder}/munge.socket", *files],
                    folder,
                    environment,
                )
            )
            _until((folder / "munge.socket").exists, daemons)
            daemons.append(_start(["slurmctld", "-D", "-i"], folder, environment))
            daemons.append(_start(["slurmd", "-D"], folder, environment))
            found = Slurm(folder, environment)
            _until(lambda: "idle" in _sinfo(environment), daemons)
            yield found
        finally:
            for daemon in reversed(daemons):
                _end(daemon)


def _configure(folder: Path) -> dict[str, str]:
    """Write key and configuration."""
    (folder / "munge.key").write_bytes(os.urandom(1024))
    (folder / "munge.key").chmod(0o400)
    for name in ("state", "spool"):
        (folder / name).mkdir()
    host = socket.gethostname().partition(".")[0]
    controller, node = _free_ports()
    text = CONFIGURATION.format(
        host=host, user=getpass.getuser(), folder=folder, controller=controller, node=node
    )
    (folder / "slurm.conf").write_text(text, encoding="utf-8")
    path = os.pathsep.join([os.environ["PATH"], "/usr/sbin", "/sbin"])
    return {**os.environ, "PATH": path, "SLURM_CONF": str(folder / "slurm.conf")}


def _free_ports() -> tuple[int, int]:
    """Return two ports that nobody listens on."""
    with socket.socket() as one, socket.socket() as other:
        for each in (one, other):
            each.bind(("127.0.0.1", 0))
        return one.getsockname()[1], other.getsockname()[1]


def _start(words: list[str], folder: Path, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    """Start a daemon in a group of its own."""
    with (folder / f"{words[0]}.log").open("wb") as log:
        return subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, start_new_session=True
        )


def _end(daemon: subprocess.Popen[bytes]) -> None:
    """End a daemon, by force where it does not go."""
    daemon.terminate()
    try:
        daemon.wait(timeout=10)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(daemon.pid, signal.SIGKILL)
        daemon.wait()


def _sinfo(environment: dict[str, str]) -> str:
    """State of the node, empty while nobody answers."""
    words = ["sinfo", "--noheader", "--format=%T"]
    return subprocess.run(
        words, env=environment, capture_output=True, text=True, check=False, timeout=SECONDS
    ).stdout


def _until(true, daemons: list[subprocess.Popen[bytes]]) -> None:
    """Wait for something that the daemons bring about."""
    end = time.monotonic() + SECONDS
    while not true():
        for daemon in daemons:
            assert daemon.poll() is None, f"{daemon.args} ended"
        assert time.monotonic() < end, "slurm did not start"
        time.sleep(0.1)
