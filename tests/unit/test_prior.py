"""The visual prior sees where things are and how they look, and draws no lots."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from vgmedgen.config.run import ModelConfig
from vgmedgen.models.prior import losses
from vgmedgen.models.prior.model import VisualPrior
from vgmedgen.training.loop import fit, generator_of

SMALL = ModelConfig(prior_channels=(8, 16, 24), anatomy=16, style=12, grid=4)
SKIN, LESION = (0.6, 0.3, 0.2), (-0.5, -0.6, -0.7)


def discs(
    places: list[tuple[int, int]], colour: tuple[float, ...] = LESION, px: int = 32
) -> tuple[Tensor, Tensor]:
    """Images (B, 3, px, px) with a disc at each (x, y), and their masks."""
    axis = torch.arange(px)
    masks = torch.stack(
        [((axis - x) ** 2 + (axis[:, None] - y) ** 2 < 30).float() for x, y in places]
    )[:, None]
    paint, skin = (torch.tensor(c).view(1, 3, 1, 1) for c in (colour, SKIN))
    return masks * paint + (1 - masks) * skin, masks


def scattered(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Discs at random places."""
    places = torch.randint(6, 26, (count, 2), generator=generator).tolist()
    return discs([(x, y) for x, y in places])


@pytest.fixture
def prior() -> VisualPrior:
    return VisualPrior.of(SMALL, 0).eval()


@pytest.fixture(scope="module")
def trained() -> VisualPrior:
    prior = VisualPrior.of(SMALL, 0).train()

    def loss_of(_: int, rows: Tensor, generator: torch.Generator) -> Tensor:
        image, mask = scattered(len(rows), generator)
        seen = prior(image, torch.randn(len(rows), 12, generator=generator))
        painted = losses.reconstruction(seen.reconstruction, image)
        return painted + losses.dice(seen.mask_logits, mask)

    weights = dict(prior.named_parameters())
    fit(loss_of, weights, count=99, batch=16, steps=60, rate=3e-3, seed=0)
    return prior.eval()


def test_two_evaluation_passes_are_equal(prior: VisualPrior):
    image, _ = discs([(10, 10), (20, 12)])
    first, second = prior(image), prior(image)
    for name in vars(first):
        assert torch.equal(getattr(first, name), getattr(second, name)), name


def test_shapes_are_as_promised_at_any_multiple_of_the_stride(prior: VisualPrior):
    seen = prior(torch.zeros(2, 3, 48, 64))
    assert seen.maps.shape == (2, 8, 48, 64)
    assert seen.anatomy.shape == (2, 16)
    assert (
        seen.style.shape == seen.style_mean.shape == seen.style_logvar.shape == (2, 12)
    )
    assert seen.reconstruction.shape == (2, 3, 48, 64)
    assert seen.reconstruction.abs().max() <= 1
    assert seen.mask_logits.shape == (2, 1, 48, 64)


def test_the_sizes_of_every_preset_fit_together():
    for config in (ModelConfig(), ModelConfig(prior_channels=(12, 20), pooling="area")):
        seen = VisualPrior.of(config, 0)(torch.zeros(1, 3, 64, 64))
        assert seen.anatomy.shape == (1, config.anatomy)


@pytest.mark.parametrize("training", [True, False])
def test_maps_are_one_hot(prior: VisualPrior, training: bool):
    maps = prior.train(training).see_maps(discs([(10, 10)])[0])
    torch.testing.assert_close(maps.sum(1), torch.ones(1, 32, 32))
    torch.testing.assert_close(maps.amax(1), torch.ones(1, 32, 32))


def test_training_and_evaluation_see_the_same_anatomy(prior: VisualPrior):
    image, _ = discs([(10, 10)])
    evaluated = prior(image).anatomy
    torch.testing.assert_close(prior.train()(image).anatomy, evaluated)


def test_style_is_its_mean_without_noise_and_drawn_with_it(prior: VisualPrior):
    image, _ = discs([(10, 10)])
    noise = torch.randn(1, 12, generator=generator_of(0))
    plain, drawn = prior(image), prior(image, noise)
    assert torch.equal(plain.style, plain.style_mean)
    away = (drawn.style - drawn.style_mean) / (drawn.style_logvar / 2).exp()
    torch.testing.assert_close(away, noise)


def test_the_anatomy_vector_changes_when_the_lesion_moves(trained: VisualPrior):
    here, same, there = trained(discs([(9, 9), (9, 9), (22, 22)])[0]).anatomy
    assert torch.equal(here, same)
    assert (here - there).norm() > 0.2 * here.norm()


def test_area_pooling_forgets_where_and_grid_pooling_does_not():
    moved = {}
    for pooling in ("grid", "area"):
        prior = VisualPrior(channels=(8, 16, 24), grid=4, pooling=pooling).eval()
        maps = torch.zeros(2, 8, 32, 32)
        maps[:, 0] = 1
        for row, corner in enumerate((0, 16)):
            box = (
                row,
                slice(None),
                slice(corner, corner + 8),
                slice(corner, corner + 8),
            )
            maps[box] = 0
            maps[row, 1, box[2], box[3]] = 1
        here, there = prior.anatomy_of(maps)
        moved[pooling] = (here - there).norm().item()
    assert moved["area"] < 1e-5
    assert moved["grid"] > 0.1


def test_a_trained_prior_finds_lesions_it_has_not_seen(trained: VisualPrior):
    image, mask = scattered(16, generator_of("unseen"))
    seen = trained(image)
    assert losses.dice(seen.mask_logits, mask).mean() < 0.3
    plain = (image - image.mean((2, 3), keepdim=True)).abs().mean()
    assert losses.reconstruction(seen.reconstruction, image).mean() < plain


