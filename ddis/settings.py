"""The parts of a configuration, each with its defaults; `ddis.config.Study` holds them together."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

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
    """Files of `ddis import` or `ddis generate --output`, one for each split; paths from the working directory."""

    train: Text
    validation: Text
    test: Text


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


class TuningSettings(Settings):
    """`ddis tune`: validation fields (at most the fraction's share), and for each run the values of its weight to try."""

    fields: int = Field(8, ge=1)
    candidates: dict[Name, Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(min_length=1)]] = {}
