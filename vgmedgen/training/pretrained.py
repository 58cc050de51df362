"""Pretrained weights that a base bundle is built around, examined before any work.

A source is a folder as a hub lays it out, or a hub's id, of which a copy on this disk is
used where there is one. Everything that can be known without training is looked at here,
so that a build which takes hours does not end at its last part.
"""

import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import torch
from diffusers import AutoencoderKL, PixArtTransformer2DModel
from huggingface_hub import snapshot_download
from huggingface_hub.constants import HF_HUB_OFFLINE
from safetensors import SafetensorError, safe_open
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from vgmedgen.config.ranges import digest_of
from vgmedgen.config.run import ModelConfig
from vgmedgen.errors import BaseError
from vgmedgen.files import sha256
from vgmedgen.models.generator import LATENT_CHANNELS
from vgmedgen.models.objective import Schedule
from vgmedgen.models.text.encoder import read_model

DIFFUSERS = "diffusion_pytorch_model"  # names of weight files, without their endings
TRANSFORMERS = "model"
SHOWN = 16  # signs of a digest that are told to people
HALF = "fp16"  # the variant that hubs offer beside, or in place of, the full weights
LFS_POINTER = b"version https://git-lfs"
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?")
# VAEs were published with other names of attention, which diffusers reads still
ATTENTION_NAMES = {
    "query": "to_q",
    "key": "to_k",
    "value": "to_v",
    "proj_attn": "to_out.0",
}
OLD_ATTENTION = re.compile(r"(?<=\.)(query|key|value|proj_attn)(?=\.(weight|bias)$)")
PIPELINE_FILES = ("transformer/*", "vae/*", "scheduler/*")


@dataclass(frozen=True)
class Weights:
    """The weight files of one pretrained part, whole."""

    folder: Path
    config: Mapping[str, Any]
    files: tuple[Path, ...]
    variant: str | None  # None for the full weights, else `fp16`

    @property
    def digest(self) -> str:
        """sha256 of the file, as hubs show it; of all shards' where there are several."""
        digests = [sha256(path) for path in self.files]
        return digests[0] if len(digests) == 1 else digest_of({"shards": digests})


@dataclass(frozen=True)
class Pretrained:
    """What was found behind `model.source` and `model.text_source`."""

    transformer: Weights | None = None
    vae: Weights | None = None
    scheduler: Path | None = None
    text: Weights | None = None

    def __bool__(self) -> bool:
        """Whether anything pretrained is used at all."""
        return self.transformer is not None or self.text is not None

    def described(self) -> str:
        """Class and beginning of the digest of every part; no path of this machine.

        Short enough for a release, which tells it on.
        """
        return ", ".join(
            f"{_class_of(part.config)} sha256:{part.digest[:SHOWN]}"
            for part in self._parts().values()
        )

    def manifest_facts(self, model: ModelConfig) -> dict[str, Any]:
        """The sizes in `model`, with digests in place of where its sources lie."""
        facts = asdict(model)
        digests = {name: part.digest for name, part in self._parts().items()}
        if digests:
            facts |= {"source": "", "text_source": "", "pretrained": digests}
        return facts

    def _parts(self) -> dict[str, Weights]:
        named = {"transformer": self.transformer, "vae": self.vae, "text": self.text}
        return {name: part for name, part in named.items() if part}


def examine(model: ModelConfig) -> Pretrained:
    """Look at every part that a build around pretrained weights will read.

    Raises:
        BaseError: at the first part that is absent, damaged, of another class or of
            sizes that do not fit `model`; it says how to come by the right one.
    """
    found: dict[str, Any] = {}
    if model.source:
        found |= _pipeline(resolve(model.source, "model.source", PIPELINE_FILES), model)
    if model.text_source:
        folder = resolve(model.text_source, "model.text_source", ("*",))
        found["text"] = _text(folder)
    return Pretrained(**found)


def resolve(source: str, setting: str, wanted: tuple[str, ...]) -> Path:
    """The folder on this disk behind a folder's name or a hub's id.

    Args:
        source: a folder, the top of one model in a hub's cache, or `owner/name`, with
            `@revision` where another than `main` is meant.
        setting: the key that names it, for messages.
        wanted: patterns of the files to fetch where the hub may be asked.

    Raises:
        BaseError: if there is no such folder and no copy of a hub's files.
    """
    folder = Path(source).expanduser()
    if folder.is_dir():
        return _snapshot(folder, setting)
    if not HUB_ID.fullmatch(source) or source.startswith("."):
        raise BaseError(f"{setting}: {source} is no folder; name one that is there")
    name, _, revision = source.partition("@")
    try:
        return Path(
            snapshot_download(
                name,
                revision=revision or None,
                allow_patterns=list(wanted),
                ignore_patterns=["*.msgpack", "*.h5", "*.onnx", "*.ot"],
                local_files_only=HF_HUB_OFFLINE,
            )
        )
    except (OSError, ValueError):
        at = f" --revision {revision}" if revision else ""
        key = setting.rpartition(".")[2]
        raise BaseError(
            f"{setting}: {source} is no folder, and this machine holds no copy of it; "
            f"where there is a network: hf download {name}{at} --local-dir DIR, then "
            f"model.{key}=DIR (HF_HUB_OFFLINE=0 lets this command ask the hub itself)"
        ) from None


