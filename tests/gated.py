"""A small site with an installed release, and enough held-out images for its gate."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from omegaconf import OmegaConf

from vgmedgen.base import Bundle
from vgmedgen.config.plan import RunPlan
from vgmedgen.data.layouts import write_phantoms
from vgmedgen.data.phantom import tint_of
from vgmedgen.release.install import install
from vgmedgen.release.write import write
from vgmedgen.site.folder import Site
from vgmedgen.synthesis.asked import Origin
from vgmedgen.training.rounds import Workbench

PHANTOMS = 140  # about 64 images on either side of the gate
FACTS = {"run": "r-1", "experiment": "demo", "config": "c" * 64, "sites": ["a", "b"]}
ORIGIN = Origin(
    release="ab" * 32,
    run="r-1",
    base="cd" * 32,
    site="hospital-a",
    modality="dermoscopy",
    steps=2,
    guidance=2.0,
    cleared=True,
)
"""What an image that the gate cleared tells of where it comes from."""


@contextmanager
def one_thread() -> Iterator[None]:
    """Round sums as child processes do: the number of threads decides about that."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def make_site(
    folder: Path,
    bundle: Bundle,
    *,
    phantoms: int = PHANTOMS,
    px: int = 48,
    policy: Mapping[str, object] | None = None,
) -> Site:
    """A dermoscopy site of drawn images, half of its lesions held out."""
    if not (folder / "data").is_dir():
        write_phantoms("dermoscopy", folder / "data", phantoms, 7, px, tint_of(0))
    told = {
        "name": "hospital-a",
        "base": str(bundle.folder.resolve()),
        "sources": [{"dataset": "ham10000", "root": "data"}],
        "heldout": 0.5,
        "policy": dict(policy or {}),
        "device": "cpu",
    }
    (folder / "site.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(told)))
    return Site(folder)


def install_base(site: Site, plan: RunPlan, facts: Mapping[str, object] = FACTS) -> str:
    """Install a release whose weights are the base's own; returns its digest."""
    weights = Workbench.open(site.bundle, plan, torch.device("cpu")).states()
    scratch = site.folder / "published"
    told = write(scratch / str(facts["run"]), site.bundle, plan, weights, facts)
    return install(site.folder / "releases", site.bundle, plan, weights, told)
