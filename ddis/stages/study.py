"""Stage `study`: the resolved configuration, and whether its networks from outside the package can be built."""

from ddis import provenance
from ddis.config import Study
from ddis.files import write_text
from ddis.models.architectures import ARCHITECTURES
from ddis.models.backbones import BACKBONES
from ddis.models.ids import OPERATOR, ModelId
from ddis.refusals import told
from ddis.registry import Registry
from ddis.stages.layout import models
from ddis.stages.records import check_folders, write_record
from ddis.steps import Step
from ddis.training.sections import OperatorSettings, PriorSettings, TrainedSettings
from ddis.yaml_text import yaml_text


def run(study: Study) -> None:
    """Writes results/<study>/config.yaml."""
    step, path = Step("study"), study.folder / "config.yaml"
    check_networks(study)
    check_folders(study, step)
    write_text(path, yaml_text(study.resolved()))
    write_record(study, step, provenance.collect({}, study.seed), {})


def check_networks(study: Study) -> None:
    """Lets one field through each network from outside that a run needs. Raises InputError for those that fail."""
    for problem in study.problems:
        needed = map(ModelId.parse, models(study, problem))
        for key, model in {study.section_name(model): model for model in needed}.items():
            section = study.sections()[key]
            registry, name = _network(section)
            if name not in registry.builtin:
                with told(f"{key}: problem {problem!r}: "), registry.calling(name):
                    try_network(study, problem, model)


def _network(section: TrainedSettings) -> tuple[Registry, str]:
    """The registry of a section's network, and its name there."""
    if isinstance(section, OperatorSettings):
        return ARCHITECTURES, section.name
    assert isinstance(section, PriorSettings)
    return BACKBONES, section.backbone.name


def try_network(study: Study, problem: str, model: ModelId) -> None:
    """Builds the network of a model and gives it a field of zeros."""
    import torch

    from ddis.models.normalisation import Normalisation
    from ddis.trained import prior_channels, untrained

    unit = Normalisation(0.0, 1.0)
    network = untrained(study, problem, model, {"coefficient": unit, "solution": unit})
    spaces = study.make_problem(problem).spaces(study.data.resolution)
    with torch.no_grad():
        if model.part == OPERATOR:
            network(torch.zeros(1, *spaces[0].shape))
        else:
            network(torch.zeros(1, prior_channels(spaces, model), *spaces[0].grid.shape), torch.ones(1))
