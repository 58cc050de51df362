import base64
import io
import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.unit.report_example import LONG, example, picture
from vgmedgen.codes import meaning
from vgmedgen.errors import StateError, TrainingError
from vgmedgen.evaluation.charts import tick_texts, ticks
from vgmedgen.evaluation.findings import lead
from vgmedgen.evaluation.gallery import inline
from vgmedgen.evaluation.markup import duration, number, plain, size_text, tag
from vgmedgen.evaluation.report import write

SHELL = "<script>alert('x')</script><img src=x onerror=alert(1)>"


class Page(HTMLParser):
    """Collects what a test asks for and refuses unbalanced markup."""

    def __init__(self, path):
        super().__init__()
        self.elements, self.data, self.words, self.open = [], [], [], []
        self.feed(Path(path).read_text("utf-8"))
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in {"meta", "img", "br"}:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" in self.open:
            return
        self.words.append(data)
        if self.open and self.open[-1] == "data":
            attributes = next(a for t, a in reversed(self.elements) if t == "data")
            self.data.append((data, float(attributes["value"])))

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())

    def all(self, name):
        return [attributes for tag, attributes in self.elements if tag == name]


SITES = ("rosendahl", "vidir_modern", "vidir_molemax", "vienna_dias")


@pytest.fixture
def pairs(tmp_path):
    def make(names, caption="a dermoscopic image of a melanoma"):
        return {
            name: [
                {
                    "real": picture(tmp_path / f"real-{index}.png", index),
                    "synthetic": picture(
                        tmp_path / f"synthetic-{index}.png", 99 + index
                    ),
                    "caption": caption,
                    "seed": 1000 + index,
                }
            ]
            for index, name in enumerate(names)
        }

    return make


def leaves(value):
    if isinstance(value, dict):
        return [leaf for entry in value.values() for leaf in leaves(entry)]
    if isinstance(value, list):
        return [leaf for entry in value for leaf in leaves(entry)]
    return [value] if isinstance(value, int | float) else []


def test_page_fetches_nothing_and_runs_nothing(tmp_path, pairs):
    page = Page(write(example(SITES, tmp_path, pairs=pairs(SITES)), tmp_path))
    for tag_name, attributes in page.elements:
        assert tag_name not in {"script", "link", "iframe", "object", "embed", "base"}
        for name, value in attributes.items():
            assert not name.startswith("on")
            if name in {"src", "href", "xlink:href", "srcset", "data", "action"}:
                assert value.startswith("data:image/png;base64,")
    markup = (tmp_path / "report.html").read_text("utf-8")
    assert "url(" not in markup
    assert "@import" not in markup
    assert not re.search(r"https?:|//[a-z]", re.sub(r"base64,[^\"]*", "", markup))
    assert len(page.all("img")) == 2 * len(SITES)


def test_json_is_strict_and_holds_the_report(tmp_path):
    report = example(SITES, tmp_path)
    report["heldout_denoising_loss"]["rosendahl"]["local"] = math.nan
    report["seconds"]["align"] = np.float32(3.5)
    write(report, tmp_path)

    def refuse(word):
        raise AssertionError(word)

    stored = json.loads((tmp_path / "report.json").read_text(), parse_constant=refuse)
    assert stored["heldout_denoising_loss"]["rosendahl"]["local"] is None
    assert stored["seconds"]["align"] == 3.5
    assert stored["release"]["folder"] == "release"
    assert stored["caption_gap"] == report["caption_gap"]
    assert stored["rounds"] == report["rounds"]


def test_numbers_in_the_page_are_those_in_the_json(tmp_path):
    page = Page(write(example(SITES, tmp_path), tmp_path))
    stored = json.loads((tmp_path / "report.json").read_text())
    exact = {value for _, value in page.data}
    for key in (
        "heldout_denoising_loss",
        "caption_gap",
        "caption_gap_spread",
        "local_on_sites",
        "others",
        "alignment",
        "seconds",
    ):
        shown = leaves(stored[key])
        missing = {leaf for leaf in shown if leaf not in exact}
        assert missing <= {entry["round"] for entry in stored["alignment"]["rounds"]}, (
            key
        )
    for shown, value in page.data:
        digits = shown.replace("\N{MINUS SIGN}", "-").replace(
            "\N{NARROW NO-BREAK SPACE}", ""
        )
        if re.fullmatch(r"[+-]?[\d.]+", digits):
            places = len(digits.partition(".")[2])
            assert float(digits) == pytest.approx(value, abs=0.51 * 10**-places)


def test_sentences_give_the_means_of_the_json(tmp_path):
    report = example(SITES, tmp_path)
    losses = report["heldout_denoising_loss"].values()
    before, after = (
        np.mean([entry[model] for entry in losses]) for model in ("base", "federated")
    )
    sentence = lead(report)["heldout"]
    assert f"{before:.4f} → {after:.4f}" in sentence
    assert "3 of 4 sites" in sentence
    assert lead(report)["who"].startswith("4 sites trained one")