def _snapshot(folder: Path, setting: str) -> Path:
    """`folder`, or what lies in it where it is the top of a hub's cache."""
    models = sorted(path.name for path in folder.glob("models--*"))
    if models:
        raise BaseError(
            f"{setting}: {folder} is a hub's whole cache; name one model in it, such as "
            f"{folder / models[0]}"
        )
    if not (folder / "snapshots").is_dir():
        return folder
    main = folder / "refs" / "main"
    held = sorted(path.name for path in (folder / "snapshots").iterdir())
    wanted = main.read_text(encoding="utf-8").strip() if main.is_file() else ""
    if wanted in held:
        return folder / "snapshots" / wanted
    if len(held) == 1:
        return folder / "snapshots" / held[0]
    raise BaseError(
        f"{setting}: {folder} holds {len(held)} snapshots and none is its main; name "
        f"one of {folder / 'snapshots'}"
    )


def _pipeline(folder: Path, model: ModelConfig) -> dict[str, Any]:
    if _config_class(folder / "config.json"):
        raise BaseError(
            f"model.source: {folder} is a single part; name the folder of the whole "
            "pipeline, which holds transformer, vae and scheduler"
        )
    for part in ("transformer", "vae", "scheduler"):
        if not (folder / part).is_dir():
            raise BaseError(
                f"model.source: {folder} holds no folder {part}; a pipeline as the hub "
                "has it holds transformer, vae and scheduler"
            )
    transformer = weights_of(folder / "transformer", DIFFUSERS)
    vae = weights_of(folder / "vae", DIFFUSERS)
    _check_against_class(transformer, PixArtTransformer2DModel)
    _check_against_class(vae, AutoencoderKL)
    for weights in (transformer, vae):
        key = "in_channels" if weights is transformer else "latent_channels"
        if (width := weights.config.get(key)) != LATENT_CHANNELS:
            raise BaseError(
                f"{weights.folder}: {key} is {width}, only latents of {LATENT_CHANNELS} "
                "channels are supported; use a PixArt-alpha or PixArt-Sigma pipeline"
            )
    stride = 2 ** (len(vae.config["block_out_channels"]) - 1)
    side = transformer.config["sample_size"] * stride
    if side != model.image_px:
        raise BaseError(
            f"{transformer.folder} was made for images of {side} px, but "
            f"model.image_px={model.image_px}; set model.image_px={side}"
        )
    _check_scheduler(folder / "scheduler")
    return {
        "transformer": transformer,
        "vae": vae,
        "scheduler": folder / "scheduler",
    }


def _check_scheduler(folder: Path) -> None:
    try:
        Schedule.load(folder)
    except (OSError, ValueError, KeyError, TypeError):
        raise BaseError(
            f"{folder} holds no scheduler_config.json that can be read; fetch it again"
        ) from None


def _text(folder: Path) -> Weights:
    text = weights_of(folder, TRANSFORMERS)
    encoder = read_model(folder, text.variant)
    known = encoder.config.vocab_size
    words = read_tokenizer(folder)
    if len(words) > known:
        raise BaseError(
            f"model.text_source: the tokenizer in {folder} knows {len(words)} tokens, the "
            f"weights {known}; fetch both from one model"
        )
    return text


