"""A Slurm of one node for a test: slurmctld and slurmd with a configuration, a state folder and ports of
their own, as root, without systemd, cgroups, munge or accounting. Nothing outside the folder is touched,
and leaving the `with` block ends everything that was started, by process id.

    with Cluster(Path("slurm"), cpus=8) as cluster:
        job = cluster.sbatch("--wrap", "hostname")
        cluster.wait(job, "COMPLETED")

SPDX-License-Identifier: BSD-3-Clause
"""
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))
from proc import descendants, processes, tell, words  # noqa: E402

PROGRAMS = ("slurmctld", "slurmd", "sbatch", "srun", "scontrol", "squeue", "scancel", "sinfo")
ENDED = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY", "BOOT_FAIL",
         "PREEMPTED", "DEADLINE")
RELAUNCH_SECONDS = 2.5  # times in Slurm's credentials are whole seconds

# Two partitions: jobs of `urgent` take the processors of `main`, whose jobs are told and requeued.
CONFIGURATION = """\
ClusterName=allmerge
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port_ctld}
SlurmdPort={port_slurmd}
AuthType=auth/none
CredType=cred/none
SlurmUser=root
SlurmdUser=root
StateSaveLocation={top}/state
SlurmdSpoolDir={top}/spool
SlurmctldPidFile={top}/slurmctld.pid
SlurmdPidFile={top}/slurmd.pid
SlurmctldLogFile={top}/slurmctld.log
SlurmdLogFile={top}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,sched_min_interval=0,batch_sched_delay=0,bf_interval=1,default_queue_depth=100
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
MpiDefault=none
ReturnToService=2
SlurmdParameters=config_overrides
MailProg=/bin/true
InactiveLimit=0
KillWait=5
MinJobAge=600
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory=16384 State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=60 State=UP PriorityTier=1 GraceTime=5
PartitionName=urgent Nodes={host} MaxTime=60 State=UP PriorityTier=10 PreemptMode=OFF
"""


def missing() -> str:
    """Why there can be no cluster here; empty if there can."""
    absent = [p for p in PROGRAMS if shutil.which(p, path=search_path()) is None]
    if absent:
        return f"no {', '.join(absent)}: apt-get install slurmctld slurmd slurm-client"
    if os.geteuid() != 0:
        return "slurmd starts jobs for other users, so it must be root"
    return ""


def search_path() -> str:
    return os.environ.get("PATH", "") + ":/usr/sbin:/sbin"


def free_ports(n: int) -> list:
    sockets = [socket.socket() for _ in range(n)]
    for s in sockets:
        s.bind(("127.0.0.1", 0))
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


