"""A stopped job whose folder was meddled with: nothing that is a copy gets out."""

import dataclasses
import hashlib
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.gated import install_base, make_site
from tests.releases import contents
from vgmedgen.data import images
from vgmedgen.errors import ConfigError, VGMedGenError
from vgmedgen.site.folder import Site
from vgmedgen.synthesis import job, provenance
from vgmedgen.synthesis.asked import Ask, Drawn
from vgmedgen.synthesis.claims import Claims
from vgmedgen.synthesis.job import Options, model_of, synthesize
from vgmedgen.synthesis.state import Line

COPY = 2  # number of the image that the model "draws" as a training image
ASKS = [Ask(number=k, prompt=f"lesion {k}", seed=9 + k, label="mel") for k in range(5)]
VERDICTS = ".job/verdicts.jsonl"


@pytest.fixture(scope="module", autouse=True)
def copying(clinic):
    """A model that has learnt one training image by heart."""
    record = clinic.training.records[0]
    px = clinic.bundle.image_px
    learnt = np.ascontiguousarray(images.load(record, px)[0].movedim(0, -1).numpy())
    draw = job.Drawer.draw

    def copied(drawer, asks):
        for drawn in draw(drawer, asks):
            pixels = learnt if drawn.ask.number == COPY else drawn.pixels
            yield Drawn(drawn.ask, pixels, drawn.mask)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(job.Drawer, "draw", copied)
        yield


LAYOUTS = {
    "plain": ("images/{:05d}.png", Options(steps=2)),
    "ham10000": (
        "HAM10000_images_part_1/SYN_{:07d}.jpg",
        Options(steps=2, layout="ham10000", dicom=True),
    ),
}


@pytest.fixture(scope="module")
def finished(clinic, tmp_path_factory):
    """A whole job in each layout; copy it, do not write."""
    found = {}
    for name, (_, options) in LAYOUTS.items():
        found[name] = tmp_path_factory.mktemp("jobs") / name
        result = run(clinic, found[name], options)
        assert result.quarantined >= 1
        assert (found[name] / f"quarantine/{COPY:05d}.png").is_file()
    return found


def run(site: Site, out: Path, options: Options, **more):
    return synthesize(site, model_of(site), ASKS, out, options, **more)


def lines_of(out: Path) -> list[dict]:
    return [json.loads(text) for text in (out / VERDICTS).read_text().splitlines()]


def put(out: Path, lines) -> None:
    (out / VERDICTS).write_text("".join(json.dumps(line) + "\n" for line in lines))


def clear(line: dict) -> None:
    """Edit the verdict as somebody would who wants the image."""
    told = json.loads(line["verdict"])
    line["verdict"] = json.dumps(
        {**told, "cleared": True, "reason": ""}, sort_keys=True
    )
    line["kept"] = True


def kept_only(out: Path, line: dict, name: str) -> None:
    line["kept"] = True


def cleared(out: Path, line: dict, name: str) -> None:
    clear(line)


def no_verdict(out: Path, line: dict, name: str) -> None:
    line["verdict"], line["kept"] = None, True


def moved(out: Path, line: dict, name: str) -> None:
    clear(line)
    (out / f"quarantine/{COPY:05d}.png").rename(out / name)
    line["files"] = {name: digest(out / name)}


