"""The command line of `ddis`: one subcommand per stage, its options and their help. Imports nothing of the package."""

import argparse
from pathlib import Path
from typing import Any, TypeAlias

from ddis import __version__

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"

EPILOG = """Snakemake calls these commands: `snakemake --cores all` runs the default study. Each can be run by hand, for example
  ddis train --config results/quickstart/config.yaml --problem poisson --model operator-100
and, like every stage, goes on where it was interrupted.

Exit status: 0 done, 1 `verify` found something (or a bug), 2 input that cannot be used, 130 interrupted by Ctrl-C, 143 by
SIGTERM. After the last two the same command goes on. A training ends after the step that is under way and writes its checkpoint
first; a second Ctrl-C or SIGTERM, more than two seconds later, ends it at once."""

TRAIN_HELP = """Train a prior, a joint prior, a flow or an operator. On several GPUs of one machine, one process each:
  torchrun --standalone --nproc-per-node 4 -m ddis train --config C --problem P --model M
Each batch is divided among the processes; any number of them goes on from a checkpoint."""

GENERATE_HELP = """one split of a dataset. Two forms:
  ddis generate --config C --problem P --split S                           of a study
  ddis generate --pde P --resolution S --count N --seed K --output FILE.h5  outside one"""

SOLVE_HELP = """The posterior of the coefficient, given your own observations of the solution, with the networks of a finished
study: samples, mean and standard deviation (OUT.h5) and a picture (OUT.png). See docs/solve.md."""

VERIFY_HELP = """Says which files of a study are missing, damaged, stale or unknown, and what to type; exit status 1 if there are
any, else 0. See docs/clusters.md."""

RUNS_HELP = """what MLflow shows of the stages. It is at MLFLOW_TRACKING_URI, by default ./mlflow.db; run this in the folder of
results/."""
SYNC_HELP = """send to MLflow what it lacks of the records that stages write (results/STUDY/tracking/): parameters, metrics, tags,
files, networks, status and times, exactly once, however often this is called or killed. Snakemake has it at work beside its jobs;
by hand it is needed when MLflow was down, switched off (DDIS_TRACKING=off), lost its database, or when results/ was copied."""


class Once(argparse.Action):
    """Stores the value of an option that may be given once: the last of two would win without a word."""

    given = False

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, _: Any = None) -> None:
        if self.given and self.option_strings:
            parser.error(f"argument {self.option_strings[0]}: given twice; accepted: once")
        self.given = True
        setattr(namespace, self.dest, values)


