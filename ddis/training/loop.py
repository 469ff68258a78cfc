"""The one training loop: Adam, warm-up, exponential moving average, validation, exact resume.

Everything random in a step is a function of (seed, step), and the whole state is a flat dictionary of tensors with a small JSON
record, so that a run that is stopped and resumed gives the weights of an unbroken run, bit for bit. Several processes may share
the steps (ddis.training.distributed): each holds the whole state, and any number of them may resume it.
"""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ddis.errors import InputError
from ddis.models.checkpoint import weights
from ddis.randomness import generator
from ddis.training.adam import Adam
from ddis.training.distributed import Loss, Ranks
from ddis.training.settings import TrainingSettings


@dataclass(frozen=True)
class HistoryRow:
    """One row of the history; validation_loss is None between validations."""

    step: int
    seconds: float
    learning_rate: float
    train_loss: float
    validation_loss: float | None


@dataclass
class _Progress:
    """What is resumed beside the tensors."""

    step: int = 0
    seconds: float = 0.0
    loss_sum: float = 0.0
    loss_count: int = 0
    best_loss: float = math.inf
    history: list[dict[str, Any]] = field(default_factory=list)


def batch_indices(seed: int, step: int, batch: int, count: int, stream: str = "epoch") -> np.ndarray:
    """Indices [batch] of the fields of one step (0, 1, ...): consecutive pieces of one random permutation per epoch."""
    position = step * batch + np.arange(batch)
    epochs = position // count
    orders = {int(epoch): generator(seed, stream, int(epoch)).permutation(count) for epoch in np.unique(epochs)}
    return np.array([orders[int(e)][p] for e, p in zip(epochs, position % count, strict=True)])


class Trainer:
    """Trains `model` and keeps the moving average of its weights with the smallest validation loss.

    Args:
        model: the module to train, on its device.
        loss: (indices [b], step) -> scalar loss of the model on those training fields, a process's part of the batch.
        validate: (model) -> validation loss, the same numbers at every call.
        count: number of training fields.
        average: a module like `model`, for the moving average.
        ranks: the processes that share the steps; all must call `run`.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Loss,
        validate: Callable[[nn.Module], float],
        count: int,
        settings: TrainingSettings,
        seed: int,
        average: nn.Module,
        ranks: Ranks = Ranks(),  # noqa: B008 (frozen)
    ):
        self.model, self.validate, self.count = model, validate, count
        self.settings, self.seed, self.ranks = settings, seed, ranks
        self.places = ranks.places(settings.batch)
        self.loss = ranks.parallel(model, loss)
        self.stopped = 0
        self.average = average
        self.average.load_state_dict(weights(model))
        self.average.eval()
        self.best = weights(self.average)
        self.optimizer = Adam(model.parameters())
        self.progress = _Progress()

    def learning_rate(self, step: int) -> float:
        """Rate of step 0, 1, ..."""
        s = self.settings
        rise = min(1.0, (step + 1) / s.warmup) if s.warmup else 1.0
        if s.schedule == "constant":
            return s.learning_rate * rise
        done = max(0, step - s.warmup) / max(1, s.steps - s.warmup)
        return s.learning_rate * rise * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, done))))

    def run(self, signal: Callable[[], int] = lambda: 0) -> Iterator[HistoryRow]:
        """Trains from where the state stands to the end; yields a row after every step.

        `signal` is asked after every step. A number other than 0, in any of the processes, ends the run of all of them after that
        step, with the number in `stopped`.
        """
        p, s = self.progress, self.settings
        start = time.perf_counter() - p.seconds
        while p.step < s.steps and not self.stopped:
            rate, value = self._step()
            p.loss_sum, p.loss_count, p.step = p.loss_sum + value, p.loss_count + 1, p.step + 1
            validation = None
            if p.step % s.validate_every == 0 or p.step == s.steps:
                validation = self._validate()
            p.seconds = time.perf_counter() - start
            row = HistoryRow(p.step, p.seconds, rate, p.loss_sum / p.loss_count, validation)
            if validation is not None:
                p.history.append(asdict(row))
                p.loss_sum, p.loss_count = 0.0, 0
            self.stopped = self.ranks.largest(signal())
            yield row

    def _step(self) -> tuple[float, float]:
        step, s = self.progress.step, self.settings
        rate = self.learning_rate(step)
        self.model.train()
        torch.manual_seed(int(generator(self.seed, "dropout", step).integers(2**62)))
        indices = batch_indices(self.seed, step, s.batch, self.count)
        loss = self.loss(indices[self.places], step)
        value = self.ranks.mean(loss)
        if not torch.isfinite(value):
            raise InputError(f"training loss is {value.item()} at step {step}; lower training.learning_rate ({s.learning_rate})")
        self.model.zero_grad()
        loss.backward()
        if s.clip is not None:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), s.clip)
        self.optimizer.step(rate)
        self._update_average(step)
        return rate, float(value.detach())

    @torch.no_grad()
    def _update_average(self, step: int) -> None:
        """θ_avg <- β θ_avg + (1 - β) θ, with the half-life growing with the fields seen (EDM2's ramp-up of 5 %)."""
        half_life = min(self.settings.ema_half_life, 0.05 * (step + 1) * self.settings.batch)
        beta = 0.5 ** (self.settings.batch / max(half_life, 1e-8))
        new: list[Tensor] = list(self.model.parameters())
        old: list[Tensor] = list(self.average.parameters())
        torch._foreach_lerp_(old, new, 1 - beta)

    def _validate(self) -> float:
        with torch.no_grad():
            value = self.validate(self.average)
        if value < self.progress.best_loss:
            self.progress.best_loss = value
            self.best = weights(self.average)
        return value

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors and JSON-able record of the whole state."""
        tensors: dict[str, Tensor] = {}
        for label, module_state in (("model", weights(self.model)), ("average", weights(self.average)), ("best", self.best)):
            tensors.update({f"{label}.{name}": tensor for name, tensor in module_state.items()})
        names = dict(self.model.named_parameters())
        for name, parameter in names.items():
            for key, tensor in self.optimizer.state.get(parameter, {}).items():
                tensors[f"adam.{key}.{name}"] = tensor
        return tensors, asdict(self.progress)

    def load_state(self, tensors: dict[str, Tensor], record: dict[str, Any]) -> None:
        """Continues from what `state` gave."""

        def part(label: str) -> dict[str, Tensor]:
            return {name[len(label) + 1 :]: t for name, t in tensors.items() if name.startswith(label + ".")}

        self.model.load_state_dict(part("model"))
        self.average.load_state_dict(part("average"))
        device = next(self.model.parameters()).device
        self.best = {name: t.to(device) for name, t in part("best").items()}
        for name, parameter in self.model.named_parameters():
            for key in ("step", "exp_avg", "exp_avg_sq"):
                saved = tensors.get(f"adam.{key}.{name}")
                if saved is not None:
                    self.optimizer.state.setdefault(parameter, {})[key] = saved if key == "step" else saved.to(parameter.device)
        self.progress = _Progress(**record)