def read_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a pretrained text encoder, from this disk.

    Raises:
        BaseError: if the folder holds none.
    """
    try:
        words = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError, TypeError, ImportError) as error:
        reason = str(error).strip().splitlines()[0]
        raise BaseError(
            f"model.text_source: {folder} holds no tokenizer that can be read "
            f"({reason}); fetch tokenizer.json or vocab.txt of the same model"
        ) from None
    names = sorted(set(words.vocab_files_names.values()))
    if not any((folder / name).is_file() for name in names):  # it would know no word
        raise BaseError(
            f"model.text_source: {folder} holds no tokenizer: none of {', '.join(names)}; "
            "fetch one of the same model"
        )
    return cast("PreTrainedTokenizerBase", words)


def weights_of(folder: Path, stem: str) -> Weights:
    """Find the weights of one part: one file or shards, in full or half precision.

    Args:
        folder: of the part.
        stem: name of weight files without ending.

    Raises:
        BaseError: if there is no config, no safetensors file, or one is damaged.
    """
    config = _config_of(folder)
    for variant in (None, HALF):
        dotted = f"{stem}.{variant}" if variant else stem
        single = folder / f"{dotted}.safetensors"
        indexes = (
            folder / f"{stem}.safetensors.index{f'.{variant}' if variant else ''}.json",
            folder / f"{dotted}.safetensors.index.json",
        )
        index = next((path for path in indexes if path.is_file()), None)
        if not single.exists() and index is None:
            continue
        files = (single,) if index is None else _shards(index)
        for path in files:
            _check_whole(path)
        return Weights(folder, config, files, variant)
    pickled = sorted(path.name for path in folder.glob("*pytorch_model*.bin*"))
    if pickled:
        raise BaseError(
            f"{folder} holds only pickled weights ({pickled[0]}), which can run code and "
            f"are not read; convert them once with: vgmedgen base convert {folder}"
        )
    raise BaseError(
        f"{folder} holds no {stem}.safetensors; fetch that file from where the other "
        "files came from"
    )


def _shards(index: Path) -> tuple[Path, ...]:
    try:
        listed = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
        names = sorted({str(name) for name in listed})
    except (ValueError, KeyError, TypeError, AttributeError):
        raise BaseError(f"{index} is damaged; fetch it again") from None
    if any(os.sep in name or name in {"", ".", ".."} for name in names):
        raise BaseError(f"{index} lists files outside its folder; fetch it again")
    return tuple(index.parent / name for name in names)


def _check_whole(path: Path) -> None:
    if not path.is_file():
        broken = "is a link to nothing" if path.is_symlink() else "is missing"
        raise BaseError(f"{path} {broken}; fetch that file again")
    with path.open("rb") as stream:
        head = stream.read(len(LFS_POINTER))
    if head == LFS_POINTER:
        raise BaseError(
            f"{path} is a pointer of git-lfs, not the file; run `git lfs pull` where it "
            "was cloned"
        )
    try:
        with safe_open(path, framework="pt") as opened:
            opened.keys()
    except (SafetensorError, OSError, ValueError) as error:
        raise BaseError(
            f"{path} is damaged or cut short ({error}); fetch that file again"
        ) from None


def _config_of(folder: Path) -> Mapping[str, Any]:
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BaseError(f"{folder} holds no config.json; fetch that file") from None
    except (OSError, ValueError):
        raise BaseError(f"{path} cannot be read; fetch it again") from None
    if not isinstance(config, dict):
        raise BaseError(f"{path} is no config; fetch it again")
    return config


def _config_class(path: Path) -> str:
    """The class that a part's config names; empty where there is no such config."""
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return ""
    return str(config.get("_class_name", "")) if isinstance(config, dict) else ""


def _class_of(config: Mapping[str, Any]) -> str:
    listed = config.get("architectures") or [config.get("model_type", "a model")]
    return str(config.get("_class_name") or listed[0])


def _check_against_class(
    part: Weights, kind: type[PixArtTransformer2DModel | AutoencoderKL]
) -> None:
    """Compare names and shapes in the files with the model that the config describes."""
    if _class_of(part.config) != kind.__name__:
        raise BaseError(
            f"{part.folder} is a {_class_of(part.config)}, not a {kind.__name__}; use a "
            "PixArt-alpha or PixArt-Sigma pipeline"
        )
    try:
        with torch.device("meta"):
            described = kind.from_config(dict(part.config))
    except (
        ValueError,
        TypeError,
        KeyError,
        RuntimeError,
        NotImplementedError,
    ) as error:
        raise BaseError(
            f"{part.folder / 'config.json'} describes no {kind.__name__} ({error}); fetch "
            "it again"
        ) from None
    stored: dict[str, tuple[int, ...]] = {}
    for path in part.files:
        with safe_open(path, framework="pt") as opened:
            for name in opened.keys():  # noqa: SIM118 - no mapping
                shape = tuple(opened.get_slice(name).get_shape())
                stored[OLD_ATTENTION.sub(_renamed, name)] = shape
    for name, weight in described.named_parameters():
        if stored.get(name) != tuple(weight.shape):
            held = f"of shape {stored[name]}" if name in stored else "absent"
            raise BaseError(
                f"{part.folder}: the config asks for {name} of shape "
                f"{tuple(weight.shape)}, in the weights it is {held}; fetch config and "
                "weights from one model"
            )


def _renamed(found: re.Match[str]) -> str:
    return ATTENTION_NAMES[found[1]]
