"""What several test files share: a micro base bundle, real but seconds to build."""

import os
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # many small jobs: threads only wait
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # and those of more do not spin

SAFE = "PYTHONSAFEPATH"
MICRO = (
    "model.image_px=32",
    "model.vae_channels=[8,8,8,8]",
    "model.prior_channels=[8,8,16]",
    "model.text_width=32",
    "model.text_layers=1",
    "model.mapper_hidden=32",
    "model.anatomy=8",
    "model.style=8",
    "model.hffm_hidden=16",
    "model.tokens_per_channel=1",
    "model.caption_width=16",
    "model.dit_layers=1",
    "model.dit_heads=2",
    "model.dit_head_width=8",
    "base.phantoms=36",
    "base.batch=8",
    "base.vae_steps=2",
    "base.prior_steps=2",
    "base.mapper_steps=2",
    "base.dit_steps=2",
    "data.phantoms=24",
    "align.prior_steps=2",
    "align.mapper_steps=2",
    "align.batch=4",
    "generate.steps=2",
    "generate.batch=4",
    "generate.rank=2",
    "generate.alpha=2",
    "federation.align_rounds=2",
    "federation.generate_rounds=2",
    "synthesis.images=2",
    "synthesis.steps=2",
    "study.draws=2",
    "study.shuffles=2",
)
"""Overrides of a run that goes through everything in seconds and learns nothing."""


@pytest.fixture(autouse=True)
def _children_as_usual():
    """Take back what a command that a test runs in this process says to its children."""
    held = os.environ.get(SAFE)
    yield
    if held is None:
        os.environ.pop(SAFE, None)
    else:
        os.environ[SAFE] = held


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory):
    """A cache folder of the session's own, named in the environment."""
    folder = tmp_path_factory.mktemp("cache")
    held = os.environ.get("VGMEDGEN_CACHE")
    os.environ["VGMEDGEN_CACHE"] = str(folder)
    yield folder
    if held is None:
        del os.environ["VGMEDGEN_CACHE"]
    else:
        os.environ["VGMEDGEN_CACHE"] = held


@pytest.fixture(scope="session")
def micro(cache: Path):
    """The configuration of a micro run."""
    from vgmedgen.config.load import load_run

    return load_run(MICRO)


@pytest.fixture(scope="session")
def bundle(micro):
    """A micro base bundle, built once per session."""
    from vgmedgen.training.public import base_for

    return base_for(micro)


@pytest.fixture(scope="session")
def hospitals(micro, bundle, tmp_path_factory: pytest.TempPathFactory):
    """Folders of three virtual hospitals; read them, do not write."""
    from simulations.sites import make_sites

    return make_sites(micro, bundle, tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="session")
def booked_ledger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a ledger of seven rows; read it, do not write."""
    from tests.bookings import fill

    folder = tmp_path_factory.mktemp("ledger")
    fill(folder)
    return folder


@pytest.fixture
def filled(booked_ledger: Path, tmp_path: Path):
    """A copy of that ledger that the test may write."""
    from tests.bookings import copied

    return copied(booked_ledger, tmp_path / "site")


PRIVATE = (
    "privacy.enabled=true",
    "privacy.epsilon=6",
    "privacy.unit=image",
    "privacy.batch=3",
    "privacy.draws=2",
    "generate.hffm=false",
)
"""Overrides that put a micro run under differential privacy."""


@pytest.fixture(scope="session")
def private_micro(cache: Path):
    """The configuration of a micro run with differential privacy."""
    from vgmedgen.config.load import load_run

    return load_run((*MICRO, *PRIVATE))


@pytest.fixture(scope="session")
def private_hospitals(private_micro, bundle, tmp_path_factory: pytest.TempPathFactory):
    """Folders of three virtual hospitals with a limit; read them, do not write."""
    from simulations.sites import make_sites

    return make_sites(private_micro, bundle, tmp_path_factory.mktemp("private"))


@pytest.fixture
def hospital(hospitals, tmp_path: Path):
    """A site whose folder the test may write."""
    import shutil

    from vgmedgen.site.folder import Site

    folder = tmp_path / hospitals[0].name
    shutil.copytree(hospitals[0], folder)
    return Site(folder)
