"""A real study through a real Slurm: what jobs ask for and get, and what each kind of mishap leaves to be done.

The command that a user types after each mishap is the one of docs/clusters.md. A study is whole if all its files equal those of a
local run: weights byte by byte, samples array by array, and the table but for times and memory.
"""

import json
import os
import signal
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

import h5py
import pandas as pd
import pytest
from workplace import Workplace, end_of, wait_until

from ddis.data.store import read_pairs, read_samples
from ddis.errors import InputError
from ddis.models.checkpoint import load_tensors
from ddis.provenance import file_digest
from ddis.stages.owner import OWNER
from ddis.tracking import read_record

pytestmark = pytest.mark.cluster
# Columns of the table that say how long a run took and what it ran on.
MEASURED = ["seconds_per_field", "seconds_per_sample", "peak_memory_mb", "device"]
GPU_STAGES = ("train", "draw", "sample")


def digests(place: Workplace) -> dict[str, str]:
    """Digests of all results of a study, after reading every file against the digest that it carries."""
    found = {}
    for path in place.results.glob("data/**/*.h5"):
        found[path.name] = read_pairs(path).attributes["digest"]
    for path in place.results.glob("samples/**/*.h5"):
        found[path.name] = read_samples(path).attributes["digest"]
    for path in place.results.glob("models/**/*.safetensors"):
        load_tensors(path)
        found[f"{path.parent.name}.safetensors"] = file_digest(path)
    table = pd.read_csv(place.results / "tables" / "errors.csv").drop(columns=MEASURED)
    return found | {"errors.csv": table.to_csv(index=False)}


def assert_whole(place: Workplace, expected: Workplace) -> None:
    assert digests(place) == digests(expected)
    assert (place.results / "report.html").exists()
    leftovers = [path for path in place.results.rglob("*") if path.is_file() and (path.suffix == ".tmp" or "work" in path.parts)]
    assert not leftovers
    assert "Nothing to be done" in place.run("--dry-run").stdout


def attempts(place: Workplace, stage: str) -> list[dict[str, Any]]:
    """Begin, end, tags and status of each attempt at a stage, from its local record."""
    lines = read_record(place.results / "tracking" / f"{stage}.jsonl")
    found: dict[str, dict[str, Any]] = {}
    for line in lines:
        key = line["id"].rpartition("-")[0]
        if line["kind"] == "start":
            found[key] = {"begin": line["time"], "tags": line["tags"], "end": line["time"], "status": "RUNNING"}
        if line["kind"] == "end":
            found[key] |= {"end": line["time"], "status": line["status"]}
    return list(found.values())


def stages(place: Workplace) -> dict[str, dict[str, Any]]:
    """The only attempt at each stage, by the stage's name."""
    folder = place.results / "tracking"
    names = [path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.jsonl")]
    found = {name: attempts(place, name) for name in names}
    assert all(len(tries) == 1 for tries in found.values())
    return {name: tries[0] for name, tries in found.items()}


def test_files_equal_those_of_a_local_run(finished: Workplace, local: Workplace) -> None:
    assert_whole(finished, local)


def test_jobs_that_overlap_see_different_gpus_and_other_jobs_see_none(finished: Workplace) -> None:
    found = stages(finished)
    seen = {name: attempt["tags"].get("cuda_visible_devices") for name, attempt in found.items()}
    assert {name for name, devices in seen.items() if devices is not None} == {
        name for name in found if name.startswith(GPU_STAGES)
    }
    on_gpu = [(name, found[name]) for name, devices in seen.items() if devices is not None]
    together = [
        (first, second)
        for first, a in on_gpu
        for second, b in on_gpu
        if first < second and a["begin"] < b["end"] and b["begin"] < a["end"]
    ]
    assert together
    assert all(seen[first] != seen[second] for first, second in together)
    assert set(seen.values()) == {None, "0", "1"}


def test_provenance_beside_the_results_names_gpu_and_job(finished: Workplace) -> None:
    record = json.loads((finished.results / "models" / "poisson" / "prior" / "model.json").read_text())["provenance"]
    assert record["cuda_visible_devices"] in ("0", "1") and record["slurm_job"].isdigit()


def test_jobs_ask_for_what_their_stage_needs(finished: Workplace) -> None:
    columns = "Comment:200,tres-per-job:40,MinMemory:20,TimeLimit:20,NumCPUs:10"
    lines = [line.split() for line in finished.slurm.command("squeue", "--noheader", "--states=all", "-O", columns).splitlines()]
    asked = {comment.removeprefix("rule_").partition("_wildcards")[0]: rest for comment, *rest in lines}
    assert {"generate", "train_prior", "train_on_pairs", "draw", "sample", "tables", "figures"} <= set(asked)
    assert not {"pairs", "report"} & set(asked)
    for rule, (gpus, memory, limit, processors) in asked.items():
        assert ("gpu:1" in gpus) == rule.startswith(GPU_STAGES), (rule, gpus)
        assert 2000 < int(memory.removesuffix("M")) < 8000 and processors == "1", (rule, memory, processors)
        assert 10 < int(limit.partition(":")[0]) < 30, (rule, limit)


def fails(snakemake: subprocess.Popen[str], place: Workplace, job: str, state: str) -> None:
    """Waits until Snakemake ends because of the prior's training; notes the step of its checkpoint, which is whole."""
    done = end_of(snakemake)
    assert done.returncode != 0 and "Error in rule train_prior" in done.stdout and f"{job}.log" in done.stdout, done.stdout[
        -5000:
    ]
    assert place.slurm.command("squeue", "--noheader", "--states=all", "--format=%T", f"--jobs={job}").strip() == state
    [checkpoint] = place.checkpoints()
    place.steps_done.append(load_tensors(checkpoint)[1]["progress"]["step"])
    assert not (place.results / "models" / "poisson" / "prior" / "weights.safetensors").exists()


def test_a_failed_job(troubled: Workplace) -> None:
    """The training is killed, as it would be for want of memory."""
    snakemake = troubled.start()
    troubled.wait_for_checkpoint()
    job = troubled.job_of_prior()
    os.kill(troubled.process_of_prior(), signal.SIGKILL)
    fails(snakemake, troubled, job, "FAILED")


def test_then_a_cancelled_job(troubled: Workplace) -> None:
    snakemake = troubled.start()
    troubled.wait_for_checkpoint()
    job = troubled.job_of_prior()
    troubled.slurm.command("scancel", job)
    fails(snakemake, troubled, job, "CANCELLED")


@pytest.mark.parametrize(("warned", "state"), [(True, "FAILED"), (False, "TIMEOUT")], ids=["warned", "not-warned"])
def test_then_a_job_that_runs_out_of_time(troubled: Workplace, warned: bool, state: str) -> None:
    """The limit is lowered once the training is under way, and halted: until Slurm's warning has come, or for good."""
    snakemake = troubled.start(*([] if warned else ["--set-resources", "train_prior:slurm_extra='--nice=0'"]))
    troubled.wait_for_checkpoint()
    process, job = troubled.process_of_prior(), troubled.job_of_prior()
    os.kill(process, signal.SIGSTOP)
    limit = troubled.slurm.minutes_of(job) + (2 if warned else 1)
    troubled.slurm.command("scontrol", "update", f"JobId={job}", f"TimeLimit={limit}")
    if warned:
        wait_until(lambda: not sleeps_on(process), "Slurm warns the training")
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGCONT)
    fails(snakemake, troubled, job, state)


