"""Networks on other nodes than they were trained on: what is known of their fields and noise, and samples there."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

import ddis
from ddis.config import Study
from ddis.errors import InputError
from ddis.files import write_text
from ddis.models.architectures import architecture_of
from ddis.models.operator import NeuralOperator
from ddis.stages import generate, pairs, train
from ddis.stages.layout import model_folder
from ddis.trained import of_folder
from ddis.yaml_text import yaml_text

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> tuple[Path, Path]:
    """Folders of a prior and an operator on 16 x 16 nodes, whose noise spans three of them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("resolution"))
        patch.setenv("DDIS_TRACKING", "off")
        content = yaml.safe_load((ROOT / "tests" / "tiny.yaml").read_text())
        study = Study.load(content | {"noise": {"kernel": "exponential", "length": 0.2, "diagonal": True}})
        write_text(study.folder / "config.yaml", yaml_text(study.resolved()))
        for split in ("train", "validation"):
            generate.run(study, "poisson", split)
        pairs.run(study, "poisson", "100")
        models = [train.run(study, "poisson", model) or model for model in ("prior", "operator-100")]
        prior, operator = (model_folder(study, "poisson", model).absolute() for model in models)
    return prior, operator


def test_modes_of_the_coefficient_are_those_of_the_problem_on_the_finer_grid(folders):
    """The spectrum in closed form on 16 nodes, put in place of the estimated one, becomes that on 32 where it has modes."""
    coarse, fine = (ddis.problem("poisson", resolution=size) for size in (16, 32))
    known = replace(of_folder(folders[0]), spectrum=coarse.prior_spectrum(16))
    found, expected = known.on(fine).spectrum, fine.prior_spectrum(32)
    torch.testing.assert_close(found[:16, :16], expected[:16, :16], rtol=1e-12, atol=0)
    assert not found[16:].any() and not found[:, 16:].any()
    torch.testing.assert_close(known.on(fine).on(coarse).spectrum, known.spectrum, rtol=1e-12, atol=0)


def test_noise_is_the_same_function_on_both_grids(folders):
    """Variances of the slowest 4 x 4 modes, of noise that spans three coarse nodes, differ by the quadrature of the coarse grid:
    found, at most 6 %. Of noise of a third of a node, 0.02, they would differ by 90 %."""
    noises = [ddis.prior.load(folders[0], resolution=size).noise for size in (16, 32)]
    spectra = [noise.spectrum(noise.basis) * (32 / size) ** 2 for noise, size in zip(noises, (16, 32), strict=True)]
    ratio = spectra[0][:4, :4] / spectra[1][:4, :4]
    assert float((ratio - 1).abs().max()) < 0.06


def test_samples_are_drawn_on_the_finer_grid(folders):
    problem = ddis.problem("poisson", resolution=32)
    a = problem.sample_coefficients([0], 32, 0)
    u = problem.solve(a)[0].numpy()
    nodes = [100, 520, 700]
    prior, operator = (
        load(folder, resolution=32) for load, folder in zip((ddis.prior.load, ddis.operator.load), folders, strict=True)
    )
    posterior = ddis.Posterior(problem, prior, operator, ddis.observe.nodes(nodes), u.ravel()[nodes])
    for method, settings in (("ddis", {"steps": 3, "langevin_steps": 2, "weight": 1}), ("ddis-gn", {"steps": 3})):
        samples = posterior.sample(method, samples=2, **settings).samples
        assert samples.shape == (2, 32, 32) and np.isfinite(samples).all()
    with pytest.raises(InputError, match=r"prior of fields \(16, 16\); the problem's coefficient has \(32, 32\)"):
        ddis.Posterior(problem, ddis.prior.load(folders[0]), operator, ddis.observe.nodes(nodes), u.ravel()[nodes])


def test_an_operator_from_a_line_to_space_and_time_stays_on_its_nodes(folders):
    """Of burgers, with any weights: on 32 nodes it would give solutions of 17 times, not 33."""
    coarse, fine = (ddis.problem("burgers", resolution=size) for size in (16, 32))
    operator = of_folder(folders[1])
    scales = operator.coefficient, operator.solution
    network = NeuralOperator(architecture_of({"modes": 4, "width": 4, "layers": 2}), coarse.spaces(16), *scales)
    trained = replace(operator, problem=coarse, network=network, error_gain=None, error_spectrum=None)
    with pytest.raises(
        InputError, match="resolution: an operator from 16 to 16 x 17 nodes repeats its input on its own t; accepted: 16"
    ):
        trained.on(fine)


def test_networks_of_masked_domains_stay_on_their_nodes(folders):
    with pytest.raises(InputError, match="resolution: the network knows its domain on its own nodes only"):
        of_folder(folders[0]).on(ddis.problem("poisson-l-shape", resolution=33))


def test_an_operator_that_pads_another_share_of_other_nodes_stays_on_its_own(folders):
    """An eighth of 16 nodes is two, and so is that of 20, rounded; of 24 it is three."""
    with pytest.raises(
        InputError, match=r"resolution: the operator pads 2 of 20 nodes, in its training 2 of 16; accepted: .*, such as 16$"
    ):
        ddis.operator.load(folders[1], resolution=20)
    assert ddis.operator.load(folders[1], resolution=24) and ddis.prior.load(folders[0], resolution=20)


def test_padding_does_not_bind_operators_of_periodic_domains(folders):
    own, other = (ddis.problem("navier-stokes", resolution=size) for size in (16, 20))
    operator = of_folder(folders[1])
    scales = operator.coefficient, operator.solution
    network = NeuralOperator(architecture_of({"modes": 4, "width": 4, "layers": 2, "padding": 0.125}), own.spaces(16), *scales)
    trained = replace(operator, problem=own, network=network, error_gain=None, error_spectrum=None)
    assert trained.on(other).problem is other
