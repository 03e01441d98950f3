"""A real SLURM of two nodes on this machine, each with 8 cores and a GPU that is an empty file; needs root."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from installation import UnavailableError, install_programs

NODES = ("n1", "n2")
# Fixed places: `srun` within a job finds the configuration nowhere else.
CONFIGURATION = Path("/etc/slurm/slurm.conf")
GRES = Path("/etc/slurm/gres.conf")
PACKAGES = ("slurm-wlm", "munge")
PROGRAMS = ("slurmctld", "slurmd", "munged", "sbatch", "srun", "squeue", "scontrol")
MARK = "SSLTRANSFER_TEST_CLUSTER"


def configuration(folder: Path) -> str:
    host = socket.gethostname()
    settings = {
        "ClusterName": "test",
        "SlurmctldHost": f"{host}(127.0.0.1)",
        "SlurmUser": "root",
        "SlurmdUser": "root",
        "AuthType": "auth/munge",
        "AuthInfo": f"socket={folder}/munge/socket",
        "StateSaveLocation": f"{folder}/state",
        "SlurmdSpoolDir": f"{folder}/spool-%n",
        "SlurmctldPidFile": f"{folder}/slurmctld.pid",
        "SlurmdPidFile": f"{folder}/slurmd-%n.pid",
        "SlurmctldLogFile": f"{folder}/slurmctld.log",
        "SlurmdLogFile": f"{folder}/slurmd-%n.log",
        "SlurmctldPort": "17000",
        # Without systemd, cgroups and accounting.
        "ProctrackType": "proctrack/linuxproc",
        "TaskPlugin": "task/none",
        "JobAcctGatherType": "jobacct_gather/none",
        "AccountingStorageType": "accounting_storage/none",
        "SelectType": "select/cons_tres",
        "SelectTypeParameters": "CR_Core_Memory",
        # The nodes claim more than the machine has.
        "SlurmdParameters": "config_overrides",
        "ReturnToService": "2",
        # Retries are Snakemake's. SLURM's own come after a pause of two minutes.
        "JobRequeue": "0",
        "MinJobAge": "3600",
        "SchedulerParameters": "batch_sched_delay=0,sched_interval=2",
        "GresTypes": "gpu",
    }
    nodes = [
        f"NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port={17001 + i} CPUs=8 RealMemory=64000 Gres=gpu:1"
        for i, node in enumerate(NODES)
    ]
    partition = f"PartitionName=all Nodes={','.join(NODES)} Default=YES MaxTime=INFINITE State=UP"
    return "\n".join(
        [f"# {MARK} {os.getpid()} {folder}", *(f"{k}={v}" for k, v in settings.items()), *nodes, partition, ""]
    )


def remove_leftovers() -> None:
    """Remove the configuration of a test that was killed; one that is not a test's is left alone."""
    if not CONFIGURATION.exists():
        return
    owner = re.match(rf"# {MARK} (\d+) (.*)\n", CONFIGURATION.read_text())
    if owner is None:
        raise UnavailableError(f"{CONFIGURATION} exists: this machine belongs to a cluster")
    if Path("/proc", owner[1]).exists():
        raise UnavailableError("another test runs its cluster on this machine")
    clean_up(owner[1], Path(owner[2]))


def processes(owner: str, folder: Path) -> list[int]:
    """Everything that a test's cluster started: its daemons, their steps and the jobs."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            inherited = f"{MARK}={owner}".encode() in (path / "environ").read_bytes().split(b"\0")
            # The step daemon writes its name over its environment.
            if inherited or (
                (path / "cwd").readlink() == folder and (path / "exe").readlink().name.startswith("slurm")
            ):
                found.append(int(path.name))
    return found


def end(found: list[int]) -> None:
    for process in found:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)


def clean_up(owner: str, folder: Path) -> None:
    """End a test's cluster and remove its configuration."""
    for _ in range(20):
        if not (found := processes(owner, folder)):
            break
        end(found)
        time.sleep(0.1)
    for path in (CONFIGURATION, GRES):
        path.unlink(missing_ok=True)


