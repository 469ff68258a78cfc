import platform
from base64 import urlsafe_b64decode
from pathlib import Path

STATE = Path(".snakemake")
OWNER = STATE / f"{study.study}.owner"


def is_running(owner):
    """Whether the process `node pid` may still run; processes of other machines count as running."""
    node, pid = owner.split()
    if node != platform.node():
        return True
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        return True
    return True


def clear_after_kill():
    """After kill -9 of Snakemake, removes its lock and the outputs it had marked as unfinished: the same command goes on.

    `OWNER` names the process that last worked on this study.
    """
    if not OWNER.exists() or is_running(OWNER.read_text()):
        return
    for lock in (STATE / "locks").glob("*.lock"):
        if f"results/{study.study}/" in lock.read_text():
            lock.unlink()
    marks = STATE / "incomplete"
    for mark in [path for path in marks.rglob("*") if path.is_file()]:
        # The name of a mark is the output's path, in base64; a long one is cut into folders that begin with @.
        name = "".join(part.removeprefix("@") for part in mark.relative_to(marks).parts)
        output = Path(urlsafe_b64decode(name).decode())
        if output.is_relative_to(study.folder):
            output.unlink(missing_ok=True)
            mark.unlink()
    OWNER.unlink()


clear_after_kill()
