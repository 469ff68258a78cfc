"""The configuration: what is accepted, and how what is not is refused; the schema; what a result depends on."""

import copy
import json
from pathlib import Path

import pytest
import yaml

from ddis.config import Case, Study
from ddis.errors import InputError
from ddis.models.ids import ModelId
from ddis.pde.poisson import Poisson
from ddis.schema import json_schema

ROOT = Path(__file__).parents[1]
DEFAULT = ROOT / "config" / "config.yaml"


def default() -> dict:
    return yaml.safe_load(DEFAULT.read_text())


def changed(path: str, value: object) -> dict:
    """The default configuration with one value changed; the path's parts are separated by dots."""
    content = copy.deepcopy(default())
    *parents, last = path.split(".")
    part = content
    for key in parents:
        part = part.setdefault(key, {})
    part[last] = value
    return content


BAD = [
    ("sead", 1, r"sead: unknown key \(got 1\); accepted here: study, seed"),
    ("data.resolutoin", 8, r"data\.resolutoin: unknown key .*accepted here: resolution, train"),
    ("prior.training.step", 8, r"prior\.training\.step: unknown key .*accepted here: steps, batch"),
    ("problems.poisson.pde", "wave", r"pde 'wave' is unknown; accepted: poisson"),
    ("problems.poisson.tua", 3, r"parameter 'tua'.*parameters: alpha, tau"),
    ("runs.ddis.method", "ddiss", r"method 'ddiss' is unknown; accepted: ddis, ddis-gn"),
    ("runs.fundps.wieght", 3, r"runs\.fundps\.wieght.*settings of fundps:.*weight"),
    ("fractions", [0.0, 1.0], r"fractions\.0: .*greater than 0 \(got 0\.0\)"),
    ("fractions", [1.5], r"fractions\.0: .*less than or equal to 1 \(got 1\.5\)"),
    ("runs.ddis.fractions", [2.0], r"runs\.ddis\.fractions \[2\.0\]: percents 200; accepted: different fractions in \(0, 1\]"),
    ("runs.ddis.fractions", [1.0, 1.0], r"runs\.ddis\.fractions \[1\.0, 1\.0\]: percents 100, 100; accepted: different"),
    ("runs.ddis.fractions", [1e-14], r"runs\.ddis\.fractions \[1e-14\]: percents 0; accepted: .*percents above 0"),
    ("runs.ddis.fractions", [], r"runs\.ddis\.fractions \[\]: percents none; accepted"),
    ("observations.sparse.count", 901, r"observations\.sparse: count 901: more observations than nodes; accepted: 1 to 900"),
    ("observations.sparse.count", 0, r"observations\.sparse\.count: .*greater than or equal to 1 \(got 0\)"),
    ("data.resolution", 2, r"data\.resolution: .*greater than or equal to 4 \(got 2\)"),
    ("device", "tpu", r"device: .*'auto', 'cpu' or 'cuda' \(got 'tpu'\)"),
    ("study", "../elsewhere", r"study: .*pattern.*\(got '\.\./elsewhere'\)"),
    ("operator.at", {1: {"stepz": 3}}, r"operator\.at\.1: stepz: unknown key.*accepted here: steps"),
    ("tuning.candidates", {"exact": [1]}, r"tuning\.candidates: 'exact' is not a run with a weight"),
    ("fractions", [0.1, 0.1], r"fractions \[0\.1, 0\.1\]: percents 10, 10; accepted: different fractions"),
    ("runs.ddis", 5, r"runs\.ddis: 5; accepted: settings such as"),
    ("runs.ddis.method", 5, r"method 5; accepted: ddis, ddis-gn"),
    ("runs.ddis.method", "os:path", r"method 'os:path' is no subclass of ddis\.sampling\.base\.Method"),
    ("problems.poisson.pde", "os:path", r"pde 'os:path' is no subclass of ddis\.pde\.base\.Problem"),
    ("operator.at", {50: {"steps": 3}}, r"operator\.at\.50: no fraction of the study; accepted: 1, 100"),
    ("prior.at", {1: {"steps": 3}}, r"prior\.at\.1: no fraction of the study; accepted: none"),
    ("noise", {"kernel": "gaussian", "length": 0.5}, r"noise\.length 0\.5 is too large"),
    ("prior.backbone.blocks", [1, 1], r"3 channels and 2 blocks; accepted: one of each per level"),
    ("prior.backbone.channels", [16, 40, 64], r"channels \[40\]; accepted: up to 16, or multiples of 16"),
    ("prior.backbone.name", "vnet", r"prior\.backbone\.name 'vnet' is unknown; accepted: unet, uno, or module:attribute"),
    ("prior.backbone.chanels", [8], r"prior\.backbone\.chanels: unknown key .*accepted here: name, channels, blocks"),
    ("joint.backbone", 5, r"joint\.backbone: 5; accepted: settings such as \{name: unet\}"),
    ("operator.network.architecture", "cnn", r"operator\.network\.architecture 'cnn' is unknown; accepted: fno"),
    (
        "operator.network.architecture",
        "os:path",
        r"architecture 'os:path' is no subclass of ddis\.models\.architectures\.base\.Arch",
    ),
    ("runs.ddis.stepps", 5, r"^configuration: runs\.ddis\.stepps: unknown key \(got 5\); settings of ddis: method, operator"),
    ("observations.sparse.cuont", 5, r"^configuration: observations\.sparse\.cuont: unknown key .*accepted here: kind, noise"),
    ("observations.sparse.kind", "os:path", r"^configuration: observations\.sparse: kind 'os:path' is no subclass"),
    ("operator.network.mods", 5, r"operator\.network\.mods: unknown key \(got 5\); accepted here: architecture, padding, modes"),
    ("operator.network.modes", 1, r"operator\.network\.modes: .*greater than or equal to 2 \(got 1\)"),
    ("operators", {"solver": {}}, r"operators\.solver: the name of another operator; accepted: other names than fno, solver"),
    ("operators", {"fno": {}}, r"operators\.fno: the name of another operator"),
    ("operators", {"wide": 5}, r"operators\.wide: 5; accepted: settings such as"),
    ("operators", {"wide": {"network": {"widht": 5}}}, r"operators\.wide\.network\.widht: unknown key .*accepted here: .*width"),
    ("operators", {"wide": {"at": {7: {"steps": 3}}}}, r"operators\.wide\.at\.7: no fraction of the study"),
    ("operators", {"a": {}, "A": {}}, r"a and A would have one file name where capitals do not count"),
    ("runs.ddis.operator", "corrected", r"runs\.ddis\.operator: 'corrected'; accepted: fno, solver"),
    ("runs.fundps", {"operator": "corrected"}, r"runs\.fundps\.operator: corrected; method 'fundps' has no operator"),
    ("runs.ddis.operator", "wide", r"runs\.ddis\.operator: 'wide'; accepted: fno, solver"),
    ("operator.network.padding", 0.99, r"operator\.network\.padding 0\.99: reflects more nodes than there are"),
    ("observations.sparse.noise", float("nan"), r"observations\.sparse\.noise: .*finite"),
    ("runs.joint-daps", {"error_model": "white"}, r"runs\.joint-daps\.error_model 'white'; accepted: none"),
    ("runs.fundps", {"operator": "solver"}, r"runs\.fundps\.operator: solver; method 'fundps' has no operator"),
    ("runs.ddis.problems", ["darcy"], r"runs\.ddis\.problems: darcy; accepted: poisson"),
    ("runs.ddis.observations", ["dense"], r"runs\.ddis\.observations: dense; accepted: sparse"),
]


