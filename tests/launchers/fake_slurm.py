"""A Slurm of a few lines: one script answers to every command's name, and runs nothing by itself.

sbatch writes jobs into a folder, squeue and sacct read them there, and the test runs elements with `FakeSlurm.run`, in
the order and with the fates that it wants. Every call is counted.
"""

import json
import signal
import sys
from collections import Counter
from pathlib import Path

import pytest

SCRIPT = """#!{python}
import json, os, pathlib, re, sys
root = pathlib.Path({root!r})
command, words = pathlib.Path(sys.argv[0]).name, sys.argv[1:]
with (root / "calls").open("a") as file:
    file.write(json.dumps([command, *words]) + "\\n")
if (root / f"{{command}}.fails").exists():
    sys.exit((root / f"{{command}}.fails").read_text())
jobs = json.loads((root / "jobs.json").read_text())
options = dict(word.partition("=")[::2] for word in words if word.startswith("--"))
wanted = options.get("--name", "").split(",")
if command == "sbatch" and "--test-only" in words:
    if options.get("--partition") == "nope":
        sys.exit("sbatch: error: invalid partition specified: nope\\nallocation failure: Invalid partition name")
    print("sbatch: Job 12 to start at now using 1 processors on nodes n1 in partition batch", file=sys.stderr)
elif command == "sbatch":
    text = pathlib.Path(words[-1]).read_text()
    flags = dict(re.findall(r"^#SBATCH --([a-z-]+)=?(.*)$", text, re.M))
    if flags.get("partition") == "nope":
        sys.exit("sbatch: error: Batch job submission failed: Invalid partition name specified")
    number = 12 + len({{job.partition("_")[0] for job in jobs}})
    last = int(re.match(r"0-(\\d+)", flags["array"])[1]) if "array" in flags else None
    names = [str(number)] if last is None else [f"{{number}}_{{index}}" for index in range(last + 1)]
    for name in names:
        jobs[name] = {{"name": flags["job-name"], "state": "PENDING", "why": "JobHeldUser", "flags": flags,
                       "environment": sorted(os.environ), "text": text}}
    print(f"Submitted batch job {{number}}")
elif command == "scontrol" and words[0] == "show":
    print("MaxArraySize            = 6")
    print((root / "configuration").read_text())
elif command == "scontrol" and words[0] == "requeue":
    jobs[words[1]] |= {{"state": "PENDING", "why": "BeginTime", "restarts": jobs[words[1]].get("restarts", 0) + 1}}
elif command == "scontrol":
    for name in jobs:
        if name.partition("_")[0] in words[1].split(","):
            jobs[name]["why"] = "Dependency" if "dependency" in jobs[name]["flags"] else "Priority"
elif command == "scancel":
    for name in jobs:
        if name.partition("_")[0] in words and jobs[name]["state"] in ("PENDING", "RUNNING"):
            jobs[name]["state"] = "CANCELLED"
elif command == "sinfo":
    print((root / "partitions").read_text())
elif command == "sacctmgr":
    print((root / ("qos" if "qos" in words else "associations")).read_text())
elif command == "squeue" and "--name" not in options:
    for name, job in jobs.items():
        if job["state"] in ("PENDING", "RUNNING"):
            print("{{}}|{{}}".format(job["flags"].get("account", "lab"), job["flags"].get("qos", "normal")))
elif command == "squeue":
    for name, job in jobs.items():
        if job["name"] in wanted and job["state"] in ("PENDING", "RUNNING"):
            print(f"{{name}}|{{job['state']}}|{{job['why']}}|")
elif command == "sacct":
    for name, job in jobs.items():
        if job["name"] in wanted:
            print(f"{{name}}|{{job['state']}}|{{job.get('code', '0:0')}}|n1")
(root / "jobs.json").write_text(json.dumps(jobs))
"""


FACTS = {  # what scontrol, sinfo and sacctmgr say
    "configuration": "ClusterName = fake\nSLURM_VERSION = 22.05\nAccountingStorageType = accounting_storage/slurmdbd\n",
    "partitions": "batch*|up|1:00:00|OFF|2|2|6000|gpu:2\n",
    "associations": "lab|fake|lab|||\n",
    "qos": "normal|\n",
}


class FakeSlurm:
    """The test's side of it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.bin = root / "bin"
        self.bin.mkdir(parents=True)
        (root / "jobs.json").write_text("{}")
        (root / "calls").touch()
        for name, content in FACTS.items():
            (root / name).write_text(content)
        for command in ("sbatch", "srun", "squeue", "sacct", "scancel", "scontrol", "sinfo", "sacctmgr"):
            path = self.bin / command
            path.write_text(SCRIPT.format(python=sys.executable, root=str(root)))
            path.chmod(0o755)

    @property
    def jobs(self) -> dict[str, dict]:
        return json.loads((self.root / "jobs.json").read_text())

    def calls(self) -> Counter:
        return Counter(json.loads(line)[0] for line in (self.root / "calls").read_text().splitlines())

    def fails(self, command: str, words: str) -> None:
        (self.root / f"{command}.fails").write_text(words)

    def works(self, command: str) -> None:
        (self.root / f"{command}.fails").unlink()

    def set(self, job: str, **values: str) -> None:
        jobs = self.jobs
        jobs[job] |= values
        (self.root / "jobs.json").write_text(json.dumps(jobs))

    def run(self, job: str) -> str:
        """Run one element as Slurm would, through submitit's own start, in this process; return how it failed."""
        from submitit.core.submission import process_job

        main, _, index = job.partition("_")
        place = {"SLURM_JOB_ID": main, "SUBMITIT_EXECUTOR": "slurm", "SLURM_NTASKS": "1", "SLURM_PROCID": "0"}
        place |= {"SLURM_ARRAY_JOB_ID": main, "SLURM_ARRAY_TASK_ID": index} if index else {}
        restarts = self.jobs[job].get("restarts", 0)
        place |= {"SLURM_RESTART_COUNT": str(restarts)} if restarts else {}
        handlers = {each: signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGCONT, signal.SIGUSR2)}
        folder = Path(self.jobs[job]["flags"]["output"].strip("'")).parent
        self.set(job, state="RUNNING")
        failure = ""
        with pytest.MonkeyPatch.context() as patch:
            for name, value in place.items():
                patch.setenv(name, value)
            patch.setenv("SUBMITIT_FOLDER", "")
            try:
                process_job(folder)
            except (Exception, SystemExit) as error:
                failure = f"{type(error).__name__}: {error}"
        for each, handler in handlers.items():
            signal.signal(each, handler)
        if self.jobs[job].get("restarts", 0) > restarts:
            return failure
        self.set(job, state="FAILED" if failure else "COMPLETED", code="1:0" if failure else "0:0")
        return failure

    def run_all(self) -> None:
        for job in self.jobs:
            if self.jobs[job]["state"] == "PENDING":
                assert self.jobs[job]["why"] != "JobHeldUser"
                self.run(job)