def forged(out: Path, line: dict, name: str) -> None:
    """Every file where it belongs, with words that say cleared."""
    clear(line)
    held = out / f"quarantine/{COPY:05d}.png"
    told = {**provenance.read_back(held), "cleared": True}
    pixels = np.asarray(Image.open(held))
    held.unlink()
    encode = provenance.as_jpeg if name.endswith(".jpg") else provenance.as_png
    (out / name).write_bytes(encode(pixels, told))
    names = [name]
    if name.endswith(".jpg"):  # with the mask and the DICOM file of another image
        other = next(one for one in lines_of(out) if one["kept"])
        for path in other["files"]:
            mine = re.sub(r"\d(?=(_segmentation)?\.\w+$)", str(COPY), path)
            if mine != name:
                shutil.copy(out / path, out / mine)
                names.append(mine)
    line["files"] = {path: digest(out / path) for path in names}


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("edit", [kept_only, cleared, no_verdict, moved, forged])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_copy_that_somebody_cleared_by_hand_is_held_back_again(
    clinic, finished, tmp_path, layout, edit
):
    pattern, options = LAYOUTS[layout]
    out = tmp_path / "out"
    shutil.copytree(finished[layout], out)
    lines = lines_of(out)
    (line,) = [one for one in lines if one["number"] == COPY]
    assert not line["kept"]
    edit(out, line, pattern.format(COPY))
    put(out, lines)
    assert contents(out) != contents(finished[layout])
    run(clinic, out, options, resume=True)
    assert contents(out) == contents(finished[layout])


def test_a_cleared_image_that_was_changed_for_a_copy_is_drawn_again(
    clinic, finished, tmp_path
):
    out = tmp_path / "out"
    shutil.copytree(finished["plain"], out)
    lines = lines_of(out)
    line = next(one for one in lines if one["kept"])
    name = f"images/{line['number']:05d}.png"
    shutil.copy(out / f"quarantine/{COPY:05d}.png", out / name)
    line["files"][name] = digest(out / name)
    put(out, lines)
    run(clinic, out, LAYOUTS["plain"][1], resume=True)
    assert contents(out) == contents(finished["plain"])


@pytest.mark.parametrize(
    "name",
    [
        "images/patient.png",
        "images/00099.png",
        f"images/{COPY:05d}.png",
        "notes/thesis.txt",
        ".job/more",
        "dicom/00000.dcm",
    ],
)
def test_what_the_job_did_not_write_is_named_and_left_where_it_is(
    clinic, finished, tmp_path, name
):
    out = tmp_path / "out"
    shutil.copytree(finished["plain"], out)
    (out / name).parent.mkdir(exist_ok=True)
    (out / name).write_bytes(b"somebody's")
    before = contents(out)
    with pytest.raises(ConfigError, match="did not write; move it") as caught:
        run(clinic, out, LAYOUTS["plain"][1], resume=True)
    assert f"{out} holds {name.split('/')[0]}" in str(caught.value)
    assert contents(out) == before


