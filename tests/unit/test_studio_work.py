"""The studio without a page: it draws, has the gate judge, and exports what is cleared."""

import csv
import dataclasses
import shutil
from types import SimpleNamespace

import numpy as np
import pytest

from tests.gated import install_base, make_site
from vgmedgen.data import adapters
from vgmedgen.errors import (
    ConfigError,
    DataError,
    PolicyError,
    ReleaseError,
    StateError,
)
from vgmedgen.site.folder import Site
from vgmedgen.studio import cards, work
from vgmedgen.studio.work import Series, Studio, Wish
from vgmedgen.synthesis.job import model_of

PROMPT = "dermoscopic image of a melanoma; small lesion; brown"
WISH = Wish(prompt=PROMPT, label="mel", count=3, seed=5, steps=2)
HOW = {"layout": "plain", "masks": False, "dicom": False}


@pytest.fixture(scope="module")
def studio(bundle, micro, tmp_path_factory):
    """A studio whose gate runs."""
    site = make_site(tmp_path_factory.mktemp("studio") / "site", bundle, phantoms=64)
    install_base(site, micro.plan)
    return Studio(site, model_of(site))


@pytest.fixture(scope="module")
def small(studio, tmp_path_factory):
    """A studio of the same release at a site with too few images for the gate."""
    folder = tmp_path_factory.mktemp("small") / "site"
    shutil.copytree(studio.site.folder, folder)
    for part in (folder / "data").glob("*images*/*.jpg"):
        number = int(part.stem.rsplit("_", 1)[-1])
        if number >= 12:
            part.unlink()
    site = Site(folder)
    return Studio(site, model_of(site))


@pytest.fixture(scope="module")
def drawn(studio):
    (*_, series) = studio.draw(WISH)
    return series


def judged(series, *cleared):
    """The series with other verdicts."""
    pictures = [
        dataclasses.replace(
            picture,
            verdict=dataclasses.replace(
                picture.verdict, cleared=passed, reason="" if passed else "a <copy>"
            ),
        )
        for picture, passed in zip(series.pictures, cleared, strict=True)
    ]
    return Series(series.wish, tuple(pictures))


def leftovers(studio):
    exports = studio.site.folder / work.EXPORTS
    return sorted(path.name for path in exports.iterdir()) if exports.is_dir() else []


def ungated(studio, monkeypatch, *, allowed):
    policy = dataclasses.replace(studio.site.config.policy, ungated=allowed)
    monkeypatch.setattr(Site, "policy", property(lambda _: policy))


def test_every_image_is_judged_and_has_its_own_seed(studio, drawn):
    assert [picture.drawn.ask.seed for picture in drawn.pictures] == [5, 6, 7]
    assert all(picture.verdict is not None for picture in drawn.pictures)
    again = studio.gate.judge(np.stack([p.drawn.pixels for p in drawn.pictures]))
    assert [p.verdict for p in drawn.pictures] == again


def test_many_images_come_in_parts_and_fewer_are_the_first_of_them(studio, drawn):
    parts = list(studio.draw(dataclasses.replace(WISH, count=10)))
    assert [len(part.pictures) for part in parts] == [8, 10]
    for one, other in zip(drawn.pictures, parts[-1].pictures, strict=False):
        np.testing.assert_array_equal(one.drawn.pixels, other.drawn.pixels)


def test_an_image_that_is_a_patients_is_held_back_and_found_among_the_nearest(
    studio, drawn
):
    training = studio.site.training
    real = training.pixels([3])[0][0].permute(1, 2, 0).numpy()
    copy = ((real + 1) * 127.5).round().astype(np.uint8)
    stolen = dataclasses.replace(drawn.pictures[0].drawn, pixels=copy)
    (picture,) = studio._judged([stolen])
    assert not picture.verdict.cleared
    assert picture.verdict.reason
    near = studio.nearest(picture)
    assert len(near) == work.NEIGHBOURS
    assert near[0].image == training.records[3].image
    assert [n.distance for n in near] == sorted(n.distance for n in near)
    with pytest.raises(PolicyError, match="held back"):
        studio.export(Series(WISH, (picture,)), **HOW)


def test_an_export_holds_the_very_images_of_the_page(studio, drawn):
    from PIL import Image

    told = studio.export(judged(drawn, True, True, True), **HOW)
    assert told.folder.parent == studio.site.folder / "exports"
    dataset = adapters.read("table", told.folder)
    assert told.images == len(dataset.records) > 0
    shown = {
        picture.drawn.ask.number: picture.drawn.pixels for picture in drawn.pictures
    }
    for record in dataset.records:
        written = np.asarray(Image.open(record.image))
        np.testing.assert_array_equal(written, shown[int(record.id)])
        assert record.caption == PROMPT
    assert studio.exported(told.folder.name) == told.folder


