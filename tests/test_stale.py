"""What is to be made again: settings that are new in the code, gone from it, or changed; and files of other settings."""

import json
from pathlib import Path

import pytest
from recorded import TINY, finished, make

from ddis import versions
from ddis.config import Study
from ddis.errors import InputError
from ddis.inputs import chosen
from ddis.models.architectures.fno import FNO
from ddis.models.backbones.unet import UNet
from ddis.observe import KINDS, SensorSettings, load_kind
from ddis.sampling.ddis_gn import DDISGN
from ddis.sampling.methods import METHODS
from ddis.stages import records
from ddis.stages.stale import work
from ddis.steps import Step, check_settings
from ddis.yaml_text import read_yaml

PRIOR = Step("train", {"problem": "poisson", "model": "prior"})
GUIDED = Step("sample", {"problem": "poisson", "observation": "sparse", "run": "ddis-gn", "percent": "100"})


class Later(DDISGN):
    """A method of the package as a later version has it."""

    class Settings(DDISGN.Settings):
        damping: float = 0.5


@pytest.fixture
def study(tmp_path, monkeypatch) -> Study:
    """The tiny study, finished, with its tuning curves."""
    monkeypatch.chdir(tmp_path)
    return finished(tuned=True)


def changed(**parts: dict) -> Study:
    """The tiny study with other settings of its parts."""
    content = read_yaml(TINY)
    return Study.load(content | {name: content.get(name, {}) | part for name, part in parts.items()})


def edit(study: Study, step: Step, *changes: tuple[str, object]) -> None:
    """Changes a record as if other code had written it: its digest, and settings at dotted keys (None: there were none)."""
    path = study.folder / records.record_name(step)
    record = json.loads(path.read_text())
    record["configuration"] = "of another version"
    for key, value in changes:
        *folders, name = key.split(".")
        part = record["settings"]
        for folder in folders:
            part = part[folder]
        part.pop(name) if value is None else part.__setitem__(name, value)
    path.write_text(json.dumps(record))


def test_a_setting_that_is_new_at_its_default_makes_nothing_stale(study, monkeypatch):
    monkeypatch.setitem(METHODS.builtin, "ddis-gn", f"{__name__}:Later")
    later = Study.load(TINY)
    assert later.inputs("sample", **GUIDED.arguments)["settings"]["damping"] == 0.5
    assert work(later) == {} and later.digest("sample", **GUIDED.arguments) == study.digest("sample", **GUIDED.arguments)


def test_the_errors_of_a_denoiser_are_an_input_of_runs_that_choose_by_them(study):
    name, path = "models/poisson/prior/denoising.csv", study.folder / records.record_name(PRIOR)
    record = json.loads(path.read_text())
    path.write_text(json.dumps(record | {"outputs": record["outputs"] | {name: "another"}}))
    reasons = work(study)
    assert {label for label in reasons if label.startswith("sample")} == {
        "sample/poisson/sparse/ddis-gn/10",
        "sample/poisson/sparse/ddis-gn/100",
    }
    assert reasons[GUIDED.label] == reasons[GUIDED.label.replace("sample", "check")] == f"made from another {name}"


def test_a_new_setting_that_is_chosen_makes_stale_what_depends_on_it_and_says_so(study, monkeypatch):
    monkeypatch.setitem(METHODS.builtin, "ddis-gn", f"{__name__}:Later")
    reasons = work(changed(runs={"ddis-gn": {**read_yaml(TINY)["runs"]["ddis-gn"], "damping": 0.7}}))
    guided = {"sample/poisson/sparse/ddis-gn/10", "sample/poisson/sparse/ddis-gn/100"}
    checks = {label.replace("sample", "check") for label in guided}
    assert set(reasons) == guided | checks | {"tables", "figures", "report", "paper"}
    assert {reasons[label] for label in guided} == {"settings.damping 0.7 is new"}
    assert reasons["tables"] == "samples/poisson/sparse/ddis-gn-10.h5 is made again"
    assert reasons["report"] == "configuration.runs.ddis-gn.damping 0.7 is new"


def test_records_from_before_there_was_a_setting_stay_good(study):
    """Settings count, and no digest: those of training were compared without precision, those of nodes without their kind."""
    edit(study, PRIOR, ("settings.training.precision", None), ("settings.training.compile", None), ("noise.diagonal", None))
    edit(study, GUIDED, ("observe.kind", None), ("data.test.parameters", {}))
    assert work(study) == {}
    reasons = work(changed(noise={"diagonal": False}))
    assert reasons[PRIOR.label] == "noise.diagonal false is new"


def test_a_setting_that_is_gone_counts_unless_it_was_what_is_now_always_so(study, monkeypatch):
    edit(study, PRIOR, ("settings.training.restarts", 1))
    assert work(study)[PRIOR.label] == "settings.training.restarts 1 is gone"
    monkeypatch.setitem(versions.ALWAYS, "settings.training.restarts", 1)
    assert work(study) == {}
    edit(study, PRIOR, ("settings.training.restarts", 2))
    assert work(study)[PRIOR.label] == "settings.training.restarts 2 is gone"


def test_a_file_counts_by_the_settings_of_its_record(study):
    """A stage takes a file of another digest if the record of that digest tells the study's settings, also of its networks."""
    path = Path("a file")
    edit(study, PRIOR)
    edit(study, GUIDED, ("models.prior", "of another version"))
    for step in (PRIOR, GUIDED):
        check_settings(study, step, path, "of another version")
        with pytest.raises(InputError, match="a file was made with another configuration than the study's; run snakemake"):
            check_settings(study, step, path, "of no record")
    longer = changed(prior={**read_yaml(TINY)["prior"], "log_sigma_mean": 0.1})
    for step in (PRIOR, GUIDED):
        with pytest.raises(InputError, match=r"another configuration .*\(settings.log_sigma_mean was -1.2, is 0.1\)"):
            check_settings(longer, step, path, "of another version")
    make(study, PRIOR, 7)
    with pytest.raises(InputError, match="a file was made with another configuration than the study's; run snakemake"):
        check_settings(study, GUIDED, path, "of another version")


def test_what_a_class_is_called_is_chosen():
    """Two classes may have the same settings."""
    assert chosen(FNO()) == {"architecture": "fno"} and chosen(UNet(embedding=32)) == {"name": "unet", "embedding": 32}
    assert chosen(DDISGN.Settings(method="own:Method", steps=7)) == {"method": "own:Method", "steps": 7}


def test_a_kind_of_observation_is_told_from_another_by_what_is_chosen():
    """A subclass that set the default of `kind` to its own name would be left out of digests."""
    assert all(load_kind(name).Settings.model_fields["kind"].default == "nodes" for name in KINDS.names())
    assert chosen(SensorSettings(kind="lines")) == {"kind": "lines"}
