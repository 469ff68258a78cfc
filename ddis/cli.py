"""`ddis`: one subcommand per stage of a study. Thin: it reads arguments, loads the configuration and calls the stage."""

import argparse
import json
import logging
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING

from ddis import __version__
from ddis.errors import InputError
from ddis.tracking import Terminated, install_sigterm_handler

if TYPE_CHECKING:
    from ddis.config import Study

# Idle threads that spin would slow down the stages beside this one.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

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
    command("generate", "generate one split of a dataset", "problem", "split")
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
    study = load_study(arguments)
    stage = import_module(f"ddis.stages.{arguments.command}")  # the others need not be imported
    what = {key: value for key, value in vars(arguments).items() if key not in ("command", "config", "settings")}
    stage.run(study, **what)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point. Exit status: 0, 2 (input that cannot be used), 130 (interrupted), 143 (terminated)."""
    arguments = build_parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    install_sigterm_handler()
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
