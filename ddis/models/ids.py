"""Names of trained models: prior, joint-<percent>, joint-white-<percent>, operator-<percent>."""

from dataclasses import dataclass
from typing import Literal, cast

from ddis.data.subsets import fraction_of
from ddis.errors import InputError

Part = Literal["prior", "joint", "operator"]


@dataclass(frozen=True)
class ModelId:
    """A trained model of a problem.

    part     what it is, and where its settings stand in the configuration
    percent  of the pairs that it is trained on, as in file names; "" for a prior, which needs none
    white    whether a joint prior's noise is white
    """

    part: Part
    percent: str = ""
    white: bool = False

    @classmethod
    def parse(cls, name: str) -> "ModelId":
        """The model of a name. Raises InputError for one that is none."""
        kind, _, percent = name.rpartition("-") if name != "prior" else (name, "", "")
        if kind not in ("prior", "joint", "joint-white", "operator") or (kind == "prior") != (percent == ""):
            known = "prior, joint-<percent>, joint-white-<percent>, operator-<percent>"
            raise InputError(f"model {name!r} is unknown; accepted: {known}")
        if kind != "prior":
            fraction_of(percent)
        return cls(cast(Part, kind.removesuffix("-white")), percent, kind.endswith("-white"))

    @property
    def kind(self) -> str:
        """The name without the percent."""
        return self.part + "-white" * self.white

    def __str__(self) -> str:
        return self.kind + f"-{self.percent}" * bool(self.percent)
