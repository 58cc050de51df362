"""`vgmedgen gate`: images of any origin before a site's release gate."""

import json
import re

import pytest
from PIL import Image, ImageOps

from tests.gated import make_site
from vgmedgen.cli import app
from vgmedgen.cli.shared import run_cli
from vgmedgen.data.layouts import write_phantoms
from vgmedgen.data.phantom import tint_of


@pytest.fixture(scope="module")
def site(bundle, tmp_path_factory):
    return make_site(tmp_path_factory.mktemp("gate-cli") / "site", bundle)


@pytest.fixture
def run(capsys):
    """Run the command line; gives exit code, output and errors."""

    def told(*words):
        with pytest.raises(SystemExit) as left:
            run_cli(lambda: app([str(word) for word in words]), "vgmedgen")
        out = capsys.readouterr()
        return left.value.code or 0, out.out, out.err

    return told


@pytest.fixture(scope="module")
def unrelated(tmp_path_factory):
    """Drawn by the same program from another seed: like the site's, and no copies."""
    folder = tmp_path_factory.mktemp("unrelated")
    write_phantoms("dermoscopy", folder, 6, 991, 48, tint_of(0))
    return [
        path
        for path in sorted(folder.rglob("*.jpg"))
        if "mask" not in path.name.lower()
    ]


def copies(site, folder):
    first, second, third = (record.image for record in site.training.records[:3])
    folder.mkdir()
    Image.open(first).save(folder / "as-it-is.png")
    ImageOps.mirror(Image.open(second)).save(folder / "mirrored.png")
    Image.open(third).convert("RGB").save(folder / "squeezed.jpg", quality=50)
    return folder


def test_planted_copies_are_held_back_by_name_and_the_report_names_none(
    site, run, tmp_path
):
    planted = copies(site, tmp_path / "planted")
    code, out, _ = run("gate", planted, "--site", site.folder, "--out", tmp_path / "r")
    assert code == 1
    for name in ("as-it-is.png", "mirrored.png", "squeezed.jpg"):
        assert re.search(rf"held back  .*{name}: ", out)
    told = (tmp_path / "r" / "gate.json").read_text()
    assert json.loads(told)["flagged"] == 3
    page = (tmp_path / "r" / "gate.html").read_text()
    assert "squeezed" not in told + page
    for record in site.training.records:
        assert record.image.name not in out + told + page


def test_images_that_copy_nothing_are_cleared_and_the_exit_is_0(site, run, unrelated):
    assert len(unrelated) == 6
    code, out, _ = run("gate", *unrelated, "--site", site.folder)
    assert (code, re.findall(r"compared +(\d+)", out)) == (0, ["6"])
    assert re.findall(r"cleared +(\d+)", out) == ["6"]


def test_a_place_without_images_is_refused_and_nothing_is_written(site, run, tmp_path):
    (tmp_path / "notes.txt").write_text("no image")
    for place in (tmp_path, tmp_path / "absent.png"):
        code, out, err = run(
            "gate", place, "--site", site.folder, "--out", tmp_path / "report"
        )
        assert (code, out) == (1, "")
        assert "nothing was compared" in err
        assert err.count("\n") == 1
    assert not (tmp_path / "report").exists()


def test_a_damaged_image_is_refused_in_one_line(site, run, tmp_path):
    (tmp_path / "torn.png").write_bytes(b"\x89PNG\r\n\x1a\n torn")
    code, _, err = run("gate", tmp_path / "torn.png", "--site", site.folder)
    assert code == 1
    assert "torn.png cannot be read as an image" in err
    assert err.count("\n") == 1