def test_anatomy_and_mask_have_a_gradient_to_the_maps(prior: VisualPrior):
    image, mask = discs([(10, 10), (20, 20)])
    prior.train()
    for loss in (
        prior(image).anatomy.square().sum(),
        losses.dice(prior(image).mask_logits, mask).sum(),
    ):
        prior.zero_grad()
        loss.backward()
        norm = sum(
            w.grad.norm() for w in prior.map_net.parameters() if w.grad is not None
        )
        assert norm > 1e-4


def test_the_style_tells_the_colour_and_the_picture_follows_the_style(
    prior: VisualPrior,
):
    dark = prior(discs([(10, 10)])[0])
    light = prior(discs([(10, 10)], colour=(0.9, 0.1, 0.1))[0])
    assert (dark.style - light.style).norm() > 0.01 * dark.style.norm()
    other = prior.decoder(dark.maps, dark.style + 3)
    assert (other.mean((2, 3)) - dark.reconstruction.mean((2, 3))).abs().max() > 0.01


def test_style_does_not_tell_where_the_lesion_is(prior: VisualPrior):
    maps = torch.zeros(1, 8, 32, 32)
    maps[:, 0] = 1
    image, mask = discs([(11, 11)])
    moved = [t.roll((8, 8), (2, 3)) for t in (maps, image)]
    here, _ = prior.style_encoder(maps, image)
    there, _ = prior.style_encoder(*moved)
    assert mask.any()
    torch.testing.assert_close(here, there, atol=1e-4, rtol=1e-3)


def test_a_brighter_photograph_has_the_same_anatomy(prior: VisualPrior):
    image, _ = discs([(10, 10)])
    here, there = prior(image).anatomy, prior(0.8 * image + 0.1).anatomy
    assert (here - there).norm() < 0.2 * here.norm()


def test_fitted_anatomy_is_centred_and_of_unit_mean_square(prior: VisualPrior):
    pooled = torch.rand(60, 128, generator=generator_of(1)) * torch.linspace(
        0.1, 1, 128
    )
    prior.fit_axes(pooled)
    vectors = (pooled - prior.anatomy_centre) @ prior.anatomy_axes
    torch.testing.assert_close(vectors.mean(0), torch.zeros(16), atol=1e-5, rtol=0)
    assert vectors.square().mean().item() == pytest.approx(1, rel=1e-4)
    power = vectors.square().mean(0)
    assert (power.diff() <= 1e-6).all(), "leading axes must keep their weight"
    assert power[0] > 1.5 * power[-1]


def test_axes_are_orthogonal_and_of_one_scale(prior: VisualPrior):
    prior.fit_axes(torch.rand(40, 128, generator=generator_of(2)))
    gram = prior.anatomy_axes.T @ prior.anatomy_axes
    torch.testing.assert_close(gram / gram[0, 0], torch.eye(16), atol=1e-4, rtol=0)


@pytest.mark.parametrize("images", [3, 40])
def test_axes_keep_their_number_when_there_are_too_few_components(images: int):
    prior = VisualPrior(channels=(8, 16), anatomy=16, grid=4, pooling="area")
    prior.fit_axes(torch.rand(images, 8, generator=generator_of(3)))
    assert prior.anatomy_axes.shape == (8, 16)
    assert (prior.anatomy_axes[:, 8:] == 0).all()
    assert prior.anatomy_axes.isfinite().all()


def test_maps_that_never_vary_have_no_axes(prior: VisualPrior):
    with pytest.raises(ValueError, match="no axes"):
        prior.fit_axes(torch.ones(5, 128))


def test_a_prior_depends_on_its_seed_and_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    one, same, other = (VisualPrior.of(SMALL, seed) for seed in (4, 4, 5))
    assert torch.equal(before, torch.get_rng_state())
    for name, weight in one.state_dict().items():
        assert torch.equal(weight, same.state_dict()[name]), name
    assert not torch.equal(one.anatomy_axes, other.anatomy_axes)


def test_a_prior_like_another_shares_its_sizes_and_nothing_else(prior: VisualPrior):
    other = VisualPrior.like(prior, 9)
    shapes = {n: t.shape for n, t in prior.state_dict().items()}
    assert shapes == {n: t.shape for n, t in other.state_dict().items()}
    paint = "decoder.paint.weight"
    assert not torch.equal(prior.state_dict()[paint], other.state_dict()[paint])
    assert not torch.equal(prior.anatomy_axes, other.anatomy_axes)


def test_a_saved_prior_comes_back_with_its_axes(prior: VisualPrior, tmp_path: Path):
    prior.fit_axes(torch.rand(40, 128, generator=generator_of(4)))
    prior.save_pretrained(tmp_path)
    assert {path.suffix for path in tmp_path.iterdir()} == {".json", ".safetensors"}
    image, _ = discs([(10, 10)])
    again = VisualPrior.from_pretrained(tmp_path)
    assert torch.equal(again(image).anatomy, prior(image).anatomy)


def test_pickled_weights_are_refused(prior: VisualPrior, tmp_path: Path):
    prior.save_pretrained(tmp_path, safe_serialization=False)
    assert list(tmp_path.glob("*.bin"))
    with pytest.raises(OSError, match="safetensors"):
        VisualPrior.from_pretrained(tmp_path)


def test_nothing_in_the_prior_drops_out_at_random(prior: VisualPrior):
    image, _ = discs([(10, 10)])
    prior.train()
    assert torch.equal(prior(image).reconstruction, prior(image).reconstruction)