def sleeps_on(process: int) -> bool:
    """Whether a process is halted, and no SIGTERM waits for it. Slurm may wake it with the signal, or not."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return False
    found = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    return found["State"].startswith("T") and not int(found["ShdPnd"], 16) >> (signal.SIGTERM - 1) & 1


def test_then_the_same_command_ends_the_study(troubled: Workplace, local: Workplace) -> None:
    again = troubled.run()
    assert again.returncode == 0, again.stdout[-5000:]
    assert_whole(troubled, local)
    status = [attempt["status"] for attempt in attempts(troubled, "train/poisson/prior")]
    # The first is that of the finished study; a process that was killed with -9 says nothing more.
    assert [*status[:4], status[5]] == ["FINISHED", "RUNNING", "KILLED", "KILLED", "FINISHED"]
    assert status[4] in ("RUNNING", "KILLED")  # as Slurm wakes it at the limit, or not
    # Each attempt went on where the one before it had stopped.
    assert len(troubled.steps_done) == 4 and troubled.steps_done == sorted(set(troubled.steps_done))


def kill_snakemake(place: Workplace) -> str:
    """Kills Snakemake with -9 while the prior is in training; returns the id of the job that is left, halted for the moment."""
    snakemake = place.start()
    place.wait_for_checkpoint()
    job = place.job_of_prior()
    os.kill(place.process_of_prior(), signal.SIGSTOP)  # or it might be ready before Snakemake is back
    snakemake.kill()
    snakemake.communicate()
    assert job in place.slurm.jobs("R")
    return job


def test_after_kill_9_the_same_command_cancels_what_is_left_and_goes_on(interrupted: Workplace, local: Workplace) -> None:
    job = kill_snakemake(interrupted)
    again = interrupted.run()
    assert again.returncode == 0, again.stdout[-5000:]
    assert f"Cancelling Slurm jobs of an earlier Snakemake: {job}" in again.stdout
    assert_whole(interrupted, local)


def test_an_orphan_that_is_writing_ends_when_its_work_is_taken_over(interrupted: Workplace, local: Workplace) -> None:
    """As if Snakemake were started again on another login node, where it cannot know that the first one is dead."""
    job = kill_snakemake(interrupted)
    state = interrupted.folder / ".snakemake"
    owner = interrupted.results / OWNER
    owner.write_text("elsewhere 1\n")
    (state / "cluster.slurm").unlink()
    refused = interrupted.run()
    assert refused.returncode != 0 and f"rm results/cluster/{OWNER}" in refused.stdout
    owner.unlink()
    orphan = interrupted.process_of_prior()
    snakemake = interrupted.start()
    wait_until(lambda: interrupted.process_of_prior() != orphan, "the second training has begun")
    assert job in interrupted.slurm.jobs("R")
    os.kill(orphan, signal.SIGCONT)
    again = end_of(snakemake)
    assert again.returncode == 0, again.stdout[-5000:]
    wait_until(lambda: not interrupted.slurm.jobs(), "the orphan has ended")
    assert_whole(interrupted, local)
    [log] = interrupted.folder.glob(f".snakemake/slurm_logs/**/{job}.log")
    assert "has taken this work over; this one ends" in log.read_text()


def test_a_changed_byte_is_found(finished: Workplace) -> None:
    """Negative control of `digests`."""
    path = next(finished.results.glob("samples/**/exact-100.h5"))
    content = path.read_bytes()
    with h5py.File(path) as file:
        place = file["coefficient"].id.get_offset()
    try:
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        with pytest.raises(InputError, match="is damaged"):
            digests(finished)
    finally:
        path.write_bytes(content)
