"""What the preflight finds of the machine, the base bundle and the data."""
# ruff: noqa: F401, F811 - fixtures are imported by name

import re
import shutil
from pathlib import Path

import pytest
from PIL import Image

from client.preflight import examine, machine
from tests.loopback import HOST, closed_port
from tests.preflights import (
    NETWORK,
    images,
    kit,
    no_proxy,
    of,
    site,
    warned,
    write,
    wrong,
)
from vgmedgen.data import inspection
from vgmedgen.errors import DataError
from vgmedgen.site.folder import Site


@pytest.fixture
def based(site, bundle):
    write(
        site,
        address=f"{HOST}:{closed_port()}",
        base=bundle.folder,
        digest=bundle.digest,
    )
    return site


def test_the_version_of_flower_is_the_pinned_one():
    pinned = Path(__file__).parents[2] / "pyproject.toml"
    assert f"flwr[simulation]=={machine.FLOWER}" in pinned.read_text()


@pytest.mark.parametrize(
    ("name", "version", "told"),
    [("flwr", "1.42.0", "flwr 1.42.0"), ("python", "3.13.1", "Python 3.13.1")],
)
def test_versions_that_were_not_tested_are_told(site, monkeypatch, name, version, told):
    real = machine.metadata.version
    if name == "python":
        monkeypatch.setattr(machine.platform, "python_version", lambda: version)
    else:
        monkeypatch.setattr(
            machine.metadata, "version", lambda n: version if n == name else real(n)
        )
    found = of(examine(site))["versions"]
    assert not found.ok
    assert told in found.told


def test_a_base_that_is_another_missing_or_unnamed_is_told(site, bundle):
    at = f"{HOST}:{closed_port()}"
    for base, digest, told in (
        ("", "", "names no base bundle"),
        (site / "nowhere", "", "is no base bundle"),
        (bundle.folder, "0" * 64, "has digest"),
    ):
        write(site, address=at, base=base, digest=digest)
        found = of(examine(site))
        assert not found["base bundle"].ok
        assert told in found["base bundle"].told
        assert wrong(found) >= {"GPU", "memory", "disk"}
        assert found["data"].ok
    write(site, address=at, base=bundle.folder)
    assert of(examine(site))["base bundle"].warning


def test_data_are_told_in_ranges_and_never_exactly(based, images):
    found = of(examine(based))
    told = found["data"].told
    assert "busi: 10-19 images, 10-19 units (image)" in told
    assert "benign fewer than 10" in told or "malignant fewer than 10" in told
    assert "12" not in told
    for name in ("data", "masks", "captions", "min_units", "release gate", "disk"):
        free, comma, rest = found[name].told.partition(" GiB free,")
        assert "12 " not in (rest if comma else free)
        assert str(images) not in found[name].told
    assert "made from facts and pixels for 10-19 images" in found["captions"].told


def test_data_that_are_not_there_are_told(based):
    (based / "images").unlink()
    found = of(examine(based))
    assert wrong(found) - NETWORK == {
        *("data", "masks", "captions", "min_units", "release gate", "disk"),
    }
    assert "does not exist" in found["data"].told
    assert found["masks"].told == "not examined: it needs 'data'"


def test_a_broken_source_does_not_hide_the_others(based, images):
    text = (based / "site.yaml").read_text()
    listed = "[{dataset: busi, root: gone}, {dataset: busi, root: images}]"
    (based / "site.yaml").write_text(
        text.replace("[{dataset: busi, root: images}]", listed)
    )
    found = of(examine(based))
    assert not found["data 1"].ok
    assert found["data 2"].ok
    assert not found["min_units"].ok


def test_an_image_that_cannot_be_decoded_is_found(based, images):
    (based / "images").unlink()
    shutil.copytree(images, based / "images")
    one = sorted(p for p in (based / "images").rglob("*.png") if "mask" not in p.name)[
        0
    ]
    one.write_bytes(b"no image")
    found = of(examine(based))["data"]
    assert not found.ok
    assert one.name in found.told