def test_what_is_held_back_is_not_in_the_export(studio, drawn):
    told = studio.export(judged(drawn, True, False, True), **HOW)
    with (told.folder / "images.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert {row["image"] for row in rows} == {"images/00000.png", "images/00002.png"}
    assert all(row["cleared"] == "yes" for row in rows)


def test_an_export_in_the_layout_of_the_dataset_has_masks_and_dicom(studio, drawn):
    told = studio.export(
        judged(drawn, True, False, False), layout="ham10000", masks=True, dicom=True
    )
    (record,) = adapters.read("ham10000", told.folder).records
    assert record.label == "mel"
    assert record.masks[0].is_file()
    assert len(list((told.folder / "dicom").glob("*.dcm"))) == 1


def test_only_layouts_of_the_sites_modality_are_offered(studio):
    assert studio.modalities == ["dermoscopy"]
    assert studio.layouts == ["plain", "ham10000"]


def test_a_failed_export_leaves_nothing(studio, drawn, monkeypatch):
    before = leftovers(studio)

    def full(_, __, ___, out, ____):
        out.mkdir()
        (out / "00000.png").write_bytes(b"half")
        raise StateError("cannot write: No space left on device")

    monkeypatch.setattr(work, "synthesize", full)
    with pytest.raises(StateError, match="No space"):
        studio.export(judged(drawn, True, True, True), **HOW)
    assert leftovers(studio) == before


def test_nothing_is_exported_before_anything_is_drawn(studio):
    with pytest.raises(ConfigError, match="generate some first"):
        studio.export(Series(WISH), **HOW)


def test_anatomy_and_style_of_other_captions_are_asked_for(studio):
    texts = {"anatomy": "image;  large\nlesion", "style": "image; pink"}
    (series,) = studio.draw(dataclasses.replace(WISH, count=1, **texts))
    ask = series.pictures[0].drawn.ask
    assert (ask.anatomy, ask.style) == ("image; large lesion", "image; pink")


def test_a_release_that_was_changed_on_disk_is_not_drawn_from(small):
    part = small.model.folder / "pipeline" / "hffm" / "config.json"
    held = part.read_bytes()
    part.write_bytes(held + b" ")
    with pytest.raises(ReleaseError, match="hffm"):
        Studio(small.site, small.model)
    part.write_bytes(held)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"prompt": " \n "}, "prompt is empty"),
        ({"prompt": "lesion " * 200}, "longer than the"),
        ({"style": "pale " * 200}, "style text is"),
        ({"prompt": "x" * 5000}, "5000 characters"),
        ({"count": 17}, "images"),
        ({"count": 0}, "images"),
        ({"seed": -1}, "seed"),
        ({"steps": 0}, "steps"),
        ({"guidance": 99.0}, "guidance"),
    ],
)
def test_what_cannot_be_drawn_is_refused_in_one_line(studio, change, told):
    with pytest.raises((DataError, ConfigError), match=told) as caught:
        list(studio.draw(dataclasses.replace(WISH, **change)))
    assert "\n" not in str(caught.value)


def test_a_site_with_too_few_images_can_look_and_not_export(small, monkeypatch):
    assert small.gate is None
    (*_, series) = small.draw(WISH)
    assert [picture.verdict for picture in series.pictures] == [None] * 3
    assert small.nearest(series.pictures[0]) == []
    assert not small.may_export
    with pytest.raises(PolicyError, match="nothing compared"):
        small.export(series, **HOW)
    banner = cards.head(small)
    assert "vg-banner" in banner
    assert "not be exported" in banner
    ungated(small, monkeypatch, allowed=True)
    told = small.export(series, **HOW)
    assert (told.images, told.cleared) == (3, False)
    rows = list(csv.DictReader((told.folder / "images.csv").open()))
    assert {row["cleared"] for row in rows} == {"no"}
    assert "marked as not cleared" in cards.exported(told)


def test_a_gate_that_runs_is_never_bypassed_by_the_policy(studio, drawn, monkeypatch):
    ungated(studio, monkeypatch, allowed=True)
    with pytest.raises(PolicyError, match="held back"):
        studio.export(judged(drawn, False, False, False), **HOW)


def test_no_name_leads_to_a_folder_outside_the_exports(studio):
    assert studio.exported("..") is None
    assert studio.exported("../data") is None
    assert studio.exported("") is None
    assert studio.exported("none") is None


def test_the_page_says_who_signed_and_escapes_what_it_is_told(studio, drawn):
    header = cards.head(studio)
    assert studio.model.name[:16] in header
    assert "not signed" in header
    assert "vg-banner" not in header
    shown = cards.grid(judged(drawn, True, False, True))
    assert shown.count("vg-held") == 1
    assert "a &lt;copy&gt;" in shown
    assert shown.count("data:image/png;base64,") == 3
    bad = dataclasses.replace(drawn.pictures[0].drawn.ask, prompt="<script>x</script>")
    picture = dataclasses.replace(
        drawn.pictures[0], drawn=dataclasses.replace(drawn.pictures[0].drawn, ask=bad)
    )
    assert "<script>" not in cards.closer(picture, [])
    assert "<script>" not in cards.notice("<script>", "error")


def test_without_a_release_the_command_says_so(studio, tmp_path):
    site = SimpleNamespace(folder=tmp_path)
    with pytest.raises(ReleaseError, match="no installed release"):
        model_of(site)
