"""The release gate of a small site: what it holds back, what it clears, what it refuses."""

import dataclasses
import json
import shutil
import stat

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from tests.altered import altered
from tests.conftest import MICRO
from tests.gated import make_site
from tests.planted import KINDS, copied
from vgmedgen.config.load import load_run
from vgmedgen.data.images import as_uint8
from vgmedgen.data.phantom import draw, tint_of
from vgmedgen.errors import ConfigError, StateError
from vgmedgen.gate.release import FOLDER, ReleaseGate, Verdict
from vgmedgen.gate.verdict import REASONS
from vgmedgen.site.folder import Site
from vgmedgen.training.public import base_for

PX = 64
HARD = "mirror+crop+JPEG"
FRAMED = ("crop 80 %", "elastic warp, 1/16")  # drawn lesions are too smooth for more


def pictures(samples, rows) -> np.ndarray:
    """Images (N, H, W, 3) of samples."""
    pixels = as_uint8(samples.pixels(list(rows))[0])
    return np.ascontiguousarray(pixels.movedim(1, -1).numpy())


def unseen(count: int, px: int, seed: int = 99) -> np.ndarray:
    """Images of the same kind that the site does not have."""
    rng = np.random.default_rng(seed)
    drawn = [draw("dermoscopy", rng, px, tint_of(0)).image for _ in range(count)]
    return np.stack(drawn)


def changed(site: Site, folder, **keys) -> Site:
    """The same site with other words in its site.yaml, in a folder of its own."""
    shutil.copytree(site.folder, folder)
    told = OmegaConf.load(folder / "site.yaml")
    OmegaConf.save(OmegaConf.merge(told, OmegaConf.create(keys)), folder / "site.yaml")
    return Site(folder)


def cached(site: Site):
    (found,) = (site.folder / "cache" / FOLDER).iterdir()
    return found


@pytest.fixture(scope="module")
def site(cache, tmp_path_factory) -> Site:
    bundle = base_for(load_run((*MICRO, f"model.image_px={PX}")))
    return make_site(tmp_path_factory.mktemp("gate") / "site", bundle, px=PX)


@pytest.fixture(scope="module")
def gate(site) -> ReleaseGate:
    return ReleaseGate.of(site)


@pytest.fixture(scope="module")
def own(site) -> np.ndarray:
    """A dozen training images."""
    return pictures(site.training, range(12))


@pytest.mark.parametrize("kind", KINDS)
def test_copies_of_training_images_are_held_back_and_the_right_one_is_named(
    gate, own, kind
):
    rng = np.random.default_rng(0)
    found = gate.judge(np.stack([copied(kind, one, rng) for one in own]))
    assert sum(not one.cleared for one in found) >= 11
    assert all(one.reason in REASONS for one in found if not one.cleared)
    named = [one.row == row for row, one in enumerate(found) if not one.cleared]
    assert sum(named) >= len(named) - 1


@pytest.mark.parametrize("kind", FRAMED)
def test_copies_that_are_framed_otherwise_are_held_back_as_well(gate, own, kind):
    rng = np.random.default_rng(0)
    pairs = zip(own, own[::-1], strict=True)
    found = gate.judge(np.stack([altered(kind, a, b, rng) for a, b in pairs]))
    assert sum(not one.cleared for one in found) >= 10
    named = [one.row == row for row, one in enumerate(found) if not one.cleared]
    assert sum(named) >= len(named) - 1


def test_images_of_others_are_cleared_and_say_no_reason(gate, site):
    found = gate.judge(unseen(40, site.bundle.image_px))
    cleared = [one for one in found if one.cleared]
    assert len(cleared) >= 38
    assert {one.reason for one in cleared} == {""}


def test_a_verdict_depends_on_neither_batch_nor_order_nor_what_was_judged_before(
    gate, site, own
):
    mixed = np.concatenate([own[:3], unseen(3, site.bundle.image_px)])
    together = gate.judge(mixed)
    alone = [gate.judge(mixed[row : row + 1])[0] for row in reversed(range(6))]
    assert together == alone[::-1]
    assert ReleaseGate.of(Site(site.folder)).judge(mixed) == together


