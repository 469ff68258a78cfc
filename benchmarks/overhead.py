"""What a job costs beside its work: `python benchmarks/overhead.py [FILE | FOLDER]`, at the repository root.

CPU time of every stage's command on a study of 16 x 16 nodes, where there is next to no work, as a multiple of `python -c "import
torch"` in the same run: the lesser of two calls each. CPU time and ratios hardly depend on what else the machine does.

Of a finished study, given its FOLDER (results/quickstart): CPU time of its jobs, as they recorded it, and how much of that is not
in the loops of training and sampling.
"""

import math
import os
import platform
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import yaml

from ddis.config import Study
from ddis.provenance import device_name
from ddis.stages.common import READING
from ddis.stages.records import steps
from ddis.tracking.record import attempt_of, read_record

ROOT = Path(__file__).parents[1]
RESULT = Path(__file__).parent / "results" / "overhead.md"
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


def rows(folder: Path) -> Iterator[tuple[str, float, bool]]:
    """Label of each command, its CPU time, and whether it computes; that of importing torch first."""
    programs = Path(sys.executable).parent
    settings = yaml.safe_load((ROOT / "tests" / "tiny.yaml").read_text(encoding="utf-8"))
    (folder / "study.yaml").write_text(yaml.safe_dump(settings | SMALLER), encoding="utf-8")
    study = Study.load(folder / "study.yaml")
    yield "import torch", cpu_seconds([sys.executable, "-c", "import torch"], folder), True
    yield "study", cpu_seconds([str(programs / "ddis"), "study", "--config", "study.yaml"], folder), False
    for step in steps(study)[1:]:
        options = [part for key, value in step.arguments.items() for part in (f"--{key}", value)]
        command = [str(programs / "ddis"), step.stage, "--config", str(study.folder / "config.yaml"), *options]
        yield step.label, cpu_seconds(command, folder), step.stage not in READING
    yield "verify", cpu_seconds([str(programs / "ddis"), "verify", study.study], folder), False
    dry = ["-s", str(ROOT / "Snakefile"), "-n", "--configfile", "study.yaml"]
    yield "snakemake -n", cpu_seconds([str(programs / "snakemake"), *dry], folder), False
    dry[-1] = str(ROOT / "config" / "config.yaml")
    yield "snakemake -n of the quickstart", cpu_seconds([str(programs / "snakemake"), *dry], folder), False


def spent(record: Path) -> tuple[float, float]:
    """CPU seconds of the last attempt of a job: all of them, NaN if it was killed or is of older code, and those of its loop."""
    lines = read_record(record)
    values = {
        k: v for x in lines if x["kind"] == "metrics" and attempt_of(x) == attempt_of(lines[-1]) for k, v in x["values"].items()
    }
    return values.get("cpu_seconds", math.nan), values.get("loop_cpu_seconds", 0.0)


def print_study(folder: Path) -> None:
    """Jobs of a study: what they spent beside their loops, and its share of all."""
    found = {record.relative_to(folder / "tracking"): spent(record) for record in sorted((folder / "tracking").rglob("*.jsonl"))}
    jobs = {name: times for name, times in found.items() if not math.isnan(times[0])}
    if len(jobs) < len(found) or not jobs:
        sys.exit(f"{folder}: {len(jobs)} of {len(found)} jobs say their CPU time; run the study with this version, in one go")
    for name, (whole, loop) in jobs.items():
        print(f"{name.with_suffix('')!s:45} {whole:7.2f} CPU s, {whole - loop:6.2f} beside the loop")
    whole, loops = (sum(times) for times in zip(*jobs.values(), strict=True))
    print(f"{len(jobs)} jobs: {whole:.1f} CPU s, {whole - loops:.1f} beside the loops: {100 * (whole - loops) / whole:.1f} %")


def main() -> None:
    """Writes the table, in Markdown; prints that of a finished study."""
    if len(sys.argv) > 1 and Path(sys.argv[1]).is_dir():
        print_study(Path(sys.argv[1]))
        return
    lines = [f"{device_name()}, Python {platform.python_version()}; CPU time, the least of {REPEATS} calls.", ""]
    lines += ["| command | computes with torch | CPU s | of import torch |", "|---|---|---|---|"]
    with tempfile.TemporaryDirectory() as name:
        unit = 0.0
        for label, seconds, computes in rows(Path(name)):
            unit = unit or seconds
            lines.append(f"| {label} | {'yes' if computes else ''} | {seconds:.2f} | {seconds / unit:.2f} |")
            print(lines[-1], flush=True)
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else RESULT
    target.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
