"""What `mlflow.pyfunc.load_model` makes of a trained network that a study has logged.

An operator takes `coefficient` [N, *shape] and gives `solution` [N, *shape], both in physical units. A prior or joint prior takes
the noisy normalised field `x_t` [N, C, *nodes] and its noise levels `sigma` [N], and gives the denoised `x0_hat` [N, C, *nodes].
A flow prior takes `x_t` and times `t` [N], and gives the `velocity`.
"""

from pathlib import Path

import numpy as np
import torch
from torch import nn

from ddis.config import Study
from ddis.errors import InputError
from ddis.files import read_json
from ddis.models.checkpoint import load_tensors
from ddis.models.ids import OPERATOR, ModelId
from ddis.models.normalisation import Normalisation
from ddis.trained import untrained

Arrays = dict[str, np.ndarray]


class Network:
    """A trained network between arrays by name."""

    def __init__(self, network: nn.Module, output: str) -> None:
        self.network, self.output = network.eval(), output

    def predict(self, arrays: Arrays, params: object = None) -> Arrays:
        """The network's output for its inputs, in the order of the signature."""
        with torch.no_grad():
            made = self.network(*(torch.from_numpy(np.asarray(array, np.float32)) for array in arrays.values()))
        return {self.output: made.numpy()}


def _load_pyfunc(path: str) -> Network:
    """Called by MLflow, with a folder that holds config.yaml and models/<problem>/<model>/. Raises InputError."""
    [folder] = Path(path).glob("models/*/*")
    study, problem, model = Study.load(Path(path) / "config.yaml"), folder.parent.name, ModelId.parse(folder.name)
    information = read_json(folder / "model.json")
    normalisation = {name: Normalisation(**values) for name, values in information["normalisation"].items()}
    network = untrained(study, problem, model, normalisation)
    weights = folder / "weights.safetensors"
    try:
        network.load_state_dict(load_tensors(weights)[0])
    except RuntimeError as error:
        raise InputError(f"{weights} is of a network that this version of ddis builds otherwise; train it again") from error
    return Network(network, "solution" if model.part == OPERATOR else study.prior_section(model).gives)