class Cluster:
    def __init__(self, top: Path, cpus: int):
        self.top, self.daemons = top.resolve(), []
        for folder in ("state", "spool"):
            (self.top / folder).mkdir(parents=True)
        port_ctld, port_slurmd = free_ports(2)
        self.host = socket.gethostname().split(".")[0]
        conf = self.top / "slurm.conf"
        conf.write_text(CONFIGURATION.format(host=self.host, port_ctld=port_ctld, cpus=cpus,
                                             port_slurmd=port_slurmd, top=self.top))
        self.environment = dict(os.environ, SLURM_CONF=str(conf), PATH=search_path())
        for name in [k for k in self.environment if k.startswith(("SBATCH_", "SLURM_JOB"))]:
            del self.environment[name]

    # ---- daemons ----

    def __enter__(self) -> "Cluster":
        try:
            self.start("slurmctld", "-D", "-c", "-i")
            self.start("slurmd", "-D", "-N", self.host)
            self.until(lambda: self.run("sinfo", "-h", "-o", "%T", check=False).strip() == "idle", 60,
                       "the node to come up")
        except BaseException:
            self.__exit__()
            raise
        return self

    def start(self, *command: str) -> None:
        out = open(self.top / f"{command[0]}.out", "w")
        program = shutil.which(command[0], path=search_path())
        self.daemons.append(subprocess.Popen([program, *command[1:]], env=self.environment,
                                             stdin=subprocess.DEVNULL, stdout=out, stderr=out))

    def __exit__(self, *_) -> None:
        """Jobs first: a step outlives its slurmd."""
        self.run("scancel", "--user=root", check=False)
        end = time.monotonic() + 10
        while self.steps() and time.monotonic() < end:
            time.sleep(0.2)
        for step in self.steps():
            for pid in [*descendants(step), step]:
                tell(pid, signal.SIGKILL)
        for daemon in reversed(self.daemons):
            daemon.terminate()
            try:
                daemon.wait(20)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()

    def steps(self, job: str = "") -> list:
        """The slurmstepd processes of this cluster, or of one job of it."""
        return [pid for pid, name, _ in processes() if name.startswith("slurmstepd") and self.owns(pid)
                and words(pid, "cmdline")[0].startswith(f"slurmstepd: [{job}{'.' if job else ''}")]

    def owns(self, pid: int) -> bool:
        return f"SLURM_CONF={self.top}/slurm.conf" in words(pid, "environ")

    # ---- commands ----

    def run(self, *command: str, check: bool = True, timeout: float = 60) -> str:
        done = subprocess.run(command, env=self.environment, text=True, stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=timeout)
        if check and done.returncode != 0:
            raise RuntimeError(f"{' '.join(command)}: exit code {done.returncode}\n{done.stdout}")
        return done.stdout

    def sbatch(self, *arguments: str) -> str:
        return self.run("sbatch", "--parsable", *arguments).strip()

    def show(self, job: str) -> dict:
        """What `scontrol show job` says, as KEY: VALUE; of an array element as JOB_INDEX."""
        text = self.run("scontrol", "-o", "show", "job", job, check=False).strip()
        return dict(word.split("=", 1) for word in text.split() if "=" in word)

    def state(self, job: str) -> str:
        return self.show(job).get("JobState", "UNKNOWN")

    def wait(self, job: str, *states: str, seconds: float = 120) -> dict:
        """Until the job is in one of the states; an end that is none of them is an error. A requeued job
        is started again soon after its last run is gone (Slurm itself would wait two minutes): not in
        the same second, or slurmd takes the new run for the one that it has just been told to end."""
        gone_since = None

        def there():
            nonlocal gone_since
            shown = self.show(job)
            state = shown.get("JobState", "UNKNOWN")
            is_gone = (state == "PENDING" and shown.get("Reason") == "BeginTime" and
                       state not in states and not self.steps(job))
            if not is_gone:
                gone_since = None
            elif gone_since is None:
                gone_since = time.monotonic()
            elif time.monotonic() - gone_since > RELAUNCH_SECONDS:
                self.run("scontrol", "update", f"JobId={job}", "StartTime=now", "TimeLimit=30",
                         check=False)
            if state not in states and state in ENDED:
                raise RuntimeError(f"job {job} is {state}, not {' or '.join(states)}: {shown}")
            return shown if state in states else None
        return self.until(there, seconds, f"job {job} to be {' or '.join(states)}")

    def until(self, condition, seconds: float, what: str):
        end = time.monotonic() + seconds
        while True:
            value = condition()
            if value:
                return value
            for daemon in self.daemons:
                if daemon.poll() is not None:
                    raise RuntimeError(f"{daemon.args[0]} ended with {daemon.returncode}")
            if time.monotonic() > end:
                raise RuntimeError(f"waited {seconds} s for {what}\n" + self.run("squeue", check=False))
            time.sleep(0.1)

    def logs(self) -> str:
        text = ""
        for name in ("slurmctld.out", "slurmctld.log", "slurmd.out", "slurmd.log"):
            path = self.top / name
            lines = path.read_text(errors="replace").splitlines() if path.exists() else []
            text += f"--- {name}\n" + "\n".join(lines[-30:]) + "\n"
        return text

    def ranks(self, job: str, program: str) -> list:
        """Process ids of the ranks of a job: by name, and SLURM_JOB_ID in their environment."""
        return [pid for pid, name, _ in processes() if name == program and self.owns(pid)
                and f"SLURM_JOB_ID={job}" in words(pid, "environ")]


if __name__ == "__main__": # a shell in a cluster, for people
    with Cluster(Path(sys.argv[1]), 8) as shell_cluster:
        subprocess.run(sys.argv[2:] or ["bash"], env=shell_cluster.environment)
