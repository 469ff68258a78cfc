"""The priors of the public interface.

`ddis.prior.gaussian(problem)`, `mixture(problem)`, `empirical(problem, coefficients)`, `load(folder)`.
"""

from pathlib import Path

from ddis.priors import Prior, empirical, gaussian, mixture
from ddis.trained import of_folder

__all__ = ["Prior", "empirical", "gaussian", "load", "mixture"]


def load(folder: Path | str, resolution: int | None = None) -> Prior:
    """The trained prior of a study's folder models/<problem>/{prior, joint-...}. Raises InputError.

    resolution: nodes per side, if others than the study's (see `ddis.trained.Trained.on`).
    """
    return of_folder(folder, resolution).as_prior()
