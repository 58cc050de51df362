from dataclasses import replace

import pytest
import torch
from diffusers import AutoencoderKL, DDPMScheduler, DPMSolverMultistepScheduler

from tests.builders import MICRO, awake
from vgmedgen.config.run import PREDICTS
from vgmedgen.errors import BaseError
from vgmedgen.models import lora
from vgmedgen.models.codec import Codec
from vgmedgen.models.generator import Generator
from vgmedgen.models.hffm import null_condition
from vgmedgen.models.objective import (
    Schedule,
    add_noise,
    colour_loss,
    denoising_loss,
    drop_condition,
    loss_weights,
    prediction_error,
    wanted,
    x0_estimate,
)

SCHEDULER = DDPMScheduler(beta_schedule="linear")
SCHEDULE = Schedule.of(SCHEDULER)
VELOCITY = replace(SCHEDULE, predicts="v_prediction")
SCHEDULES = (SCHEDULE, VELOCITY)


@pytest.fixture
def draw():
    return torch.Generator().manual_seed(0)


@pytest.fixture
def generator():
    made = awake(Generator.build(MICRO, seed=1))
    lora.attach(made, 4, 4, ("to_q", "to_k", "to_v", "to_out.0"), seed=0)
    return made


def batch(draw, count=4):
    return (
        torch.randn(count, 4, 4, 4, generator=draw),
        torch.randint(1000, (count,), generator=draw),
        torch.randn(count, 4, 4, 4, generator=draw),
        torch.randn(count, 6, generator=draw),
        torch.randn(count, 5, generator=draw),
    )


def test_noising_is_the_scheduler_s_own(draw):
    latents, timesteps, noise, *_ = batch(draw)
    torch.testing.assert_close(
        add_noise(SCHEDULE, latents, noise, timesteps),
        SCHEDULER.add_noise(latents, noise, timesteps),
    )
    assert len(SCHEDULE) == 1000


@pytest.mark.parametrize("schedule", SCHEDULES, ids=PREDICTS)
def test_the_x0_estimate_undoes_noising(schedule, draw):
    latents, _, noise, *_ = (part.double() for part in batch(draw))
    for step in (0, 250, 999):
        timesteps = torch.full((4,), step)
        noisy = add_noise(schedule, latents, noise, timesteps)
        right = wanted(schedule, latents, noise, timesteps)
        found = x0_estimate(schedule, noisy, right, timesteps)
        torch.testing.assert_close(found, latents, rtol=0, atol=1e-12)


def test_the_velocity_is_the_scheduler_s_own(draw):
    latents, timesteps, noise, *_ = batch(draw)
    torch.testing.assert_close(
        wanted(VELOCITY, latents, noise, timesteps),
        SCHEDULER.get_velocity(latents, noise, timesteps),
    )


def test_a_small_error_stays_small_where_the_velocity_is_predicted(draw):
    latents, _, noise, *_ = batch(draw)
    last = torch.full((4,), 999)
    off = []
    for schedule in SCHEDULES:
        noisy = add_noise(schedule, latents, noise, last)
        said = wanted(schedule, latents, noise, last) + 0.01
        off.append((x0_estimate(schedule, noisy, said, last) - latents).abs().max())
    assert off[0] > 1
    assert off[1] < 0.011


@pytest.mark.parametrize("predicts", PREDICTS)
def test_the_schedule_loads_from_any_scheduler_that_predicts_either(tmp_path, predicts):
    for kind in (DDPMScheduler, DPMSolverMultistepScheduler):
        made = kind(beta_schedule="linear", prediction_type=predicts)
        made.save_pretrained(tmp_path)
        loaded = Schedule.load(tmp_path)
        assert torch.equal(loaded.alphas_cumprod, SCHEDULE.alphas_cumprod)
        assert loaded.predicts == predicts


def test_a_schedule_that_predicts_something_else_is_refused(tmp_path):
    DDPMScheduler(prediction_type="sample").save_pretrained(tmp_path)
    with pytest.raises(BaseError, match="'sample', only epsilon and v_prediction"):
        Schedule.load(tmp_path)


