"""Draw images for a list of prompts, and say for each where it comes from."""

import csv
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL.PngImagePlugin import PngInfo

from vgmedgen.errors import ConfigError, ReleaseError
from vgmedgen.files import write_bytes, write_text
from vgmedgen.release.verify import digest
from vgmedgen.synthesis.pipeline import VGMedGenPipeline

COLUMNS = ("image", "prompt", "seed", "model", "cleared")
TABLE = "images.csv"


@dataclass(frozen=True)
class Drawn:
    """One synthetic image on disk."""

    image: Path
    prompt: str
    seed: int


def read_prompts(path: Path) -> list[str]:
    """Prompts of a csv with a column `prompt`, or of a text file with one per line.

    Raises:
        ConfigError: if there is no such column, no prompt, or an empty one (with its row).
    """
    if not path.is_file():
        raise ConfigError(f"there is no prompt file {path}")
    if path.suffix == ".csv":
        with path.open(newline="") as stream:
            rows = csv.DictReader(stream)
            if "prompt" not in (rows.fieldnames or ()):
                raise ConfigError(f"{path} has no column 'prompt'; add one")
            prompts = [row["prompt"] or "" for row in rows]
    else:
        prompts = path.read_text().splitlines()
    for number, prompt in enumerate(prompts, 1):
        if not prompt.strip():
            raise ConfigError(f"{path}: prompt {number} is empty; fill or remove it")
    if not prompts:
        raise ConfigError(f"{path} holds no prompt")
    return prompts


def model_digest(model: Path) -> str:
    """Digest of the release that a pipeline folder was installed from.

    Raises:
        ReleaseError: if the folder was not made by installing a release.
    """
    told = model / "release.json"
    if not told.is_file():
        raise ReleaseError(
            f"{model} is no installed release: it has no release.json; install one first"
        )
    return digest(json.loads(told.read_text()))


def synthesize(
    model: Path,
    prompts: Sequence[str],
    out: Path,
    *,
    seed: int,
    steps: int,
    guidance: float,
    batch: int,
    device: str = "cpu",
    progress: Callable[[int], None] = lambda _: None,
) -> list[Drawn]:
    """Write one PNG per prompt below `out`, and a csv that tells their origin.

    Image k is drawn from seed + k alone, so it does not depend on the batch it was in.

    Args:
        model: an installed pipeline folder.
        prompts: captions.
        out: is made; must hold no images.csv of an earlier call.
        seed: of the first image.
        steps: denoising steps.
        guidance: strength of classifier-free guidance; 1 is none.
        batch: images drawn together.
        device: cpu or cuda.
        progress: called with the number of images just drawn.

    Raises:
        ReleaseError: if `model` is not an installed release.
        ConfigError: if `out` already holds synthetic images.
        StateError: if an image cannot be written.
    """
    name = model_digest(model)
    if (out / TABLE).exists():
        raise ConfigError(f"{out} already holds {TABLE}; choose another folder")
    pipeline = VGMedGenPipeline.from_pretrained(model).to(device)
    drawn = []
    for start in range(0, len(prompts), batch):
        part = list(prompts[start : start + batch])
        seeds = [seed + start + place for place in range(len(part))]
        pictures = pipeline(
            part, seeds=seeds, num_inference_steps=steps, guidance_scale=guidance
        ).images
        for prompt, own, picture in zip(part, seeds, pictures, strict=True):
            path = out / f"{own - seed:05d}.png"
            told = PngInfo()
            told.add_text("Description", prompt)
            told.add_text("Source", f"synthetic, vgmedgen release {name}, seed {own}")
            content = io.BytesIO()
            picture.save(content, "PNG", pnginfo=told)
            write_bytes(path, content.getvalue())
            drawn.append(Drawn(path, prompt, own))
        progress(len(part))
    _table(out / TABLE, drawn, name)
    return drawn


def _table(path: Path, drawn: Sequence[Drawn], name: str) -> None:
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(COLUMNS)
    for one in drawn:
        # nothing has compared the image with the site's own patients
        table.writerow([one.image.name, one.prompt, one.seed, name, "no"])
    write_text(path, text.getvalue())