def test_a_site_where_federated_is_not_better_is_named(tmp_path):
    page = Page(write(example(SITES, tmp_path), tmp_path))
    assert "Federated is not better than base at vienna_dias" in page.text


def test_a_run_that_helped_nobody_says_so(tmp_path):
    report = example(SITES, tmp_path, studies=False)
    for values in report["heldout_denoising_loss"].values():
        values["federated"] = values["base"]
    for values in report["caption_gap"].values():
        values["federated"] = 0.0001
    assert "of no site better" in lead(report)["heldout"]
    assert "do not visibly steer" in lead(report)["captions"]
    page = Page(write(report, tmp_path))
    for name in SITES:
        assert re.search(
            rf"not better than base at [^.]*{name}", page.text.replace("0.", "0,")
        )


def test_markup_in_captions_names_and_notes_is_text(tmp_path, pairs):
    names = (SHELL, '"><svg onload=alert(2)>', "third")
    report = example(names, tmp_path, pairs=pairs(names, SHELL))
    report["title"] = report["notes"][0] = report["run"] = SHELL
    report["sites"][0]["labels"] = {SHELL: 3}
    report["rounds"][0]["left_out"] = {names[0]: SHELL}
    report["seconds"][SHELL] = 1.0
    report["alignment"]["variants"][SHELL] = {}
    page = Page(write(report, tmp_path))
    assert not page.all("script")
    assert all("onerror" not in attributes for attributes in page.all("img"))
    assert all("onload" not in attributes for attributes in page.all("svg"))
    assert SHELL in page.text


def test_numbers_that_are_missing_are_dashes_not_zeros(tmp_path):
    report = example(SITES, tmp_path)
    report["heldout_denoising_loss"]["rosendahl"] = {
        "base": math.nan,
        "federated": None,
    }
    report["caption_gap"]["vidir_modern"] = None
    report["rounds"][0]["seconds"] = math.inf
    report["sites"][0]["units"] = None
    report["loss_curves"]["rosendahl"]["prior"] = [[0, math.nan], [1, None], [2, 0.4]]
    page = Page(write(report, tmp_path))
    assert "nan" not in page.text.lower().split()
    assert "None" not in page.text
    assert {"class": "none", "title": "not measured"} in page.all("span")
    assert "No held-out comparison with the base exists for rosendahl" in page.text
    assert "held-out images of 2 of 3 sites better" in page.text
    assert "Mean of sites with all numbers" in page.text


def test_every_part_can_be_missing(tmp_path):
    whole = example(SITES, tmp_path)
    for key in whole:
        write({name: value for name, value in whole.items() if name != key}, tmp_path)
        write({key: whole[key]}, tmp_path)
    page = Page(write({}, tmp_path))
    assert page.all("table") == []
    assert "not measured" in page.text


@pytest.mark.parametrize("amount", [1, 2, 12])
def test_any_number_of_sites_fits(tmp_path, pairs, amount):
    names = [f"hospital-{index}" for index in range(amount)]
    report = example(names, tmp_path, pairs=pairs(names, LONG), rounds=1 + amount)
    page = Page(write(report, tmp_path))
    assert all(name in page.text for name in names)
    assert page.text.count("whole caption") == amount
    assert lead(report)["who"].startswith(
        "1 site trained" if amount == 1 else f"{amount} sites"
    )


def test_tables_have_captions_and_pictures_have_words(tmp_path, pairs):
    page = Page(write(example(SITES, tmp_path, pairs=pairs(SITES)), tmp_path))
    assert len(page.all("table")) == len(page.all("caption")) > 5
    assert all(
        image["alt"].startswith(("Real", "Synthetic")) for image in page.all("img")
    )
    charts = [svg for svg in page.all("svg") if svg.get("role") == "img"]
    assert len(charts) == 2 + 4 * len(SITES)
    assert all(svg["aria-label"] for svg in charts)


def test_synthetic_images_are_marked_and_the_missing_check_is_said(tmp_path, pairs):
    page = Page(write(example(SITES, tmp_path, pairs=pairs(SITES)), tmp_path))
    kinds = [
        a["class"] for a in page.all("div") if a.get("class", "").startswith("frame")
    ]
    assert kinds.count("frame synthetic") == kinds.count("frame real") == len(SITES)
    assert "have not passed a memorisation check" in page.text


def gated(**more):
    numbers = {"tried": 12, "flagged": 1, "promised": 0.01, "closer": 9}
    return {**numbers, "expected": 0.8, "chance": 0.79, **more}


def test_the_page_says_what_the_release_gates_found(tmp_path, pairs):
    report = example(SITES, tmp_path, pairs=pairs(SITES))
    report["gate"] = {name: gated() for name in SITES}
    page = Page(write(report, tmp_path))
    count = 12 * len(SITES)
    assert f"cleared {count - len(SITES)} of {count} synthetic images" in page.text
    assert "memorisation" not in page.text
    assert "compared each with the training images and let it pass" in page.text
    assert "What the release gates found" in page.text
    assert "1.0 %" in page.text