def test_the_denoising_loss_is_per_sample_and_independent_of_the_batch(generator, draw):
    parts = batch(draw)
    together = denoising_loss(generator, SCHEDULE, *parts)
    alone = [
        denoising_loss(generator, SCHEDULE, *(part[i : i + 1] for part in parts))
        for i in range(4)
    ]
    assert together.shape == (4,)
    torch.testing.assert_close(together, torch.cat(alone))


@pytest.mark.parametrize("schedule", SCHEDULES, ids=PREDICTS)
def test_a_perfect_prediction_costs_nothing(schedule, generator, draw):
    latents, timesteps, noise, anatomy, style = batch(draw)
    generator.predict = lambda *_: wanted(schedule, latents, noise, timesteps)
    given = (generator, schedule, latents, timesteps, noise, anatomy, style)
    assert denoising_loss(*given).max() < 1e-10
    assert not prediction_error(*given).any()


@pytest.mark.parametrize("schedule", SCHEDULES, ids=PREDICTS)
def test_the_denoising_loss_is_of_the_noise_whatever_is_predicted(
    schedule, generator, draw
):
    latents, timesteps, noise, *vectors = batch(draw)
    noisy = add_noise(schedule, latents, noise, timesteps)
    said = generator.predict(noisy, timesteps, *vectors)
    clean = x0_estimate(schedule, noisy, said, timesteps)
    signal, spread = schedule.shares(timesteps, noisy)
    found = (noisy - signal * clean) / spread
    torch.testing.assert_close(
        denoising_loss(generator, schedule, latents, timesteps, noise, *vectors),
        (found - noise).square().flatten(1).mean(1),
        rtol=1e-4,
        atol=1e-6,
    )


def test_loss_weights_hold_back_only_steps_with_little_noise():
    timesteps = torch.arange(1000)
    alpha = SCHEDULE.alphas_cumprod
    weights = loss_weights(SCHEDULE, timesteps, 5.0)
    snr = alpha / (1 - alpha)
    torch.testing.assert_close(weights, (snr.clamp(max=5) / snr).float())
    assert (weights[snr <= 5] == 1).all()
    assert weights[0] < 0.01


def test_of_the_velocity_s_weight_no_more_than_gamma_is_left():
    timesteps = torch.arange(1000)
    weights = loss_weights(VELOCITY, timesteps, 5.0).double()
    snr = SCHEDULE.alphas_cumprod / (1 - SCHEDULE.alphas_cumprod)
    torch.testing.assert_close(
        weights * (snr + 1), (snr + 1).clamp(max=5), rtol=1e-5, atol=0
    )
    assert (weights[snr + 1 <= 5] == 1).all()


def test_without_a_gamma_noise_is_unweighted_and_velocity_halfway_to_it():
    timesteps = torch.arange(1000)
    assert (loss_weights(SCHEDULE, timesteps, 0) == 1).all()
    weights = loss_weights(VELOCITY, timesteps, 0)
    # the noise's own loss is alpha squared times the velocity's
    left = SCHEDULE.alphas_cumprod.float()
    torch.testing.assert_close(weights.square(), left, rtol=1e-6, atol=1e-9)


def test_dropped_rows_get_the_null_condition_and_kept_rows_stay(draw):
    *_, anatomy, style = batch(draw)
    keep = torch.tensor([True, False, True, False])
    for before, after in zip(
        (anatomy, style), drop_condition(anatomy, style, keep), strict=True
    ):
        assert torch.equal(after[keep], before[keep])
        assert torch.equal(after[~keep], null_condition(before[~keep]))