def test_every_refused_image_is_counted_as_training_would_refuse_it(based, images):
    (based / "images").unlink()
    shutil.copytree(images, based / "images")
    pictures = sorted(
        p for p in (based / "images").rglob("*.png") if "mask" not in p.name
    )
    for path in pictures[3:10]:
        path.write_bytes(path.read_bytes()[:-40])
    for _ in range(2):  # remembered, it is told again
        found = of(examine(based))
        assert not found["data"].ok
        assert "busi: 7 of 12 images are refused" in found["data"].told
        assert all(path.name in found["data"].told for path in pictures[3:8])
        assert "checksum" in found["data"].todo
    with pytest.raises(DataError, match=re.escape(pictures[3].name)):
        Site(based).samples  # noqa: B018 - prepares them
    for path in pictures[3:10]:
        path.unlink()
        path.with_name(f"{path.stem}_mask.png").unlink(missing_ok=True)
    assert of(examine(based))["data"].ok


def test_a_second_look_opens_no_image_and_a_changed_one_is_opened(
    based, images, monkeypatch
):
    (based / "images").unlink()
    shutil.copytree(images, based / "images")
    assert of(examine(based))["data"].ok
    opened = []
    load = inspection.images.load
    monkeypatch.setattr(
        inspection.images, "load", lambda r, px: opened.append(r.id) or load(r, px)
    )
    assert of(examine(based))["data"].ok
    assert opened == []
    one = sorted((based / "images").rglob("*_mask.png"))[0]
    one.write_bytes(one.read_bytes())  # the same bytes, written anew
    assert of(examine(based))["data"].ok
    assert opened == [one.stem.removesuffix("_mask")]


def test_a_memory_that_cannot_be_read_or_written_is_no_fault(based, images):
    kept = based / "inspected.json"
    for content in ("{", "[]", '{"a": 1}', '{"a": ["b", "c"]}'):
        kept.write_text(content)
        assert of(examine(based))["data"].ok
    kept.unlink()
    kept.mkdir()
    assert of(examine(based))["data"].ok


def test_a_lesion_with_an_empty_mask_is_a_warning(based, images):
    (based / "images").unlink()
    shutil.copytree(images, based / "images")
    one = sorted((based / "images").rglob("benign*_mask.png"))[0]
    with Image.open(one) as mask:
        Image.new("L", mask.size).save(one)
    found = of(examine(based))["masks"]
    assert found.ok
    assert found.warning
    assert "1 of 10-19 deserve a look" in found.told
    name = one.name.replace("_mask", "")
    assert f"{name}: its mask is empty, though its label is 'benign'" in found.todo


def table(site, rows):
    (site / "table.csv").write_text("\n".join(["image,mask,caption,unit", *rows]))
    text = (site / "site.yaml").read_text()
    root = "[{dataset: table, root: table.csv}]"
    (site / "site.yaml").write_text(
        text.replace("[{dataset: busi, root: images}]", root)
    )


def test_masks_and_captions_are_told_apart(based, images):
    pictures = sorted(p for p in images.rglob("*.png") if "mask" not in p.name)
    table(based, [f"{path},,a lesion,p{n}" for n, path in enumerate(pictures)])
    found = of(examine(based))
    assert found["masks"].warning
    assert "missing for 10-19 of 10-19 images" in found["masks"].told
    assert found["captions"].told == "every image has one of its own"


def test_fewer_units_than_the_policy_asks_for_are_a_fault(based, images):
    pictures = sorted(p for p in images.rglob("*.png") if "mask" not in p.name)
    for units, enough in ((5, False), (8, True)):
        rows = [f"{path},,a lesion,p{n % units}" for n, path in enumerate(pictures)]
        table(based, rows)
        found = of(examine(based))["min_units"]
        assert found.ok == enough, found  # a fifth of them is held out
        assert "policy.min_units asks for 5" in found.told or enough


