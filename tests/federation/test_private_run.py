"""A run under DP through Flower's engine, seen from the wire and from the ledgers."""

import json
import re
from dataclasses import replace

import pytest
from flwr.app import ConfigRecord, MetricRecord

import server.app
from server.launch import Launch
from server.registry import Registry
from simulations import engine
from tests.federation.toys import Wire, client_of
from vgmedgen.errors import ExchangeError, StateError
from vgmedgen.exchange.schema import PRIVATE_NUMBERS
from vgmedgen.privacy.accountant import Mechanism, spent
from vgmedgen.privacy.plan import PrivacyPlan
from vgmedgen.site.folder import Site

pytestmark = pytest.mark.simulation


@pytest.fixture(scope="module")
def played(private_micro, bundle, tmp_path_factory):
    """A whole run with DP: launch, sites, and everything that crossed the wall."""
    import shutil

    from simulations.sites import make_sites

    folder = tmp_path_factory.mktemp("private-run")
    sites = [Site(path) for path in make_sites(private_micro, bundle, folder)]
    launch = Launch.prepare(
        run="private-1",
        folder=folder,
        config=private_micro,
        bundle=bundle,
        weights=sites[0].bench(private_micro.plan).states(),
        sites=len(sites),
    )
    wire = Wire()
    engine.drive(
        server.app.app,
        client_of(sites, mods=[wire]),
        sites=len(sites),
        run_config={"run-file": str(launch.path)},
        engine="inproc",
    )
    yield launch, sites, wire
    shutil.rmtree(folder)


def test_two_declared_numbers_cross_and_no_loss_does(played):
    launch, sites, wire = played
    replies = [m for kind, m in wire.up if kind == "train"]
    rounds = launch.config.federation.rounds
    assert len(replies) == len(sites) * rounds
    declared = {site.name: site.training.units for site in sites}
    for reply in replies:
        numbers = reply.content.metric_records["numbers"]
        assert set(numbers) == set(PRIVATE_NUMBERS)
        name = reply.content.config_records["origin"]["site"]
        assert numbers["num-units"] == declared[name]
    assert {kind for kind, _ in wire.down} == {"query.hello", "train", "query.install"}
    assert b"loss" not in wire.raw


def test_only_the_factor_of_the_turn_crosses(played):
    launch, _, wire = played
    sizes = [
        len(reply.content.array_records["update"]["lora"].data)
        for kind, reply in wire.up
        if kind == "train" and "lora" in reply.content.array_records["update"]
    ]
    whole = 2 * launch.schema.size("lora") + 128
    assert all(size < 0.8 * whole for size in sizes)


def test_what_the_sites_told_is_what_an_accountant_finds_in_their_exported_ledgers(
    played,
):
    launch, sites, _ = played
    plan = PrivacyPlan.of(launch.config.plan)
    told = Registry(launch.folder).rounds()[-1]["epsilon"]
    for site in sites:
        lines = [json.loads(line) for line in site.ledger().to_json().splitlines()]
        booked = [line for line in lines if line["kind"] == "stage"]
        assert len(booked) == launch.config.federation.rounds
        facts = [
            Mechanism(noise=noise, rate=rate, steps=steps)
            for row in booked
            for noise, rate, steps in row["facts"]["mechanisms"]
        ]
        assert told[site.name] == pytest.approx(spent(facts, plan.delta).epsilon)
        assert told[site.name] <= plan.epsilon


def test_the_release_says_what_is_promised_and_to_whom(played):
    launch, sites, _ = played
    card = (launch.folder / "release" / "README.md").read_text()
    assert re.search("epsilon at most 6, (image-level|per image) ", card)
    assert "delta 1e-05" in card
    for site in sites:
        assert f"| `{site.name}` |" in card
    for site in sites:
        (installed,) = site.folder.glob("releases/*/release/README.md")
        assert installed.read_text() == card


@pytest.mark.parametrize(
    ("numbers", "why"),
    [
        (
            {"num-units": 9, "epsilon-spent": 1.0, "loss-sum": 3.0},
            "expected the numbers",
        ),
        ({"num-units": 9, "epsilon-spent": 0.0}, "spent nothing"),
        ({"num-units": 9}, "expected the numbers"),
    ],
)
def test_a_handler_that_tells_more_or_spent_nothing_is_stopped(played, numbers, why):
    from client.egress import checked

    _, sites, wire = played
    asked = next(m for kind, m in wire.down if kind == "train")
    site = next(s for s in sites)
    reply = next(
        m
        for kind, m in wire.up
        if kind == "train"
        and m.content.config_records["origin"]["site"] == site.name
        and m.content.config_records["origin"]["round"] == "1"
    )
    before, said = reply.content["numbers"], reply.content["origin"]
    try:
        reply.content["numbers"] = MetricRecord(numbers)
        # the ledger has gone on since this was told
        reply.content["origin"] = ConfigRecord({**said, "ledger": site.mark})
        with pytest.raises(ExchangeError, match=why):
            checked(asked, reply, site)
    finally:
        reply.content["numbers"], reply.content["origin"] = before, said


def test_a_twin_without_dp_at_the_same_sites_is_refused_by_every_ledger(played):
    launch, sites, _ = played
    free = replace(launch.config, privacy=replace(launch.config.privacy, enabled=False))
    before = [len(site.ledger().rows()) for site in sites]
    twin = Launch.prepare(
        run="free-1",
        folder=launch.folder / "twin",
        config=replace(free, federation=replace(free.federation, wait_s=60.0)),
        bundle=sites[0].bundle,
        weights=sites[0].bench(free.plan).states(),
        sites=len(sites),
    )
    with pytest.raises(StateError, match="no round of run free-1 counted"):
        engine.drive(
            server.app.app,
            client_of(sites),
            sites=len(sites),
            run_config={"run-file": str(twin.path)},
            engine="inproc",
        )
    assert not (twin.folder / "release").exists()
    for record in Registry(twin.folder).rounds():
        assert not record["counted"]
        assert set(record["left_out"].values()) == {"VG41"}
        assert record["heldout_loss"] == {}
    assert [len(site.ledger().rows()) for site in sites] == before


def test_the_report_sets_the_claim_beside_the_same_run_without_dp(bundle, tmp_path):
    from typer.testing import CliRunner

    from simulations.cli import app
    from tests.conftest import MICRO, PRIVATE

    run = tmp_path / "run"
    words = [*MICRO, *PRIVATE, "study.without_dp=true", f"run.dir={run}"]
    result = CliRunner().invoke(app, words, catch_exceptions=False)
    assert result.exit_code == 0
    report = json.loads((run / "report.json").read_text())
    for site, models in report["heldout_denoising_loss"].items():
        assert set(models) == {"base", "federated", "without_dp"}
        told = report["privacy"]["sites"][site]
        assert 0 < told["epsilon"] <= told["limit"] == 6
        assert told["accountant"] == "PRV"
    page = (run / "report.html").read_text()
    assert "image-level" in page
    assert "What is promised to each image" in page
    for twin in (run / "without-dp" / "sites").glob("hospital-*"):
        rows = [row for row in Site(twin).ledger().rows() if row.kind == "stage"]
        assert all(row.facts["mechanisms"] is None for row in rows)


def test_studies_that_would_train_the_patients_again_are_refused(private_micro):
    from vgmedgen.errors import ConfigError

    for study in ({"local": True}, {"alignment": True}):
        asked = replace(private_micro.study, **study)
        with pytest.raises(ConfigError, match="no budget"):
            replace(private_micro, study=asked)
