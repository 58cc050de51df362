import pytest
import torch
from diffusers import DDPMScheduler, DPMSolverMultistepScheduler

from tests.builders import MICRO, awake
from vgmedgen.config.run import PREDICTS
from vgmedgen.models import sampler
from vgmedgen.models.generator import Generator
from vgmedgen.models.hffm import null_condition
from vgmedgen.models.objective import Schedule, wanted
from vgmedgen.models.sampler import sample, solver

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


@pytest.mark.parametrize("predicts", PREDICTS)
def test_a_generator_that_knows_one_picture_draws_it_whatever_it_predicts(predicts):
    scheduler = solver(DDPMScheduler(beta_schedule="linear", prediction_type=predicts))
    schedule = Schedule.of(scheduler)
    picture = torch.randn(4, 4, 4, generator=torch.Generator().manual_seed(3))

    class Knowing(Generator):
        def denoise(self, latents, timesteps, tokens):
            signal, spread = schedule.shares(timesteps, latents)
            noise = (latents - signal * picture) / spread
            return wanted(schedule, picture.expand_as(latents), noise, timesteps)

    made = Generator.build(MICRO, seed=1)
    knowing = Knowing(made.transformer, made.hffm)
    drawn = draw_latents(knowing, scheduler=scheduler)
    torch.testing.assert_close(drawn, picture.expand(3, 4, 4, 4), rtol=0, atol=2e-3)


def test_one_seed_per_image_is_asked_for(generator):
    with pytest.raises(ValueError, match="2 seeds for 3"):
        draw_latents(generator, seeds=[1, 2])


def test_a_row_is_the_same_to_the_bit_whatever_the_rows_beside_it_hold(generator):
    first = draw_latents(generator)
    other = draw_latents(generator, seeds=[98, 12, 99])
    assert torch.equal(first[1], other[1])
    assert not torch.equal(first[0], other[0])


@pytest.mark.parametrize("algorithm", ["dpmsolver++", "sde-dpmsolver++"])
def test_given_noise_takes_the_place_of_the_seeds_noise(generator, algorithm):
    scheduler = solver(SCHEDULER)
    scheduler.register_to_config(algorithm_type=algorithm)
    draws = [torch.Generator().manual_seed(seed) for seed in (11, 12, 13)]
    noise = torch.stack([torch.randn(4, 4, 4, generator=draw) for draw in draws])
    plain = draw_latents(generator, scheduler=scheduler)
    assert torch.equal(
        plain, draw_latents(generator, scheduler=scheduler, latents=noise)
    )
    other = draw_latents(generator, scheduler=scheduler, latents=noise.flip(0))
    assert not torch.allclose(plain, other)


def test_noise_of_another_shape_is_refused(generator):
    with pytest.raises(ValueError, match=r"shape \(3, 4, 8, 8\), not \(3, 4, 4, 4\)"):
        draw_latents(generator, latents=torch.zeros(3, 4, 8, 8))


def test_every_step_is_shown_and_may_be_replaced(generator):
    seen = []

    def watch(number, timestep, latents):
        seen.append((number, int(timestep)))
        return torch.zeros_like(latents) if number == 5 else latents

    drawn = draw_latents(generator, after_step=watch)
    assert [number for number, _ in seen] == list(range(6))
    assert seen == sorted(seen, key=lambda step: -step[1])
    assert torch.equal(drawn, torch.zeros(3, 4, 4, 4))


def test_a_watcher_that_gives_nothing_stops_the_drawing(generator):
    kept = []
    drawn = draw_latents(
        generator,
        after_step=lambda n, _, x: kept.append(x) or (x if n < 2 else None),
    )
    assert len(generator.rows) == 3
    assert torch.equal(drawn, kept[-1])
