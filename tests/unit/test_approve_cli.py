"""`vgmedgen-client approve`: what a run asks, laid out, and the decision about it."""

import pytest
from omegaconf import OmegaConf

from client.approvals import Approvals
from tests.officer import asked_of, said
from vgmedgen.errors import StateError
from vgmedgen.privacy.accountant import Mechanism, spent
from vgmedgen.privacy.budget import rounded
from vgmedgen.privacy.ledger import Entry
from vgmedgen.privacy.plan import PrivacyPlan
from vgmedgen.site.folder import Site
from vgmedgen.trust.journal import Journal

DELTA = 1e-5
COST = (Mechanism(noise=5.0, rate=0.25, steps=40),)


@pytest.fixture
def asking(hospital, private_micro):
    """A site at which a private run waits for its approval."""
    path = hospital.folder / "site.yaml"
    more = {"privacy": {"epsilon": 8.0}, "policy": {"approval": "required"}}
    OmegaConf.save(OmegaConf.merge(OmegaConf.load(path), more), path)
    plan = private_micro.plan
    schema = hospital.schema(plan)
    asked_of(
        hospital.folder,
        plan,
        base=hospital.base_digest,
        exchange=schema.digest,
    )
    return hospital.folder, plan, schema


def test_an_approval_shows_all_that_it_would_allow(asking):
    folder, plan, schema = asking
    told = said(
        "approve",
        "demo-1",
        "--site",
        folder,
        "--by",
        "A. Officer",
        entered="n\n",
        code=1,
    )
    assert f"coordinator  {'c' * 64}" in told
    assert told.count(", this site's own") == 2
    assert "epsilon 6 for each image at delta 1e-05 over all its rounds" in told
    assert "left of the limit 8 after it: " in told
    for group, stage in (("mapper", "align"), ("lora", "generate")):
        specs = schema.groups[group]
        assert (
            f"{stage:<9} group {group}: {len(specs)} tensors, {2 * schema.size(group)} "
            "bytes" in told
        )
    assert "numbers   num-units, epsilon-spent" in told
    assert "ledger    how many rounds were ever booked here" in told
    assert "loss-sum" not in told
    assert "✓  steps_per_round" in told
    assert "✗" not in told
    assert "the visual prior stays the base bundle's" in told
    lines = [line.split() for line in told.splitlines()]
    assert ["generate.steps", str(plan.generate.steps)] in lines
    assert schema.groups["lora"][0].name not in told
    assert Approvals(folder).of("demo-1").state == "waiting"
    assert not (folder / "audit.jsonl").exists()


def test_every_tensor_can_be_listed(asking):
    folder, _, schema = asking
    told = said(
        "approve", "demo-1", "--site", folder, "--by", "A", "--tensors", "--yes"
    )
    for specs in schema.groups.values():
        for spec in specs:
            (line,) = [x for x in told.splitlines() if x.split()[:1] == [spec.name]]
            assert line.split()[1:] == [
                "x".join(map(str, spec.shape)),
                str(2 * spec.size),
            ]


def test_a_decision_is_kept_with_its_name_and_in_the_log(asking):
    folder, plan, _ = asking
    told = said(
        "approve", "demo-1", "--site", folder, "--by", "A. Officer", entered="y\n"
    )
    assert "run demo-1 is approved" in told
    found = Approvals(folder).of("demo-1")
    assert found.state == "approved"
    assert found.decisions[0]["by"] == "A. Officer"
    assert "approved already" in said(
        "approve", "demo-1", "--site", folder, "--by", "B"
    )
    said("deny", "demo-1", "--site", folder, "--by", "B. Officer")
    assert Approvals(folder).of("demo-1").state == "denied"
    approved, denied = Journal(folder / "audit.jsonl").entries()
    assert approved["event"] == "approve"
    assert approved["approved_by"] == "A. Officer"
    assert approved["digest"] == plan.digest
    assert (denied["event"], denied["approved_by"]) == ("deny", "B. Officer")
    said("approve", "demo-1", "--site", folder, "--by", "A. Officer", "--yes")
    assert Approvals(folder).of("demo-1").state == "approved"


def test_what_a_run_asks_beyond_the_policy_is_marked(asking, micro):
    folder, _, _ = asking
    path = folder / "site.yaml"
    rules = {"coordinators": ["d" * 64], "dp": "required", "min_units": 10_000}
    OmegaConf.save(OmegaConf.merge(OmegaConf.load(path), {"policy": rules}), path)
    asked_of(folder, micro.plan, coordinator="")
    told = said("approve", "demo-1", "--site", folder, "--by", "A", entered="n", code=1)
    marked = {
        line.split()[1] for line in told.splitlines() if line.strip().startswith("✗")
    }
    assert marked == {"coordinators", "dp", "min_units"}
    assert "is refused here, whatever is approved" in told
    assert "of the visual prior at" in told
    assert "nobody: the run is not signed" in told
    assert "none is promised" in told
    assert told.count("but this site has") == 2
    assert "loss-sum" in told


def test_the_ledger_says_what_would_be_left(asking):
    folder, plan, _ = asking
    site = Site(folder)
    ledger = site.ledger()
    entry = Entry(
        cohort=ledger.open_cohort(site.members(), site.unit_kind),
        run="run-a",
        round=1,
        stage="generate",
        order="o",
        plan="p",
        base="b",
        mechanisms=COST,
    )
    ledger.book(entry, limit=8.0, delta=DELTA)
    after = spent([*PrivacyPlan.of(plan).whole(), *COST], DELTA).epsilon
    told = said("approve", "demo-1", "--site", folder, "--by", "A", entered="n", code=1)
    assert f"with what is spent: epsilon {rounded(after)}" in told


def test_a_decision_that_cannot_be_logged_is_none(asking):
    folder, _, _ = asking
    (folder / "audit.jsonl").mkdir()
    for words in (("approve", "demo-1", "--yes"), ("deny", "demo-1")):
        with pytest.raises(StateError, match="cannot write"):
            said(*words, "--site", folder, "--by", "A")
    assert Approvals(folder).of("demo-1").state == "waiting"
