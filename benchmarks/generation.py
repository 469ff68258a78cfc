"""Rate and memory of `ddis generate` at 128 x 128, for every problem of the package.

    python benchmarks/generation.py

Each figure is of a process of its own with one thread per worker: wall time from the call to the finished file (start of the
workers, sampling, solving, checking, shards, merging, digest; not the start of Python), and the largest memory of the process
that merges. Time for 50,000 fields: that of the smaller count, and the rest at the rate of the fields between the two counts.
The load is the mean number of runnable processes in the last minute: where it is well above the number of workers, others took
processor time, and the CPU time tells what the work costs. Writes benchmarks/results/generation.json, and a table to stdout.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from ddis.text import pipe_table

RESULT = Path(__file__).parent / "results" / "generation.json"
RESOLUTION, COUNTS, WORKERS, ALL = 128, (512, 2048), (1, 2), 50_000
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


def measure(pde: str, count: int, workers: int) -> dict[str, Any]:
    """Generates `count` fields in this process and `workers`, and says how long it took."""
    from ddis.data.generate import Request, generate_file
    from ddis.provenance import peak_memory_mb

    request = Request(pde, {}, RESOLUTION, count, 0)
    before = peak_memory_mb()
    with tempfile.TemporaryDirectory() as folder:
        begin, cpu = time.perf_counter(), cpu_seconds()
        written = generate_file(Path(folder) / "x.h5", request, "benchmark", {}, workers)
        seconds, cpu = time.perf_counter() - begin, cpu_seconds() - cpu
    peak = {"peak_memory_mb": peak_memory_mb(), "memory_before_mb": before, "residual": written["residual"]}
    load = os.getloadavg()[0]
    return {"pde": pde, "count": count, "workers": workers, "seconds": seconds, "cpu_seconds": cpu, "load": load, **peak}


def cpu_seconds() -> float:
    """Processor time of this process and of its finished workers."""
    return sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


def measure_apart(pde: str, count: int, workers: int) -> dict[str, Any]:
    """`measure` in a new process."""
    command = [sys.executable, __file__, "--one", pde, str(count), str(workers)]
    done = subprocess.run(command, env=os.environ | ONE_THREAD, check=True, capture_output=True, text=True)
    row: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(f"{pde}, {count} fields, {workers} workers: {row['seconds']:.1f} s", file=sys.stderr)
    return row


def summary(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row per problem and number of workers, from those of the two counts."""
    result = []
    for small, large in zip(rows[::2], rows[1::2], strict=True):
        each, cpu = ((large[key] - small[key]) / (large["count"] - small["count"]) for key in ("seconds", "cpu_seconds"))
        figures = {
            "fields_per_second": 1 / each,
            "fields_per_cpu_second": 1 / cpu,
            "seconds_for_50000": small["seconds"] + (ALL - small["count"]) * each,
            "cpu_seconds_for_50000": small["cpu_seconds"] + (ALL - small["count"]) * cpu,
            "peak_memory_mb": [row["peak_memory_mb"] for row in (small, large)],
            "load": large["load"],
        }
        result.append({key: large[key] for key in ("pde", "workers", "residual")} | figures)
    return result


def markdown(rows: list[dict[str, Any]]) -> str:
    """The summary as a table."""
    head = ["problem", "workers", "fields/s", "fields per CPU second", "50,000 fields", "CPU time of 50,000", "load"]
    body = []
    for row in rows:
        small, large = row["peak_memory_mb"]
        times = (row[key] / 60 for key in ("seconds_for_50000", "cpu_seconds_for_50000"))
        rates = (row[key] for key in ("fields_per_second", "fields_per_cpu_second"))
        cells = [f"{rate:.0f}" for rate in rates] + [f"{minutes:.1f} min" for minutes in times] + [f"{row['load']:.1f}"]
        body.append([row["pde"], str(row["workers"]), *cells, f"{small:.0f} MiB", f"{large:.0f} MiB"])
    return pipe_table([*head, *(f"memory, {count} fields" for count in COUNTS)], body)


def main() -> None:
    from ddis.pde import PROBLEMS
    from ddis.provenance import collect

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--one", nargs=3, metavar=("PDE", "COUNT", "WORKERS"), help="a single measurement, as JSON")
    arguments = parser.parse_args()
    if arguments.one:
        pde, count, workers = arguments.one
        print(json.dumps(measure(pde, int(count), int(workers))))
        return
    rows = [measure_apart(pde, count, workers) for pde in PROBLEMS.builtin for workers in WORKERS for count in COUNTS]
    machine = {key: value for key, value in collect({}, None).items() if key in ("versions", "python", "device", "git_commit")}
    content = {
        "resolution": RESOLUTION,
        "threads_per_worker": 1,
        "cores": os.cpu_count(),
        **machine,
        "summary": summary(rows),
        "rows": rows,
    }
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    print(markdown(summary(rows)))


if __name__ == "__main__":
    main()
