"""Install a release at a site: a complete pipeline folder, ready for synthesis."""

import json
import re
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diffusers import PixArtTransformer2DModel

from vgmedgen.base import Bundle
from vgmedgen.dit import lora
from vgmedgen.errors import ReleaseError
from vgmedgen.files import write_text
from vgmedgen.plan import Plan
from vgmedgen.release.verify import MANIFEST, digest, verify
from vgmedgen.release.write import Weights, write

FROZEN_PARTS = ("vae", "scheduler", "text_encoder", "tokenizer")
CURRENT = "current"
_WORD = r"[A-Za-z0-9][A-Za-z0-9 ._:-]{0,79}"  # of a name in a model card


def install(
    releases: Path,
    bundle: Bundle,
    plan: Plan,
    weights: Weights,
    told: Mapping[str, Any],
) -> str:
    """Rebuild the release that `told` describes from `weights`, then install it.

    Returns:
        The digest of the release, also written to `releases/current`.

    Raises:
        ReleaseError: if a rebuilt file is not the one that the manifest lists.
    """
    _check_card(told, plan)
    own = ("files", "base", "image_px", "plan")
    facts = {name: fact for name, fact in told.items() if name not in own}
    releases.mkdir(parents=True, exist_ok=True, mode=0o700)
    with tempfile.TemporaryDirectory(dir=releases, prefix=".new-") as scratch:
        folder = Path(scratch) / "release"
        rebuilt = write(folder, bundle, plan, weights, facts)
        if rebuilt != dict(told):
            wrong = sorted(
                n for n in rebuilt.keys() | told if rebuilt.get(n) != told.get(n)
            )
            raise ReleaseError(
                f"the release that arrived is not the one its manifest describes "
                f"({', '.join(wrong)} differ); the installed release stays in use"
            )
        return install_folder(releases, bundle, folder)


def _check_card(told: Mapping[str, Any], plan: Plan) -> None:
    """Refuse facts whose model card would say what is not so, or more than words.

    Raises:
        ReleaseError: naming the fact.
    """
    sites = told.get("sites", [])
    for word in (told.get("run", ""), told.get("experiment", ""), *sites):
        if not re.fullmatch(_WORD, str(word)):
            raise ReleaseError(
                "a name in the release is not one; nothing was installed"
            )
    ask, claim = plan.privacy, told.get("privacy")
    promised = {"epsilon": ask.epsilon, "delta": ask.delta, "unit": ask.unit}
    kept = claim is None
    if ask.enabled:
        claim = claim if isinstance(claim, Mapping) else {}
        kept = all(claim.get(name) == value for name, value in promised.items())
    if not kept:
        raise ReleaseError(
            "the release claims another privacy than the run's plan; nothing was installed"
        )


def install_folder(releases: Path, bundle: Bundle, release: Path) -> str:
    """Install a verified release folder; a half-written one never becomes current."""
    manifest = verify(release, bundle)
    name = digest(manifest)
    releases.mkdir(parents=True, exist_ok=True, mode=0o700)
    target = releases / name[:16]
    if not target.is_dir():
        work = Path(tempfile.mkdtemp(dir=releases, prefix=".new-"))
        try:
            shutil.copytree(release, work / "release")
            _pipeline(work / "pipeline", bundle, work / "release")
            work.rename(target)
        except BaseException:
            shutil.rmtree(work, ignore_errors=True)
            raise
    write_text(releases / CURRENT, name[:16])
    return name


def current(releases: Path) -> Path:
    """The pipeline folder of the installed release.

    Raises:
        ReleaseError: if nothing is installed.
    """
    pointer = releases / CURRENT
    if not pointer.is_file():
        raise ReleaseError(f"{releases} holds no installed release yet")
    return releases / pointer.read_text() / "pipeline"


def _pipeline(folder: Path, bundle: Bundle, release: Path) -> None:
    """Merge adapter and base into one folder that needs nothing else."""
    folder.mkdir()
    for part in FROZEN_PARTS:
        shutil.copytree(bundle.part(part), folder / part)
    for part in ("hffm", "text_mapper"):
        shutil.copytree(release / part, folder / part)
    plain = PixArtTransformer2DModel.from_pretrained(
        bundle.part("transformer"), use_safetensors=True
    )
    merged = lora.merge_adapter(plain, release / "adapter")
    merged.save_pretrained(folder / "transformer")
    shutil.copy(release / MANIFEST, folder / "release.json")
    write_text(folder / "model_index.json", json.dumps(_index(folder), indent=2))


def _index(folder: Path) -> dict[str, Any]:
    """The parts of the pipeline, as diffusers' loader reads them."""
    encoder = json.loads((folder / "text_encoder" / "config.json").read_text())
    words = json.loads((folder / "tokenizer" / "tokenizer_config.json").read_text())
    return {
        "_class_name": "VGMedGenPipeline",
        "hffm": ["vgmedgen", "HFFM"],
        "scheduler": ["diffusers", "DDPMScheduler"],
        "text_encoder": ["transformers", encoder["architectures"][0]],
        "text_mapper": ["vgmedgen", "TextMapper"],
        "tokenizer": ["transformers", words["tokenizer_class"]],
        "transformer": ["diffusers", "PixArtTransformer2DModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
