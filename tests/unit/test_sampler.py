import pytest
import torch
from diffusers import DDPMScheduler, DPMSolverMultistepScheduler

from tests.builders import MICRO, awake
from vgmedgen.dit import sampler
from vgmedgen.dit.hffm import null_condition
from vgmedgen.dit.model import Generator
from vgmedgen.dit.sampler import sample, solver

SCHEDULER = DPMSolverMultistepScheduler(beta_schedule="linear")


class Watched(Generator):
    """Notes how many rows each forward pass has."""

    def denoise(self, latents, timesteps, tokens):
        self.__dict__.setdefault("rows", []).append(len(latents))
        return super().denoise(latents, timesteps, tokens)


@pytest.fixture
def generator():
    made = awake(Generator.build(MICRO, seed=1))
    return Watched(made.transformer, made.hffm)


def vectors(count=3):
    draw = torch.Generator().manual_seed(0)
    return torch.randn(count, 6, generator=draw), torch.randn(count, 5, generator=draw)


def draw_latents(generator, rows=slice(None), *, scheduler=SCHEDULER, **told):
    anatomy, style = vectors()
    asked = {"steps": 6, "guidance": 3.0, "seeds": [11, 12, 13][rows], **told}
    return sample(generator, scheduler, anatomy[rows], style[rows], **asked)


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_two_runs_are_equal(generator, guidance):
    first = draw_latents(generator, guidance=guidance)
    second = draw_latents(generator, guidance=guidance)
    assert first.shape == (3, 4, 4, 4)
    assert first.isfinite().all()
    assert torch.equal(first, second)


@pytest.mark.parametrize("algorithm", ["dpmsolver++", "sde-dpmsolver++"])
def test_an_image_does_not_depend_on_its_batch(generator, algorithm):
    scheduler = solver(SCHEDULER)
    scheduler.register_to_config(algorithm_type=algorithm)
    together = draw_latents(generator, scheduler=scheduler)
    for row in range(3):
        alone = draw_latents(generator, slice(row, row + 1), scheduler=scheduler)
        torch.testing.assert_close(alone[0], together[row], rtol=1e-4, atol=1e-4)


def test_another_seed_gives_another_image(generator):
    first = draw_latents(generator)
    other = draw_latents(generator, seeds=[11, 12, 99])
    torch.testing.assert_close(first[:2], other[:2])
    assert not torch.allclose(first[2], other[2])


def test_the_global_random_state_plays_no_part(generator):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first = draw_latents(generator)
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(1)
    assert torch.equal(first, draw_latents(generator))


def test_guidance_1_skips_the_unconditional_pass_and_more_shares_one(generator):
    draw_latents(generator, guidance=1.0)
    draw_latents(generator, guidance=2.0)
    assert generator.rows == [3] * 6 + [6] * 6


def test_guidance_leads_away_from_the_null_condition(generator):
    """One step from the same noise: told + (guidance - 1) * (told - untold)."""
    anatomy, style = vectors()
    nothing = null_condition(anatomy), null_condition(style)
    plain = {"steps": 1, "guidance": 1.0, "seeds": [1, 2, 3]}
    told = sample(generator, SCHEDULER, anatomy, style, **plain)
    untold = sample(generator, SCHEDULER, *nothing, **plain)
    guided = sample(generator, SCHEDULER, anatomy, style, **{**plain, "guidance": 4.0})
    torch.testing.assert_close(
        guided, untold + 4 * (told - untold), rtol=1e-3, atol=0.05
    )


def test_the_sampler_and_the_dropout_share_one_null_condition():
    assert sampler.null_condition is null_condition


def test_the_solver_starts_where_there_is_only_noise():
    trained_with = DDPMScheduler(beta_schedule="linear", clip_sample=False)
    made = solver(trained_with)
    made.set_timesteps(10)
    assert isinstance(made, DPMSolverMultistepScheduler)
    assert made.timesteps[0] == 999
    torch.testing.assert_close(made.alphas_cumprod, trained_with.alphas_cumprod)


def test_one_seed_per_image_is_asked_for(generator):
    with pytest.raises(ValueError, match="2 seeds for 3"):
        draw_latents(generator, seeds=[1, 2])
