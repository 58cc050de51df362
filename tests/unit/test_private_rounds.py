"""A round under DP at a site: booked first, answered once, and nothing else told."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from vgmedgen.config.plan import RunPlan
from vgmedgen.data.records import Dataset
from vgmedgen.errors import BudgetError, DataError, PolicyError, StateError
from vgmedgen.evaluation.denoising import heldout_losses
from vgmedgen.privacy.accountant import spent
from vgmedgen.privacy.plan import PrivacyPlan
from vgmedgen.site.folder import Site
from vgmedgen.training import accountable, rounds
from vgmedgen.training.order import Order
from vgmedgen.training.samples import prepare


@pytest.fixture
def plan(private_micro) -> RunPlan:
    return private_micro.plan


@pytest.fixture
def site(private_hospitals, tmp_path):
    import shutil

    folder = tmp_path / private_hospitals[0].name
    shutil.copytree(private_hospitals[0], folder)
    return Site(folder)


def order(site: Site, plan: RunPlan, number: int = 1, stage: str = "align", **changes):
    told = {
        "run": "run-1",
        "number": number,
        "stage": stage,
        "plan": plan,
        "weights": site.bench(plan).states(),
        "turn": number if stage == "align" else number - plan.align_rounds,
    }
    return Order(**{**told, **changes})


def booked(site: Site):
    return [row for row in site.ledger().rows() if row.kind == "stage"]


def limited(site: Site, **privacy) -> Site:
    told = OmegaConf.load(site.folder / "site.yaml")
    OmegaConf.save(
        OmegaConf.merge(told, {"privacy": privacy}), site.folder / "site.yaml"
    )
    return Site(site.folder)


def test_a_round_tells_its_weights_the_declared_units_and_the_ledgers_epsilon(
    site, plan
):
    outcome = site.train(order(site, plan))
    assert outcome.loss_sum is None
    assert outcome.units == site.training.units
    wanted = spent(PrivacyPlan.of(plan).round("align"), plan.privacy.delta)
    assert outcome.epsilon == pytest.approx(wanted.epsilon)
    (row,) = booked(site)
    facts = row.facts
    assert facts["round"] == 1
    assert facts["mechanisms"] == [
        [m.noise, m.rate, m.steps] for m in PrivacyPlan.of(plan).round("align")
    ]


def test_the_whole_run_spends_what_was_claimed_and_one_round_more_is_refused(
    site, plan
):
    for number in range(1, plan.align_rounds + plan.generate_rounds + 1):
        stage = "align" if number <= plan.align_rounds else "generate"
        outcome = site.train(order(site, plan, number, stage))
    assert 0.9 * plan.privacy.epsilon < outcome.epsilon <= plan.privacy.epsilon
    with pytest.raises(PolicyError, match="its claim end at"):
        site.train(order(site, plan, number + 1, "generate"))
    with pytest.raises(BudgetError):
        site.train(order(site, plan, 1, run="run-2"))
    assert len(booked(site)) == number


def test_an_order_that_comes_again_gets_the_same_bytes_and_costs_nothing(site, plan):
    asked = order(site, plan)
    first, again = site.train(asked), Site(site.folder).train(asked)
    for name, array in first.state.items():
        assert np.array_equal(array, again.state[name])
    assert first.epsilon == again.epsilon
    assert len(booked(site)) == 1


def test_another_order_for_a_booked_round_is_refused(site, plan):
    site.train(order(site, plan))
    other = {g: dict(named) for g, named in site.bench(plan).states().items()}
    name = sorted(other["mapper"])[0]
    other["mapper"][name] = other["mapper"][name] + 1
    with pytest.raises(BudgetError):
        site.train(order(site, plan, weights=other))
    assert len(booked(site)) == 1


def test_an_answer_that_was_sent_and_is_lost_is_not_computed_again(site, plan):
    asked = order(site, plan)
    site.train(asked)
    next(site.folder.glob("runs/run-1/round-0001/outcome.*")).unlink()
    with pytest.raises(StateError, match="not paid for"):
        site.train(asked)


def test_a_round_is_on_disk_before_its_first_step_and_a_crash_books_no_second(
    site, plan, monkeypatch
):
    def dies(*_, **__):
        assert len(booked(site)) == 1, "booked before anything trains"
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(rounds, "train_mapper", dies)
        with pytest.raises(KeyboardInterrupt):
            site.train(order(site, plan))
    assert site.train(order(site, plan)).epsilon > 0
    assert len(booked(site)) == 1


def test_two_trainings_of_one_order_differ_though_the_seed_is_the_same(
    site, plan, tmp_path
):
    import shutil

    twin = tmp_path / "twin"
    shutil.copytree(site.folder, twin)
    one, other = (s.train(order(s, plan)) for s in (site, Site(twin)))
    assert any(not np.array_equal(a, other.state[n]) for n, a in one.state.items())


def test_the_prior_under_dp_is_the_bases_whatever_was_trained_before(site, plan):
    bench = site.bench(plan)
    with torch.no_grad():
        for weight in bench.prior.parameters():
            weight.add_(1.0)
    site.train(order(site, plan))
    public = type(bench.prior).from_pretrained(site.bundle.part("visual_prior"))
    for name, tensor in public.state_dict().items():
        assert torch.equal(bench.prior.state_dict()[name], tensor)
    assert not list(site.folder.glob("runs/**/prior.safetensors"))


def test_a_prior_trained_with_dp_is_booked_beside_the_mapper(site, plan):
    plan = dataclasses.replace(
        plan, privacy=dataclasses.replace(plan.privacy, prior="private")
    )
    site.train(order(site, plan))
    (row,) = booked(site)
    steps = sorted(m[2] for m in row.facts["mechanisms"])
    assert steps == sorted([plan.align.prior_steps, plan.align.mapper_steps])
    assert list(site.folder.glob("runs/**/prior.safetensors"))


def test_what_is_prepared_of_a_unit_does_not_depend_on_the_others(site, tmp_path):
    (dataset,) = site.datasets
    few = prepare(dataset.only(dataset.units[::3]), site.bundle, tmp_path / "few")
    whole = {record.id: row for row, record in enumerate(site.samples.records)}
    rows = [whole[record.id] for record in few.records]
    assert few.captions == tuple(site.samples.captions[row] for row in rows)
    for name in ("latents", "embeddings"):
        alone, among = getattr(few, name), getattr(site.samples, name)[rows]
        assert torch.equal(alone, among), "to the last bit"
    seen = zip(few.pixels(range(len(few))), site.samples.pixels(rows), strict=True)
    assert all(torch.equal(alone, among) for alone, among in seen)


def test_no_heldout_loss_is_told(site, plan):
    free = dataclasses.replace(
        plan, privacy=dataclasses.replace(plan.privacy, enabled=False)
    )
    for asked in (plan, free):
        with pytest.raises(PolicyError, match="held-out loss"):
            site.evaluate(order(site, asked, 3, "generate"))
    assert callable(heldout_losses)


def test_a_site_with_a_limit_refuses_a_run_without_dp(site, plan):
    free = dataclasses.replace(
        plan, privacy=dataclasses.replace(plan.privacy, enabled=False)
    )
    with pytest.raises(BudgetError):
        site.train(order(site, free))
    assert booked(site) == []
    assert not list(site.folder.glob("runs/**/outcome.*"))


def test_a_site_without_a_limit_refuses_a_run_with_dp(site, plan):
    site = limited(site, epsilon=0.0)
    with pytest.raises(PolicyError, match=r"privacy\.epsilon"):
        site.train(order(site, plan))
    assert booked(site) == []


def test_patients_trained_without_dp_are_never_claimed_for_later(site, plan):
    free = dataclasses.replace(
        plan, privacy=dataclasses.replace(plan.privacy, enabled=False)
    )
    limited(site, epsilon=0.0).train(order(site, free))
    with pytest.raises(BudgetError):
        limited(site, epsilon=50.0).train(order(site, plan, run="run-2"))


def test_a_run_that_would_not_fit_is_refused_before_it_starts(site, plan):
    tight = limited(site, epsilon=plan.privacy.epsilon * 0.9)
    with pytest.raises(BudgetError) as refusal:
        tight.train(order(tight, plan))
    told = str(refusal.value)
    assert refusal.value.code == "VG41"
    assert f"{plan.privacy.epsilon * 0.9:g}" in told
    assert "\n" not in told
    assert booked(tight) == []


def test_an_older_copy_of_the_ledger_is_noticed(site, plan):
    site.train(order(site, plan))
    kept = {
        name: (site.folder / name).read_bytes()
        for name in ("ledger.sqlite", "ledger.head")
    }
    site.train(order(site, plan, 2))
    for name, content in kept.items():
        (site.folder / name).write_bytes(content)
    with pytest.raises(StateError, match="older copy"):
        site.train(order(site, plan, 3, "generate"))


def changed(plan: RunPlan, **privacy) -> RunPlan:
    return dataclasses.replace(
        plan, privacy=dataclasses.replace(plan.privacy, **privacy)
    )


def test_data_that_cannot_keep_the_claim_is_refused(site, plan):
    samples, datasets = site.training, site.datasets

    def check(plan=plan, datasets=datasets, samples=samples, members=None):
        members = members or site.members()
        accountable.check(plan, datasets, samples, members, site.name)

    check()
    with pytest.raises(PolicyError, match="a step expects"):
        check(changed(plan, batch=1000))
    with pytest.raises(PolicyError, match="not below 1/"):
        check(changed(plan, delta=0.0099), samples=samples_of(samples, 110))
    kind = datasets[0].unit_kind
    weaker = tuple(dataclasses.replace(d, unit_kind="image") for d in datasets)
    with pytest.raises(PolicyError, match="protects each patient"):
        check(changed(plan, unit="patient"), datasets=weaker)
    other = Dataset("other", "", "patient" if kind != "patient" else "image", ())
    twice = {**site.members(), "another name": next(iter(site.members().values()))}
    with pytest.raises(DataError, match="share an image"):
        check(members=twice)
    with pytest.raises(DataError, match="mixes units"):
        check(datasets=(*datasets, other))


def samples_of(samples, units: int):
    """The same images over and over, each a unit of its own."""
    records = tuple(
        dataclasses.replace(samples.records[k % len(samples)], unit=f"u{k}")
        for k in range(units)
    )
    return dataclasses.replace(samples, records=records, keys=samples.keys * units)


def test_a_unit_that_holds_most_images_is_refused(site, plan):
    samples = site.training
    first = samples.records[0].unit
    crowd = tuple(
        dataclasses.replace(r, unit=first) if k < 0.8 * len(samples) else r
        for k, r in enumerate(samples.records)
    )
    crowded = dataclasses.replace(samples, records=crowd)
    asked = changed(plan, batch=1, rate=1.0)
    with pytest.raises(DataError, match="more than half are one unit's"):
        accountable.check(asked, site.datasets, crowded, site.members(), site.name)


def test_added_patients_stop_the_run_until_a_cohort_is_opened(site, plan):
    site.train(order(site, plan))
    told = OmegaConf.load(site.folder / "site.yaml")
    (source,) = told["sources"]
    source["units"] = list(source["units"])[:-1]
    OmegaConf.save(told, site.folder / "site.yaml")
    smaller = Site(site.folder)
    with pytest.raises(PolicyError, match="cohort"):
        smaller.train(order(smaller, plan, 2))
    smaller.ledger().open_cohort(smaller.members(), smaller.unit_kind)
    again = smaller.train(order(smaller, plan, 2))
    twice = spent(
        [*PrivacyPlan.of(plan).round("align")] * 2, plan.privacy.delta
    ).epsilon
    assert again.epsilon == pytest.approx(twice), "whoever is in the cohort"


def test_what_stays_at_the_site_is_readable_json(site, plan):
    site.train(order(site, plan))
    (path,) = site.folder.glob("runs/run-1/round-0001/losses.json")
    assert "mapper" in json.loads(path.read_text())
