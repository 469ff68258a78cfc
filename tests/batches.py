"""Batches of chains for the tests of samplers: made by `Posterior`, like all others."""

from typing import Any

from ddis.operators.base import Operator
from ddis.pde.base import Problem
from ddis.posterior import Posterior
from ddis.priors import Prior
from ddis.sampling.base import Batch, Method, State
from ddis.sampling.methods import load_method, run_settings


def method_of(name: str, **settings: Any) -> Method:
    return load_method(name)(run_settings(name, settings))


def make_batch(
    problem: Problem, prior: Prior, operator: Operator | None, sensors, values, generators, fields=slice(None)
) -> Batch:
    """Chains of some of the fields [n, m] of values, in physical units; the operator's error in R, if it has one."""
    posterior = Posterior(problem, prior, operator, sensors, values)
    return posterior.batch(method_of("ddis-gn"), fields, generators)


def last_state(batch: Batch, name: str, **settings: Any) -> State:
    """The end of a method's chains."""
    method = method_of(name, **settings)
    *_, last = method.sample(batch, method.prepare(batch))
    return last
