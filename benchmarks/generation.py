"""Rate and memory of `ddis generate` at 128 x 128, for every problem of the package.

    python benchmarks/generation.py

Each figure is of a process of its own with one thread per worker: wall time from the call to the finished file (start of the
workers, sampling, solving, checking, shards, merging, digest; not the start of Python), and the largest memory of the process
that merges. Time for 50,000 fields: that of the smaller count, and the rest at the rate of the fields between the two counts.
Writes benchmarks/results/generation.json, and a table to stdout.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

RESULT = Path(__file__).parent / "results" / "generation.json"
RESOLUTION, COUNTS, WORKERS, ALL = 128, (512, 2048), (1, 2), 50_000
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


def measure(pde: str, count: int, workers: int) -> dict[str, Any]:
    """Generates `count` fields in this process and `workers`, and says how long it took."""
    from ddis.data.generate import Request, generate_file
    from ddis.provenance import peak_memory_mb

    request = Request(pde, {}, RESOLUTION, count, 0)
    before = peak_memory_mb()
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        begin = time.perf_counter()
        written = generate_file(Path(folder) / "x.h5", request, "benchmark", {}, workers)
        seconds = time.perf_counter() - begin
    peak = {"peak_memory_mb": peak_memory_mb(), "memory_before_mb": before, "residual": written["residual"]}
    return {"pde": pde, "count": count, "workers": workers, "seconds": seconds, "fields_per_second": count / seconds, **peak}


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
        each = (large["seconds"] - small["seconds"]) / (large["count"] - small["count"])
        all_seconds = small["seconds"] + (ALL - small["count"]) * each
        memory = [row["peak_memory_mb"] for row in (small, large)]
        kept = {key: large[key] for key in ("pde", "workers", "residual")}
        result.append({**kept, "fields_per_second": 1 / each, "seconds_for_50000": all_seconds, "peak_memory_mb": memory})
    return result


def markdown(rows: list[dict[str, Any]]) -> str:
    """The summary as a table."""
    memory = " | ".join(f"memory, {count} fields" for count in COUNTS)
    lines = [f"| problem | workers | fields per second | 50,000 fields | {memory} |", "|---" * 6 + "|"]
    for row in rows:
        small, large = row["peak_memory_mb"]
        lines.append(
            f"| {row['pde']} | {row['workers']} | {row['fields_per_second']:.0f} | {row['seconds_for_50000'] / 60:.1f} min "
            f"| {small:.0f} MiB | {large:.0f} MiB |"
        )
    return "\n".join(lines)


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
