"""Build a base bundle from public images: phantoms, or a folder of the coordinator's.

Order: VAE, text encoder, visual prior, text mapper, then HFFM and DiT by denoising. Only
public images come in, so nothing of the bundle tells about a hospital's patients.
"""

import logging
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDPMScheduler
from torch import Tensor
from transformers import AutoModel, AutoTokenizer

from vgmedgen.base import Bundle, seal
from vgmedgen.config import BaseConfig, ModelConfig
from vgmedgen.data.captions import vocabulary
from vgmedgen.data.records import Dataset
from vgmedgen.dit.model import Generator, forget_origin
from vgmedgen.dit.objective import Schedule
from vgmedgen.plan import AlignConfig, GenerateConfig
from vgmedgen.prior.model import VisualPrior
from vgmedgen.text.encoder import build_tiny
from vgmedgen.text.mapper import TextMapper
from vgmedgen.text.vocabulary import build_tokenizer
from vgmedgen.training.align import (
    VISION_BATCH,
    map_text,
    see,
    train_mapper,
    train_prior,
)
from vgmedgen.training.autoencoder import train_vae
from vgmedgen.training.generate import train_generator
from vgmedgen.training.loop import parts
from vgmedgen.training.samples import Samples, join, prepare

log = logging.getLogger(__name__)

TRAIN_STEPS = 1000  # of the noise schedule, as in PixArt


@dataclass(frozen=True)
class Recipe:
    """What a bundle is made from."""

    model: ModelConfig
    base: BaseConfig
    seed: int
    source: str  # told in the manifest: "phantoms" or a name of the public data
    licence: str


def build(folder: Path, datasets: Sequence[Dataset], recipe: Recipe) -> Bundle:
    """Train every part on public `datasets` and seal the bundle in `folder`.

    The work happens beside `folder`, which appears when it is whole.

    Raises:
        DataError: if a public image cannot be used.
        TrainingError: if a loss is not finite.
    """
    work = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    model, base, seed = recipe.model, recipe.base, recipe.seed
    _text(work, model, seed)
    _vae(work, datasets, recipe)
    _scheduler(work, recipe)
    frozen = Bundle(work, {"image_px": model.image_px, "seed": seed})
    samples = join([prepare(d, frozen, work / "cache") for d in datasets])
    log.info("base: %d public images prepared", len(samples))
    mapper = _align(work, samples, recipe)
    _generate(work, samples, mapper, recipe)
    shutil.rmtree(work / "cache")
    facts = {
        "image_px": model.image_px,
        "model": asdict(model),
        "build": asdict(base),
        "seed": seed,
        "source": recipe.source,
        "licence": recipe.licence,
    }
    sealed = seal(work, facts)
    shutil.rmtree(folder, ignore_errors=True)
    work.rename(folder)
    return Bundle(folder, sealed.manifest)


def _vae(work: Path, datasets: Sequence[Dataset], recipe: Recipe) -> None:
    model = recipe.model
    if model.source:
        vae = AutoencoderKL.from_pretrained(
            model.source, subfolder="vae", use_safetensors=True
        )
        forget_origin(vae)
    else:
        vae = train_vae(datasets, model, recipe.base, recipe.seed)
    vae.save_pretrained(work / "vae")


def _scheduler(work: Path, recipe: Recipe) -> None:
    if source := recipe.model.source:
        scheduler = DDPMScheduler.from_pretrained(source, subfolder="scheduler")
    else:
        scheduler = DDPMScheduler(
            num_train_timesteps=TRAIN_STEPS,
            beta_schedule="linear",
            clip_sample=False,
            prediction_type=recipe.base.predicts,
        )
    scheduler.save_pretrained(work / "scheduler")


def _text(work: Path, model: ModelConfig, seed: int) -> None:
    if model.text_source:
        words = AutoTokenizer.from_pretrained(model.text_source)
        words.model_max_length = min(words.model_max_length, model.max_tokens)
        words.save_pretrained(work / "tokenizer")
        frozen = AutoModel.from_pretrained(model.text_source, use_safetensors=True)
        frozen.save_pretrained(work / "text_encoder")
        return
    tokenizer = build_tokenizer(vocabulary(), model.max_tokens)
    tokenizer.save_pretrained(work / "tokenizer")
    encoder = build_tiny(model.text_width, model.text_layers, tokenizer, seed)
    encoder.save_pretrained(work / "text_encoder")


def _align(work: Path, samples: Samples, recipe: Recipe) -> TextMapper:
    model, base, seed = recipe.model, recipe.base, recipe.seed
    ask = AlignConfig(
        prior_steps=base.prior_steps,
        mapper_steps=base.mapper_steps,
        batch=base.batch,
        prior_rate=base.learning_rate,
        mapper_rate=base.learning_rate,
    )
    prior = VisualPrior.of(model, seed)
    losses = train_prior(prior, samples, ask, seed=seed)
    log.info("base: visual prior, loss %.4f", losses.tail_mean())
    prior.fit_axes(pooled(prior, samples))
    prior.save_pretrained(work / "visual_prior")
    mapper: TextMapper = TextMapper.of(model, samples.embeddings.shape[1], seed)
    mapper.fit_scale(samples.embeddings)
    losses = train_mapper(
        mapper, samples.embeddings, see(prior, samples), ask, seed=seed
    )
    log.info("base: text mapper, loss %.4f", losses.tail_mean())
    mapper.save_pretrained(work / "text_mapper")
    return mapper


@torch.no_grad()
def pooled(prior: VisualPrior, samples: Samples) -> Tensor:
    """Pooled anatomy maps (N, K * grid * grid) of all samples, at evaluation."""
    prior.eval()
    found = [
        prior.pool(prior.see_maps(samples.pixels(rows)[0]))
        for rows in parts(len(samples), VISION_BATCH)
    ]
    return torch.cat(found)


def _generate(work: Path, samples: Samples, mapper: TextMapper, recipe: Recipe) -> None:
    base, seed = recipe.base, recipe.seed
    generator = Generator.build(recipe.model, seed)
    # a pretrained DiT stays as it is: only the way into it is new
    taught = generator.hffm if recipe.model.source else generator
    weights = dict(taught.named_parameters())
    ask = GenerateConfig(
        steps=base.dit_steps,
        batch=base.batch,
        learning_rate=base.learning_rate,
        min_snr=base.min_snr,
    )
    losses = train_generator(
        generator,
        weights,
        samples,
        map_text(mapper, samples.embeddings),
        Schedule.load(work / "scheduler"),
        ask,
        seed=seed,
    )
    log.info("base: denoiser, loss %.4f", losses.tail_mean())
    generator.save(work)
