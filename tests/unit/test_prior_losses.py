"""The prior's loss terms: right at the known points, per sample, never NaN."""

import pytest
import torch

from vgmedgen.config.run import ModelConfig
from vgmedgen.models.prior import losses
from vgmedgen.models.prior.model import VisualPrior
from vgmedgen.training.loop import generator_of


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=generator_of(seed))


def test_reconstruction_is_the_mean_absolute_difference_of_each_image():
    painted = torch.zeros(2, 3, 4, 4)
    image = torch.stack([torch.zeros(3, 4, 4), torch.full((3, 4, 4), -0.5)])
    assert losses.reconstruction(painted, image).tolist() == [0, 0.5]


def test_dice_is_small_for_the_right_mask_and_large_for_the_wrong_one():
    mask = torch.zeros(2, 1, 8, 8)
    mask[:, :, :4] = 1
    logits = 20 * (2 * mask - 1)
    logits[1] *= -1
    right, wrong = losses.dice(logits, mask)
    assert right < 0.01
    assert wrong > 0.99


def test_dice_of_an_empty_mask_is_the_share_called_lesion():
    logits = torch.stack([torch.full((1, 8, 8), level) for level in (-20.0, 0.0, 20.0)])
    found = losses.dice(logits, torch.zeros(3, 1, 8, 8))
    torch.testing.assert_close(found, torch.tensor([0.0, 0.5, 1.0]))


def test_dice_teaches_to_call_less_lesion_where_there_is_none():
    logits = torch.zeros(2, 1, 8, 8, requires_grad=True)
    mask = torch.zeros(2, 1, 8, 8)
    mask[1, :, :4] = 1
    losses.dice(logits, mask).sum().backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    assert (logits.grad[0] > 0).all()
    assert (logits.grad[1, :, :4] < 0).all()
    assert (logits.grad[1, :, 4:] > 0).all()


def test_kl_is_zero_for_a_standard_normal_and_grows_away_from_it():
    still = torch.zeros(1, 6)
    assert losses.kl(still, still).item() == 0
    assert losses.kl(still + 1, still).item() == pytest.approx(3)
    assert losses.kl(still, still - 2).item() > 0
    assert losses.kl(still, still + 2).item() > 0


def test_kl_equals_the_divergence_that_torch_computes():
    mean, logvar = normal(4, 6), normal(4, 6, seed=1)
    there = torch.distributions.Normal(mean, (logvar / 2).exp())
    plain = torch.distributions.Normal(torch.zeros(4, 6), torch.ones(4, 6))
    expected = torch.distributions.kl_divergence(there, plain).sum(1)
    torch.testing.assert_close(losses.kl(mean, logvar), expected)


def test_the_anchor_looks_at_directions_only():
    anatomy, style = normal(3, 8), normal(3, 6, seed=1)
    torch.testing.assert_close(
        losses.anchor(anatomy, style, 5 * anatomy, 0.1 * style), torch.zeros(3)
    )
    torch.testing.assert_close(
        losses.anchor(anatomy, style, -anatomy, -style), torch.full((3,), 4.0)
    )


def test_the_anchor_pulls_the_prior_and_not_the_target():
    anatomy, style = normal(3, 8).requires_grad_(), normal(3, 6).requires_grad_()
    goal = normal(3, 8, seed=2).requires_grad_()
    losses.anchor(anatomy, style, goal, normal(3, 6, seed=3)).sum().backward()
    assert anatomy.grad is not None
    assert style.grad is not None
    assert goal.grad is None


def test_the_anchor_survives_a_vector_of_zeros():
    anatomy = torch.zeros(2, 8, requires_grad=True)
    losses.anchor(anatomy, normal(2, 6), normal(2, 8), normal(2, 6)).sum().backward()
    assert anatomy.grad is not None
    assert anatomy.grad.isfinite().all()


def test_style_regression_trains_painter_and_reader_and_leaves_the_maps_alone():
    prior = VisualPrior.of(ModelConfig(prior_channels=(8, 16), style=12), 0).train()
    maps = prior.see_maps(normal(3, 3, 32, 32))
    loss = losses.style_regression(prior, maps, normal(3, 12, seed=1))
    assert loss.shape == (3,)
    loss.sum().backward()
    assert all(w.grad is None for w in prior.map_net.parameters())
    for part in (prior.decoder, prior.style_encoder):
        assert any(w.grad is not None and w.grad.any() for w in part.parameters())


def test_every_term_gives_one_value_per_sample():
    prior = VisualPrior.of(ModelConfig(prior_channels=(8, 16), style=12), 0).eval()
    image, mask = normal(3, 3, 32, 32).clamp(-1, 1), torch.zeros(3, 1, 32, 32)
    mask[1:, :, 8:16] = 1

    def terms(rows: slice) -> torch.Tensor:
        seen = prior(image[rows])
        return torch.stack(
            [
                losses.reconstruction(seen.reconstruction, image[rows]),
                losses.dice(seen.mask_logits, mask[rows]),
                losses.kl(seen.style_mean, seen.style_logvar),
                losses.style_regression(prior, seen.maps, normal(3, 12)[rows]),
            ]
        )

    together = terms(slice(None))
    assert together.shape == (4, 3)
    alone = torch.cat([terms(slice(row, row + 1)) for row in range(3)], 1)
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)
