"""Markov chains that draw from the posterior of a latent Gaussian field, and say whether they have.

Chains start from prior draws. In the burn-in the likelihood is raised to a power β that grows from 0 to 1, in steps of one over
the standard deviation of Φ among the chains, so that they can follow; the proposal is fitted again and again to what they have
visited (`ddis.references.proposal`), and the step size tuned to an acceptance of a quarter. Then all is fixed, and steps

    z' = μ + (1 - b²)^½ (z - μ) + b L ξ,   ξ ~ N(0, I),   accepted with min(1, e^(Ψ(z) - Ψ(z'))),   Ψ = Φ + log N(μ, Σ) / N(0, I)

leave the posterior invariant. At b = 1 they are independent proposals; with μ = 0, Σ = I preconditioned Crank-Nicolson. Where
the coefficient has jumps (`Problem.jumps`) each step is proposed by a walk of a learnt model, at whose end alone the problem is
solved (`ddis.references.surrogate`): after a quarter of the burn-in, and fitted to what was proposed since then. A field's
chains end when they have converged (`ddis.references.diagnostics`), or with the budget.

All chains of all fields move together, in batches through the problem's solver. A field's random numbers depend on (seed, its
number, step) alone. A state holds all that the next step needs, as tensors.

Where z and -z explain the observations equally (`Latent.even`), chains would have to cross between modes that may be far apart,
and one Gaussian would have to propose for both. They need not: a change of sign leaves the posterior invariant. In the burn-in
the chains are turned to the side of the first; of the draws that are kept every other is turned back, and the mean is 0.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ddis.observe.base import node_functions
from ddis.randomness import generator, torch_generator
from ddis.references.diagnostics import Diagnosis, diagnose
from ddis.references.latent import Latent
from ddis.references.proposal import Proposal, fitted
from ddis.references.surrogate import Surrogate, walk

LEADING_MODES = 256  # that a proposal adapts to
ACCEPTANCE, GAIN, FIRST_STEP = 0.25, 0.1, 0.3
ADAPT_EVERY, RECORD_EVERY = 10, 4  # steps
CHECK_EVERY, CHECK_WALKS = 1000, 250  # steps that are walks cost more
HISTORY = 128  # recorded states of every chain that a proposal is fitted to
WATCHED_MODES, WATCHED_POINTS = 16, 8
WALK, PLAIN, REFIT = 32, 4, 5  # of guided chains: steps of a walk; 1 / share of the burn-in without; adaptations to a fit


@dataclass(frozen=True)
class Budget:
    """What chains may cost.

    samples: K draws that are kept of every field, of all chains equally many; chains of every field; burn_in, steps: of every
    chain, the steps at most.
    """

    samples: int = 256
    chains: int = 16
    burn_in: int = 1000
    steps: int = 20_000

    @property
    def kept(self) -> int:
        """Draws that are kept of each chain."""
        return self.samples // self.chains


@dataclass(frozen=True)
class Reference:
    """What chains found of one field, in physical units.

    draws [K, *shape], one chain after the other; mean, std [*shape] of the coefficient over all states; steps after the burn-in,
    and the share of them that was accepted; size: b
    """

    draws: Tensor
    mean: Tensor
    std: Tensor
    diagnosis: Diagnosis
    steps: int
    acceptance: float
    size: float


@dataclass
class State:
    """The chains after a step, of the n fields that have not ended; the first axis of every tensor is the field's.

    row                 of the field among all
    z, predicted, misfit  [n, N, P], [n, N, m], [n, N]: white coefficients, M G and Φ of N chains
    power, size         β and b
    mean, root          of the proposal
    centre, weight, slope, level  of the surrogate
    past_z, past_features, past_predicted  [n, H, N, r], [n, H, N, K], [n, H, N, m]: the last recorded states, in the burn-in;
                        none after it. K = 0 where no surrogate is used
    watched             [n, T, N, q]: leading modes, values at points and Φ
    draws               [n, 2 k, N, P], every `stride`-th recorded state, `filled` of them
    total, squares      [n, *shape]: sums of the coefficient and of its square over recorded states of all chains
    accepted            sum of acceptance probabilities after the burn-in
    """

    row: Tensor
    z: Tensor
    predicted: Tensor
    misfit: Tensor
    power: Tensor
    size: Tensor
    mean: Tensor
    root: Tensor
    centre: Tensor
    weight: Tensor
    slope: Tensor
    level: Tensor
    past_z: Tensor
    past_features: Tensor
    past_predicted: Tensor
    watched: Tensor
    draws: Tensor
    total: Tensor
    squares: Tensor
    accepted: Tensor
    step: int = 0
    remembered: int = 0
    recorded: int = 0
    stride: int = 1
    filled: int = 0

    def tensors(self) -> dict[str, Tensor]:
        """All but the counters."""
        return {item.name: value for item in fields(self) if isinstance(value := getattr(self, item.name), Tensor)}

    def counters(self) -> dict[str, int]:
        return {item.name: value for item in fields(self) if isinstance(value := getattr(self, item.name), int)}

    def of(self, kept: Tensor) -> "State":
        """Only the fields kept [n], bool."""
        return self.of_parts({name: tensor[kept] for name, tensor in self.tensors().items()}, self.counters())

    @classmethod
    def of_parts(cls, tensors: Mapping[str, Tensor], counters: Mapping[str, int]) -> "State":
        """The state of what `tensors` and `counters` return."""
        parts: dict[str, Any] = {**tensors, **counters}
        return cls(**parts)


class Chains:
    """Chains of the fields of a latent posterior, whose numbers (of a test split, say) the random numbers depend on."""

    def __init__(self, latent: Latent, budget: Budget, seed: int, numbers: Sequence[int], stream: str = "chains"):
        self.latent, self.budget, self.seed, self.numbers, self.stream = latent, budget, seed, list(numbers), stream
        self.guided = latent.problem.jumps and not latent.even

    def run(self, state: State | None = None) -> Iterator[tuple[State, list[tuple[int, Reference]]]]:
        """Steps until all fields have ended; with each, the state and the (row, reference) of the fields that ended with it."""
        state = self.start() if state is None else state
        while len(state.row):
            self.advance(state)
            ended = self.ended(state)
            found = [(int(state.row[i]), self.reference(state, i, diagnosis)) for i, diagnosis in ended.items()]
            if ended:
                state = state.of(torch.tensor([i not in ended for i in range(len(state.row))]))
            yield state, found

    def start(self) -> State:
        """Prior draws."""
        n, chains, budget = len(self.numbers), self.budget.chains, self.budget
        modes, m = len(self.latent.modes), self.latent.values.shape[1]
        r, shape = min(LEADING_MODES, modes), self.latent.problem.coefficient_space(self.latent.resolution).shape
        watched = min(WATCHED_MODES, modes) + self._points.shape[1] + 1
        z = self._random(range(n), 0)[0]
        predicted = self.latent.predict(z)
        proposal = Proposal.prior(n, r)
        features = len(self.latent.leading[0]) if self.guided else 0
        surrogate = Surrogate.empty(n, features, m)
        records = budget.steps // RECORD_EVERY
        zeros = torch.zeros
        return State(
            row=torch.arange(n),
            z=z,
            predicted=predicted,
            misfit=self.latent.misfit(predicted),
            power=zeros(n, dtype=torch.float64),
            size=torch.full((n,), FIRST_STEP, dtype=torch.float64),
            mean=proposal.mean,
            root=proposal.root,
            **vars(surrogate),
            past_z=zeros(n, HISTORY, chains, r, dtype=torch.float64),
            past_features=zeros(n, HISTORY, chains, features, dtype=torch.float64),
            past_predicted=zeros(n, HISTORY, chains, m, dtype=torch.float64),
            watched=zeros(n, records, chains, watched),
            draws=zeros(n, 2 * budget.kept, chains, modes),
            total=zeros(n, *shape, dtype=torch.float64),
            squares=zeros(n, *shape, dtype=torch.float64),
            accepted=zeros(n, dtype=torch.float64),
        )

    def advance(self, state: State) -> None:
        """One step of all chains, in place."""
        burning = state.step < self.budget.burn_in
        if burning and state.step % ADAPT_EVERY == 0:
            self._adapt(state)
        latent = self._latent(state)
        proposed, ratio, uniform, going = self._proposed(state, latent)
        predicted = latent.predict(proposed)
        misfit = latent.misfit(predicted)
        gain = torch.where(misfit.isinf(), -torch.inf, state.power[:, None] * (state.misfit - misfit).nan_to_num(nan=0.0))
        chance = (gain + ratio).exp().clamp_max(1)
        accept = uniform < chance
        state.z = torch.where(accept[..., None], proposed, state.z)
        state.predicted = torch.where(accept[..., None], predicted, state.predicted)
        state.misfit = torch.where(accept, misfit, state.misfit)
        state.step += 1
        if burning:
            going = chance.mean(dim=1) if going is None else going
            state.size = (state.size.log() + GAIN * (going - ACCEPTANCE)).exp().clamp_max(1)
        else:
            state.accepted += chance.mean(dim=1)
        if burning and self._walks(state.step):
            self._remember(state, proposed, predicted)
        elif state.step % RECORD_EVERY == 0:
            if burning:
                self._remember(state, state.z, state.predicted)
            else:
                self._record(state)
        if state.step == self.budget.burn_in:
            for name in ("past_z", "past_features", "past_predicted"):
                setattr(state, name, getattr(state, name)[:, :0])

    def ended(self, state: State) -> dict[int, Diagnosis]:
        """The diagnosis of the fields, by their place in the state, whose chains have converged or used up their budget."""
        steps = state.step - self.budget.burn_in
        last = steps >= self.budget.steps
        if steps <= 0 or (steps % (CHECK_WALKS if self.guided else CHECK_EVERY) and not last):
            return {}
        watched = state.watched[:, : state.recorded].double().numpy().transpose(0, 3, 2, 1)
        found = {i: diagnose(quantities) for i, quantities in enumerate(watched)}
        enough = state.filled >= self.budget.kept
        return {i: diagnosis for i, diagnosis in found.items() if last or (enough and diagnosis.converged)}

    def reference(self, state: State, i: int, diagnosis: Diagnosis) -> Reference:
        """What was found of the field at place i of the state."""
        spread = np.linspace(0, state.filled - 1, self.budget.kept).round().astype(int)
        z = state.draws[i, spread].double()
        if self.latent.even:
            z[(torch.arange(z.shape[0])[:, None] + torch.arange(z.shape[1])) % 2 == 1] *= -1
        draws = self.latent.coefficient(z).transpose(0, 1).flatten(0, 1)
        count, steps = state.recorded * self.budget.chains, state.step - self.budget.burn_in
        mean = state.total[i] / count
        std = (state.squares[i] / count - mean**2).clamp_min(0).sqrt()
        return Reference(draws, mean, std, diagnosis, steps, float(state.accepted[i]) / steps, float(state.size[i]))

    def _latent(self, state: State) -> Latent:
        latent = self.latent
        return replace(
            latent, index=latent.index[state.row], values=latent.values[state.row], variance=latent.variance[state.row]
        )

    def _walks(self, step: int) -> bool:
        """Whether the step from there is proposed by a walk."""
        return self.guided and step >= self._first

    @property
    def _first(self) -> int:
        """The first step of a walk, one at which the chains adapt."""
        return self.budget.burn_in // PLAIN // ADAPT_EVERY * ADAPT_EVERY

    def _proposed(self, state: State, latent: Latent) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """z' [n, N, P], the logarithm of what its acceptance owes to the proposal, uniform numbers [n, N], walk's acceptance."""
        walks, proposal = self._walks(state.step), Proposal(state.mean, state.root)
        rows, step = state.row.tolist(), state.step + 1
        xi, uniform = self._random(rows, step)
        if not walks:
            return *proposal.step(state.z, xi, state.size), uniform, None
        surrogate = Surrogate(state.centre, state.weight, state.slope, state.level)
        noise = self._walking(rows, step)
        z, ratio, going = walk(latent, surrogate, proposal, state.z, state.power, state.size, noise)
        return z, ratio, uniform, going

    def _random(self, rows: Sequence[int], step: int) -> tuple[Tensor, Tensor]:
        """Standard normal [n, N, P] and uniform [n, N] numbers."""
        chains, modes, drawn = self.budget.chains, len(self.latent.modes), []
        for row in rows:
            rng = generator(self.seed, self.stream, self.numbers[row], step)
            drawn.append((rng.standard_normal((chains, modes)), rng.random(chains)))
        normal, uniform = (torch.from_numpy(np.stack(part)) for part in zip(*drawn, strict=True))
        return normal, uniform

    def _walking(self, rows: Sequence[int], step: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Standard normal [n, N, P] and uniform [n, N] numbers of each step of a walk, in single precision and in place."""
        every = [torch_generator(self.seed, f"{self.stream} walk", self.numbers[row], step) for row in rows]
        normal = torch.empty(len(rows), self.budget.chains, len(self.latent.modes))
        uniform = torch.empty(normal.shape[:2])
        for _ in range(WALK):
            for i, rng in enumerate(every):
                normal[i].normal_(generator=rng)
                uniform[i].uniform_(generator=rng)
            yield normal, uniform

    def _adapt(self, state: State) -> None:
        """Raises the power, at the latest to 1 at the end of the burn-in, and fits the proposal."""
        left = -(-(self.budget.burn_in - state.step) // ADAPT_EVERY)
        spread = state.misfit.clamp_max(torch.finfo(torch.float64).max).std(dim=1)
        state.power = (state.power + torch.maximum(1 / spread, (1 - state.power) / left)).clamp_max(1)
        known = min(HISTORY, state.remembered)
        if known:
            latent = self._latent(state)
            z, predicted = (past[:, :known].flatten(1, 2) for past in (state.past_z, state.past_predicted))
            if latent.even:
                state.z, z = (self._facing(part, state.z[:, :1]) for part in (state.z, z))
            variance = latent.error_variance / state.power[:, None]
            proposal = fitted(Proposal(state.mean, state.root), z, predicted, latent.values, variance)
            state.mean, state.root = proposal.mean, proposal.root
            if self._walks(state.step) and (state.step - self._first) // ADAPT_EVERY % REFIT == 0:
                surrogate = Surrogate.fitted(latent, state.past_features[:, :known].flatten(1, 2), predicted)
                for name, part in vars(surrogate).items():
                    setattr(state, name, part)

    def _facing(self, z: Tensor, first: Tensor) -> Tensor:
        """White coefficients [n, M, r] with the sign that puts each field g on the side of the first [n, 1, P]."""
        modes = self.latent.modes[: z.shape[-1]]
        product = (z * first[..., : z.shape[-1]] * self.latent.spectrum.flatten()[modes]).sum(dim=-1, keepdim=True)
        return torch.where(product < 0, -z, z)

    def _remember(self, state: State, z: Tensor, predicted: Tensor) -> None:
        """In the place of the oldest; the chains' own states instead of those that the problem refuses."""
        known = predicted.isfinite().all(dim=-1, keepdim=True)
        z, predicted = torch.where(known, z, state.z), torch.where(known, predicted, state.predicted)
        slot = state.remembered % HISTORY
        state.past_z[:, slot] = z[..., : state.past_z.shape[-1]]
        state.past_predicted[:, slot] = predicted.nan_to_num(nan=0.0)
        if self.guided:
            state.past_features[:, slot] = self.latent.features(self.latent.coefficient(z))
        state.remembered += 1

    def _record(self, state: State) -> None:
        """Adds a state to what is watched, summed and kept; of the draws every other is dropped when their place is full."""
        coefficient = self.latent.coefficient(state.z)
        if not self.latent.even:  # else the coefficients of z and -z cancel
            state.total += coefficient.sum(dim=1)
        state.squares += (coefficient**2).sum(dim=1)
        leading = state.z[..., :WATCHED_MODES]
        parts = [leading, state.z @ self._points, state.misfit[..., None]]
        state.watched[:, state.recorded] = torch.cat(parts, dim=-1).float()
        if state.recorded % state.stride == 0:
            state.draws[:, state.filled] = state.z.float()
            state.filled += 1
            if state.filled == state.draws.shape[1]:
                state.filled, state.stride = state.filled // 2, 2 * state.stride
                state.draws[:, : state.filled] = state.draws[:, ::2].clone()
        state.recorded += 1

    @cached_property
    def _points(self) -> Tensor:
        """g at some nodes, of every channel, [P, WATCHED_POINTS x channels] for white coefficients."""
        latent = self.latent
        grid = latent.problem.coefficient_space(latent.resolution).grid
        inside = np.flatnonzero(grid.interior)
        chosen = generator(0, "watched points").choice(inside, min(WATCHED_POINTS, len(inside)), replace=False)
        functions = node_functions(grid.basis, torch.from_numpy(chosen)[None])[0].flatten(1)
        channels = torch.eye(latent.spectrum.numel() // functions.shape[1], dtype=functions.dtype)
        return (torch.kron(channels, functions) * latent.spectrum.flatten().sqrt())[:, latent.modes].T
