"""Which way leads to the reference posterior of a problem."""

from typing import Literal

from ddis.pde.base import Problem

Kind = Literal["closed-form", "mixture", "mcmc", "kernel", "imported"]


def kind_of(problem: Problem, likelihood: str) -> Kind | None:
    """closed-form and mixture: independent draws; mcmc: chains, with independent Gaussian errors; kernel: with mean-absolute,
    independent draws where there is a closed form of the other, else chains.

    None: the coefficient is no known map of a Gaussian field.
    """
    latent = problem.latent_spectrum(problem.minimum_resolution) is not None
    if likelihood != "gaussian":
        return "kernel" if latent or problem.has_closed_form else None
    if problem.has_closed_form:
        return "closed-form" if problem.is_gaussian else "mixture"
    return "mcmc" if latent else None
