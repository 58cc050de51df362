"""The units of a site: what is listed is there, and the weakest row tells their kind."""

import dataclasses
import unicodedata

import numpy as np
import pytest
from PIL import Image

from vgmedgen.config.plan import PrivacyConfig, RunPlan
from vgmedgen.data.tables import write_rows
from vgmedgen.errors import DataError, PolicyError
from vgmedgen.privacy.facts import MIXED
from vgmedgen.site.folder import Site
from vgmedgen.training import accountable

PRIVATE = RunPlan(
    privacy=PrivacyConfig(enabled=True, unit="patient", batch=1, rate=1.0)
)


@pytest.fixture
def make(tmp_path):
    """A site of tables; each is a list of (image, unit), under a column of its own."""

    def made(*tables, more="", rest=""):
        lines = ["name: site-a", "sources:"]
        for number, (column, rows) in enumerate(tables):
            folder = tmp_path / f"source-{number}"
            folder.mkdir(exist_ok=True)
            for seed, (name, _) in enumerate(rows):
                noise = np.random.default_rng([number, seed]).integers(
                    0, 256, (8, 8, 3)
                )
                Image.fromarray(noise.astype(np.uint8)).save(folder / name)
            told = [(name, "a lesion", unit) for name, unit in rows]
            write_rows(folder / "m.csv", ("image", "caption", column), told)
            lines.append(f"- {{dataset: table, root: source-{number}/m.csv{more}}}")
        text = "\n".join([*lines, rest])
        (tmp_path / "site.yaml").write_text(text, encoding="utf-8")
        return Site(tmp_path)

    return made


def rows(*units):
    return [(f"{number}.png", unit) for number, unit in enumerate(units)]


def check(site, unit="patient"):
    """As a run of that unit would be looked at, as far as the kind of unit goes."""
    privacy = dataclasses.replace(PRIVATE.privacy, unit=unit)
    plan = dataclasses.replace(PRIVATE, privacy=privacy)

    class Counted:
        """Samples, as far as the check counts them."""

        records = tuple(r for d in site.datasets for r in d.records)
        units = len({record.unit for record in records})

        def __len__(self):
            return len(self.records)

    accountable.check(plan, site.datasets, Counted(), site.members(), site.name)


LISTED = ("0010", "0011", "0012", "0013", "10", "11", "no", "1e3", "2024_01", "12:30")


@pytest.mark.parametrize("unit", LISTED)
def test_a_listed_unit_is_the_one_that_is_called_so(make, unit):
    site = make(
        ("patient_id", rows(*LISTED)), more=f", units: ['1e3', no, 0010, {unit}]"
    )
    assert set(site.datasets[0].units) == {"1e3", "no", "0010", unit}
    held = make(("patient_id", rows(*LISTED)), rest=f"heldout_units: [{unit}]\n")
    assert held.heldout_units == {unit}
    assert held.units == len(LISTED) - 1


@pytest.mark.parametrize(
    "unit", ["12", "013", "00010", "1000.0", "False", "750", "0012 x"]
)
def test_a_listed_unit_that_is_not_there_is_refused(make, unit):
    site = make(("patient_id", rows(*LISTED)), more=f", units: [0010, {unit}]")
    with pytest.raises(DataError, match=f"lists the unit '{unit}'") as refused:
        _ = site.datasets
    assert "\n" not in str(refused.value)
    site = make(("patient_id", rows(*LISTED)), rest=f"heldout_units: [0010, {unit}]\n")
    with pytest.raises(DataError, match=f"lists the unit '{unit}', which no source"):
        _ = site.heldout_units


def test_a_refusal_names_the_unit_that_may_have_been_meant(make):
    site = make(("patient_id", rows("0012", "0013")), more=", units: [012]")
    with pytest.raises(DataError, match=r"\('0012' they have\)"):
        _ = site.datasets
    site = make(("patient_id", rows("0012", "0013")), more=", units: []")
    with pytest.raises(DataError, match="lists no unit"):
        _ = site.datasets


def test_a_listed_unit_may_be_typed_in_either_unicode_form(make):
    forms = [unicodedata.normalize(form, "Müller") for form in ("NFC", "NFD")]
    for one, other in (forms, forms[::-1]):
        site = make(
            ("patient_id", rows(one, "p", "q")),
            more=f", units: [{other}, p]",
            rest=f"heldout_units: [{other}]\n",
        )
        assert site.datasets[0].units == (forms[0], "p")
        assert site.heldout_units == {forms[0]}


def test_a_run_that_protects_patients_is_refused_where_one_row_knows_none(make):
    patients = ("patient_id", rows("p", "p", "q", "r"))
    check(make(patients))
    single = make(("unit", rows("p", "p", "q", "3.png")))
    with pytest.raises(PolicyError, match=r"only tells images apart; .* patient_id"):
        check(single)
    check(single, unit="image")
    lesions = make(("lesion_id", rows("p", "p", "q", "r")))
    with pytest.raises(PolicyError, match="only tells lesions apart"):
        check(lesions)
    check(lesions, unit="lesion")


@pytest.mark.parametrize("unit", ["patient", "lesion", "image"])
def test_sources_that_know_different_units_train_under_no_claim(make, unit):
    site = make(
        ("patient_id", rows("p", "p", "q", "r")), ("lesion_id", rows("1", "1", "2"))
    )
    assert site.unit_kind == MIXED
    with pytest.raises(DataError, match="mixes units"):
        check(site, unit)


def test_one_patient_whom_two_sources_call_almost_alike_is_refused(make):
    one = ("patient_id", rows("P1", "P2", "P2"))
    assert len(make(one, ("patient_id", rows("P1", "P3"))).datasets) == 2
    with pytest.raises(DataError, match="'P1' and 'p1', which differ in case"):
        _ = make(one, ("patient_id", rows("p1", "P3"))).datasets
    names = ("unit", rows("a", "b")), ("unit", rows("A", "B"))
    assert make(*names).unit_kind == "image"  # names of single images say nothing
