"""Layouts and provenance: what a job writes, our own adapters and readers read back."""

import csv
import io
import json

import numpy as np
import pytest
from PIL import Image

from vgmedgen.data import adapters, images
from vgmedgen.errors import ConfigError, DataError
from vgmedgen.synthesis import layouts, provenance
from vgmedgen.synthesis.asked import Ask, Drawn, Origin

PX = 32
ORIGIN = Origin(
    release="d" * 64,
    run="r-1",
    base="b" * 64,
    site="hospital-a",
    modality="dermoscopy",
    steps=25,
    guidance=2.0,
    cleared=True,
)
LABELS = {
    "plain": ("mel", "nv", "", "mel"),
    "ham10000": ("mel", "nv", "mel", "df"),
    "busi": ("benign", "normal", "malignant", "benign"),
    "kvasir-seg": ("polyp", "", "polyp", ""),
}


def drawn_of(number: int, label: str = "", prompt: str = "a lesion") -> Drawn:
    ramp = np.linspace(0, 200, PX).astype(np.uint8)
    pixels = np.stack(np.broadcast_arrays(ramp[:, None], ramp, 20 * number), axis=-1)
    pixels = np.ascontiguousarray(pixels, dtype=np.uint8)
    mask = np.zeros((PX, PX), dtype=np.uint8)
    mask[4 : 10 + number, 6:20] = 1
    return Drawn(Ask(number=number, prompt=prompt, seed=3, label=label), pixels, mask)


def lay(layout: str, out, *, leave_out: tuple[int, ...] = ()) -> list[Drawn]:
    """Write four images in a layout, as a job does."""
    every = [drawn_of(k, label) for k, label in enumerate(LABELS[layout])]
    layouts.check(layout, [drawn.ask for drawn in every])
    kept = []
    places = layouts.places([drawn.ask for drawn in every])
    for drawn, place in zip(every, places, strict=True):
        if drawn.ask.number in leave_out:
            continue
        told = provenance.facts(drawn.ask, ORIGIN)
        one, content = layouts.files(layout, drawn, place, told)
        kept.append(one)
        for name, raw in content.items():
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            (out / name).write_bytes(raw)
    for name, text in layouts.tables(layout, kept, PX).items():
        (out / name).write_text(text)
    return [drawn for drawn in every if drawn.ask.number not in leave_out]


@pytest.mark.parametrize("layout", layouts.LAYOUTS)
def test_our_adapter_reads_a_layout_back_image_by_image(layout, tmp_path):
    every = lay(layout, tmp_path)
    adapter = "table" if layout == "plain" else layout
    found = adapters.read(adapter, tmp_path)
    assert len(found.records) == len(every)
    by_number = {
        provenance.read_back(record.image)["number"]: record for record in found.records
    }
    for drawn in every:
        record = by_number[drawn.ask.number]
        image, mask = images.load(record, PX)
        away = np.abs(image.permute(1, 2, 0).numpy().astype(int) - drawn.pixels)
        assert away.mean() < (2 if record.image.suffix == ".jpg" else 1e-9)
        expected = 0 if drawn.ask.label == "normal" else drawn.mask
        assert (mask[0].numpy() == expected).mean() > 0.97
        assert record.label == (
            drawn.ask.label or ("", "polyp")[layout == "kvasir-seg"]
        )


@pytest.mark.parametrize("layout", layouts.LAYOUTS)
def test_an_image_that_was_held_back_renames_no_other(layout, tmp_path):
    whole, gap = tmp_path / "whole", tmp_path / "gap"
    lay(layout, whole)
    lay(layout, gap, leave_out=(0, 2))
    files = {
        path.relative_to(gap): path.read_bytes()
        for path in gap.rglob("*")
        if path.suffix in {".png", ".jpg"}
    }
    assert len(files) == 4
    for name, raw in files.items():
        assert (whole / name).read_bytes() == raw


def test_the_image_is_the_unit_of_a_plain_layout_and_its_prompt_the_caption(tmp_path):
    lay("plain", tmp_path)
    found = adapters.read("table", tmp_path)
    assert found.unit_kind == "image"
    assert {record.caption for record in found.records} == {"a lesion"}
    assert len(found.units) == 4


