"""Names of trained models: prior, joint-<percent>, joint-white-<percent>, flow-<percent>, operator[-NAME]-<percent>."""

from dataclasses import dataclass

from ddis.data.subsets import fraction_of
from ddis.errors import InputError

# Sections of the configuration whose networks are trained, and whether on pairs. To add a kind of prior: its line here, its
# section in ddis.config.Study, and its file in ddis/training.
PARTS = {"prior": False, "joint": True, "flow": True, "operator": True}
OPERATOR = "operator"


@dataclass(frozen=True)
class ModelId:
    """A trained model of a problem.

    part     what it is, and where its settings stand in the configuration
    percent  of the pairs that it is trained on, as in file names; "" for a prior, which needs none
    white    whether the noise of a prior of pairs is white
    variant  an operator's name in the section `operators`; "": it is that of `operator`
    """

    part: str
    percent: str = ""
    white: bool = False
    variant: str = ""

    @classmethod
    def parse(cls, name: str) -> "ModelId":
        """The model of a name. Raises InputError for one that is none."""
        if PARTS.get(name) is False:
            return cls(name)
        kind, _, percent = name.rpartition("-")
        part, _, rest = kind.partition("-")
        if not PARTS.get(part) or (rest not in ("", "white") and part != OPERATOR) or kind == f"{part}-":
            raise InputError(f"model {name!r} is unknown; accepted: {accepted_models()}")
        fraction_of(percent)
        return cls(part, percent, variant=rest) if part == OPERATOR else cls(part, percent, white=rest == "white")

    @property
    def kind(self) -> str:
        """The name without the percent."""
        return "-".join(filter(None, (self.part, "white" * self.white, self.variant)))

    def __str__(self) -> str:
        return self.kind + f"-{self.percent}" * bool(self.percent)


def accepted_models() -> str:
    """How models are named, for messages."""
    priors = [f"{part}-<percent>, {part}-white-<percent>" if pairs else part for part, pairs in PARTS.items() if part != OPERATOR]
    return ", ".join([*priors, "operator-<percent>, operator-NAME-<percent>"])
