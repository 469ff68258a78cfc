"""The version of each kind of result: a number, raised by hand when what an unchanged configuration gives has changed.

It stands in the record of every result; one of another version is made again, with all that depends on it. Code that gives what
it gave keeps its number, however it is written, and so does a setting that is new and by default changes nothing. A default that
changes raises the number: a digest does not see it. tests/test_versions.py holds small results and the defaults of every kind.
"""

import inspect
from collections.abc import Mapping
from typing import Any

from ddis.provenance import file_digest

STAGES = {
    **{"generate": 1, "import": 1, "card": 2, "pairs": 1, "train": 1, "sample": 1, "reference": 1, "tune": 1},
    **{"tables": 9, "figures": 7, "tuning": 3, "report": 3, "paper": 6, "check": 4, "guidance": 2},
}
PROBLEMS = {
    **{"poisson": 1, "helmholtz": 1, "darcy": 1, "navier-stokes": 1},
    **{"burgers": 1, "darcy-source": 1, "darcy-facies": 1, "poisson-squared": 1, "poisson-l-shape": 1},
}
NETWORKS = {"denoiser": 1, "wiener": 2, "backbone-uno": 1, "groups": 1, "flow": 1, "fno": 1, "unet": 1, "uno": 1, "physics": 1}
METHODS = {
    **{"ddis": 1, "ddis-gn": 2, "ddis-dps": 1, "fundps": 1, "diffusionpde": 1, "joint-daps": 1},
    **{"exact": 1, "prior-mean": 1, "tikhonov": 1, "es-mda": 1, "eci": 1, "ofm": 1},
}
COORDINATES = 1  # of priors that are told them
WALKS = 2  # of reference chains where the coefficient has jumps
NEARER = 1  # of validation errors where a and -a explain the solution alike

# Settings that only old records have, or only new ones, by their key there: what is now, or was, always so.
ALWAYS: dict[str, Any] = {
    **{"settings.network.architecture": "fno", "configuration.operator.network.architecture": "fno"},
    **{"settings.backbone.group": 1, "configuration.prior.backbone.group": 1},
    **{"configuration.joint.backbone.group": 1, "configuration.flow.backbone.group": 1},
    "settings.likelihood": "gaussian",  # of references, before observations had it
}


def version(table: Mapping[str, int], name: str, kind: type) -> int | str:
    """The number of what is in the table; of a class that is not, such as a user's own, 16 hexadecimal digits of its file."""
    return table[name] if name in table else file_digest(inspect.getfile(kind))[:16]
