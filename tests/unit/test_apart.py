"""What is prepared of a sample is a function of that sample alone, to the bit."""

import dataclasses
import shutil

import pytest
import torch

from vgmedgen.errors import TrainingError
from vgmedgen.models.codec import Codec
from vgmedgen.models.prior.model import VisualPrior
from vgmedgen.models.text.encoder import TextEncoder
from vgmedgen.models.text.mapper import TextMapper
from vgmedgen.site.folder import Site
from vgmedgen.training import apart
from vgmedgen.training.align import Latents, look, map_text


@pytest.fixture
def site(private_hospitals, tmp_path):
    folder = tmp_path / private_hospitals[0].name
    shutil.copytree(private_hospitals[0], folder)
    return Site(folder)


@pytest.fixture(scope="module")
def models(bundle):
    prior = VisualPrior.from_pretrained(bundle.part("visual_prior"))
    return prior, TextMapper.from_pretrained(bundle.part("text_mapper"))


def padded(self, captions):
    """As it was: one batch, padded to its longest caption."""
    tokens = self.tokenizer(list(captions), padding=True, return_tensors="pt")
    keep = tokens["attention_mask"]
    seen = self.model(input_ids=tokens["input_ids"], attention_mask=keep)
    keep = keep[:, :, None].float()
    return (seen.last_hidden_state * keep).sum(1) / keep.sum(1)


def centred(self, images):
    """Latents about the mean of their batch."""
    latents = self.vae.encode(images).latent_dist.mode()
    return latents - latents.mean(0, keepdim=True)


def test_samples_of_a_site_are_apart_to_the_bit(site, bundle):
    apart.check_prepared(bundle, site.samples)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_what_is_prepared_does_not_hang_on_how_many_threads_there_are(
    site, bundle, threads, monkeypatch
):
    samples = site.samples
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        apart.check_prepared(bundle, samples)
        shutil.rmtree(site.folder / "cache")
        again = Site(site.folder).samples
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert torch.equal(again.latents, samples.latents)
    assert torch.equal(again.embeddings, samples.embeddings)


def test_another_build_of_torch_prepares_anew(site, monkeypatch):
    kept = set(site.samples.keys)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "OTHER")
    assert kept.isdisjoint(Site(site.folder).samples.keys)


def test_latents_and_vectors_are_the_same_alone_and_among_others(models, bundle):
    prior, mapper = models
    apart.check_models(prior, mapper, bundle.image_px)
    draw = torch.Generator().manual_seed(1)
    images = torch.rand(7, 3, bundle.image_px, bundle.image_px, generator=draw)
    rows = torch.randn(7, mapper.config.text_width, generator=draw)
    codec = Codec.load(bundle.part("vae"))
    for place in (0, 3, 6):
        one = slice(place, place + 1)
        assert torch.equal(codec.encode(images)[one], codec.encode(images[one]))
        for found, alone in (
            (look(prior, images.split(1)), look(prior, [images[one]])),
            (map_text(mapper, rows), map_text(mapper, rows[one])),
        ):
            assert torch.equal(found.anatomy[one], alone.anatomy)
            assert torch.equal(found.style[one], alone.style)


@pytest.mark.parametrize(
    ("owner", "name", "planted", "told"),
    [
        (TextEncoder, "embed", torch.no_grad()(padded), "embeddings change"),
        (Codec, "encode", torch.no_grad()(centred), "latents change"),
    ],
)
def test_a_batch_that_couples_its_samples_is_found(
    site, bundle, monkeypatch, owner, name, planted, told
):
    samples = site.samples
    monkeypatch.setattr(owner, name, planted)
    with pytest.raises(TrainingError, match=told) as caught:
        apart.check_prepared(bundle, samples)
    assert caught.value.code == "VG50"


def test_samples_that_were_coupled_afterwards_are_found_too(site, bundle):
    samples = site.samples
    for name, told in (("latents", "latents"), ("embeddings", "embeddings")):
        made = getattr(samples, name)
        moved = dataclasses.replace(samples, **{name: made - 1e-6 * made.mean(0)})
        with pytest.raises(TrainingError, match=told):
            apart.check_prepared(bundle, moved)


def test_a_prior_or_mapper_that_couples_its_rows_is_found(models, bundle, monkeypatch):
    prior, mapper = models

    def whole(prior, images):
        seen = prior(torch.cat(list(images)))
        return Latents(seen.anatomy - seen.anatomy.mean(0), seen.style)

    monkeypatch.setattr(apart, "look", torch.no_grad()(whole))
    with pytest.raises(TrainingError, match="vectors of the visual prior"):
        apart.check_models(prior, mapper, bundle.image_px)


def test_nothing_is_booked_where_samples_are_not_apart(
    site, private_micro, monkeypatch
):
    from vgmedgen.training.order import Order

    plan = private_micro.plan
    order = Order(
        run="run-1",
        number=1,
        stage="align",
        plan=plan,
        weights=site.bench(plan).states(),
    )
    _ = site.samples
    monkeypatch.setattr(Codec, "encode", torch.no_grad()(centred))
    with pytest.raises(TrainingError, match="self-test"):
        site.train(order)
    assert not (site.folder / "ledger.sqlite").exists()
