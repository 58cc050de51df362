"""A job: drawn, judged, laid out; stopped anywhere it goes on to the same bytes."""

import csv
import dataclasses
import errno
import json
import multiprocessing
import os
import shutil
import signal
import stat
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.gated import FACTS, install_base, make_site
from tests.releases import contents
from vgmedgen.data import adapters
from vgmedgen.errors import ConfigError, PolicyError, ReleaseError, StateError
from vgmedgen.gate.release import ReleaseGate
from vgmedgen.release.store import Store
from vgmedgen.site.folder import Site
from vgmedgen.synthesis import job, state
from vgmedgen.synthesis.asked import Ask
from vgmedgen.synthesis.job import Options, model_of, synthesize
from vgmedgen.synthesis.provenance import read_back

QUICK = Options(steps=2)
ASKS = [
    Ask(number=k, prompt=f"lesion {k}", seed=40 + k, label=("mel", "nv")[k % 2])
    for k in range(11)
]
HELD = {2, 9}  # numbers that the strict gate of these tests holds back


@pytest.fixture
def open_clinic(clinic, bundle, tmp_path_factory):
    """A copy of the site where images may go without the gate."""
    folder = tmp_path_factory.mktemp("open") / "clinic"
    shutil.copytree(clinic.folder, folder)
    return make_site(folder, bundle, policy={"ungated": True})


@pytest.fixture
def wary(monkeypatch):
    """A gate that holds back the images in HELD, whatever they look like."""
    judge = ReleaseGate.judge

    def held_back(gate, pixels):
        found = judge(gate, pixels)
        wrong = {known[number].tobytes() for number in HELD & known.keys()}
        return [
            dataclasses.replace(one, cleared=False, reason="too near a training image")
            if image.tobytes() in wrong
            else dataclasses.replace(one, cleared=True, reason="")
            for one, image in zip(found, pixels, strict=True)
        ]

    known: dict[int, np.ndarray] = {}
    draw = job.Drawer.draw

    def noted(drawer, asks):
        for drawn in draw(drawer, asks):
            known[drawn.ask.number] = drawn.pixels
            yield drawn

    monkeypatch.setattr(job.Drawer, "draw", noted)
    monkeypatch.setattr(ReleaseGate, "judge", held_back)


def run(site: Site, out: Path, asks=ASKS, options=QUICK, **more):
    return synthesize(site, model_of(site), asks, out, options, **more)


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def test_a_job_ends_in_a_training_set_with_its_table_and_the_gates_report(
    clinic, wary, tmp_path
):
    options = dataclasses.replace(QUICK, masks=True, dicom=True)
    result = run(clinic, tmp_path / "out", options=options)
    assert (result.drawn, result.quarantined, result.resumed) == (11, 2, 0)
    cleared = [k for k in range(11) if k not in HELD]
    assert result.cleared == [tmp_path / f"out/images/{k:05d}.png" for k in cleared]
    assert all(path.is_file() for path in result.cleared)
    rows = rows_of(tmp_path / "out/images.csv")
    assert [row["image"] for row in rows] == [f"images/{k:05d}.png" for k in cleared]
    assert [int(row["seed"]) for row in rows] == [40 + k for k in cleared]
    assert {row["cleared"] for row in rows} == {"yes"}
    assert {row["release"] for row in rows} == {model_of(clinic).digest}
    found = adapters.read("table", tmp_path / "out")
    assert [record.label for record in found.records] == [
        ASKS[k].label for k in cleared
    ]
    assert all(record.masks for record in found.records)
    assert len(list((tmp_path / "out/dicom").iterdir())) == 9
    assert json.loads((tmp_path / "out/gate.json").read_text())
    assert (tmp_path / "out/gate.html").is_file()


def test_what_the_gate_holds_back_lies_apart_and_names_no_patient(
    clinic, wary, tmp_path
):
    options = dataclasses.replace(QUICK, dicom=True, masks=True)
    run(clinic, tmp_path / "out", options=options)
    aside = tmp_path / "out/quarantine"
    assert rows_of(aside / "quarantine.csv") == [
        {"image": f"{k:05d}.png", "reason": "too near a training image"}
        for k in sorted(HELD)
    ]
    for folder in (aside, tmp_path / "out/.job"):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert read_back(aside / "00002.png")["cleared"] is False
    inside = ("quarantine/", ".job/")
    elsewhere = [n for n in contents(tmp_path / "out") if not n.startswith(inside)]
    assert not [name for name in elsewhere if "00002" in name or "00009" in name]
    names = [record.image.stem for record in clinic.samples.records]
    names += [record.unit for record in clinic.samples.records]
    for name, raw in contents(tmp_path / "out").items():
        assert not [one for one in names if one.encode() in raw], name


