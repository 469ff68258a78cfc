"""The parts of a configuration, each with its defaults; `ddis.config.Study` holds them together."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from ddis.data.subsets import percent_keys
from ddis.written import Text

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=64)]
AtPercent = Annotated[dict[str, dict[str, Any]], BeforeValidator(percent_keys)]

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Case:
    """One row of the tables: a run on a problem and an observation, at a percent of the pairs."""

    problem: str
    observation: str
    run: str
    percent: str


class Settings(BaseModel):
    """A part of the configuration; unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class ProblemSettings(BaseModel):
    """pde: the equation, by name or module:attribute; the other keys are its parameters."""

    model_config = ConfigDict(extra="allow", frozen=True)
    pde: str

    @property
    def parameters(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


class SplitFiles(Settings):
    """Files of `ddis import` or `ddis generate --output`; paths from the working directory. A split without one is generated."""

    train: Text | None = None
    validation: Text | None = None
    test: Text | None = None


class DataSettings(Settings):
    """Nodes per side, and fields of each split. All `train` coefficients may be used unpaired; a fraction of them is paired.

    workers: processes that generate a split, each with one thread. files: by problem, where its data is taken from instead.
    """

    resolution: int = Field(ge=4, le=4096)
    train: int = Field(ge=1)
    validation: int = Field(ge=1)
    test: int = Field(ge=1)
    workers: int = Field(1, ge=1)
    files: dict[Name, SplitFiles] = {}


class NoiseSettings(Settings):
    """Noise of the diffusion: kernel, its length in units of the domain, nugget on the diagonal.

    diagonal: independent modes in the problem's basis (what the spectral step assumes), instead of a stationary field.
    """

    kernel: Literal["white", "exponential", "gaussian"] = "exponential"
    length: float = Field(0.1, gt=0)
    nugget: float = Field(1e-4, ge=0)
    diagonal: bool = True


class ReferenceSettings(Settings):
    """Reference posteriors, which the samples of all runs are compared with: docs/posteriors.md.

    samples     draws that are kept of each field
    fields      test fields that have one, the first so many; null: all
    problems    that have them; null: all that can
    files       by problem and observation, references of `ddis import --format posteriorbench`, in place of those that are made
    chains, burn_in, steps: Markov chains of each field, where there is no closed form, and steps of each: to be adapted, and to
    draw with, at most; they end when they have converged
    """

    samples: int = Field(256, ge=2)
    fields: int | None = Field(None, ge=1)
    problems: tuple[Text, ...] | None = None
    files: dict[Name, dict[Name, Text]] = {}
    chains: int = Field(16, ge=4, multiple_of=2)
    burn_in: int = Field(1000, ge=100)
    steps: int = Field(20_000, ge=100)

    @model_validator(mode="after")
    def _draws(self) -> "ReferenceSettings":
        if self.samples % self.chains or self.samples > self.chains * (self.steps // 4):
            most = self.chains * (self.steps // 4)
            raise ValueError(f"samples {self.samples}; accepted: multiples of chains, {self.chains}, up to {most}")
        return self


class TuningSettings(Settings):
    """`ddis tune`: validation fields (at most the fraction's share), and for each run the values of its weight to try."""

    fields: int = Field(8, ge=1)
    candidates: dict[Name, Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(min_length=1)]] = {}
