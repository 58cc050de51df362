"""Attacks that find what was planted and nothing else, the verdict, and the page."""

import csv
import dataclasses
import json
from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import save_file

from vgmedgen.audit import copies, inversion, membership, models, texts, twins, verdict
from vgmedgen.audit import page as audit_page
from vgmedgen.audit import run as audit_run
from vgmedgen.audit.canaries import Canaries
from vgmedgen.audit.conformance import Finding
from vgmedgen.audit.recorded import Most
from vgmedgen.audit.run import Effort, audit
from vgmedgen.audit.statistics import OneRun
from vgmedgen.audit.verdict import Claim, Evidence, judge
from vgmedgen.config.plan import PrivacyConfig
from vgmedgen.data.images import as_uint8
from vgmedgen.errors import ConfigError, ReleaseError
from vgmedgen.models.codec import Codec
from vgmedgen.models.prior.model import VisualPrior
from vgmedgen.training.align import map_text
from vgmedgen.training.rounds import Workbench
from vgmedgen.training.samples import Samples, join

TINY = Effort(
    canaries={"mapper": 12},
    draws=2,
    images=1,
    steps=3,
    spots=1,
    worlds=1,
    most=Most(units=12, steps=2, rounds=1),
)
CLAIM = Claim(epsilon=3.0, delta=1e-5, unit="image", accountant="PRV", scope="all runs")


@pytest.fixture(scope="module")
def site(hospitals):
    from vgmedgen.site.folder import Site

    return Site(hospitals[0])


@pytest.fixture(scope="module")
def describe(bundle) -> copies.Describer:
    return copies.Describer(
        Codec.load(bundle.part("vae")),
        VisualPrior.from_pretrained(bundle.part("visual_prior")),
    )


def losses(rng, count: int, gain: float) -> tuple[np.ndarray, np.ndarray]:
    base = rng.normal(1, 0.3, count)
    return base, base - rng.normal(gain, 0.05, count)


def test_losses_that_fell_for_members_alone_are_found():
    rng = np.random.default_rng(0)
    (base_in, in_), (base_out, out) = losses(rng, 150, 0.2), losses(rng, 60, 0.0)
    found = membership.compare(
        "images",
        "m",
        (base_in, base_out),
        (in_, out),
        delta=1e-5,
        confidence=0.95,
        draws=200,
    )
    assert found.auc.low > 0.9
    assert found.epsilon > 1
    assert found.comparable


def test_sides_that_differ_before_training_prove_nothing():
    rng = np.random.default_rng(0)
    (base_in, in_), (base_out, out) = losses(rng, 150, 0.2), losses(rng, 60, 0.0)
    found = membership.compare(
        "images",
        "m",
        (base_in + 1, base_out),
        (in_ + 1, out),
        delta=1e-5,
        confidence=0.95,
        draws=200,
    )
    assert not found.comparable
    assert found.epsilon == 0


def test_images_of_a_unit_count_once(site):
    samples = site.training
    values = torch.arange(len(samples)).float()
    units = membership.per_unit(values, samples)
    assert len(units) == samples.units
    rows = samples.by_unit()[0]
    assert units[0] == pytest.approx(np.mean([values[row] for row in rows]))


def test_a_model_that_is_the_base_gives_every_unit_the_score_zero(site, micro):
    base = models.base_model(site.bundle)
    prior = VisualPrior.from_pretrained(site.bundle.part("visual_prior"))
    side = (site.training, site.training)  # enough units on both sides
    found = membership.attack(
        base,
        [base],
        prior,
        models.schedule_of(site.bundle),
        *side,
        delta=1e-5,
        confidence=0.95,
        draws=2,
        seed=0,
        resamples=20,
    )
    assert [one.auc.value for one in found] == [0.5, 0.5]
    assert all(not any(one.scores[0]) and one.epsilon == 0 for one in found)


def altered(pixels: torch.Tensor) -> dict[str, torch.Tensor]:
    tint = torch.tensor([1.06, 0.95, 1.0])[:, None, None]
    return {
        "exact": pixels,
        "mirrored": pixels.flip(3),
        "re-coloured": (pixels * tint + 0.03).clamp(-1, 1),
    }


@pytest.mark.parametrize("kind", ["exact", "mirrored", "re-coloured"])
def test_planted_copies_are_flagged(site, describe, kind, tmp_path):
    training, heldout = site.training, site.heldout
    pixels = altered(training.pixels(range(4))[0])[kind]
    files = [tmp_path / f"{k}.png" for k in range(4)]
    found = copies.compare(describe, files, pixels, training, heldout)
    assert found.flagged == 4
    assert found.memorised()
    assert {pair.training for pair in found.worst} == {
        record.image for record in training.records[:4]
    }


