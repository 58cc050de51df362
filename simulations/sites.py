"""Virtual hospitals on disk: one folder with a site.yaml for each, no image copied."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vgmedgen.base import Bundle
from vgmedgen.config.run import DataConfig, RunConfig, Source
from vgmedgen.config.yamlfile import write_yaml
from vgmedgen.data import adapters, split
from vgmedgen.data.layouts import LAYOUTS, write_phantoms
from vgmedgen.data.phantom import tint_of
from vgmedgen.data.records import Dataset
from vgmedgen.errors import ConfigError
from vgmedgen.files import write_text
from vgmedgen.site.folder import Site
from vgmedgen.training.loop import seed_of

POOLED = "pooled"


@dataclass(frozen=True)
class Share:
    """What one virtual site holds of one source."""

    name: str
    dataset: str
    root: Path
    units: tuple[str, ...]


def check_sources(config: RunConfig) -> None:
    """Refuse, before anything is built, sources that cannot be read.

    Raises:
        ConfigError: if there is none, or a folder is not named.
        DataError: if a dataset's folder is not what its adapter reads.
    """
    if not config.data.sources:
        raise ConfigError(
            "data.sources is empty; choose a data group such as data=busi"
        )
    for source in config.data.sources:
        if source.dataset != "phantom":
            _read(config, source.dataset, _root(config, source))


def make_sites(config: RunConfig, bundle: Bundle, run: Path) -> list[Path]:
    """Write a folder per virtual site below `run/sites`, and return them by name.

    Raises:
        ConfigError: if the sources do not fit the split.
        DataError: if a dataset is unusable or two sites share an image.
    """
    folder = run / "sites"
    made = sorted(path.parent for path in folder.glob("*/site.yaml"))
    if made and (folder / "whole").is_file():
        return made
    shutil.rmtree(folder, ignore_errors=True)
    shares = _shares(config, run)
    seen = {
        share.name: _read(config, share.dataset, share.root).only(share.units).records
        for share in shares
    }
    split.check_disjoint(seen)
    for share in shares:
        _write(folder / share.name, share.name, [share], config, bundle)
    write_text(folder / "whole", "")
    return [folder / name for name in sorted(seen)]


def make_pooled(
    config: RunConfig, bundle: Bundle, run: Path, sites: Sequence[Site]
) -> Site:
    """One site that holds every site's images, with the same units held out."""
    folder = run / "studies" / POOLED
    heldout = sorted(unit for site in sites for unit in site.heldout_units)
    shares = _shares(config, run)
    _write(folder, POOLED, shares, config, bundle, heldout)
    return Site(folder)


def _shares(config: RunConfig, run: Path) -> list[Share]:
    data = config.data
    read = [_source(config, number, run) for number in range(len(data.sources))]
    if data.split == "source":
        names = [source.name or source.dataset for source in data.sources]
        if len(set(names)) < len(names):
            raise ConfigError(f"data.sources have one name twice: {', '.join(names)}")
        return [
            Share(name, kind, root, dataset.units)
            for name, (kind, root, dataset) in zip(names, read, strict=True)
        ]
    if len(read) > 1:
        raise ConfigError(
            f"data.split={data.split} needs exactly one source, got {len(read)}"
        )
    kind, root, dataset = read[0]
    return [
        Share(name.replace("_", "-").lower(), kind, root, units)
        for name, units in sorted(_groups(dataset, data, config.seed).items())
    ]


def _groups(
    dataset: Dataset, data: DataConfig, seed: int
) -> dict[str, tuple[str, ...]]:
    if data.split == "column":
        return dict(split.by_column(dataset, data.column))
    return dict(split.dirichlet(dataset, data.sites, data.alpha, seed))


def _source(config: RunConfig, number: int, run: Path) -> tuple[str, Path, Dataset]:
    """Adapter name, folder and records of one source; phantoms are drawn first."""
    source = config.data.sources[number]
    if source.dataset == "phantom":
        root = _draw(config, source, number, run)
        kind = LAYOUTS[source.modality]
    else:
        root, kind = _root(config, source), source.dataset
    return kind, root, _read(config, kind, root)


def _read(config: RunConfig, kind: str, root: Path) -> Dataset:
    """Records of one source in the units that its sites will have."""
    grouping = config.data.grouping
    return adapters.read(kind, root, grouping=Path(grouping) if grouping else None)


def _root(config: RunConfig, source: Source) -> Path:
    if not config.data.root:
        raise ConfigError(
            f"data.root is empty; say where {source.dataset} lies: data.root=/path"
        )
    return (Path(config.data.root) / source.folder).resolve()


def _draw(config: RunConfig, source: Source, number: int, run: Path) -> Path:
    if source.modality not in LAYOUTS:
        raise ConfigError(
            f"data.sources[{number}].modality must be one of "
            f"{', '.join(sorted(LAYOUTS))}, got '{source.modality}'"
        )
    root = run / "phantoms" / (source.name or source.modality)
    if not root.is_dir():
        part = root.with_name(f".{root.name}.part")
        shutil.rmtree(part, ignore_errors=True)
        seed = seed_of(config.seed, "phantom", number) % 2**32
        px = config.model.image_px
        write_phantoms(
            source.modality, part, config.data.phantoms, seed, px, tint_of(number)
        )
        part.rename(root)
    return root.resolve()


def _write(
    folder: Path,
    name: str,
    shares: Sequence[Share],
    config: RunConfig,
    bundle: Bundle,
    heldout: list[str] | None = None,
) -> None:
    told = {
        "name": name,
        "base": str(bundle.folder.resolve()),
        "sources": [
            {
                "dataset": share.dataset,
                "root": str(share.root),
                "captions": _resolved(config.data.captions),
                "grouping": _resolved(config.data.grouping),
                "units": list(share.units),
            }
            for share in shares
        ],
        "heldout": config.data.heldout,
        "heldout_seed": config.seed,
        "heldout_units": heldout,
        "privacy": {
            "epsilon": config.privacy.epsilon if config.privacy.enabled else 0.0,
            "delta": config.privacy.delta,
        },
        # nobody's patients: a site too small for the release gate may go without, and
        # what a run came to is drawn with, however bad it is
        "policy": {"ungated": True, "worse_by": 0.0},
        "device": config.run.device,
    }
    write_text(folder / "site.yaml", write_yaml(told))


def _resolved(path: str) -> str:
    return str(Path(path).resolve()) if path else ""