@pytest.mark.parametrize(("path", "value", "message"), BAD)
def test_bad_settings_name_key_value_and_what_is_accepted(path, value, message):
    with pytest.raises(InputError, match=message):
        Study.load(changed(path, value))


def test_exact_needs_a_closed_form():
    class_path = f"{__name__}:NoClosedForm"
    with pytest.raises(InputError, match=r"runs\.exact: method 'exact' needs a closed form, and problem 'poisson' has none"):
        Study.load(changed("problems.poisson.pde", class_path))


def test_files_that_are_no_configuration(tmp_path):
    for content, message in (("a: [", "not YAML"), ("- 1", "no configuration"), ("study: x", r"problems: missing; see")):
        (tmp_path / "c.yaml").write_text(content)
        with pytest.raises(InputError, match=message):
            Study.load(tmp_path / "c.yaml")
    with pytest.raises(InputError, match="cannot be read"):
        Study.load(tmp_path / "none.yaml")


@pytest.mark.parametrize("path", sorted((ROOT / "config").glob("*.yaml")), ids=lambda p: p.name)
def test_configurations_load_and_resolve_to_themselves(path):
    study = Study.load(path)
    again = Study.load(json.loads(json.dumps(study.resolved())))
    assert again == study and again.resolved() == study.resolved()


def test_schema_file_is_the_schema():
    assert json.loads((ROOT / "config" / "schema.json").read_text()) == json_schema(), "run: ddis schema > config/schema.json"


def test_schema_knows_every_key_and_refuses_unknown_ones():
    import jsonschema  # comes with snakemake

    validator = jsonschema.Draft202012Validator(json_schema())
    content = json.loads(json.dumps(Study.load(DEFAULT).resolved()))
    assert list(validator.iter_errors(content)) == []
    for path in ("sead", "data.resolutoin", "prior.training.step", "runs.ddis.wieght"):
        *parents, last = path.split(".")
        wrong = copy.deepcopy(content)
        part = wrong
        for key in parents:
            part = part[key]
        part[last] = 1
        assert list(validator.iter_errors(wrong)), path


def test_percents_and_cases():
    content = changed("fractions", [0.01, 0.125, 1.0])
    content["runs"]["ddis"]["weight"] = content["runs"]["fundps"]["weight"] = 2.0
    study = Study.load(content)
    assert study.percents("ddis") == ["1", "12.5", "100"] and study.percents("exact") == ["100"]
    assert study.models_of("ddis", "12.5") == ["prior", "operator-12.5"]
    assert study.models_of("fundps", "1") == ["joint-1"] and study.models_of("exact", "100") == []
    content["runs"]["solved"] = {"method": "ddis-gn", "operator": "solver"}
    solver = Study.load(content)
    assert solver.percents("solved") == ["100"] and solver.models_of("solved", "100") == ["prior"]
    content["runs"]["corrected"] = {"method": "ddis-gn", "operator": "corrected"}
    corrected = Study.load(content)
    assert corrected.percents("corrected") == ["1", "12.5", "100"]
    assert corrected.models_of("corrected", "1") == ["prior", "operator-1"]