def test_boxes_surround_the_mask_as_kvasir_writes_them(tmp_path):
    lay("kvasir-seg", tmp_path)
    told = json.loads((tmp_path / "Kvasir-SEG" / "kavsir_bboxes.json").read_text())
    assert told["syn0000001"] == {
        "height": PX,
        "width": PX,
        "bbox": [{"label": "polyp", "xmin": 6, "ymin": 4, "xmax": 20, "ymax": 11}],
    }


@pytest.mark.parametrize(
    ("layout", "label", "says"),
    [
        ("ham10000", "", "image 2 .* has no label"),
        ("ham10000", "ulcer", "knows nv, mel, bkl, bcc, akiec, vasc, df"),
        ("busi", "", "image 2 .* has no label"),
        ("busi", "mel", "knows benign, malignant, normal"),
        ("kvasir-seg", "ulcer", "knows polyp"),
        ("coco", "", "there are: plain, ham10000, busi, kvasir-seg"),
    ],
)
def test_what_has_no_place_in_a_layout_is_refused(layout, label, says):
    first = {"busi": "benign", "ham10000": "nv"}.get(layout, "polyp")
    asks = [drawn_of(0, first).ask, drawn_of(1, label).ask]
    with pytest.raises(ConfigError, match=says):
        layouts.check(layout, asks)


def test_a_caption_takes_the_clause_that_was_taken_from_another():
    ask = Ask(number=0, prompt="image; small; brown", seed=0, style="other; large; red")
    assert layouts.shown(ask) == "image; small; red"
    free = Ask(number=0, prompt="image; small; brown", seed=0, anatomy="any words")
    assert layouts.shown(free) == "image; small; brown"


def test_tables_quote_what_a_prompt_holds():
    text = layouts.as_csv(("a", "b"), [["x, y", 'say "z"\n']])
    assert list(csv.reader(io.StringIO(text)))[1] == ["x, y", 'say "z"\n']


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
@pytest.mark.parametrize("prompt", ["a lesion", "kleine Läsion, 小さい, Ω \U0001f9e0"])
@pytest.mark.parametrize("cleared", [True, False])
def test_a_file_tells_where_it_comes_from(suffix, prompt, cleared, tmp_path):
    drawn = drawn_of(5, "mel", prompt)
    origin = Origin(**{**vars(ORIGIN), "cleared": cleared})
    told = provenance.facts(drawn.ask, origin)
    write = provenance.as_png if suffix == ".png" else provenance.as_jpeg
    path = tmp_path / f"image{suffix}"
    path.write_bytes(write(drawn.pixels, told))
    assert provenance.read_back(path) == told
    assert told["cleared"] is cleared
    assert write(drawn.pixels, told) == path.read_bytes()


def test_the_longest_captions_fit_a_jpeg(tmp_path):
    long = "\U0001f9e0" * 3000
    ask = Ask(
        number=0,
        prompt=long,
        seed=0,
        anatomy=long,
        style=long,
        towards=long,
        label=long[:200],
    )
    told = provenance.facts(ask, ORIGIN)
    (tmp_path / "a.jpg").write_bytes(provenance.as_jpeg(drawn_of(0).pixels, told))
    assert provenance.read_back(tmp_path / "a.jpg") == told


def test_other_programs_see_that_a_png_is_synthetic(tmp_path):
    told = provenance.facts(drawn_of(1).ask, ORIGIN)
    opened = Image.open(io.BytesIO(provenance.as_png(drawn_of(1).pixels, told)))
    assert opened.text["Source"] == "synthetic"
    assert opened.text["Description"] == "a lesion"
    assert opened.text["Cleared"] == "yes"
    assert opened.text["Release"] == "d" * 64
    assert "trainedAlgorithmicMedia" in opened.text["XML:com.adobe.xmp"]


def test_nothing_in_a_file_tells_of_a_verdict_or_a_patient():
    told = provenance.facts(drawn_of(1).ask, ORIGIN)
    assert not {"distance", "score", "row", "reason", "unit", "patient"} & told.keys()


def test_an_image_without_provenance_is_refused(tmp_path):
    Image.fromarray(drawn_of(0).pixels).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_text("no image")
    for name in ("a.png", "b.png"):
        with pytest.raises(DataError, match="does not say where it comes from"):
            provenance.read_back(tmp_path / name)
