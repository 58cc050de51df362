"""What `vgmedgen synthesize` does not do: one line each, and nothing left behind."""

import errno
import os
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.gated import ORIGIN
from vgmedgen.cli import app
from vgmedgen.cli.shared import run_cli
from vgmedgen.data import adapters
from vgmedgen.data.synthetic import is_uncleared
from vgmedgen.errors import ConfigError, DataError, StateError
from vgmedgen.synthesis import layouts, prompts, provenance, refusals, state
from vgmedgen.synthesis.asked import Ask, Drawn
from vgmedgen.synthesis.dicom import as_dicom
from vgmedgen.synthesis.job import Options, model_of, synthesize
from vgmedgen.synthesis.prompts import Control, Wish, asks_of, read_prompts

ASK = Ask(number=0, prompt="a lesion", seed=1, label="mel")


def refused(site, out: Path, **options) -> str:
    with pytest.raises(ConfigError) as caught:
        synthesize(site, model_of(site), [ASK], out, Options(steps=1, **options))
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("layout", ["kvasir-seg", "busi"])
def test_skin_is_not_drawn_as_another_modality(clinic, tmp_path, layout):
    label = {"busi": "benign", "kvasir-seg": "polyp"}[layout]
    ask = Ask(number=0, prompt="a lesion", seed=1, label=label)
    with pytest.raises(ConfigError, match=rf"layout {layout} is for .*dermoscopy"):
        refusals.check(clinic, [ask], tmp_path / "out", layout, gate=True)
    refusals.check(clinic, [ASK], tmp_path / "out", "ham10000", gate=True)


@pytest.mark.parametrize(
    "name",
    [
        *("data", "data/new", "data/HAM10000_images_part_3", "releases", "releases/x"),
        *("cache/drawn", "runs", "node/x", "approvals", "turns"),
    ],
)
def test_images_are_not_drawn_among_what_a_site_keeps(clinic, name):
    before = sorted(clinic.folder.rglob("*"))
    assert "keeps other things" in refused(clinic, clinic.folder / name)
    assert sorted(clinic.folder.rglob("*")) == before


def test_nor_by_a_way_around_or_a_link(clinic, tmp_path):
    (tmp_path / "link").symlink_to(clinic.folder / "data")
    assert "keeps other things" in refused(clinic, tmp_path / "link/new")
    around = clinic.folder / "drawn/../data/new"
    assert "keeps other things" in refused(clinic, around)
    assert "base" in refused(clinic, clinic.bundle.folder / "drawn")


@pytest.mark.parametrize("name", ["drawn", "synthetic", "exports/1", "database"])
def test_a_plain_folder_of_the_site_is_taken(clinic, name):
    refusals.check_place(clinic, clinic.folder / name)


@pytest.mark.parametrize("device", ["cpufoo", "cpu:7", "cuda:x", "tpu", "cuda:99", ""])
def test_a_device_that_is_none_is_refused(device):
    with pytest.raises(ConfigError, match="device"):
        Options(device=device)


def test_a_name_that_is_too_long_is_refused_in_one_line(clinic, tmp_path):
    with pytest.raises(StateError, match="choose another folder") as caught:
        synthesize(
            clinic, model_of(clinic), [ASK], tmp_path / ("x" * 300), Options(steps=1)
        )
    assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError):
        read_prompts(tmp_path / ("x" * 300 + ".csv"))


@pytest.mark.parametrize(
    ("number", "says"),
    [
        (errno.ENOSPC, "free some space, then go on"),
        (errno.EDQUOT, "free some space, then go on"),
        (errno.EACCES, "mend that, then go on"),
        (errno.EISDIR, "mend that, then go on"),
        (errno.EROFS, "mend that, then go on"),
    ],
)
def test_space_is_asked_for_only_where_it_is_missing(tmp_path, number, says):
    with pytest.raises(StateError, match=says), refusals.kept(tmp_path):
        raise OSError(number, os.strerror(number))