def test_no_image_is_written_before_its_verdict(clinic, tmp_path, monkeypatch):
    judge, before = ReleaseGate.judge, []

    def looking(gate, pixels):
        before.append(len(list((tmp_path / "out").rglob("*.png"))))
        return judge(gate, pixels)

    monkeypatch.setattr(ReleaseGate, "judge", looking)
    run(clinic, tmp_path / "out")
    assert before == [0, 8]  # 8 are drawn together


def test_an_image_is_the_same_in_any_job_that_asks_for_it(clinic, tmp_path):
    run(clinic, tmp_path / "whole")
    run(clinic, tmp_path / "some", asks=[ASKS[10], ASKS[3]])
    for name in ("images/00003.png", "images/00010.png"):
        whole, some = (tmp_path / part / name for part in ("whole", "some"))
        assert whole.read_bytes() == some.read_bytes()


def test_provenance_stands_in_every_image(clinic, tmp_path):
    result = run(clinic, tmp_path / "out", asks=ASKS[:2])
    told = read_back(result.cleared[1])
    assert (told["prompt"], told["cleared"]) == ("lesion 1", True)
    assert told["release"] == model_of(clinic).digest
    assert told["base"] == clinic.bundle.digest
    assert (told["run"], told["site"]) == ("r-1", "hospital-a")
    assert (told["seed"], told["number"], told["steps"]) == (41, 1, 2)


def _until(left: int, clinic: Site, out: Path, *, after: bool) -> None:
    """Work on a job and die at the n-th time that the disk is told to keep something."""
    sync = os.fsync

    def dying(number: int) -> None:
        nonlocal left
        left -= 1
        if after:
            sync(number)
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        if not after:
            sync(number)

    os.fsync = dying
    run(clinic, out, resume=out.exists())


def _die(points, clinic: Site, out: Path, *, after: bool = True) -> list[int | None]:
    codes = []
    for left in points:
        child = multiprocessing.get_context("fork").Process(
            target=_until, args=(left, clinic, out), kwargs={"after": after}
        )
        child.start()
        child.join(60)
        if child.is_alive():
            child.kill()
        codes.append(child.exitcode)
    return codes


def test_killed_anywhere_a_job_goes_on_to_the_same_bytes(clinic, wary, tmp_path):
    whole = run(clinic, tmp_path / "whole")
    expected = contents(tmp_path / "whole")
    out = tmp_path / "killed"
    # each time a few steps further: before the first image, between images, between an
    # image and its line, in a line, in the second group, in the tables
    died = _die((1, 3, 9, 10, 2), clinic, out)
    assert died == [-signal.SIGKILL] * 5
    assert _die((3,), clinic, out, after=False) == [-signal.SIGKILL]
    result = run(clinic, out, resume=True)
    assert result.resumed >= 8
    assert contents(out) == expected
    assert [path.name for path in result.cleared] == [p.name for p in whole.cleared]
    for point in (1, 2, 3, 4, 5):  # in the end, when every image is there
        late = tmp_path / f"late-{point}"
        shutil.copytree(tmp_path / "whole", late)
        assert _die((point,), clinic, late) == [-signal.SIGKILL]
        run(clinic, late, resume=True)
        assert contents(late) == expected


def test_a_torn_line_is_dropped_and_a_lost_image_made_again(clinic, tmp_path):
    run(clinic, tmp_path / "out")
    expected = contents(tmp_path / "out")
    lines = tmp_path / "out/.job/verdicts.jsonl"
    lines.write_bytes(lines.read_bytes()[:-20])
    (tmp_path / "out/images/00001.png").unlink()
    (tmp_path / "out/images/00004.png").write_bytes(b"another image")
    (tmp_path / "out/images/.00005.png.part").write_bytes(b"half an")
    result = run(clinic, tmp_path / "out", resume=True)
    assert result.resumed == 11 - 3
    assert contents(tmp_path / "out") == expected


def test_a_full_disk_ends_in_one_line_and_the_job_goes_on(
    clinic, tmp_path, monkeypatch
):
    run(clinic, tmp_path / "whole")
    sync, left = os.fsync, 6

    def full(number: int) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(number)

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(
            StateError, match=r"No space left.*go on with --resume"
        ) as e:
            run(clinic, tmp_path / "out")
    assert "\n" not in str(e.value)
    run(clinic, tmp_path / "out", resume=True)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_other_words_do_not_go_on_with_a_job(clinic, tmp_path):
    out = tmp_path / "out"
    run(clinic, out, asks=ASKS[:2])
    before = contents(out)
    for asks, options, says in (
        (ASKS[:2], Options(steps=3), "steps was 2, is 3"),
        (ASKS[:2], Options(steps=2, guidance=3.0), "guidance was 1.5, is 3.0"),
        (ASKS[:2], Options(steps=2, masks=True), "masks was False, is True"),
        (ASKS[:3], QUICK, "asks was .*images was 2, is 3"),
        ([ASKS[0], dataclasses.replace(ASKS[1], seed=9)], QUICK, "asks was"),
    ):
        with pytest.raises(ConfigError, match=says):
            run(clinic, out, asks=asks, options=options, resume=True)
    assert contents(out) == before


