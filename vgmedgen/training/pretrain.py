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
from diffusers import AutoencoderKL, DDPMScheduler, PixArtTransformer2DModel
from torch import Tensor

from vgmedgen.base import Bundle, seal
from vgmedgen.config.plan import AlignConfig, GenerateConfig
from vgmedgen.config.run import BaseConfig, ModelConfig
from vgmedgen.data.captions import vocabulary
from vgmedgen.data.records import Dataset
from vgmedgen.models.generator import Generator, forget_origin
from vgmedgen.models.objective import Schedule
from vgmedgen.models.prior.model import VisualPrior
from vgmedgen.models.text.encoder import build_tiny, read_model
from vgmedgen.models.text.mapper import TextMapper
from vgmedgen.models.text.vocabulary import build_tokenizer
from vgmedgen.process.progress import ProgressLog
from vgmedgen.training.align import map_text, see, train_mapper, train_prior
from vgmedgen.training.autoencoder import train_vae
from vgmedgen.training.generate import train_generator
from vgmedgen.training.loop import parts
from vgmedgen.training.pretrained import Pretrained, Weights, read_tokenizer
from vgmedgen.training.samples import Samples, join, prepare

log = logging.getLogger(__name__)

VISION_BATCH = 64  # public images per forward pass without gradient
TRAIN_STEPS = 1000  # of the noise schedule, as in PixArt
PARTS = 6  # that a log counts: drawing, autoencoder, images, prior, mapper, denoiser


@dataclass(frozen=True)
class Recipe:
    """What a bundle is made from."""

    model: ModelConfig
    base: BaseConfig
    seed: int
    source: str  # told in the manifest: "phantoms" or a name of the public data
    licence: str
    pretrained: Pretrained  # what `examine` made of the sources in `model`


def progress(part: int, what: str, total: int) -> ProgressLog:
    """Lines in the log about one of the `PARTS` of a build."""
    return ProgressLog(log, f"base: part {part} of {PARTS}, {what}", total)


def build(folder: Path, datasets: Sequence[Dataset], recipe: Recipe) -> Bundle:
    """Train every part on public `datasets` and seal the bundle in `folder`.

    The work happens beside `folder`, which appears when it is whole. Only one process may
    do this for one folder: hold `building(folder)` around it.

    Raises:
        DataError: if a public image cannot be used.
        TrainingError: if a loss is not finite.
    """
    work = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    model, base, seed = recipe.model, recipe.base, recipe.seed
    _text(work, recipe)
    _vae(work, datasets, recipe)
    _scheduler(work, recipe)
    frozen = Bundle(work, {"image_px": model.image_px, "seed": seed})
    prepared = []
    prepares = progress(3, "preparing sets of public images", len(datasets))
    for number, dataset in enumerate(datasets):
        prepared.append(prepare(dataset, frozen, work / "cache"))
        prepares(number + 1)
    samples = join(prepared)
    log.info("base: %d public images prepared", len(samples))
    mapper = _align(work, samples, recipe)
    _generate(work, samples, mapper, recipe)
    shutil.rmtree(work / "cache")
    settings = asdict(base)
    del settings[
        "folder"
    ]  # where something lies on the builder's machine is nobody's matter
    used = recipe.pretrained.described()
    facts = {
        "image_px": model.image_px,
        "model": recipe.pretrained.manifest_facts(model),
        "build": settings,
        "seed": seed,
        "source": f"{recipe.source}; pretrained {used}" if used else recipe.source,
        "licence": recipe.licence,
    }
    sealed = seal(work, facts)
    shutil.rmtree(folder, ignore_errors=True)
    work.rename(folder)
    return Bundle(folder, sealed.manifest)


def _vae(work: Path, datasets: Sequence[Dataset], recipe: Recipe) -> None:
    if weights := recipe.pretrained.vae:
        vae = _pretrained(AutoencoderKL, weights)
    else:
        model, base, seed = recipe.model, recipe.base, recipe.seed
        steps = progress(2, "autoencoder", base.vae_steps)
        vae = train_vae(datasets, model, base, seed, steps)
    vae.save_pretrained(work / "vae")


def _scheduler(work: Path, recipe: Recipe) -> None:
    if source := recipe.pretrained.scheduler:
        scheduler = DDPMScheduler.from_pretrained(source)
    else:
        scheduler = DDPMScheduler(
            num_train_timesteps=TRAIN_STEPS,
            beta_schedule="linear",
            clip_sample=False,
            prediction_type=recipe.base.predicts,
        )
    scheduler.save_pretrained(work / "scheduler")


def _text(work: Path, recipe: Recipe) -> None:
    model = recipe.model
    if weights := recipe.pretrained.text:
        words = read_tokenizer(weights.folder)
        words.model_max_length = min(words.model_max_length, model.max_tokens)
        words.save_pretrained(work / "tokenizer")
        encoder = read_model(weights.folder, weights.variant)
        encoder.save_pretrained(work / "text_encoder")
        return
    tokenizer = build_tokenizer(vocabulary(), model.max_tokens)
    tokenizer.save_pretrained(work / "tokenizer")
    encoder = build_tiny(model.text_width, model.text_layers, tokenizer, recipe.seed)
    encoder.save_pretrained(work / "text_encoder")


def _pretrained(
    kind: type[AutoencoderKL | PixArtTransformer2DModel], weights: Weights
) -> AutoencoderKL | PixArtTransformer2DModel:
    part = kind.from_pretrained(
        weights.folder,
        use_safetensors=True,
        variant=weights.variant,
        local_files_only=True,
    )
    forget_origin(part)
    return part


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
    steps = progress(4, "visual prior", ask.prior_steps)
    losses = train_prior(prior, samples, ask, seed=seed, progress=steps)
    log.info("base: visual prior, loss %.4f", losses.tail_mean())
    prior.fit_axes(pooled(prior, samples))
    prior.save_pretrained(work / "visual_prior")
    mapper: TextMapper = TextMapper.of(model, samples.embeddings.shape[1], seed)
    mapper.fit_scale(samples.embeddings)
    steps = progress(5, "text mapper", ask.mapper_steps)
    seen = see(prior, samples)
    losses = train_mapper(
        mapper, samples.embeddings, seen, ask, seed=seed, progress=steps
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
    given = recipe.pretrained.transformer
    transformer = _pretrained(PixArtTransformer2DModel, given) if given else None
    generator = Generator.build(recipe.model, seed, pretrained=transformer)
    # a pretrained DiT stays as it is: only the way into it is new
    taught = generator.hffm if given else generator
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
        progress=progress(6, "denoiser", ask.steps),
    )
    log.info("base: denoiser, loss %.4f", losses.tail_mean())
    generator.save(work)