def test_one_and_two_threads_give_equal_verdicts(gate, site, own):
    rng = np.random.default_rng(0)
    hard = np.stack([copied(HARD, one, rng) for one in own[:6]])
    mixed = np.concatenate([hard, unseen(6, site.bundle.image_px)])
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append(gate.judge(mixed))
    finally:
        torch.set_num_threads(before)
    assert found[0] == found[1]


def test_a_verdict_is_written_and_read_back_as_it_was(gate, own):
    (one,) = gate.judge(own[:1])
    assert Verdict.from_json(one.to_json()) == one
    assert "\n" not in one.to_json()


@pytest.mark.parametrize(
    "line",
    [
        "",
        "[]",
        "null",
        '{"cleared": true}',
        '{"cleared": 1, "closer": true, "distance": 0.1, "reason": "", "row": 1}',
        '{"cleared": true, "closer": true, "distance": 0.1, "reason": "", "row": 1.5}',
    ],
)
def test_a_damaged_verdict_is_refused_in_one_line(line):
    with pytest.raises(StateError, match="no verdict") as refused:
        Verdict.from_json(line)
    assert "\n" not in str(refused.value)


def test_a_verdict_names_no_file_and_no_unit(gate, site, own):
    found = gate.judge(own)
    told = " ".join(one.to_json() for one in found)
    for record in site.samples.records:
        assert record.image.stem not in told
        assert record.unit not in told
    assert set(json.loads(found[0].to_json())) == {
        field.name for field in dataclasses.fields(Verdict)
    }


def test_too_few_held_out_images_are_refused_in_one_line(bundle, tmp_path):
    small = make_site(tmp_path / "site", bundle, phantoms=24)
    with pytest.raises(ConfigError, match="needs 20 held-out images") as refused:
        ReleaseGate.of(small)
    assert "\n" not in str(refused.value)
    assert not (small.folder / "cache" / FOLDER).exists()


def test_too_few_training_units_are_refused_in_one_line(site, tmp_path):
    units = sorted({record.unit for record in site.samples.records})
    small = changed(site, tmp_path / "site", heldout_units=units[:-10])
    with pytest.raises(ConfigError, match="trains on 10") as refused:
        ReleaseGate.of(small)
    assert "\n" not in str(refused.value)


def test_a_held_out_copy_is_counted_and_does_not_blind_the_gate(site, tmp_path, own):
    units = {record.unit for record in site.samples.records}
    spare = sorted(units - site.heldout_units)[0]
    twin = changed(site, tmp_path / "site", heldout_units=sorted(site.heldout_units))
    record = next(one for one in twin.training.records if one.unit == spare)
    heldout = next(iter(twin.heldout.records))
    # two cameras' files of one picture: not equal bytes, so no adapter sees the twin
    from PIL import Image

    Image.open(record.image).save(heldout.image, quality=80)
    twin = Site(twin.folder)
    assert [one.unit for one in twin.heldout.records].count(heldout.unit) == 1
    gate = ReleaseGate.of(twin)
    assert gate.report([]).copies == 1
    rng = np.random.default_rng(0)
    planted = np.stack([copied(HARD, one, rng) for one in own])
    assert sum(not one.cleared for one in gate.judge(planted)) >= 11


def test_the_digest_is_of_all_that_a_verdict_depends_on(site, gate, tmp_path):
    assert ReleaseGate.of(Site(site.folder)).digest == gate.digest
    rate = changed(site, tmp_path / "rate", gate={"false_alarms": 0.05})
    units = sorted(site.heldout_units)
    fewer = changed(site, tmp_path / "data", heldout_units=units[1:])
    digests = {ReleaseGate.of(one).digest for one in (rate, fewer)}
    assert len(digests | {gate.digest}) == 3


def test_a_gate_opened_again_computes_nothing_and_judges_the_same(site, gate, own):
    told: list[int] = []
    again = ReleaseGate.of(Site(site.folder), progress=told.append)
    assert not told
    assert again.judge(own[:4]) == gate.judge(own[:4])


