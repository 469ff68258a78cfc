"""A throw-away Slurm on this machine: munge, slurmctld and slurmd with all their files in one folder, and pretended GPUs.

No systemd, cgroups or database. The GPUs are links to /dev/null: Slurm hands them out and sets CUDA_VISIBLE_DEVICES; programs
find no GPU behind them and compute on the CPU.
"""

import getpass
import os
import platform
import secrets
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

PROGRAMS = ("munged", "munge", "slurmctld", "slurmd", "srun", "sbatch", "squeue", "scancel", "sinfo", "scontrol")
CLIENTS = ("srun", "sbatch", "squeue", "scancel", "sinfo", "scontrol", "sacct", "sacctmgr", "sshare")
SYSTEM_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
START_SECONDS = 30

# OverMemoryKill holds every job to the memory that its rule asked for.
SLURM_CONF = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.sock
CredType=cred/munge
SlurmctldPort={controller_port}
SlurmdPort={node_port}
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
MailProg=/bin/true
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=2
JobAcctGatherParams=OverMemoryKill
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=1,sched_min_interval=0,bf_interval=1
PriorityType=priority/basic
MinJobAge=600
KillWait=30
ReturnToService=2
JobRequeue=0
SlurmdParameters=config_overrides
GresTypes=gpu
NodeName={host} NodeAddr=127.0.0.1 CPUs=16 RealMemory=256000 Gres=gpu:{gpus} State=UNKNOWN
PartitionName=test Nodes={host} Default=YES MaxTime=1-00:00:00 DefMemPerCPU=500 State=UP
"""
GRES_CONF = """
AutoDetect=off
Name=gpu File={folder}/gpu[0-{last_gpu}]
"""


def missing_programs() -> list[str]:
    """Names of the programs that are not installed."""
    return [name for name in PROGRAMS if not any(Path(folder, name).exists() for folder in SYSTEM_PATH.split(":"))]


class Slurm:
    """Start and end of the daemons; `environment` is what clients need.

    Args:
        folder: of configuration, state and logs; short, because sockets lie in it, and writable for nobody else.
        gpus: number of pretended GPUs.
    """

    def __init__(self, folder: Path, gpus: int = 2):
        self.folder, self.gpus = folder, gpus
        self._daemons: list[subprocess.Popen[bytes]] = []
        path = f"{folder}/bin:{SYSTEM_PATH}:{os.environ['PATH']}"
        self.environment = {**os.environ, "SLURM_CONF": f"{folder}/slurm.conf", "PATH": path}

    def __enter__(self) -> "Slurm":
        try:
            self._configure()
            self._start_munge()
            self._start("slurmctld", "-D", "-c")
            self._start("slurmd", "-D")
            self._wait_until(lambda: self.command("sinfo", "--noheader", "--format=%T").strip() == "idle", "the node is idle")
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def command(self, *words: str) -> str:
        """Output of a client, empty if it fails."""
        done = subprocess.run(words, env=self.environment, capture_output=True, text=True, timeout=60)
        return done.stdout if done.returncode == 0 else ""

    def jobs(self, *states: str) -> list[str]:
        """Ids of the jobs in the given states (default: running or waiting)."""
        return self.command("squeue", "--noheader", "--format=%i", f"--states={','.join(states) or 'PD,R,CG'}").split()

    def minutes_of(self, job: str) -> int:
        """Full minutes for which a job has been running, below an hour."""
        return int(self.command("squeue", "--noheader", "--format=%M", f"--jobs={job}").split(":")[-2])

    @contextmanager
    def held(self) -> Iterator[None]:
        """Jobs are queued, and none starts until the end of the context."""
        partition = ["scontrol", "update", "PartitionName=test"]
        subprocess.run([*partition, "State=DOWN"], env=self.environment, check=True, timeout=60)
        try:
            yield
        finally:
            subprocess.run([*partition, "State=UP"], env=self.environment, check=True, timeout=60)

    def waiting(self) -> list[str]:
        """Comments of the jobs that wait: names of their rules and wildcards."""
        return self.command("squeue", "--noheader", "--states=PD", "--format=%k").split()

    def stop(self) -> None:
        """Cancels all jobs and ends the daemons that were started here."""
        if len(self._daemons) > 2:
            for sent in ("TERM", "KILL"):
                self.command("scancel", f"--signal={sent}", "--full", *self.jobs("R"))
                self.command("scancel", *self.jobs())
                deadline = time.monotonic() + 10
                while self.jobs() and time.monotonic() < deadline:
                    time.sleep(0.2)
        for daemon in reversed(self._daemons):
            daemon.send_signal(signal.SIGTERM)
            try:
                daemon.wait(10)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        self._daemons.clear()

    def _configure(self) -> None:
        for name in ("state", "spool", "bin"):
            (self.folder / name).mkdir(parents=True)
        for number in range(self.gpus):
            (self.folder / f"gpu{number}").symlink_to("/dev/null")
        controller_port, node_port = free_ports(2)
        values: Mapping[str, object] = {
            "folder": self.folder,
            "host": platform.node().partition(".")[0],
            "user": getpass.getuser(),
            "gpus": self.gpus,
            "last_gpu": self.gpus - 1,
            "controller_port": controller_port,
            "node_port": node_port,
        }
        (self.folder / "slurm.conf").write_text(SLURM_CONF.format(**values))
        (self.folder / "gres.conf").write_text(GRES_CONF.format(**values))
        # Inside a job the executor removes SLURM_CONF from the environment, and clients would look in /etc.
        for name in CLIENTS:
            script = self.folder / "bin" / name
            script.write_text(f'#!/bin/sh\nSLURM_CONF={self.folder}/slurm.conf exec /usr/bin/{name} "$@"\n')
            script.chmod(0o755)

    def _start_munge(self) -> None:
        key = self.folder / "munge.key"
        key.touch(0o600)
        key.write_bytes(secrets.token_bytes(1024))
        places = {"socket": "munge.sock", "key-file": "munge.key", "pid-file": "munged.pid", "seed-file": "munged.seed"}
        self._start("munged", "--foreground", "--force", *(f"--{key}={self.folder}/{name}" for key, name in places.items()))
        self._wait_until(lambda: self.command("munge", f"--socket={self.folder}/munge.sock", "--no-input") != "", "munge answers")

    def _start(self, name: str, *options: str) -> None:
        """Starts a daemon in a session of its own, so that Ctrl-C reaches it through `stop` only."""
        with (self.folder / f"{name}.out").open("wb") as output:
            daemon = subprocess.Popen(
                [name, *options],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._daemons.append(daemon)

    def _wait_until(self, ready, what: str) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not ready():
            ended = [daemon for daemon in self._daemons if daemon.poll() is not None]
            if ended or time.monotonic() > deadline:
                logs = "\n".join(f"{path.name}: {path.read_text(errors='replace')[-2000:]}" for path in self._logs())
                raise RuntimeError(f"waited for: {what}; ended: {[daemon.args for daemon in ended]}\n{logs}")
            time.sleep(0.1)

    def _logs(self) -> list[Path]:
        return sorted([*self.folder.glob("*.out"), *self.folder.glob("*.log")])


def free_ports(count: int) -> list[int]:
    """Ports of this machine that nobody listens on."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for open_socket in sockets:
            open_socket.bind(("127.0.0.1", 0))
        return [open_socket.getsockname()[1] for open_socket in sockets]
    finally:
        for open_socket in sockets:
            open_socket.close()