def test_what_appears_while_a_job_draws_is_refused_at_its_end(
    clinic, tmp_path, monkeypatch
):
    out = tmp_path / "out"
    finish = job._Job.finish

    def slipped_in(self, *args):
        (out / "images/patient.png").write_bytes(b"somebody's")
        return finish(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(job._Job, "finish", slipped_in)
        with pytest.raises(ConfigError, match=r"holds images/patient\.png"):
            run(clinic, out, Options(steps=2))
    assert not (out / "images.csv").exists()
    (out / "images/patient.png").unlink()
    assert run(clinic, out, Options(steps=2), resume=True).resumed == len(ASKS)


def test_a_link_out_of_the_folder_is_not_followed(clinic, finished, tmp_path):
    options = LAYOUTS["plain"][1]
    for name in ("images/00000.png", ".job"):
        out = tmp_path / name.replace("/", "-")
        shutil.copytree(finished["plain"], out)
        elsewhere = tmp_path / f"elsewhere-{out.name}"
        (out / name).rename(elsewhere)
        (out / name).symlink_to(elsewhere)
        with pytest.raises(ConfigError, match=r"is a link|did not write"):
            run(clinic, out, options, resume=True)
        assert elsewhere.exists()


def damage() -> dict[str, object]:
    """What a line may have become, by what was done to it."""
    return {
        "number beyond": {"number": 77},
        "number as text": {"number": "1"},
        "number as truth": {"number": True},
        "verdict empty": {"verdict": "{}"},
        "verdict as mapping": {"verdict": {}},
        "verdict none": {"verdict": None},
        "verdict deep": {"verdict": "[" * 100_000},
        "no files": {"files": {}},
        "files as list": {"files": [1]},
        "files elsewhere": {"files": {"../../../../etc/passwd": "x"}},
        "digest as number": {"files": {"images/00000.png": 5}},
        "box too short": {"box": [1, 2]},
        "box as number": {"box": 5},
        "box of text": {"box": ["a", "b", "c", "d"]},
        "kept as text": {"kept": "yes"},
        "one more": {"more": 1},
        "a list": [1],
        "nothing": None,
    }


@pytest.mark.parametrize("name", damage())
def test_a_damaged_line_is_no_line_of_the_job(finished, name):
    wrong = damage()[name]
    claims = Claims(
        asks={ask.number: ask for ask in ASKS},
        places={ask.number: ask.number + 1 for ask in ASKS},
        layout="plain",
        masks=False,
        dicom=False,
        gated=True,
    )
    line = lines_of(finished["plain"])[0]
    assert claims.sound(Line.from_json(json.dumps(line).encode()))
    told = json.dumps({**line, **wrong} if isinstance(wrong, dict) else wrong)
    try:
        assert not claims.sound(Line.from_json(told.encode()))
    except ValueError as error:
        assert type(error) is ValueError  # noqa: PT017


def test_damaged_lines_cost_their_own_images_alone(clinic, finished, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(finished["plain"], out)
    lines: list = lines_of(out)
    wrong = damage()
    lines[0] = {**lines[0], **wrong["box too short"]}
    lines[1] = {**lines[1], **wrong["no files"]}
    put(out, [wrong["a list"], *lines, {**lines[3], "number": 77}])
    result = run(clinic, out, LAYOUTS["plain"][1], resume=True)
    assert result.resumed == len(ASKS) - 2
    assert contents(out) == contents(finished["plain"])


@pytest.mark.parametrize("raw", [b"[" * 100_000 + b"\n", b"\xff\xfe\n\0\0", b""])
def test_a_memory_of_anything_is_drawn_anew(clinic, finished, tmp_path, raw):
    out = tmp_path / "out"
    shutil.copytree(finished["plain"], out)
    (out / VERDICTS).write_bytes(raw)
    assert run(clinic, out, LAYOUTS["plain"][1], resume=True).resumed == 0
    assert contents(out) == contents(finished["plain"])


@pytest.mark.parametrize(
    ("name", "becomes"),
    [
        (VERDICTS, None),
        (".job", "x"),
        ("job.json", None),
        ("job.json", "[" * 100_000),
        ("job.json", "[1]"),
        ("job.json", "{}"),
        ("manifest.csv", None),
        ("images", "x"),
    ],
)
def test_what_became_something_else_ends_in_one_line(
    clinic, finished, tmp_path, name, becomes
):
    out = tmp_path / "out"
    shutil.copytree(finished["plain"], out)
    path = out / name
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
    if becomes is None:
        path.mkdir()
    else:
        path.write_text(becomes)
    with pytest.raises(VGMedGenError) as caught:
        run(clinic, out, LAYOUTS["plain"][1], resume=True)
    assert "\n" not in str(caught.value)
    assert str(out) in str(caught.value)
    assert "free some space" not in str(caught.value)


def test_a_line_of_a_job_without_a_gate_may_not_bring_a_verdict(
    bundle, micro, tmp_path
):
    site = make_site(tmp_path / "site", bundle, policy={"ungated": True})
    install_base(site, micro.plan)
    options = dataclasses.replace(Options(steps=2), gate=False)
    run(site, tmp_path / "out", options)
    whole = contents(tmp_path / "out")
    lines = lines_of(tmp_path / "out")
    told = {"cleared": True, "reason": "", "distance": 9.0, "score": 0.0}
    lines[0]["verdict"] = json.dumps({**told, "closer": False, "row": 0})
    put(tmp_path / "out", lines)
    result = run(site, tmp_path / "out", options, resume=True)
    assert (result.resumed, result.cleared) == (len(ASKS) - 1, [])
    assert contents(tmp_path / "out") == whole
