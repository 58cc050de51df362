"""A release that is worse at a site than what it replaces is installed, and not used."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from client.models import decisions
from tests.officer import said
from tests.releases import FACTS, KEY, TRUSTED
from vgmedgen.errors import PolicyError, ReleaseError
from vgmedgen.release import fitness, installed
from vgmedgen.release.fitness import BASE, Fitness, is_held_back, why_not
from vgmedgen.release.signature import FILE, sign
from vgmedgen.release.store import Store
from vgmedgen.release.verify import digest
from vgmedgen.release.write import write
from vgmedgen.site.config import FILE as SITE_FILE
from vgmedgen.site.folder import Site
from vgmedgen.training.rounds import Workbench
from vgmedgen.trust.journal import Journal

BY = ("--by", "A. Officer")


def weights(bundle, plan, size, seed=0):
    """Those of the base with LoRA factors that go `size` away from it."""
    states = Workbench.open(bundle, plan, torch.device("cpu")).states()
    draw = np.random.default_rng(seed)

    def moved(name, array):
        step = size * draw.standard_normal(array.shape) * name.endswith(".B")
        return (array + step).astype(np.float16).astype(np.float32)

    return {
        group: {name: moved(name, array) for name, array in arrays.items()}
        for group, arrays in states.items()
    }


def release(folder, bundle, plan, size, *, run, day=1, seed=0):
    """A signed release folder, its weights and its manifest."""
    made = weights(bundle, plan, size, seed)
    manifest = write(folder, bundle, plan, made, {**FACTS, "run": run})
    when = f"2026-01-{day:02d}T03:04:05+00:00"
    signed = sign(manifest, KEY, np.datetime64(when[:19]).item().astimezone())
    (folder / FILE).write_text(signed.to_json())
    return SimpleNamespace(
        folder=folder, weights=made, manifest=manifest, signature=signed
    )


MARGIN = 0.005  # a base of two steps lets no LoRA factor spoil more than this


@pytest.fixture
def site(hospital):
    """A hospital that trusts the coordinator, and compares what it is sent."""
    path = hospital.folder / SITE_FILE
    text = path.read_text().replace("worse_by: 0.0", f"worse_by: {MARGIN}")
    text = text.replace("policy:\n", f"policy:\n  coordinators: ['{KEY.public}']\n")
    path.write_text(text)
    found = Site(hospital.folder)
    assert found.policy.worse_by == MARGIN
    assert found.policy.coordinators == TRUSTED
    return found


@pytest.fixture
def made(bundle, micro, tmp_path):
    """A fair release and, signed a day later, a spoilt one."""
    plan = micro.plan
    return SimpleNamespace(
        fair=release(tmp_path / "fair", bundle, plan, 1e-4, run="fair"),
        spoilt=release(tmp_path / "spoilt", bundle, plan, 300, run="spoilt", day=2),
        plan=plan,
    )


def arrive(site, made, one):
    """The release as a message brings it."""
    order = SimpleNamespace(plan=made.plan, weights=one.weights)
    return site.install(order, json.dumps(one.manifest), one.signature)


def used(site):
    return Store(site.folder / "releases").current_name()


def test_a_spoilt_release_that_a_run_sends_is_installed_and_the_one_in_use_stays(
    site, made, caplog
):
    fair = arrive(site, made, made.fair)
    assert used(site) == fair[:16]
    spoilt = arrive(site, made, made.spoilt)
    assert spoilt == digest(made.spoilt.manifest)  # the answer tells no difference
    assert used(site) == fair[:16]
    assert Store(site.folder / "releases").verify(spoilt)
    assert f"release {spoilt[:16]} is worse here than" in caplog.text
    arrive(site, made, made.spoilt)  # a message that comes twice
    assert used(site) == fair[:16]


def test_the_first_release_of_a_site_is_held_against_the_base(site, made):
    arrive(site, made, made.spoilt)
    assert used(site) == ""
    with pytest.raises(ReleaseError):
        Store(site.folder / "releases").current()
    arrive(site, made, made.fair)  # signed earlier: somebody may choose it
    arrive(site, made, made.spoilt)
    assert used(site) == ""


def test_a_release_is_held_against_the_one_in_use_too(site, made, bundle, tmp_path):
    better = release(tmp_path / "better", bundle, made.plan, 1e-4, run="better")
    site.install(
        SimpleNamespace(plan=made.plan, weights=better.weights),
        json.dumps(better.manifest),
        better.signature,
    )
    found = site.fitness(made.plan, made.fair.weights)
    assert set(found.before) == {BASE, used(site)}
    assert found.before[BASE] == pytest.approx(found.loss, rel=0.01)
    low = replace(found, before={BASE: 1.0, used(site): 0.5}, loss=0.9)
    assert low.worse_than == used(site)


def test_an_officer_is_told_why_and_may_overrule_it_which_is_audited(site, made):
    folder = site.folder
    arrive(site, made, made.fair)
    words = said(
        "install", made.spoilt.folder, "--site", folder, *BY, code=1
    ).splitlines()
    name = digest(made.spoilt.manifest)[:16]
    assert words[2].startswith(
        "is installed, and NOT in use: its held-out loss here is"
    )
    assert f"policy.worse_by={MARGIN}" in words[2]
    assert words[3].endswith(f"models use {name} --overrule")
    assert used(site) != name
    listed = said("models", "--site", folder)
    assert f"!  {name}" in listed
    assert "! worse here than what was in use" in listed
    with pytest.raises(PolicyError, match=r"was not put to use: .*--overrule"):
        said("models", "use", name, "--site", folder, *BY)
    assert used(site) != name
    said("models", "use", name, "--site", folder, "--overrule", *BY)
    assert used(site) == name
    told = [
        (e["event"], e["decision"], e.get("why", ""))
        for e in Journal(folder / "audit.jsonl").entries()
        if e["event"] == "use"
    ]
    assert told == [
        ("use", "approved", ""),
        ("use", "refused", "worse"),
        ("use", "approved", ""),
        ("use", "accepted", "overruled"),
    ]
    said("models", "roll-back", "--site", folder, *BY)
    assert used(site) == digest(made.fair.manifest)[:16]


def test_a_file_that_was_held_back_is_not_used_by_installing_it_again(site, made):
    decisions.install(site.folder, made.spoilt.folder, "A. Officer")
    done = decisions.install(site.folder, made.spoilt.folder, "A. Officer")
    assert not done.current
    assert used(site) == ""


def test_a_site_that_does_not_compare_uses_what_is_signed(site, made):
    path = site.folder / SITE_FILE
    path.write_text(path.read_text().replace(f"worse_by: {MARGIN}", "worse_by: 0"))
    spoilt = arrive(Site(site.folder), made, made.spoilt)
    assert used(site) == spoilt[:16]


def test_nothing_is_compared_where_no_image_is_held_out(site, made, monkeypatch):
    monkeypatch.setattr(Site, "heldout", property(lambda self: ()))
    assert site.fitness(made.plan, made.spoilt.weights) is None


def test_a_release_in_use_that_is_damaged_leaves_the_base_to_compare_with(site, made):
    name = arrive(site, made, made.fair)[:16]
    (site.folder / "releases" / name / "release" / "plan.json").write_text("{}")
    found = site.fitness(made.plan, made.spoilt.weights)
    assert set(found.before) == {BASE}
    assert found.worse_than == BASE


@pytest.mark.parametrize(
    ("loss", "worse"),
    [(1.0, ""), (1.1, ""), (1.11, BASE), (float("nan"), BASE), (float("inf"), BASE)],
)
def test_a_margin_is_a_share_and_no_number_is_worse_than_any(loss, worse):
    assert Fitness(loss=loss, before={BASE: 1.0}, margin=0.1).worse_than == worse


def test_what_is_told_of_a_release_is_read_back_or_damaged(tmp_path):
    def tell(more):
        told = {"digest": "a", "installed": "b", "pipeline": {}, "release": {}}
        installed.write_told(tmp_path, told | more)

    tell({})
    assert why_not(tmp_path) == ""
    other = "0" * 16
    told = Fitness(loss=2.0, before={BASE: 3.0, other: 1.0}, margin=0.1).told()
    tell({fitness.KEY: told})
    assert f"release {other}" in why_not(tmp_path)
    tell({fitness.KEY: {**told, "worse_than": "nobody"}})
    with pytest.raises(ReleaseError, match=r"installed\.json"):
        why_not(tmp_path)
    assert not is_held_back(tmp_path)
    tell({fitness.KEY: Fitness(loss=1.0, before={BASE: 3.0}, margin=0.1).told()})
    assert not is_held_back(tmp_path)
