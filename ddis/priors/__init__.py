"""Priors of the coefficient."""

from ddis.priors.base import Prior
from ddis.priors.gaussian import empirical, gaussian
from ddis.priors.mixture import mixture

__all__ = ["Prior", "empirical", "gaussian", "mixture"]
