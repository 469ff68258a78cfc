"""Priors of the coefficient. `ddis.prior.gaussian(problem)` and so on make them in Python."""

from pathlib import Path

from ddis.priors.base import Prior
from ddis.priors.gaussian import empirical, gaussian
from ddis.priors.mixture import mixture

__all__ = ["Prior", "empirical", "gaussian", "load", "mixture"]


def load(folder: Path | str) -> Prior:
    """The trained prior of a study's folder models/<problem>/{prior, joint-...}. Raises InputError."""
    from ddis.stages.networks import load_prior  # the configuration of the study says what it is a network of

    return load_prior(Path(folder))
