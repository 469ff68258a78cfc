"""The operators of the public interface: `ddis.operator.solver(problem)`, `black_box(function)`, `load(folder)`, `corrected`."""

from pathlib import Path

from ddis.operators import Operator, black_box, corrected, solver
from ddis.trained import of_folder

__all__ = ["Operator", "black_box", "corrected", "load", "solver"]


def load(folder: Path | str, resolution: int | None = None) -> Operator:
    """The trained operator of a study's folder models/<problem>/operator-<percent>. Raises InputError.

    resolution: nodes per side, if others than the study's (see `ddis.trained.Trained.on`).
    """
    return of_folder(folder, resolution).as_operator()