class Cluster:
    """The running cluster."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.owner = str(os.getpid())
        path = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/sbin"))
        self.environment = {k: v for k, v in os.environ.items() if not k.startswith("SLURM_")}
        self.environment |= {"PATH": path, MARK: self.owner}

    def command(self, *words: str, check: bool = True) -> str:
        """Run one of SLURM's programs and return what it prints."""
        done = subprocess.run(words, env=self.environment, capture_output=True, text=True, check=check, timeout=30)
        return done.stdout

    def start(self) -> None:
        folder = self.folder
        for name in ("munge", "state", *(f"spool-{node}" for node in NODES)):
            (folder / name).mkdir(parents=True)
        gpu = folder / "gpu"
        gpu.touch()
        key = folder / "munge" / "key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o600)
        (folder / "munge").chmod(0o755)
        CONFIGURATION.parent.mkdir(exist_ok=True)
        with CONFIGURATION.open("x") as file:
            file.write(configuration(folder))
        GRES.write_text("".join(f"NodeName={node} Name=gpu File={gpu}\n" for node in NODES))
        munge = {"key-file": key, "socket": folder / "munge/socket", "pid-file": folder / "munge/pid"}
        munge |= {"seed-file": folder / "munge/seed", "log-file": folder / "munge/log"}
        self.command("munged", "--force", *(f"--{option}={path}" for option, path in munge.items()))
        self.command("slurmctld", "-c")
        for node in NODES:
            self.command("slurmd", "-N", node)
        self.wait_for_nodes()

    def wait_for_nodes(self) -> None:
        """Wait until no node is down."""
        folder = self.folder
        deadline = time.monotonic() + 30
        while not (states := self.command("sinfo", "--noheader", "--Node", "--format=%T", check=False).split()) or any(
            state.startswith(("down", "unknown", "future")) or state.endswith("*") for state in states
        ):
            if time.monotonic() > deadline:
                logs = "\n".join(path.read_text()[-1500:] for path in folder.glob("*.log"))
                raise RuntimeError(f"the nodes do not come up:\n{logs}")
            time.sleep(0.2)

    def jobs(self) -> list[dict[str, str]]:
        """All jobs, as `scontrol show job` describes them."""
        lines = self.command("scontrol", "show", "job", "--detail", "--oneliner").splitlines()
        return [dict(re.findall(r"(\w+)=(\S*)", line)) for line in lines if line.startswith("JobId=")]

    def break_down(self, node: str) -> None:
        """End a node with everything that runs on it, as if its power had failed."""
        running = {job["JobId"] for job in self.jobs() if job["JobState"] == "RUNNING" and job["NodeList"] == node}
        daemon = int((self.folder / f"slurmd-{node}.pid").read_text())
        work = {process: _job_of(process) for process in processes(self.owner, self.folder)}
        # The daemons first: nothing that ends is reported any more.
        steps = [process for process, (job, step) in work.items() if step and job in running]
        end([daemon, *steps, *(process for process, (job, step) in work.items() if not step and job in running)])
        self.command("scontrol", "update", f"nodename={node}", "state=down", "reason=test")

    def repair(self, node: str) -> None:
        """Start a broken node again."""
        self.command("slurmd", "-N", node)
        # Refused where the daemon's own message was quicker (ReturnToService).
        self.command("scontrol", "update", f"nodename={node}", "state=resume", check=False)
        self.wait_for_nodes()


def _job_of(process: int) -> tuple[str, bool]:
    """SLURM's number of the job that a process belongs to, and whether it is the step daemon."""
    with contextlib.suppress(OSError):
        if step := re.match(rb"slurmstepd: \[(\d+)", Path(f"/proc/{process}/cmdline").read_bytes()):
            return step[1].decode(), True
        if job := re.search(rb"\0SLURM_JOB_ID=(\d+)\0", Path(f"/proc/{process}/environ").read_bytes()):
            return job[1].decode(), False
    return "", False


@contextlib.contextmanager
def cluster(folder: Path) -> Iterator[Cluster]:
    """A cluster for the time of a test. Whatever happens, its daemons end and its configuration goes.

    Raises
    ------
    UnavailableError
        If this machine cannot have one.
    """
    if os.geteuid() != 0:
        raise UnavailableError("only root can start SLURM's daemons")
    install_programs(PROGRAMS, PACKAGES)
    remove_leftovers()
    made = Cluster(folder)
    try:
        made.start()
        yield made
    finally:
        clean_up(made.owner, folder)