@pytest.mark.parametrize("kept", [False, True])
def test_each_branch_learns_from_the_rows_that_ask_for_it(kept):
    """Training without captions serves the null condition most, and vice versa.

    The HFFM alone learns, so that nothing but the condition tells the branches apart.
    """
    draw = torch.Generator().manual_seed(0)
    made = awake(Generator.build(MICRO, seed=1))
    with torch.no_grad():
        for name, weight in made.hffm.named_parameters():
            if name.endswith("bias"):  # as after any training, so that zeros can speak
                weight.normal_(std=0.3, generator=draw)
    lora.attach(made, 4, 4, ("to_q", "to_k", "to_v", "to_out.0"), seed=0)
    latents, timesteps, noise, anatomy, style = batch(draw, 16)
    given = (made, SCHEDULE, latents, timesteps, noise)
    told, untold = (anatomy, style), (null_condition(anatomy), null_condition(style))

    def losses():
        with torch.no_grad():
            return [denoising_loss(*given, *v).mean().item() for v in (told, untold)]

    before = losses()
    trained = [w for n, w in lora.parameters(made).items() if n.startswith("hffm")]
    optimizer = torch.optim.Adam(trained, lr=1e-2)
    keep = torch.full((16,), kept)
    for _ in range(100):
        loss = denoising_loss(*given, *drop_condition(anatomy, style, keep)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    told_fall, untold_fall = (b - a for b, a in zip(before, losses(), strict=True))
    if kept:
        assert told_fall > untold_fall + 0.02
    else:
        assert untold_fall > told_fall + 0.02


def test_the_loss_without_captions_is_the_null_condition_s_own(generator, draw):
    latents, timesteps, noise, anatomy, style = batch(draw)
    given = (generator, SCHEDULE, latents, timesteps, noise)
    drop = torch.zeros(4, dtype=torch.bool)
    dropped = denoising_loss(*given, *drop_condition(anatomy, style, drop))
    null = denoising_loss(*given, null_condition(anatomy), null_condition(style))
    assert torch.equal(dropped, null)
    assert not torch.allclose(
        dropped, denoising_loss(*given, anatomy, style), rtol=1e-6
    )


def test_a_dropped_row_carries_nothing_of_its_caption(generator, draw):
    latents, timesteps, noise, anatomy, style = batch(draw)
    anatomy.requires_grad_()
    keep = torch.tensor([True, False, True, False])
    for weight in lora.parameters(generator).values():
        weight.data.add_(0.1)
    told = drop_condition(anatomy, style, keep)
    denoising_loss(
        generator, SCHEDULE, latents, timesteps, noise, *told
    ).sum().backward()
    assert not anatomy.grad[~keep].any()
    assert anatomy.grad[keep].flatten(1).any(1).all()


@pytest.fixture(scope="module")
def codec():
    torch.manual_seed(0)
    vae = AutoencoderKL(
        block_out_channels=(8, 8, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=4,
        norm_num_groups=4,
    )
    return Codec(vae)


def test_the_colour_loss_moves_every_factor_through_the_decoder(generator, codec, draw):
    latents, _, noise, anatomy, style = batch(draw)
    for weight in lora.parameters(generator).values():
        weight.data.add_(0.05 * torch.randn(weight.shape, generator=draw))
    timesteps = torch.tensor([10, 60, 120, 200])
    image = torch.rand(4, 3, 32, 32, generator=draw) * 2 - 1
    noisy = add_noise(SCHEDULE, latents, noise, timesteps)
    predicted = generator.predict(noisy, timesteps, anatomy, style)
    estimate = x0_estimate(SCHEDULE, noisy, predicted, timesteps)
    loss = colour_loss(codec.decode, estimate, image)
    assert loss.shape == (4,)
    loss.mean().backward()
    for name, weight in lora.parameters(generator).items():
        assert weight.grad.isfinite().all(), name
        assert weight.grad.any(), name
    assert all(weight.grad is None for weight in codec.parameters())


def test_the_colour_loss_is_zero_for_the_same_colours_and_sees_a_tint(draw):
    image = torch.rand(2, 3, 8, 8, generator=draw)
    shuffled = image.flatten(2)[:, :, torch.randperm(64, generator=draw)].view_as(image)
    tint = torch.tensor([0.2, 0.0, 0.0]).view(1, 3, 1, 1)
    same = colour_loss(lambda x: x, shuffled, image)
    torch.testing.assert_close(same, torch.zeros(2), rtol=0, atol=1e-10)
    tinted = colour_loss(lambda x: x + tint, image, image)
    torch.testing.assert_close(tinted, torch.full((2,), 0.04 / 3))


def test_the_colour_loss_of_a_flat_image_has_a_finite_gradient():
    flat = torch.zeros(1, 3, 8, 8, requires_grad=True)
    colour_loss(lambda x: x, flat, torch.ones(1, 3, 8, 8)).backward()
    assert flat.grad.isfinite().all()
