"""Any scheduler that diffusers calls exchangeable draws what the model was trained on.

The model here is exact: it knows the law of its latents, a normal one, so that what a
solver draws can be compared with the truth.
"""

import diffusers
import pytest
import torch
from diffusers import DDPMScheduler
from diffusers.schedulers.scheduling_utils import KarrasDiffusionSchedulers

from tests.pipelines import PROMPTS, micro_pipeline
from vgmedgen.models.sampler import UNSUPPORTED, sample

# diffusers lags behind numpy 2 and says so at every step
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

MEAN, DEVIATION = 0.7, 0.3
USABLE = sorted({kind.name for kind in KarrasDiffusionSchedulers} - UNSUPPORTED.keys())
FIRST_ORDER = {"DDIMScheduler", "DDPMScheduler", "EulerDiscreteScheduler"}


class Exact:
    """Predicts as well as can be for latents of independent normal values."""

    latent_shape = (4, 4, 4)

    def __init__(self, scheduler):
        self.logarithms = scheduler.alphas_cumprod.double().log()
        self.predicts = scheduler.config.prediction_type

    def tokens(self, anatomy, style):
        return torch.zeros(len(anatomy), 1, 1)

    def denoise(self, latents, timesteps, tokens):
        low = timesteps.double().floor().long().clamp(0, 999)  # solvers step between
        share = timesteps.double() - low
        high = (low + 1).clamp(max=999)
        between = (1 - share) * self.logarithms[low] + share * self.logarithms[high]
        alpha = between.exp().view(-1, 1, 1, 1)
        signal, spread = alpha.sqrt(), (1 - alpha).sqrt()
        noisy = latents.double()
        gain = signal * DEVIATION**2 / (alpha * DEVIATION**2 + 1 - alpha)
        clean = MEAN + gain * (noisy - signal * MEAN)
        noise = (noisy - signal * clean) / spread
        velocity = signal * noise - spread * clean
        return (noise if self.predicts == "epsilon" else velocity).float()


@pytest.fixture(params=["epsilon", "v_prediction"])
def trained(request, tmp_path):
    """The scheduler of a base bundle, as it is read back."""
    made = DDPMScheduler(
        beta_schedule="linear", clip_sample=False, prediction_type=request.param
    )
    made.save_pretrained(tmp_path)
    return DDPMScheduler.from_pretrained(tmp_path)


@pytest.mark.parametrize("name", USABLE)
def test_an_exchanged_scheduler_draws_the_law_that_was_trained(trained, name):
    scheduler = getattr(diffusers, name).from_config(trained.config)
    nothing = torch.zeros(32, 1)
    drawn = sample(
        Exact(trained),
        scheduler,
        nothing,
        nothing,
        steps=100,
        guidance=1.0,
        seeds=range(32),
    )
    assert drawn.mean() == pytest.approx(MEAN, abs=0.02)
    # those of first order fall short by a share that shrinks with the steps
    short = 0.05 if name in FIRST_ORDER or "Ancestral" in name else 0.025
    assert drawn.std() == pytest.approx(DEVIATION, abs=short)


@pytest.mark.parametrize("name", USABLE)
def test_a_pipeline_takes_a_scheduler_as_diffusers_teaches_to_exchange_it(
    pipeline, name
):
    kind = getattr(diffusers, name)
    usual = pipeline.scheduler
    try:
        pipeline.scheduler = kind.from_config(usual.config)
        drawn = pipeline(PROMPTS[:2], seeds=[1, 2], num_inference_steps=20)
        alone = pipeline(
            PROMPTS[1], seeds=[2], num_inference_steps=20, output_type="pt"
        )
        together = pipeline(
            PROMPTS[:2], seeds=[1, 2], num_inference_steps=20, output_type="pt"
        )
    finally:
        pipeline.scheduler = usual
    assert len(drawn.images) == 2
    # noise of a solver that adds some comes from the image's own seed too
    torch.testing.assert_close(together.images[1:], alone.images, rtol=0, atol=1e-3)


@pytest.mark.parametrize(
    "name",
    [
        "EDMEulerScheduler",
        "FlowMatchEulerDiscreteScheduler",
        "CMStochasticIterativeScheduler",
    ],
)
def test_a_scheduler_of_another_kind_of_model_is_refused_by_name(pipeline, name):
    usual = pipeline.scheduler
    try:
        pipeline.scheduler = getattr(diffusers, name)()
        with pytest.raises(
            ValueError, match=f"{name} cannot draw.*use .*DDIMScheduler"
        ):
            pipeline(PROMPTS[0])
    finally:
        pipeline.scheduler = usual


def test_a_scheduler_with_another_noise_schedule_is_refused(pipeline):
    usual = pipeline.scheduler
    try:
        pipeline.scheduler = diffusers.EulerDiscreteScheduler(
            beta_schedule="scaled_linear"
        )
        with pytest.raises(ValueError, match=r"another noise schedule.*from_config"):
            pipeline(PROMPTS[0])
    finally:
        pipeline.scheduler = usual


def test_a_scheduler_given_while_a_folder_is_read_is_held_to_that_folder_s(
    pipeline, tmp_path
):
    pipeline.save_pretrained(tmp_path)
    other = diffusers.EulerDiscreteScheduler(beta_schedule="scaled_linear")
    read = type(pipeline).from_pretrained(tmp_path, scheduler=other)
    with pytest.raises(ValueError, match="another noise schedule"):
        read(PROMPTS[0])


@pytest.fixture(scope="module")
def pipeline():
    return micro_pipeline()
