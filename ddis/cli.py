"""`ddis`: one subcommand per stage of a study. Thin: it reads arguments, loads the configuration and calls the stage."""

import argparse
import atexit
import gc
import io
import json
import logging
import os
import select
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from ddis.commands import build_parser
from ddis.errors import InputError, printable
from ddis.reading import system_reason
from ddis.signals import Stopped, Terminated, install_sigterm_handler

if TYPE_CHECKING:
    from ddis.config import Study

# Idle threads that spin would slow down the stages beside this one.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
# Without it, matrix products on a GPU may differ from run to run.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
# Stages know the CPU and CUDA; torch need not search all installed packages for other devices.
os.environ.setdefault("TORCH_DEVICE_BACKEND_AUTOLOAD", "0")


@contextmanager
def _importing() -> Iterator[None]:
    """What is imported inside the block stays to the end: it is not searched for garbage, then or later."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def _solve(arguments: argparse.Namespace) -> None:
    from ddis.stages import solve

    solve.run_file(**{name: value for name, value in vars(arguments).items() if name != "command"})


def _runs(arguments: argparse.Namespace) -> None:
    from ddis.tracking.sync import follow, sync

    if not arguments.follow:
        sync(arguments.study)
    elif arguments.study is None:
        raise InputError("--follow needs the name of a STUDY")
    else:
        follow(arguments.study)


def _generate(arguments: argparse.Namespace) -> None:
    """`ddis generate` in either of its forms. Raises InputError for a mixture of both."""
    with _importing():
        from ddis.stages import generate

    given = {key for key, value in vars(arguments).items() if value not in (None, [])} - {"command", "split"}
    forms = {"study": {"config", "problem"}, "file": {"pde", "resolution", "count", "output"}}
    if given == forms["study"] and arguments.split is not None:
        generate.run(load_study(arguments), arguments.problem, arguments.split)
        return
    if not forms["file"] <= given <= forms["file"] | {"seed", "set", "workers"}:
        raise InputError(
            "give either --config, --problem and --split, or --pde, --resolution, --count and --output "
            "(with --seed, --split, --set, --workers)"
        )
    from ddis.data.generate import Request
    from ddis.yaml_text import parse_assignments

    split, seed, workers = arguments.split or "train", arguments.seed or 0, 1 if arguments.workers is None else arguments.workers
    if workers < 1:
        raise InputError(f"--workers {workers}; accepted: 1 or more")
    parameters = parse_assignments(arguments.set, "--set")
    request = Request(arguments.pde, parameters, arguments.resolution, arguments.count, seed, split)
    generate.run_file(request, Path(arguments.output), workers)


def _import(arguments: argparse.Namespace) -> None:
    from ddis.stages import import_
    from ddis.yaml_text import parse_assignments

    parameters, inputs = parse_assignments(arguments.set, "--set"), [Path(name) for name in arguments.inputs]
    run = import_.run_file if arguments.format is None else import_.run_cases
    run(arguments.pde, parameters, inputs, Path(arguments.output), arguments.start, arguments.count)


def _schema(arguments: argparse.Namespace) -> None:
    from ddis.schema import json_schema

    print(json.dumps(json_schema(), indent=2))


def _verify(arguments: argparse.Namespace) -> None:
    from ddis.stages import verify

    sys.exit(0 if verify.run(arguments.study) else 1)


def load_study(arguments: argparse.Namespace) -> "Study":
    """The study of --config, or of --settings. Raises InputError."""
    from ddis.config import Study
    from ddis.yaml_text import parse_json

    settings = getattr(arguments, "settings", None)
    if (settings is None) == (arguments.config is None):
        raise InputError("give either --config FILE or --settings JSON")
    if settings is None:
        return Study.load(arguments.config)
    return Study.load(parse_json(settings, "--settings"))


def dispatch(arguments: argparse.Namespace) -> None:
    """Runs the stage that the arguments name."""
    by_hand = {"generate": _generate, "import": _import, "runs": _runs, "schema": _schema, "solve": _solve, "verify": _verify}
    if arguments.command in by_hand:
        by_hand[arguments.command](arguments)
        return
    with _importing():
        study = load_study(arguments)
        stage = import_module(f"ddis.stages.{arguments.command}")  # the others need not be imported
    what = {key: value for key, value in vars(arguments).items() if key not in ("command", "config", "settings")}
    stage.run(study, **what)


def _deliver_again(lost: "sys.UnraisableHookArgs") -> None:
    """Sends a signal once more if its exception was raised in a callback, where Python drops it: h5py runs many of them."""
    if not issubclass(lost.exc_type, KeyboardInterrupt | Terminated):
        sys.__unraisablehook__(lost)
        return
    number = signal.SIGINT if issubclass(lost.exc_type, KeyboardInterrupt) else signal.SIGTERM
    if number == signal.SIGTERM:
        install_sigterm_handler()  # it ignores all but the first
    timer = threading.Timer(0.05, os.kill, (os.getpid(), number))
    timer.daemon = True
    timer.start()


def _reader_has_gone() -> bool:
    """Whether standard output is a pipe that nobody reads any more, as in `ddis schema | head`."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status, see EPILOG."""
    arguments = build_parser().parse_args(argv)
    first = os.environ.get("RANK", "0") == "0"  # torchrun numbers its processes
    logging.basicConfig(level=logging.INFO if first else logging.ERROR, format="%(message)s", stream=sys.stderr)
    atexit.register(gc.freeze)  # or all that torch is made of is searched for garbage: a quarter of the time of its import
    install_sigterm_handler()
    sys.unraisablehook = _deliver_again
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal that cannot show a name shows its codes
    try:
        dispatch(arguments)
        print(end="", flush=True)
    except BrokenPipeError:
        if not _reader_has_gone():
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more at its end
        return 128 + signal.SIGPIPE
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:  # what the system says of a file that a user named; one that is not there may be a bug
        if error.filename is None or isinstance(error, FileNotFoundError):
            raise
        print(f"error: {printable(error.filename)}: {system_reason(error)}", file=sys.stderr)
        return 2
    except (MemoryError, RuntimeError) as error:  # of torch on a GPU: a RuntimeError that is named so
        if not isinstance(error, MemoryError) and type(error).__name__ != "OutOfMemoryError":
            raise
        print(f"error: out of memory: {printable(error)}; smaller batches (`batch`) or fewer nodes need less", file=sys.stderr)
        return 2
    except Stopped as reason:
        if first:
            print(f"{reason}; the same command goes on where this one stopped", file=sys.stderr)
        return 128 + reason.number
    except KeyboardInterrupt:
        print("interrupted; the same command goes on where this one stopped", file=sys.stderr)
        return 130
    except Terminated:
        print("terminated; the same command goes on where this one stopped", file=sys.stderr)
        return 143
    return 0


if __name__ == "__main__":
    sys.exit(main())
