"""`ddis`: one subcommand per stage of a study. Thin: it reads arguments, loads the configuration and calls the stage."""

import argparse
import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ddis import __version__
from ddis.errors import InputError
from ddis.tracking import Terminated, install_sigterm_handler

if TYPE_CHECKING:
    from ddis.config import Study

# Idle threads that spin would slow down the stages beside this one.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
# Without it, matrix products on a GPU may differ from run to run.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

EPILOG = """Snakemake calls these commands: `snakemake --cores all` runs the default study. Each can be run by hand, for example
  ddis train --config results/quickstart/config.yaml --problem poisson --model operator-100
and, like every stage, goes on where it was interrupted."""


def build_parser() -> argparse.ArgumentParser:
    """The command line, one subparser per stage."""
    parser = argparse.ArgumentParser(
        "ddis",
        description="Decoupled diffusion inverse solver: the stages of a study.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, text: str, *options: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text)
        if name != "schema":
            sub.add_argument("--config", metavar="FILE", help="configuration of the study (YAML)", required=name != "study")
        helps = {
            "problem": "name of a problem of the study",
            "split": "train, validation or test",
            "percent": "percent of the pairs, as in file names (1, 12.5, 100)",
            "model": "prior, joint-<percent> or operator-<percent>",
            "observation": "name of an observation of the study",
            "run": "name of a run of the study",
        }
        for option in options:
            sub.add_argument(f"--{option}", required=True, help=helps[option])
        return sub

    study = command("study", "check a configuration, write it with all defaults to results/<study>/config.yaml")
    study.add_argument("--settings", metavar="JSON", help="the configuration as JSON, in place of --config")
    _add_generate(commands)
    _add_import(commands)
    command("card", "write the card of a dataset", "problem")
    command("pairs", "choose the paired fields at a percent", "problem", "percent")
    command("train", "train a prior, a joint prior or an operator", "problem", "model")
    command("sample", "draw the posterior samples of a run", "problem", "observation", "run", "percent")
    command("tune", "validation error of a run against its weight", "problem", "observation", "run", "percent")
    command("tables", "write the tables of errors from the sample files")
    command("figures", "draw the figures from the sample files")
    command("tuning", "draw the curves of `tune`")
    command("report", "write the report, one page")
    command("schema", "print the JSON schema of the configuration")
    return parser


GENERATE_HELP = """one split of a dataset. Two forms:
  ddis generate --config C --problem P --split S                           of a study
  ddis generate --pde P --resolution S --count N --seed K --output FILE.h5  outside one"""


def _add_generate(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    raw = argparse.RawDescriptionHelpFormatter
    sub = commands.add_parser("generate", help="generate one split of a dataset", description=GENERATE_HELP, formatter_class=raw)
    sub.add_argument("--config", metavar="FILE", help="configuration of the study (YAML)")
    sub.add_argument("--problem", help="name of a problem of the study")
    sub.add_argument("--split", help="train, validation or test; splits share no field (outside a study: train)")
    _add_problem(sub, required=False)
    sub.add_argument("--resolution", type=int, help="nodes per side")
    sub.add_argument("--count", type=int, help="number of fields")
    sub.add_argument("--seed", type=int, help="0 or more (0); a field depends on seed, split and its number alone")
    sub.add_argument("--workers", type=int, help="processes, each with one thread (1); the result does not depend on it")


def _add_import(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    text = "read pairs from .mat, .h5, .npz or .npy files, check them, and write one dataset; see docs/data.md"
    sub = commands.add_parser("import", help="take over pairs from files", description=text)
    _add_problem(sub, required=True)
    sub.add_argument("--start", type=int, default=0, help="leave out so many fields at the beginning (0)")
    sub.add_argument("--count", type=int, help="number of fields (all)")
    sub.add_argument("inputs", nargs="+", metavar="INPUT", help="files, one after the other; .npy: coefficient, then solution")


def _add_problem(sub: argparse.ArgumentParser, required: bool) -> None:
    sub.add_argument("--pde", required=required, help="a problem's name, or module:Class of your own")
    sub.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a parameter of the problem; repeatable")
    sub.add_argument("--output", required=required, metavar="FILE.h5", help="the file to write")


def _generate(arguments: argparse.Namespace) -> None:
    """`ddis generate` in either of its forms. Raises InputError for a mixture of both."""
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

    split, seed, workers = arguments.split or "train", arguments.seed or 0, 1 if arguments.workers is None else arguments.workers
    if workers < 1:
        raise InputError(f"--workers {workers}; accepted: 1 or more")
    parameters = parse_settings(arguments.set)
    request = Request(arguments.pde, parameters, arguments.resolution, arguments.count, seed, split)
    generate.run_file(request, Path(arguments.output), workers)


def _import(arguments: argparse.Namespace) -> None:
    from ddis.stages import import_

    parameters, inputs = parse_settings(arguments.set), [Path(name) for name in arguments.inputs]
    import_.run_file(arguments.pde, parameters, inputs, Path(arguments.output), arguments.start, arguments.count)


def parse_settings(items: Sequence[str]) -> dict[str, Any]:
    """{key: value} of `KEY=VALUE` items; values are read as in YAML. Raises InputError."""
    import yaml

    settings: dict[str, Any] = {}
    for item in items:
        key, equals, text = item.partition("=")
        if not equals or not key or key in settings:
            raise InputError(f"--set {item}: accepted: KEY=VALUE, each key once")
        try:
            settings[key] = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise InputError(f"--set {item}: {text!r} cannot be read as a value") from error
    return settings


def load_study(arguments: argparse.Namespace) -> "Study":
    """The study of --config, or of --settings. Raises InputError."""
    from ddis.config import Study

    settings = getattr(arguments, "settings", None)
    if (settings is None) == (arguments.config is None):
        raise InputError("give either --config FILE or --settings JSON")
    if settings is None:
        return Study.load(arguments.config)
    try:
        return Study.load(json.loads(settings))
    except json.JSONDecodeError as error:
        raise InputError(f"--settings is not JSON: {error}") from error


def dispatch(arguments: argparse.Namespace) -> None:
    """Runs the stage that the arguments name."""
    if arguments.command == "schema":
        from ddis.config import json_schema

        print(json.dumps(json_schema(), indent=2))
        return
    if arguments.command in ("generate", "import"):
        {"generate": _generate, "import": _import}[arguments.command](arguments)
        return
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


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point. Exit status: 0, 2 (input that cannot be used), 130 (interrupted), 143 (terminated)."""
    arguments = build_parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    install_sigterm_handler()
    sys.unraisablehook = _deliver_again
    try:
        dispatch(arguments)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; the same command goes on where this one stopped", file=sys.stderr)
        return 130
    except Terminated:
        print("terminated; the same command goes on where this one stopped", file=sys.stderr)
        return 143
    return 0


if __name__ == "__main__":
    sys.exit(main())
