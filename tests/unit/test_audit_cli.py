"""`vgmedgen audit` as a hospital starts it."""

import json
import shutil

import pytest
from typer.testing import CliRunner

from vgmedgen.audit import run as auditor
from vgmedgen.audit.verdict import RED, Verdict
from vgmedgen.cli import app
from vgmedgen.errors import StateError
from vgmedgen.site.folder import Site
from vgmedgen.training.order import Order


@pytest.fixture
def folder(private_hospitals, private_micro, tmp_path):
    """A site that trained one round under DP."""
    folder = tmp_path / private_hospitals[0].name
    shutil.copytree(private_hospitals[0], folder)
    site, plan = Site(folder), private_micro.plan
    weights = site.bench(plan).states()
    site.train(Order(run="one", number=1, stage="align", plan=plan, weights=weights))
    return folder


def test_a_site_that_keeps_its_claim_ends_green_and_spends_nothing(folder):
    before = Site(folder).ledger().to_json()
    result = CliRunner().invoke(app, ["audit", str(folder), "--quick"])
    assert result.exit_code == 0
    assert result.stdout.startswith("green: Claimed epsilon")
    assert "image-level" in result.stdout or "per lesion" in result.stdout
    assert (folder / "audit" / "audit.html").is_file()
    assert json.loads((folder / "audit" / "audit.json").read_text())
    assert Site(folder).ledger().to_json() == before


def test_a_claim_that_is_not_kept_ends_with_exit_code_1(folder, monkeypatch):
    found = Verdict(
        colour=RED,
        headline="the claim is not kept",
        reasons=("noise is missing",),
        cautions=(),
        proven=9.0,
        strongest="canaries",
    )
    monkeypatch.setattr(auditor, "audit", lambda *_, **__: found)
    result = CliRunner().invoke(app, ["audit", str(folder)])
    assert result.exit_code == 1
    assert "noise is missing" in result.stdout


def test_a_site_that_never_trained_has_nothing_to_audit(private_hospitals):
    with pytest.raises(StateError, match="needs the plan of one"):
        CliRunner().invoke(
            app, ["audit", str(private_hospitals[1])], catch_exceptions=False
        )
