"""A release that is refused at a hospital is refused at once, before torch is loaded."""

import shutil
import subprocess
import sys

import pytest
from omegaconf import OmegaConf

from tests.releases import TRUSTED
from vgmedgen.release.archive import pack
from vgmedgen.trust.signing import SigningKey

SLOW = ("torch", "diffusers", "transformers", "monai", "peft", "opacus", "flwr")
REFUSED = (
    "import sys\n"
    "from client.cli import main\n"
    "try: main()\n"
    "except SystemExit as left: print(left.code)\n"
    f"print([name for name in {SLOW} if name in sys.modules])"
)


@pytest.fixture
def site(hospital, two_installed):
    """A hospital that uses a release of 2025."""
    shutil.copytree(two_installed, hospital.folder / "releases")
    return hospital.folder


@pytest.mark.parametrize("spoilt", ["noise", "cut", "changed", "stranger's", "older"])
def test_a_refusal_of_an_archive_waits_for_no_model_code(
    site, by_year, tmp_path, spoilt
):
    carried = tmp_path / "carried.vgrel"
    pack(by_year[2024 if spoilt == "older" else 2025].folder, carried)
    content = bytearray(carried.read_bytes())
    if spoilt == "noise":
        content = b"not an archive " * 100
    if spoilt == "cut":
        content = content[:-100]
    if spoilt == "changed":
        content[len(content) // 2] ^= 1
    carried.write_bytes(content)
    stranger = [SigningKey.make().public]
    policy = {"coordinators": stranger if spoilt == "stranger's" else TRUSTED}
    path = site / "site.yaml"
    OmegaConf.save(OmegaConf.merge(OmegaConf.load(path), {"policy": policy}), path)
    done = subprocess.run(
        [
            *(sys.executable, "-c", REFUSED, "install", carried, "--site", site),
            *("--by", "A. Officer"),
        ],
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert done.stdout.splitlines() == ["1", "[]"], done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert "[VG" in done.stderr