def test_a_site_without_a_gate_is_named_and_says_why(tmp_path, pairs):
    report = example(SITES, tmp_path, pairs=pairs(SITES))
    report["gate"] = {name: gated() for name in SITES}
    report["gate"][SITES[1]] = {"tried": 12, "why": "it holds 4 images out"}
    page = Page(write(report, tmp_path))
    assert f"At {SITES[1]} no gate compared them" in page.text
    assert f"Those at {SITES[1]} have not passed a memorisation check" in page.text
    assert f"{SITES[1]}: not compared: it holds 4 images out." in page.text
    assert json.loads((tmp_path / "report.json").read_text())["gate"] == report["gate"]


def test_where_no_site_has_a_gate_the_check_is_said_to_be_missing(tmp_path, pairs):
    report = example(SITES, tmp_path, pairs=pairs(SITES))
    report["gate"] = {name: {"tried": 12, "why": "too few"} for name in SITES}
    page = Page(write(report, tmp_path))
    assert "have not passed a memorisation check" in page.text
    assert "gate cleared" not in page.text


def test_an_image_enters_the_page_without_what_stood_beside_its_pixels(tmp_path):
    picture(tmp_path / "pixels.png", 1, px=32)
    exif = Image.Exif()
    exif[0x010E] = "patient 4711"
    with Image.open(tmp_path / "pixels.png") as image:
        image.save(tmp_path / "real.jpg", exif=exif)
    source, size = inline(tmp_path / "real.jpg", synthetic=False)
    content = base64.b64decode(source.partition(",")[2])
    assert b"4711" in (tmp_path / "real.jpg").read_bytes()
    assert b"4711" not in content
    assert size == "32 \N{MULTIPLICATION SIGN} 32"
    marked, _ = inline(tmp_path / "pixels.png", synthetic=True)
    with Image.open(io.BytesIO(base64.b64decode(marked.partition(",")[2]))) as image:
        assert "synthetic" in image.info["Comment"]


def test_an_unreadable_image_leaves_a_hole_not_a_lost_report(tmp_path):
    (tmp_path / "broken.png").write_bytes(b"\x89PNG nothing more")
    pair = {"real": None, "synthetic": "gone.png", "caption": "", "seed": 1}
    report = {"images": {"a": [pair, pair | {"real": "broken.png"}]}}
    page = Page(write(report, tmp_path))
    assert page.text.count("image could not be read") == 3
    assert page.text.count("no real image") == 1
    assert page.text.count("no caption") == 2


def test_a_site_left_out_is_shown_with_its_code_and_what_that_means(tmp_path):
    page = Page(write(example(SITES, tmp_path), tmp_path))
    assert "vidir_modern was left out of round 3 (VG50)" in page.text
    assert f"{TrainingError.code}: {meaning(TrainingError.code)}" in page.text


def test_a_site_whose_update_was_held_to_the_bound_is_named(tmp_path):
    report = example(SITES, tmp_path)
    report["rounds"][1]["bounded"] = {"vidir_modern": 97.0}
    page = Page(write(report, tmp_path))
    assert "held to the bound: vidir_modern (97 times)" in page.text


def test_a_page_that_cannot_be_written_is_one_clear_line(tmp_path):
    (tmp_path / "report.json").mkdir()
    with pytest.raises(StateError, match="cannot write"):
        write({}, tmp_path)


def test_same_report_gives_same_bytes(tmp_path, pairs):
    report = example(SITES, tmp_path, pairs=pairs(SITES))
    first = write(report, tmp_path).read_bytes()
    assert write(report, tmp_path).read_bytes() == first


@pytest.mark.parametrize(
    ("low", "high"), [(0, 1), (-0.003, 0.015), (0.149, 0.151), (5, 5)]
)
def test_ticks_lie_within_the_axis_and_are_read_apart(low, high):
    marks = ticks(low, high)
    assert all(low <= mark <= high for mark in marks)
    assert len(set(tick_texts(marks))) == len(marks) <= 11


def test_numbers_are_rounded_for_the_eye_and_exact_in_the_markup():
    assert plain(-0.00001) == "0.0000"
    assert plain(-0.5, 1) == "\N{MINUS SIGN}0.5"
    assert plain(12345, 0) == "12\N{NARROW NO-BREAK SPACE}345"
    assert plain(True) == plain(math.inf) == plain(None) == "\N{EN DASH}"
    assert 'value="0.123456"' in number(0.123456)
    assert duration(3599.9) == tag(
        "data", "59 min 59 s", value="3599.9", title="3599.9 seconds"
    )
    assert size_text(999) == "999 B"
    assert size_text(537_912) == "538 kB"


def test_only_markup_passes_unescaped():
    assert tag("p", "<b>") == "<p>&lt;b&gt;</p>"
    assert tag("p", tag("b", "x"), title='"') == '<p title="&quot;"><b>x</b></p>'