def pictures(site, count):
    """Rows of a table of so many images, no two alike, each of its own patient."""
    (site / "drawn").mkdir(exist_ok=True)
    for number in range(count):
        shade = (number % 256, number // 256, 7)
        Image.new("RGB", (4, 4), shade).save(site / "drawn" / f"{number:04}.png")
    return [f"drawn/{n:04}.png,,a lesion,p{n}" for n in range(count)]


def heldout(site, share):
    text = (site / "site.yaml").read_text()
    (site / "site.yaml").write_text(f"{text}\nheldout: {share}\n")


def test_a_site_with_too_few_held_out_images_is_told_that_the_gate_cannot_open(based):
    table(based, pictures(based, 90))
    found = of(examine(based))["release gate"]
    assert found.warning
    assert found.told == "cannot open: 10-19 images are held out, it needs 20"
    assert "add data, or raise heldout" in found.todo
    heldout(based, 0.25)
    assert not of(examine(based))["release gate"].warning


def test_a_site_that_trains_on_too_few_units_is_told_so(based):
    rows = pictures(based, 60)
    patients = [row.rpartition(",p")[0] + f",p{n // 2}" for n, row in enumerate(rows)]
    table(based, patients)
    heldout(based, 0.45)  # 14 of 30 patients, of two images each
    found = of(examine(based))["release gate"]
    assert found.warning
    assert found.told == "cannot open: 10-19 units train, it needs 20"
    assert "raise heldout" not in found.todo


def test_whether_the_threshold_is_a_rank_is_told_with_the_rate_and_no_count(based):
    table(based, pictures(based, 620))
    heldout(based, 0.5)
    found = of(examine(based))["release gate"]
    assert found.ok
    assert not found.warning
    assert found.told == (
        "can open: its threshold is a rank among 200-499 held-out units, for false "
        "alarms of 1 % at most"
    )
    text = (based / "site.yaml").read_text()
    (based / "site.yaml").write_text(f"{text}gate: {{false_alarms: 0.005}}\n")
    told = of(examine(based))["release gate"].told
    assert "read off the tail of 200-499 held-out units" in told
    assert "0.5 %" in told


def test_a_full_disk_is_told(based, monkeypatch):
    usage = shutil.disk_usage(based)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=10**8))
    found = of(examine(based))["disk"]
    assert not found.ok
    assert "0 GiB free" in found.told


def test_memory_is_compared_with_what_the_base_needs(based, monkeypatch):
    assert of(examine(based))["memory"].ok
    monkeypatch.setattr(machine, "_available", lambda: 2**29)
    assert not of(examine(based))["memory"].ok


def test_a_gpu_is_asked_for_where_the_base_needs_one(based, monkeypatch):
    import torch

    assert of(examine(based))["GPU"].told == "none needed"
    monkeypatch.setattr(machine, "_preset", lambda place: "pixart-512")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "needs a GPU" in of(examine(based))["GPU"].told
    monkeypatch.setattr(machine, "_preset", lambda place: "small")
    assert of(examine(based))["GPU"].warning
    monkeypatch.setattr(machine, "_preset", lambda place: "of tomorrow")
    found = of(examine(based))
    assert {"GPU", "memory"} <= warned(found)


def test_a_gpu_that_others_fill_is_told(based, monkeypatch):
    import torch

    monkeypatch.setattr(machine, "_preset", lambda place: "pixart-512")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a GPU")
    for free, enough in ((4, False), (20, True)):
        monkeypatch.setattr(
            torch.cuda, "mem_get_info", lambda f=free: (f * 2**30, 24 * 2**30)
        )
        found = of(examine(based))["GPU"]
        assert found.ok == enough
        assert f"{free} of 24 GiB free, about 16 needed" in found.told


def test_a_gpu_that_site_yaml_names_has_to_be_there(based, monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    (based / "site.yaml").write_text(
        (based / "site.yaml").read_text() + "device: cuda\n"
    )
    assert "torch sees no GPU" in of(examine(based))["GPU"].told
