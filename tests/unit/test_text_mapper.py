"""The text mapper learns where captions point; only its two networks leave a site."""

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from vgmedgen.config.run import ModelConfig
from vgmedgen.models.text.mapper import TextMapper, align_loss
from vgmedgen.training.loop import fit, generator_of

SMALL = ModelConfig(anatomy=16, style=8, mapper_hidden=64)
WIDTH = 24


def captions(count: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Embeddings with a large common part, and latents linear in what tells them apart."""
    truth = generator_of("truth")
    common = 10 * torch.randn(WIDTH, generator=truth)
    spread = torch.rand(WIDTH, generator=truth) * 0.3 + 0.01
    to_anatomy, to_style = (
        torch.randn(WIDTH, width, generator=truth) / WIDTH**0.5 for width in (16, 8)
    )
    told = torch.randn(count, WIDTH, generator=generator_of("captions", seed))
    return common + told * spread, told @ to_anatomy, told @ to_style


@pytest.fixture
def mapper() -> TextMapper:
    mapper = TextMapper.of(SMALL, WIDTH, 0)
    mapper.fit_scale(captions(200)[0])
    return mapper


def test_two_hundred_steps_find_latents_that_the_captions_tell(mapper: TextMapper):
    embedding, anatomy, style = captions(600)

    def loss_of(_: int, rows: Tensor, __: torch.Generator) -> Tensor:
        return align_loss(mapper, embedding[rows], anatomy[rows], style[rows], 0.5)

    weights = dict(mapper.named_parameters())
    fit(loss_of, weights, count=600, batch=32, steps=200, rate=3e-3, seed=0)
    unseen, anatomy, style = captions(100, seed=1)
    said_anatomy, said_style = mapper(unseen)
    assert functional.cosine_similarity(said_anatomy, anatomy).mean() > 0.9
    assert functional.cosine_similarity(said_style, style).mean() > 0.9
    ratio = said_anatomy.norm(dim=1) / anatomy.norm(dim=1)
    assert 0.7 < ratio.mean() < 1.3, "the length is held too"


def test_public_captions_are_standardised(mapper: TextMapper):
    standard = mapper.standardise(captions(200)[0])
    torch.testing.assert_close(standard.mean(0), torch.zeros(WIDTH), atol=1e-4, rtol=0)
    deviation = standard.std(0, unbiased=False)
    assert deviation.max() < 1.001
    assert deviation.median() == pytest.approx(1, abs=1e-3)


def test_a_feature_that_public_captions_never_vary_is_not_blown_up(mapper: TextMapper):
    embeddings = captions(200)[0]
    embeddings[:, 3] = 7.0
    mapper.fit_scale(embeddings)
    other = embeddings[:1].clone()
    other[:, 3] += embeddings.std(0).mean()
    assert mapper.standardise(other)[0, 3] < 20


def test_captions_that_are_all_equal_have_no_scale(mapper: TextMapper):
    with pytest.raises(ValueError, match="all equal"):
        mapper.fit_scale(torch.ones(4, WIDTH))


def test_the_loss_is_zero_per_sample_only_where_all_agrees(mapper: TextMapper):
    embedding, anatomy, style = captions(4)
    said_anatomy, said_style = (said.detach() for said in mapper(embedding))
    assert align_loss(mapper, embedding, said_anatomy, said_style, 0).abs().max() < 1e-5
    loss = align_loss(mapper, embedding, anatomy, style, 0.5)
    assert loss.shape == (4,)
    assert (loss > 0.1).all()


def test_every_network_learns_from_the_loss(mapper: TextMapper):
    align_loss(mapper, *captions(4), 0.5).mean().backward()
    assert all(w.grad is not None and w.grad.any() for w in mapper.parameters())


def test_only_the_two_mapping_networks_leave(mapper: TextMapper):
    names = list(mapper.shared_state())
    assert names == sorted(names)
    assert {name.split(".")[0] for name in names} == {"anatomy_net", "style_net"}
    assert len(names) == 8


def test_what_leaves_puts_another_mapper_in_the_same_state(mapper: TextMapper):
    other = TextMapper.of(SMALL, WIDTH, 1)
    other.fit_scale(captions(200)[0])
    kept = other.decoder[0].weight.detach().clone()
    other.load_shared(mapper.shared_state())
    embedding = captions(5)[0]
    for one, two in zip(mapper(embedding), other(embedding), strict=True):
        assert torch.equal(one, two)
    assert torch.equal(other.decoder[0].weight, kept), "the decoder never travels"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("style_net.0.bias"), "style_net.0.bias is missing"),
        (lambda state: state.update(centre=torch.ones(WIDTH)), "centre is not of this"),
        (
            lambda state: state.update({"style_net.0.bias": torch.ones(3)}),
            r"style_net.0.bias has shape \(3,\), not \(64,\)",
        ),
    ],
)
def test_any_other_state_is_refused_whole(mapper: TextMapper, change, message: str):
    before = {name: weight.clone() for name, weight in mapper.shared_state().items()}
    state = {name: weight + 1 for name, weight in before.items()}
    change(state)
    with pytest.raises(ValueError, match=message):
        mapper.load_shared(state)
    for name, weight in mapper.shared_state().items():
        assert torch.equal(weight, before[name]), name


def test_a_mapper_depends_on_its_seed_and_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    one, same, other = (TextMapper.of(SMALL, WIDTH, seed) for seed in (1, 1, 2))
    assert torch.equal(before, torch.get_rng_state())
    name = "anatomy_net.0.weight"
    weights = [m.shared_state()[name] for m in (one, same, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_a_saved_mapper_comes_back_whole(mapper: TextMapper, tmp_path: Path):
    mapper.save_pretrained(tmp_path)
    again = TextMapper.from_pretrained(tmp_path)
    for name, weight in mapper.state_dict().items():
        assert torch.equal(weight, again.state_dict()[name]), name


def test_pickled_weights_are_refused(mapper: TextMapper, tmp_path: Path):
    mapper.save_pretrained(tmp_path, safe_serialization=False)
    with pytest.raises(OSError, match="safetensors"):
        TextMapper.from_pretrained(tmp_path)