class Parser(argparse.ArgumentParser):
    """Takes no option twice, unless it is declared as repeatable."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.register("action", None, Once)


def build_parser() -> argparse.ArgumentParser:
    """The command line, one subparser per stage."""
    parser: argparse.ArgumentParser = Parser(
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
            "model": "prior, joint-<percent>, joint-white-<percent>, flow-<percent>, operator-<percent>, operator-NAME-<percent>",
            "observation": "name of an observation of the study",
            "run": "name of a run of the study",
            "shard": "0 to `shards` - 1 of the configuration",
        }
        for option in options:
            sub.add_argument(f"--{option}", required=True, help=helps[option])
        return sub

    study = command("study", "check a configuration, write it with all defaults to results/<study>/config.yaml")
    study.add_argument("--settings", metavar="JSON", help="the configuration as JSON, in place of --config")
    _add_generate(commands)
    _add_import(commands)
    _add_solve(commands)
    command("card", "write the card of a dataset", "problem")
    command("pairs", "choose the paired fields at a percent", "problem", "percent")
    train = command("train", "train a prior, a joint prior, a flow or an operator", "problem", "model")
    train.description, train.formatter_class = TRAIN_HELP, argparse.RawDescriptionHelpFormatter
    command("sample", "draw the posterior samples of a run", "problem", "observation", "run", "percent")
    command("draw", "draw one shard of a run, for `sample` to gather", "problem", "observation", "run", "percent", "shard")
    export = command("export", "write a run's samples for a benchmark's evaluation", "problem", "observation", "run", "percent")
    export.add_argument("--format", required=True, choices=["posteriorbench"], help="whose evaluation is to read them")
    export.add_argument("--output", required=True, type=Path, metavar="DIR", help="a folder for each test field is made in it")
    command("reference", "reference posteriors of test fields, in closed form or by Markov chains", "problem", "observation")
    command("tune", "validation error of a run against its weight", "problem", "observation", "run", "percent")
    command("check", "calibration and coverage of a run on held-out fields", "problem", "observation", "run", "percent")
    command("tables", "write the tables of errors from the sample files")
    command("figures", "draw the figures from the sample files")
    command("tuning", "draw the curves of `tune`")
    command("guidance", "norms of the guidance of joint and decoupled models, by share of the pairs", "problem")
    command("report", "write the report, one page")
    command("paper", "write the paper's tables and figures, one page, from the tables and sample files")
    command("cost", "estimate parameters, memory and hours of a study on this device")
    command("schema", "print the JSON schema of the configuration")
    _add_runs(commands)
    verify = commands.add_parser("verify", help="check every file of a study against its records", description=VERIFY_HELP)
    verify.add_argument("study", metavar="STUDY", help="its name, or its folder")
    return parser


def _add_generate(commands: Commands) -> None:
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


def _add_import(commands: Commands) -> None:
    text = "read pairs from .mat, .h5, .npz or .npy files, check them, and write one dataset; see docs/data.md"
    sub = commands.add_parser("import", help="take over pairs from files", description=text)
    _add_problem(sub, required=True)
    sub.add_argument("--start", type=int, default=0, help="leave out so many fields at the beginning (0)")
    sub.add_argument("--count", type=int, help="number of fields (all)")
    sub.add_argument(
        "--format", choices=["posteriorbench"], help="INPUT is the folder of its cases; writes their sensors and references too"
    )
    sub.add_argument("inputs", nargs="+", metavar="INPUT", help="files, one after the other; .npy: coefficient, then solution")


def _add_solve(commands: Commands) -> None:
    sub = commands.add_parser("solve", help="the posterior of your own observations", description=SOLVE_HELP)
    sub.add_argument("--model", required=True, type=Path, metavar="DIR", help="results/<study>/models/<problem>")
    sub.add_argument("--percent", required=True, help="percent of the pairs, as in file names (1, 12.5, 100)")
    columns = "CSV with columns x, y, value, and optionally noise (standard deviation), of (solution or coefficient) and channel"
    sub.add_argument("--observations", required=True, type=Path, metavar="FILE.csv", help=columns)
    sub.add_argument("--samples", type=int, default=8, metavar="K", help="posterior samples, 2 or more (8)")
    sub.add_argument("--output", required=True, type=Path, metavar="OUT.h5", help="the file to write, and OUT.png beside it")
    sub.add_argument("--method", default="ddis-gn", help="a run of the study, or a method (ddis-gn)")
    sub.add_argument("--seed", type=int, default=0, help="of the samples, 0 or more (0)")
    sub.add_argument("--force", action="store_true", help="write over files that are there")


def _add_problem(sub: argparse.ArgumentParser, required: bool) -> None:
    sub.add_argument("--pde", required=required, help="a problem's name, or module:Class of your own")
    sub.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a parameter of the problem; repeatable")
    sub.add_argument("--output", required=required, metavar="FILE.h5", help="the file to write")


def _add_runs(commands: Commands) -> None:
    runs = commands.add_parser("runs", help="send what stages recorded to MLflow", description=RUNS_HELP)
    actions = runs.add_subparsers(dest="action", required=True, metavar="ACTION")
    sync = actions.add_parser("sync", help="send what MLflow lacks", description=SYNC_HELP)
    sync.add_argument("study", nargs="?", metavar="STUDY", help="name of a study (all)")
    sync.add_argument("--follow", action="store_true", help="go on with a STUDY until standard input ends (Ctrl-D)")
