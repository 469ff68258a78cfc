"""What a job costs beside its work: `python benchmarks/overhead.py`, at the repository root.

CPU time of every stage's command on a study of 16 x 16 nodes, where there is next to no work, as a multiple of `python -c "import
torch"` in the same run: the less of two calls.
"""

import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

from ddis.config import Study
from ddis.stages.records import steps

ROOT = Path(__file__).parents[1]
REPEATS = 2
SMALLER = {"fractions": [1.0], "runs": {"ddis-gn": {"samples": 4, "steps": 3}}, "tuning": {}, "joint": {}}


def cpu_seconds(command: list[str], folder: Path) -> float:
    """The least CPU time of a command and its children."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": str(folder)}
    times = []
    for _ in range(REPEATS):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(command, cwd=folder, env=environment, capture_output=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)
    return min(times)


def main() -> None:
    """Prints the table, in Markdown."""
    programs = Path(sys.executable).parent
    print("| command | CPU s | of import torch |\n|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        settings = yaml.safe_load((ROOT / "tests" / "tiny.yaml").read_text(encoding="utf-8"))
        (folder / "study.yaml").write_text(yaml.safe_dump(settings | SMALLER), encoding="utf-8")
        study = Study.load(folder / "study.yaml")
        unit = cpu_seconds([sys.executable, "-c", "import torch"], folder)
        print(f"| import torch | {unit:.2f} | 1 |", flush=True)
        commands = {"study": [str(programs / "ddis"), "study", "--config", "study.yaml"]}
        for step in steps(study)[1:]:
            options = [part for key, value in step.what.items() for part in (f"--{key}", value)]
            configuration = str(study.folder / "config.yaml")
            commands[step.label] = [str(programs / "ddis"), step.stage, "--config", configuration, *options]
        commands["verify"] = [str(programs / "ddis"), "verify", study.study]
        dry = ["-s", str(ROOT / "Snakefile"), "-n", "--configfile", "study.yaml"]
        commands["snakemake -n"] = [str(programs / "snakemake"), *dry]
        for label, command in commands.items():
            seconds = cpu_seconds(command, folder)
            print(f"| {label} | {seconds:.2f} | {seconds / unit:.2f} |", flush=True)


if __name__ == "__main__":
    main()
