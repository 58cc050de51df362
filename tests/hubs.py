"""Pretrained models of micro size in folders as hubs lay them out."""

import dataclasses
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDPMScheduler, PixArtTransformer2DModel
from safetensors.torch import load_file
from transformers import BertConfig, BertForMaskedLM

from vgmedgen.config.run import RunConfig
from vgmedgen.models.text.vocabulary import build_tokenizer

WEIGHTS = "diffusion_pytorch_model.safetensors"
WORDS = ["a", "mass", "lesion", "polyp", "in", "the", "upper", "left"]
SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 1,
    "intermediate_size": 32,
}


def make_hub(folder: Path) -> None:
    """Write a PixArt pipeline, `pipeline`, and a BERT, `bert`, below `folder`."""
    pipeline, bert = folder / "pipeline", folder / "bert"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        PixArtTransformer2DModel(
            num_attention_heads=2,
            attention_head_dim=8,
            in_channels=4,
            out_channels=8,  # a learned sigma, as published
            num_layers=1,
            cross_attention_dim=16,
            sample_size=4,
            caption_channels=24,
        ).save_pretrained(pipeline / "transformer")
        AutoencoderKL(
            block_out_channels=(8, 8, 8, 8),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            latent_channels=4,
            norm_num_groups=4,
        ).save_pretrained(pipeline / "vae")
        DDPMScheduler(beta_schedule="linear").save_pretrained(pipeline / "scheduler")
        words = build_tokenizer(WORDS, 32)
        BertForMaskedLM(BertConfig(vocab_size=len(words), **SIZES)).save_pretrained(
            bert
        )
        words.save_pretrained(bert)


def asked(micro: RunConfig, place: Path, **changes: object) -> RunConfig:
    """The micro run around the pretrained folders in `place`."""
    told = {
        "source": str(place / "pipeline"),
        "text_source": str(place / "bert"),
        "image_px": 32,
    }
    model = dataclasses.replace(micro.model, **{**told, **changes})
    base = dataclasses.replace(micro.base, licence="Apache-2.0")
    return dataclasses.replace(micro, model=model, base=base)


def pickled(path: Path) -> None:
    """Put the weights in the safetensors file `path` into a .bin file in its place."""
    torch.save(load_file(path), path.with_name("pytorch_model.bin"))
    path.unlink()
