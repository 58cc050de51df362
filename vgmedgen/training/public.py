"""The public images of a base bundle, and where a built bundle is kept."""

import logging
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from vgmedgen import __version__
from vgmedgen.base import Bundle, open_bundle
from vgmedgen.config.ranges import digest_of
from vgmedgen.config.run import RunConfig
from vgmedgen.data import adapters
from vgmedgen.data.layouts import LAYOUTS, write_phantoms
from vgmedgen.data.phantom import tint_of
from vgmedgen.data.records import Dataset
from vgmedgen.errors import BaseError, ConfigError
from vgmedgen.process.lock import waiting_for
from vgmedgen.training.loop import seed_of
from vgmedgen.training.pretrain import Recipe, build, progress
from vgmedgen.training.pretrained import Pretrained, examine

log = logging.getLogger(__name__)

TINTS = 6  # devices that public phantoms are drawn with, per modality


def phantoms(folder: Path, count: int, seed: int, px: int) -> list[Dataset]:
    """Draw about `count` phantoms of every modality and device, and read them back."""
    each = max(1, count // (TINTS * len(LAYOUTS)))
    datasets: list[Dataset] = []
    steps = progress(1, "drawing sets of phantoms", TINTS * len(LAYOUTS))
    for modality, layout in sorted(LAYOUTS.items()):
        for device in range(TINTS):
            place = folder / f"{modality}-{device}"
            drawn = seed_of(seed, "public", modality, device) % 2**32
            # site phantoms use devices from 0 up; public ones must not be the same
            write_phantoms(modality, place, each, drawn, px, tint_of(1000 + device))
            datasets.append(adapters.read(layout, place))
            steps(len(datasets))
    return datasets


def cache_root() -> Path:
    """Where built bundles are kept: VGMEDGEN_CACHE, else the user's cache folder.

    Raises:
        ConfigError: if the user has none.
    """
    named = os.environ.get("VGMEDGEN_CACHE")
    if named:
        return Path(named)
    told = os.environ.get("XDG_CACHE_HOME")
    try:
        return (Path(told) if told else Path.home() / ".cache") / "vgmedgen"
    except RuntimeError:  # a user id without a name, and no HOME
        raise ConfigError(
            "this user has no home folder to keep built bases in; set VGMEDGEN_CACHE to a "
            "folder"
        ) from None


def base_for(config: RunConfig) -> Bundle:
    """The run's base bundle: the folder it names, the cached one, or a new one.

    Raises:
        BaseError: if a named or cached bundle is damaged or of another image size.
    """
    if config.base.folder:
        bundle = open_bundle(Path(config.base.folder))
        if bundle.image_px != config.model.image_px:
            raise BaseError(
                f"base.folder {bundle.folder} is for {bundle.image_px} px, the run asks "
                f"for model.image_px={config.model.image_px}; change one of them"
            )
        return bundle
    key = digest_of(
        {"model": asdict(config.model), "base": asdict(config.base), "is": __version__}
    )
    folder = cache_root() / f"base-{config.model.preset}-{key[:12]}"
    if folder.is_dir():
        return open_bundle(folder)
    with building(folder):
        if folder.is_dir():  # by the process that this one waited for
            return open_bundle(folder)
        log.info("building the base bundle %s (once)", folder)
        return build_from_phantoms(folder, config)


@contextmanager
def building(folder: Path) -> Iterator[None]:
    """Be the only process that builds `folder`; wait for another that does already.

    Raises:
        StateError: if nothing can be written beside the folder.
    """
    folder = folder.absolute()

    def waits() -> None:
        log.info("another process is building %s; waiting until it is done", folder)

    with waiting_for(folder.with_name(f".{folder.name}.lock"), waits):
        yield


def build_from_phantoms(folder: Path, config: RunConfig) -> Bundle:
    """Build a base bundle that has seen phantoms only.

    Raises:
        BaseError: if pretrained weights are asked for and cannot be used.
        ConfigError: if pretrained weights come without a licence.
    """
    pretrained = examine(config.model)
    licence = _licence(config, pretrained, "none: drawn by program")
    with tempfile.TemporaryDirectory(prefix="vgmedgen-") as scratch:
        datasets = phantoms(
            Path(scratch), config.base.phantoms, config.base.seed, config.model.image_px
        )
        return _build(folder, datasets, config, "phantoms", licence, pretrained)


def build_from(
    folder: Path, datasets: Sequence[Dataset], config: RunConfig, source: str
) -> Bundle:
    """Build a base bundle from public datasets.

    Raises:
        BaseError: if pretrained weights are asked for and cannot be used.
        ConfigError: if pretrained weights come without a licence.
    """
    pretrained = examine(config.model)
    licence = _licence(config, pretrained, "not told")
    return _build(folder, datasets, config, source, licence, pretrained)


def _licence(config: RunConfig, pretrained: Pretrained, otherwise: str) -> str:
    """What a manifest says of the licence; pretrained weights have one of their own."""
    if pretrained and not config.base.licence.strip():
        raise ConfigError(
            "the licence of pretrained weights goes into the manifest and into every "
            "release made with them: read it where they came from, then say "
            'base.licence="..." (or --licence)'
        )
    return config.base.licence or otherwise


def _build(
    folder: Path,
    datasets: Sequence[Dataset],
    config: RunConfig,
    source: str,
    licence: str,
    pretrained: Pretrained,
) -> Bundle:
    recipe = Recipe(
        config.model, config.base, config.base.seed, source, licence, pretrained
    )
    return build(folder, datasets, recipe)
