import platform
from pathlib import Path

# Stages rename complete files into place: what an interrupted run left may simply be made again.
workflow.dag_settings.force_incomplete = True

OWNER = Path(".snakemake") / f"{study.study}.owner"


def is_running(owner):
    """Whether the process `node pid` may still run; processes of other machines count as running."""
    node, pid = owner.split()
    if node != platform.node():
        return True
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    return True


def release_lock():
    """Removes the lock of this study if the Snakemake that took it was killed; `OWNER` names that process."""
    if OWNER.exists() and not is_running(OWNER.read_text()):
        for lock in Path(".snakemake", "locks").glob("*.lock"):
            if f"results/{study.study}/" in lock.read_text():
                lock.unlink()
        OWNER.unlink()


release_lock()