@pytest.mark.parametrize("damage", ["cut", "bit"])
def test_a_damaged_cache_is_computed_again(site, gate, own, tmp_path, damage):
    other = changed(site, tmp_path / "site")
    path = cached(other)
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[-5] ^= 64
    path.write_bytes(
        {"cut": whole[:-9], "bit": bytes(flipped), "empty": b"", "text": b"x" * 99}[
            damage
        ]
    )
    told: list[int] = []
    again = ReleaseGate.of(Site(other.folder), progress=told.append)
    assert sum(told) == ReleaseGate.steps(other)
    assert path.read_bytes() == whole
    assert again.judge(own[:2]) == gate.judge(own[:2])


def test_what_the_gate_keeps_is_for_the_site_alone(site, gate):
    path = cached(site)
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((1, 16, 16, 3), np.uint8),
        np.zeros((1, PX, PX), np.uint8),
        np.zeros((1, 3, PX, PX), np.uint8),
        np.zeros((1, PX, PX, 3), np.float32),
    ],
)
def test_images_of_another_size_or_kind_are_refused_in_one_line(gate, wrong):
    with pytest.raises(ConfigError, match="8-bit colour images of 64 x 64") as refused:
        gate.judge(wrong)
    assert "\n" not in str(refused.value)


def test_no_image_gives_no_verdict(gate):
    assert gate.judge(np.zeros((0, PX, PX, 3), np.uint8)) == []


@pytest.mark.parametrize("level", [0, 128, 255])
def test_a_flat_image_has_a_finite_score_and_is_no_copy(gate, level):
    (found,) = gate.judge(np.full((1, PX, PX, 3), level, np.uint8))
    assert np.isfinite([found.score, found.distance]).all()
    assert found.cleared


def test_pure_noise_has_a_finite_score_and_is_no_copy(gate):
    rng = np.random.default_rng(0)
    found = gate.judge(rng.integers(0, 256, (4, PX, PX, 3), dtype=np.uint8))
    assert np.isfinite([[one.score, one.distance] for one in found]).all()
    assert all(one.cleared for one in found)


def test_a_grey_copy_and_one_of_another_tint_are_held_back(gate, own):
    grey = np.repeat(own.mean(-1, keepdims=True), 3, -1).astype(np.uint8)
    tinted = (own * [1.0, 0.8, 0.9]).astype(np.uint8)
    for planted in (grey, tinted):
        assert sum(not one.cleared for one in gate.judge(planted)) >= 11


def test_the_nearest_real_images_are_training_images_nearest_first(gate, site, own):
    (found,) = gate.nearest(own[3:4], 4)
    assert found[0].image == site.training.records[3].image
    assert found[0].distance < 0.01
    assert np.array_equal(found[0].pixels, own[3])
    distances = [one.distance for one in found]
    assert distances == sorted(distances)
    assert len({one.image for one in found}) == 4


def tiny_vit(folder) -> None:
    from transformers import ViTConfig, ViTModel

    torch.manual_seed(0)
    told = ViTConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        image_size=32,
        patch_size=8,
    )
    ViTModel(told).save_pretrained(folder)


def test_a_folder_with_a_vision_model_gives_the_features(site, gate, own, tmp_path):
    other = changed(site, tmp_path / "site", gate={"features": "vit"})
    tiny_vit(other.folder / "vit")
    seeing = ReleaseGate.of(other)
    assert seeing.digest != gate.digest
    assert all(not one.cleared for one in seeing.judge(own[:4]))
    near = [one[0].image for one in seeing.nearest(own[:4], 1)]
    assert near == [record.image for record in other.training.records[:4]]


@pytest.mark.parametrize("what", ["absent", "no weights", "not json", "cut"])
def test_a_folder_without_a_model_that_can_be_read_is_refused(site, tmp_path, what):
    other = changed(site, tmp_path / "site", gate={"features": "vit"})
    folder = other.folder / "vit"
    if what != "absent":
        tiny_vit(folder)
    if what == "no weights":
        (folder / "model.safetensors").unlink()
    if what == "not json":
        (folder / "config.json").write_text("{")
    if what == "cut":
        weights = folder / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:400])
    with pytest.raises(ConfigError, match=r"gate\.features") as refused:
        ReleaseGate.of(other)
    assert "\n" not in str(refused.value)