def test_a_run_is_made_on_the_problems_and_with_the_observations_that_it_names():
    content = default()
    content["observations"]["few"] = {"count": 5}
    content["runs"]["exact"]["observations"] = ["few"]
    cases = Study.load(content).cases()
    assert {case.observation for case in cases if case.run == "exact"} == {"few"}
    assert {case.observation for case in cases if case.run == "ddis-gn"} == {"sparse", "few"}


def test_a_run_names_its_operator_and_gets_its_model():
    """What a variant does not give is that of `operator`; by another architecture its network is taken whole."""
    content = default()
    content["operators"] = {"wide": {"network": {"width": 32}, "training": {"steps": 9}}}
    content["runs"] |= {"wide": {"method": "ddis-gn", "operator": "wide"}, "plain": {"method": "ddis-gn", "operator": "fno"}}
    study = Study.load(content)
    assert study.models_of("wide", "1") == ["prior", "operator-wide-1"] and study.models_of("plain", "1") == [
        "prior",
        "operator-1",
    ]
    wide, own = study.operators["wide"], study.operator
    assert wide.network == own.network.model_copy(update={"width": 32}) and wide.at == own.at
    assert wide.training == own.training.model_copy(update={"steps": 9})
    assert study.training(ModelId.parse("operator-wide-1")).steps == 600
    assert study.percents("wide") == ["1", "100"]
    assert Study.load(study.resolved()) == study


def test_model_names():
    for name in (
        "prior",
        "joint-1",
        "joint-white-12.5",
        "operator-100",
        "operator-physics-1",
        "operator-a-b-12.5",
        "operator-1-5",
    ):
        assert str(ModelId.parse(name)) == name
    assert ModelId.parse("operator-a-b-12.5") == ModelId("operator", "12.5", variant="a-b")
    for name in ("operator", "operator-physics", "operator--5", "joint-white", "joint-physics-1", "prior-5", "operator-101", ""):
        with pytest.raises(InputError, match=r"model .* is unknown; accepted: prior, joint-<percent>|percent '"):
            ModelId.parse(name)
    with pytest.raises(InputError, match=r"'physics' is not in the study; accepted operators: none"):
        Study.load(default()).training(ModelId.parse("operator-physics-1"))


def test_weight_of_a_case():
    study = Study.load(changed("runs.ddis.weight", {"poisson": {1: 3.0, 100: 7.0}}))
    assert study.run_for(Case("poisson", "sparse", "ddis", "1")).weight == 3.0
    assert study.run_for(Case("poisson", "sparse", "ddis", "100")).weight == 7.0
    with pytest.raises(InputError, match=r"poisson/sparse/ddis-50 is not in the study; accepted: .*ddis-1"):
        study.run_for(Case("poisson", "sparse", "ddis", "50"))
    with pytest.raises(InputError, match=r"runs\.ddis\.weight has no value for problem 'poisson' at 1 %"):
        Study.load(changed("runs.ddis.weight", {"poisson": {100: 7.0}}))


STAGES = {
    "prior": ("train", {"problem": "poisson", "model": "prior"}),
    "joint-1": ("train", {"problem": "poisson", "model": "joint-1"}),
    "operator-100": ("train", {"problem": "poisson", "model": "operator-100"}),
    "ddis-100": ("sample", vars(Case("poisson", "sparse", "ddis", "100"))),
    "fundps-1": ("sample", vars(Case("poisson", "sparse", "fundps", "1"))),
    "exact": ("sample", vars(Case("poisson", "sparse", "exact", "100"))),
}


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("runs.ddis.weight", 1.5, {"ddis-100"}),
        ("operator.network.width", 8, {"operator-100", "ddis-100"}),
        ("joint.at", {1: {"steps": 7}}, {"joint-1", "fundps-1"}),
        ("prior.training.steps", 7, {"prior", "ddis-100"}),
        ("observations.sparse.noise", 0.1, {"ddis-100", "fundps-1", "exact"}),
        ("data.test", 3, {"ddis-100", "fundps-1", "exact"}),
        ("seed", 5, set(STAGES)),
        ("threads", 2, set()),
        ("checkpoint_seconds", 1, set()),
        ("tuning.fields", 2, set()),
    ],
)
def test_a_change_marks_only_what_depends_on_it(path, value, expected):
    before, after = Study.load(default()), Study.load(changed(path, value))
    found = {name for name, (stage, what) in STAGES.items() if before.digest(stage, **what) != after.digest(stage, **what)}
    assert found == expected


class NoClosedForm(Poisson):
    """A linear problem whose prior is not known."""

    def prior_spectrum(self, resolution):
        return None