def test_another_release_or_another_gate_does_not_go_on_with_a_job(
    clinic, bundle, micro, tmp_path
):
    site = make_site(tmp_path / "site", bundle)
    install_base(site, micro.plan)
    out = tmp_path / "out"
    run(site, out, asks=ASKS[:1])
    name = install_base(site, micro.plan, {**FACTS, "run": "r-2"})
    store = Store(site.folder / "releases")
    store.use(name[:16])
    with pytest.raises(ConfigError, match=r"release was .*run was r-1, is r-2"):
        run(site, out, asks=ASKS[:1], resume=True)
    store.roll_back()
    path = site.folder / "site.yaml"
    path.write_text(path.read_text() + "\nheldout_seed: 1\n")
    with pytest.raises(ConfigError, match="gate was"):
        run(Site(site.folder), out, asks=ASKS[:1], resume=True)


def test_a_folder_that_holds_anything_is_left_alone(clinic, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.txt").write_text("mine")
    for resume in (False, True):
        with pytest.raises(ConfigError, match="choose another folder"):
            run(clinic, out, asks=ASKS[:1], resume=resume)
    with pytest.raises(ConfigError, match="is a file"):
        run(clinic, out / "thesis.txt", asks=ASKS[:1])
    assert contents(out) == {"thesis.txt": b"mine"}
    run(clinic, tmp_path / "new", asks=ASKS[:1], resume=True)  # nothing to go on with
    with pytest.raises(ConfigError, match=r"not empty.*--resume"):
        run(clinic, tmp_path / "new", asks=ASKS[:1])


def test_two_processes_do_not_draw_into_one_folder(clinic, tmp_path):
    out = tmp_path / "out"
    run(clinic, out, asks=ASKS[:1])
    words = json.loads((out / "job.json").read_text())["words"]
    with (
        state.opened(out, words, {}, resume=True),
        pytest.raises(StateError, match="another process"),
    ):
        run(clinic, out, asks=ASKS[:1], resume=True)


def test_without_the_gate_nothing_is_cleared_and_everything_says_so(
    open_clinic, tmp_path
):
    options = dataclasses.replace(QUICK, gate=False, dicom=True)
    result = run(open_clinic, tmp_path, asks=ASKS[:2], options=options)
    assert result.cleared == []
    assert result.report is None
    assert len(result.kept) == 2
    assert {row["cleared"] for row in rows_of(tmp_path / "images.csv")} == {"no"}
    assert read_back(result.kept[0])["cleared"] is False
    assert Image.open(result.kept[0]).text["Cleared"] == "no"
    assert "not cleared" in (tmp_path / "NOT-CLEARED.txt").read_text()
    assert b"NOT CLEARED" in (tmp_path / "dicom/00000.dcm").read_bytes()
    assert not (tmp_path / "gate.json").exists()


def test_the_gate_is_off_only_where_the_site_allows_it(clinic, tmp_path):
    options = dataclasses.replace(QUICK, gate=False)
    with pytest.raises(PolicyError, match=r"policy\.ungated: true"):
        run(clinic, tmp_path / "out", options=options)
    assert not (tmp_path / "out").exists()


def test_too_few_held_out_images_are_refused_before_anything_is_made(
    bundle, micro, tmp_path
):
    site = make_site(tmp_path / "small", bundle, phantoms=12)
    install_base(site, micro.plan)
    with pytest.raises(ConfigError, match="held-out images"):
        run(site, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_damaged_release_draws_nothing(bundle, micro, tmp_path):
    site = make_site(tmp_path / "site", bundle)
    install_base(site, micro.plan)
    model = model_of(site)
    weights = next((model.pipeline / "transformer").glob("*.safetensors"))
    raw = bytearray(weights.read_bytes())
    raw[-1] ^= 1
    weights.write_bytes(raw)
    with pytest.raises(ReleaseError, match="transformer"):
        run(site, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_release_is_found_by_its_name_or_its_folder(clinic, tmp_path):
    model = model_of(clinic)
    assert model_of(clinic, model.name[:6]) == model
    assert model_of(clinic, str(model.pipeline)) == model
    assert model_of(clinic, str(model.folder)) == model
    for other in ("ffff", str(tmp_path)):
        with pytest.raises(ReleaseError, match="no release starts"):
            model_of(clinic, other)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"steps": 0}, "steps must be above 0"),
        ({"steps": 5000}, r"steps must lie in \[1, 999\]"),
        ({"guidance": float("nan")}, "guidance must lie"),
        ({"layout": "coco"}, "layout must be one of plain"),
        ({"device": "tpu"}, "cpu or cuda"),
    ],
)
def test_options_out_of_range_are_refused(options, says):
    with pytest.raises(ConfigError, match=says):
        Options(**options)