def test_a_link_in_place_of_the_memory_is_refused(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/.job").symlink_to(tmp_path)
    with pytest.raises(ConfigError, match="is a link"):
        state.check(tmp_path / "out", {}, resume=True)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("prompt\na small pale lesion, upper left\n", "line 2 has more values"),
        ("prompt,label\na, upper left,nv\n", "line 2 has more values"),
        ("prompt,prompt\na,b\n", "two columns 'prompt'"),
        ("prompt,seed, seed\na,1,2\n", "two columns 'seed'"),
        ("prompt,seed\na," + "9" * 5000 + "\n", "the seed of prompt 1"),
        ("prompt,seed\na,9223372036854775808\n", "seed of prompt 1"),
    ],
)
def test_a_csv_that_would_be_cut_or_misread_is_refused(tmp_path, text, says):
    path = tmp_path / "p.csv"
    path.write_text(text)
    with pytest.raises(ConfigError, match=says) as caught:
        asks_of(read_prompts(path), Control())
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_a_quoted_comma_is_kept_whole(tmp_path):
    (tmp_path / "p.csv").write_text('prompt,label\n"a small lesion, upper left",nv\n')
    (wish,) = read_prompts(tmp_path / "p.csv")
    assert (wish.prompt, wish.label) == ("a small lesion, upper left", "nv")


@pytest.mark.parametrize(
    "text", ["\u0645\u06cc\u200c\u062e", "\U0001f469\u200d\u2695\ufe0f x", "a\u00adb"]
)
def test_joiners_and_soft_hyphens_are_text_and_reach_every_file(tmp_path, text):
    (ask,) = asks_of([Wish(prompt=text)], Control())
    assert ask.prompt == text
    drawn = Drawn(ask, np.zeros((8, 8, 3), np.uint8))
    assert text.encode() in as_dicom(drawn, ORIGIN)
    png = tmp_path / "a.png"
    png.write_bytes(provenance.as_png(drawn.pixels, provenance.facts(ask, ORIGIN)))
    assert provenance.read_back(png)["prompt"] == text


@pytest.mark.parametrize(
    "sign", ["\0", "\x1b", "\x85", "\udc80", "\u202e", "\u2066", "\u200f", "\u2028"]
)
def test_controls_and_what_turns_text_around_are_refused(sign):
    ask = Ask(number=0, prompt=f"a{sign}b", seed=1)
    with pytest.raises(ConfigError, match="control characters"):
        prompts.check([ask])


@pytest.mark.parametrize("start", "=+-@")
def test_no_spreadsheet_runs_a_prompt_and_no_adapter_sees_the_guard(start):
    ask = Ask(number=0, prompt=f"{start}cmd|calc", seed=1)
    one = layouts.kept("plain", ask, 1, masks=False, box=None)
    shown = layouts.index([one], "ab", cleared=True)
    assert f",'{start}cmd" in shown
    assert f",{start}" not in shown
    assert f",{start}cmd" in layouts.tables("plain", [one], 8)["manifest.csv"]


def test_an_image_that_no_gate_cleared_does_not_train(tmp_path):
    pixels = np.zeros((8, 8, 3), np.uint8)
    (tmp_path / "manifest.csv").write_text("image,caption\na.png,one\nb.jpg,two\n")
    for wrong in ("a.png", "b.jpg", ""):
        for name, encode in (
            ("a.png", provenance.as_png),
            ("b.jpg", provenance.as_jpeg),
        ):
            told = provenance.facts(ASK, ORIGIN)
            told["cleared"] = name != wrong
            (tmp_path / name).write_bytes(encode(pixels, told))
        if wrong:
            with pytest.raises(DataError, match=rf"{wrong} says .* no release gate"):
                adapters.read("table", tmp_path)
        else:  # to stand in for patients' images is what cleared ones are for
            assert len(adapters.read("table", tmp_path).records) == 2


@pytest.mark.parametrize("text", ["", "x", "[" * 100_000, "[1]", '{"synthetic": true}'])
def test_an_image_of_unreadable_words_is_no_traceback(tmp_path, text):
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    chunks = PngInfo()
    chunks.add_text("vgmedgen", text)
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png", pnginfo=chunks)
    assert is_uncleared(tmp_path / "a.png") == (text.startswith("{"))
    (tmp_path / "a.png").write_bytes(b"no image")
    assert not is_uncleared(tmp_path / "a.png")


def test_help_says_required_without_an_escape(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["vgmedgen", "synthesize", "--help"])
    with pytest.raises(SystemExit):
        run_cli(app, "vgmedgen")
    told = capsys.readouterr().out
    assert "[required]" in told
    assert "\\[" not in told