def test_held_out_images_are_no_copies(site, describe, tmp_path):
    heldout = site.heldout
    files = [tmp_path / f"{k}.png" for k in range(len(heldout))]
    pixels = heldout.pixels(range(len(heldout)))[0]
    found = copies.compare(describe, files, pixels, site.training, heldout)
    assert found.flagged == 0
    assert not found.memorised()
    none = heldout.only([False] * len(heldout))
    with pytest.raises(ConfigError, match="held-out"):
        copies.compare(describe, files, pixels, site.training, none)


def write_synthetic(folder, pixels) -> None:
    folder.mkdir()
    with (folder / "images.csv").open("w", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(["image", "prompt"])
        for number, image in enumerate(as_uint8(pixels)):
            name = f"{number:05d}.png"
            Image.fromarray(image.movedim(0, -1).numpy()).save(folder / name)
            table.writerow([name, "a <script> caption"])


def test_synthetic_folders_are_read_whole_or_refused(site, tmp_path):
    pixels = site.training.pixels(range(3))[0]
    write_synthetic(tmp_path / "s", pixels)
    files, found = copies.read_synthetic(tmp_path / "s", pixels.shape[-1])
    assert [path.name for path in files] == [f"0000{k}.png" for k in range(3)]
    assert (found - pixels).abs().max() < 0.01
    with pytest.raises(ConfigError, match=r"images\.csv"):
        copies.read_synthetic(tmp_path, 32)


def test_an_image_comes_back_from_a_bare_update_and_not_from_a_private_one(site, micro):
    ask = dataclasses.replace(micro.plan.generate, rank=8, alpha=8)
    plan = dataclasses.replace(micro.plan, generate=ask)
    bench = Workbench.open(site.bundle, plan, torch.device("cpu"))
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():  # an untrained base says nothing: its last layers are zero
        for name, weight in bench.generator.transformer.named_parameters():
            if "proj_out" in name or "attn2.to_out" in name or "lora_B" in name:
                weight.copy_(0.1 * torch.randn(weight.shape, generator=draw))
    model = models.Model("start", bench.mapper, bench.generator)
    codec = Codec.load(site.bundle.part("vae"))
    found = inversion.attack(
        model,
        bench.schedule,
        codec,
        site.training.latents[:1],
        map_text(bench.mapper, site.training.embeddings[:1]),
        guarded=(0.01, 1.0),
        steps=200,
    )[0]
    assert found.open_match > 0.5
    assert abs(found.guarded_match) < 0.4
    assert found.original.shape == found.open.shape == found.guarded.shape


def test_the_guard_bounds_the_gradient_and_adds_the_plans_noise():
    gradient = 100 * torch.ones(50_000)
    left = inversion.guard(gradient, 0.5, 2.0)
    assert left.std().item() == pytest.approx(1.0, rel=0.03)
    assert inversion.guard(gradient, 0.5, 0.0).norm().item() == pytest.approx(
        0.5, rel=1e-3
    )


def evidence(**own) -> Evidence:
    told = {"claim": CLAIM, "planned": CLAIM, "why": "", "unit": "image"}
    return Evidence(**{**told, **own})


def test_a_verdict_names_unit_delta_accountant_and_scope_and_is_no_proof():
    found = judge(evidence())
    assert found.colour == verdict.GREEN
    for word in ("3 (image-level", "delta 1e-05", "PRV", "all runs"):
        assert word in found.headline
    assert any("no proof" in caution for caution in found.cautions)
    assert any("image-level" in caution for caution in found.cautions)


def test_a_failed_check_is_red_and_no_claim_is_amber():
    bad = Finding(name="noise", passed=False, told="none")
    assert judge(evidence(conformance=[bad])).colour == verdict.RED
    found = judge(evidence(claim=None, planned=None, why="No DP."))
    assert found.colour == verdict.AMBER
    assert found.reasons == ("No DP.",)
    assert "No epsilon is claimed" in found.headline


@pytest.mark.parametrize("enabled", [True, False])
def test_an_audit_writes_one_page_and_its_numbers_and_nothing_else(
    hospital, micro, tmp_path, monkeypatch, enabled
):
    monkeypatch.setattr(audit_run, "QUICK", TINY)
    privacy = PrivacyConfig(enabled=enabled, epsilon=8.0)
    plan = dataclasses.replace(micro.plan, merge="alternate", privacy=privacy)
    before = {
        path: path.stat().st_mtime_ns
        for path in hospital.folder.rglob("*")
        if "cache" not in path.parts
    }
    samples = hospital.training
    write_synthetic(tmp_path / "synthetic", samples.pixels(range(4))[0])
    out = tmp_path / "audit"
    found = audit(
        hospital,
        plan,
        model=None,
        synthetic=tmp_path / "synthetic",
        out=out,
        quick=True,
    )
    assert found.colour == verdict.RED  # the synthetic images are training images
    assert any("synthetic images" in reason for reason in found.reasons)
    after = {
        path: path.stat().st_mtime_ns
        for path in hospital.folder.rglob("*")
        if "cache" not in path.parts
    }
    assert before == after
    assert sorted(path.name for path in out.iterdir()) == ["audit.html", "audit.json"]
    told = json.loads((out / "audit.json").read_text())
    assert told["verdict"]["colour"] == "red"
    assert bool(told["conformance"]) == enabled
    page = (out / "audit.html").read_text()
    assert "<script" not in page
    assert "http" not in page.replace("http-equiv", "")


def test_a_model_that_is_no_release_is_refused(hospital, micro, tmp_path):
    with pytest.raises(ReleaseError, match="no installed release"):
        models.find(hospital.bundle, micro.plan, hospital.folder, tmp_path)
    assert models.find(hospital.bundle, micro.plan, hospital.folder, None) == ()


def test_what_a_site_sent_last_is_put_into_the_base(hospital, micro):
    bench = Workbench.open(hospital.bundle, micro.plan, torch.device("cpu"))
    states = bench.states()
    for number, group in ((1, "mapper"), (2, "lora")):
        folder = hospital.folder / "runs" / "r" / f"round-{number:04d}"
        folder.mkdir(parents=True)
        moved = {name: array + 0.5 for name, array in states[group].items()}
        save_file(moved, folder / "outcome.safetensors")
    (folder.parent / "plan.json").write_text(micro.plan.to_json())
    other = dataclasses.replace(micro.plan, seed=99)
    assert models.find(hospital.bundle, other, hospital.folder, None) == ()
    sent = models.find(hospital.bundle, micro.plan, hospital.folder, None)[0]
    name = next(iter(states["mapper"]))
    expected = torch.from_numpy(states["mapper"][name] + 0.5)
    assert torch.equal(sent.mapper.shared_state()[name], expected)


def planted(ceiling: float, bound: float = 0.0) -> Canaries:
    """Canaries in a training that the plan gives epsilon 2."""
    one = OneRun(epsilon=bound, guesses=8, correct=8, total=48)
    return Canaries(
        training="mapper",
        steps=9,
        cost=2.0,
        proven=OneRun(epsilon=0.0, guesses=8, correct=4, total=48),
        ceiling=1.7,
        curve=one,
        curve_ceiling=ceiling,
        scores=(0.0, 1.0),
        included=(False, True),
    )


def test_canaries_that_could_refute_nothing_turn_a_green_verdict_amber():
    strong, weak = planted(ceiling=4.7), planted(ceiling=1.9)
    assert judge(evidence(canaries=[strong])).colour == verdict.GREEN
    found = judge(evidence(canaries=[weak]))
    assert found.colour == verdict.AMBER
    assert any("could not have turned this red" in reason for reason in found.reasons)
    broken = judge(evidence(canaries=[planted(ceiling=4.7, bound=2.0)]))
    assert broken.colour == verdict.RED
    assert "rule out the noise of the plan" in broken.reasons[0]


def test_the_page_prints_every_ceiling_and_never_that_a_claim_stands(micro):
    seen = evidence(canaries=[planted(ceiling=1.9)])
    html = audit_page.page("clinic", micro.plan, seen, judge(seen))
    assert '<span class="warn">(1.90)</span>' in html
    for colour in (verdict.GREEN, verdict.AMBER, verdict.RED):
        assert "stands" not in texts.WORDS[colour]
    assert "claim stands" not in html


@dataclasses.dataclass(frozen=True)
class Turned(Samples):
    """Samples whose images come out mirrored or turned."""

    turn: Callable[[torch.Tensor], torch.Tensor]

    def pixels(self, rows):
        image, mask = super().pixels(rows)
        return self.turn(image), self.turn(mask)


@pytest.mark.parametrize(
    "turn",
    [lambda p: p, lambda p: p.flip(-1), lambda p: p.rot90(1, (-2, -1))],
    ids=["the same", "mirrored", "turned"],
)
def test_held_out_images_that_show_a_training_image_are_named_and_left_out(
    site, micro, turn
):
    training = site.training
    assert twins.twins(training, site.heldout) == ()
    one = training.only([k == 3 for k in range(len(training))])
    spied = Turned(**one.__dict__, turn=turn)
    found = twins.twins(training, spied)
    assert [twin.training for twin in found] == [training.records[3].image]
    assert len(twins.without(join([one, site.heldout]), found)) == len(site.heldout)
    seen = evidence(twins=found)
    assert any("1 held-out images show" in word for word in judge(seen).cautions)
    html = audit_page.page("clinic", micro.plan, seen, judge(seen))
    assert training.records[3].image.name in html
