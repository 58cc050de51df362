"""`vgmedgen-client install` and `models`: what is let in at a hospital, and what is not."""

import json
import shutil
import subprocess
import sys

import pytest
from omegaconf import OmegaConf

from server.publish import publish
from tests.finished import at, coordinator, finish
from tests.officer import said
from vgmedgen.errors import (
    ConfigError,
    PolicyError,
    ReleaseError,
    StateError,
    TrustError,
)
from vgmedgen.files import tree_digests
from vgmedgen.release.install import current
from vgmedgen.release.store import Store
from vgmedgen.trust.journal import Journal
from vgmedgen.trust.signing import SigningKey

OLD, NEW = "demo-old", "demo-new"
BY = ("--by", "A. Officer")


@pytest.fixture(scope="module")
def kits(bundle, micro, tmp_path_factory):
    """A coordinator with two finished runs."""
    made = coordinator(tmp_path_factory.mktemp("coordinator"), bundle)
    finish(made, bundle, micro, OLD, seed=1, created=at(2025))
    finish(made, bundle, micro, NEW, seed=2, created=at(2026))
    return made


@pytest.fixture(scope="module")
def published(kits, tmp_path_factory):
    """Its releases by run, read only."""
    out = tmp_path_factory.mktemp("published")
    return {run: publish(kits, run, out) for run in (OLD, NEW)}


@pytest.fixture
def site(hospital, kits):
    """A hospital that trusts that coordinator."""
    edit(hospital.folder, coordinators=[kits.signing_key().public])
    return hospital.folder


@pytest.fixture(scope="module")
def holding(hospitals, kits, published, tmp_path_factory):
    """A hospital that holds both releases, the newer in use; read only."""
    folder = tmp_path_factory.mktemp("holding") / "site"
    shutil.copytree(hospitals[0], folder)
    edit(folder, coordinators=[kits.signing_key().public])
    for run in (OLD, NEW):
        install(folder, published[run].file)
    return folder


@pytest.fixture
def held(holding, tmp_path):
    """The same, to be written."""
    shutil.copytree(holding, tmp_path / "held")
    return tmp_path / "held"


def edit(folder, **policy):
    path = folder / "site.yaml"
    OmegaConf.save(OmegaConf.merge(OmegaConf.load(path), {"policy": policy}), path)


def install(site, source, *more):
    return said("install", source, "--site", site, *BY, *more)


def models(site, *words, code=0):
    return said("models", *words, "--site", site, code=code)


def log_of(site):
    journal = Journal(site / "audit.jsonl")
    assert journal.verify().count
    return journal.entries()


def state(site):
    """Everything that is installed at a site."""
    found = tree_digests(site / "releases", leave_out=frozenset({".lock", "lock"}))
    return {name: sha for name, sha in found.items() if "lock" not in name}


def refused(site, source, kind, match, *more):
    """One line with a code, both in the audit log; what was in use stays so."""
    before = state(site)
    with pytest.raises(kind, match=match) as caught:
        install(site, source, *more)
    assert "\n" not in str(caught.value)
    assert state(site) == before
    asked, told = log_of(site)[-2:]
    assert (asked["event"], asked["decision"]) == ("install", "approved")
    assert (told["event"], told["decision"]) == ("install", "refused")
    assert told["code"] == caught.value.code
    assert told["approved_by"] == "A. Officer"
    return str(caught.value)


def changed(published, tmp_path, how):
    """A copy of a release folder that somebody had their hands on."""
    folder = tmp_path / "changed"
    shutil.copytree(published.folder, folder)
    how(folder)
    return folder


@pytest.mark.parametrize("form", ["file", "folder"])
def test_a_release_that_was_carried_here_is_installed(site, published, form):
    told = install(site, getattr(published[NEW], form))
    assert published[NEW].digest in told
    assert NEW in told
    assert current(site / "releases").parent.name == published[NEW].digest[:16]
    assert Store(site / "releases").verify(published[NEW].digest[:16]).current
    asked, done = log_of(site)
    assert (asked["event"], asked["decision"]) == ("install", "approved")
    assert (done["event"], done["decision"]) == ("install", "accepted")
    assert done["digest"] == published[NEW].digest
    assert done["run"] == NEW
    assert done["coordinator"] == published[NEW].coordinator
    assert {asked["approved_by"], done["approved_by"]} == {"A. Officer"}


def test_a_site_that_trusts_nobody_is_told_what_to_do(site, published):
    edit(site, coordinators=[])
    told = refused(site, published[NEW].file, PolicyError, "policy.coordinators")
    assert "coordinator.pub" in told


def test_the_release_of_an_unknown_coordinator_is_refused(held, published):
    edit(held, coordinators=[SigningKey.make().public])
    refused(held, published[NEW].file, PolicyError, "does not list")


def test_a_release_that_nobody_signed_is_refused(held, published, tmp_path):
    bare = changed(published[NEW], tmp_path, lambda f: (f / "signature.json").unlink())
    refused(held, bare, PolicyError, "not signed")


def test_a_signature_of_another_release_is_refused(held, published, tmp_path):
    def swap(folder):
        other = published[OLD].folder / "signature.json"
        shutil.copyfile(other, folder / "signature.json")

    spoilt = changed(published[NEW], tmp_path, swap)
    refused(held, spoilt, ReleaseError, "the signature is that of release")


def test_another_date_under_the_signature_is_refused(held, published, tmp_path):
    def later(folder):
        path = folder / "signature.json"
        path.write_text(path.read_text().replace("2025-", "2030-"))

    # to be newer than what is in use is what somebody would want
    refused(held, changed(published[OLD], tmp_path, later), TrustError, "did not sign")


def test_a_changed_byte_of_the_file_is_refused(held, published, tmp_path):
    content = published[NEW].file.read_bytes()
    for place in (0, len(content) // 3, len(content) // 2, len(content) - 1):
        file = tmp_path / "changed.vgrel"
        file.write_bytes(
            content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]
        )
        refused(held, file, ReleaseError, r"changed\.vgrel is no release file")


def test_a_file_that_is_none_is_refused(held, published, tmp_path):
    half = tmp_path / "half.vgrel"
    half.write_bytes(published[NEW].file.read_bytes()[:1000])
    empty = tmp_path / "empty.vgrel"
    empty.write_bytes(b"")
    for source, why in (
        (half, "does not end as"),
        (empty, "does not end as"),
        (tmp_path / "nothing.vgrel", "there is no release"),
        (tmp_path, "is no release: it has no manifest"),
        (tmp_path / ("x" * 300), "there is no release"),
    ):
        refused(held, source, ReleaseError, why)


def test_a_release_for_another_base_is_refused(
    site, kits, bundle, micro, published, monkeypatch
):
    other = {**bundle.manifest, "seed": 99}
    made = type(bundle)(bundle.folder, other)
    monkeypatch.setattr("client.models.decisions.open_bundle", lambda *_, **__: made)
    (site / "releases").mkdir()
    refused(site, published[NEW].file, ReleaseError, "was made for base")


def test_an_older_release_is_installed_only_when_asked_to(held, published):
    models(held, "remove", published[OLD].digest[:16], *BY)
    told = refused(held, published[OLD].file, ReleaseError, "allow-downgrade")
    assert "2025-03-01" in told
    assert "2026-03-01" in told
    install(held, published[OLD].file, "--allow-downgrade")
    assert current(held / "releases").parent.name == published[OLD].digest[:16]


def test_models_lists_what_is_installed_and_marks_the_one_in_use(held, published):
    told = models(held)
    assert told == models(held, "list")
    head, *lines = told.splitlines()
    for word in ("name", "run", "created", "signed by", "installed"):
        assert word in head
    marked = {line.split()[1] for line in lines if line.startswith("*")}
    assert marked == {published[NEW].digest[:16]}
    assert len(lines) == 2
    rows = {row["run"]: row for row in json.loads(models(held, "list", "--json"))}
    assert rows == {row["run"]: row for row in json.loads(models(held, "--json"))}
    for run in (OLD, NEW):
        assert rows[run]["digest"] == published[run].digest
        assert rows[run]["signed_by"] == published[run].coordinator
        assert rows[run]["created"] == published[run].created
        assert rows[run]["current"] is (run == NEW)


def test_a_site_without_releases_says_so(site):
    assert "no release is installed here yet" in models(site)
    assert json.loads(models(site, "--json")) == []
    with pytest.raises(ReleaseError, match="no installed release yet"):
        models(site, "roll-back", *BY)
    with pytest.raises(ReleaseError, match="no release starts with"):
        models(site, "use", "abc", *BY)
    models(site, "verify")


def test_a_person_chooses_among_what_is_installed_and_it_is_logged(held, published):
    old, new = published[OLD].digest, published[NEW].digest
    assert OLD in models(held, "use", old[:8], *BY)
    assert current(held / "releases").parent.name == old[:16]
    assert NEW in models(held, "roll-back", *BY)
    assert current(held / "releases").parent.name == new[:16]
    assert OLD in models(held, "remove", old[:16], *BY)
    assert [one.digest for one in Store(held / "releases").all()] == [new]
    done = [entry for entry in log_of(held) if entry["decision"] == "accepted"][2:]
    assert [entry["event"] for entry in done] == ["use", "roll-back", "remove"]
    assert [entry["digest"] for entry in done] == [old, new, old]
    assert {entry["approved_by"] for entry in done} == {"A. Officer"}


def test_the_release_in_use_is_not_removed(held, published):
    before = state(held)
    with pytest.raises(ReleaseError, match="is in use"):
        models(held, "remove", published[NEW].digest[:16], *BY)
    assert state(held) == before
    last = log_of(held)[-1]
    assert (last["event"], last["decision"]) == ("remove", "refused")
    assert last["digest"] == published[NEW].digest


def test_a_release_of_a_coordinator_no_longer_trusted_is_not_taken_up_again(
    held, published
):
    for trusted in ([SigningKey.make().public], []):
        edit(held, coordinators=trusted)
        for words in (["use", published[OLD].digest[:16]], ["roll-back"]):
            with pytest.raises(PolicyError, match="does not list"):
                models(held, *words, *BY)
            assert current(held / "releases").parent.name == published[NEW].digest[:16]
            last = log_of(held)[-1]
            assert (last["decision"], last["code"]) == ("refused", PolicyError.code)
            assert last["digest"] == published[OLD].digest


@pytest.mark.parametrize("left", [0, 1])
def test_what_was_signed_by_a_key_that_was_dropped_draws_nothing(
    held, published, tmp_path, left
):
    from vgmedgen.site.folder import Site
    from vgmedgen.studio.work import Studio
    from vgmedgen.synthesis.asked import Ask
    from vgmedgen.synthesis.job import Options, model_of, synthesize

    edit(held, coordinators=[SigningKey.make().public] * left, ungated=True)
    asks, options = [Ask(number=0, prompt="a lesion", seed=1)], Options(gate=False)
    for named in ("", published[OLD].digest[:8]):
        site = Site(held)
        model = model_of(site, named)
        with pytest.raises(PolicyError, match="is no longer trusted"):
            synthesize(site, model, asks, tmp_path / "out", options)
        with pytest.raises(PolicyError, match="is no longer trusted"):
            Studio(site, model)
    assert not (tmp_path / "out").exists()
    told = models(held, "verify", code=1)
    assert told.count("✗") == 2
    assert told.count("is no longer trusted") == 2


def test_verify_spells_out_what_somebody_called_a_file(held, published):
    folder = held / "releases" / published[OLD].digest[:16] / "pipeline"
    (folder / "a\x1b[2J\n✓ whole").write_text("")
    told = models(held, "verify", code=1)
    assert "\x1b" not in told
    assert len(told.splitlines()) == 2


def test_verify_names_what_is_damaged_and_ends_with_1(held, published):
    told = models(held, "verify")
    assert told.count("✓") == 2
    old = held / "releases" / published[OLD].digest[:16]
    path = next((old / "pipeline" / "transformer").glob("*.safetensors"))
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    told = models(held, "verify", code=1)
    assert f"✓ {published[NEW].digest[:16]}" in told
    assert f"✗ {published[OLD].digest[:16]}" in told
    assert "✗" in models(held, "verify", published[OLD].digest[:8], code=1)
    assert "✗" not in models(held, "verify", published[NEW].digest[:8])
    with pytest.raises(ReleaseError, match="has changed since"):
        models(held, "use", published[OLD].digest[:16], *BY)
    assert current(held / "releases").parent.name == published[NEW].digest[:16]


def test_who_decides_must_have_a_name_that_a_log_can_hold(held, published):
    before = len(log_of(held))
    with pytest.raises(ConfigError, match="--by"):
        said("install", published[NEW].file, "--site", held, "--by", "<b>1</b>")
    assert len(log_of(held)) == before


def test_nothing_is_installed_that_the_log_cannot_hold(held, published):
    before = state(held)
    (held / "audit.jsonl").unlink()
    (held / "audit.head").unlink()
    (held / "audit.jsonl").mkdir()
    with pytest.raises(StateError, match=r"audit\.jsonl"):
        install(held, published[OLD].file, "--allow-downgrade")
    with pytest.raises(StateError, match=r"audit\.jsonl"):
        models(held, "use", published[OLD].digest[:16], *BY)
    assert state(held) == before


def test_a_folder_that_is_no_site_gets_no_file(published, tmp_path):
    with pytest.raises(ConfigError, match=r"site\.yaml"):
        install(tmp_path, published[NEW].file)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "verb", [["list"], ["use"], ["roll-back"], ["verify"], ["remove"]]
)
def test_every_verb_has_help_with_an_example(verb):
    told = " ".join(said("models", *verb, "--help").split())
    assert f"example: vgmedgen-client models {' '.join(verb)}" in told
    assert "example: vgmedgen-client install" in " ".join(
        said("install", "--help").split()
    )


def test_help_imports_nothing_that_is_slow():
    slow = ("torch", "flwr", "diffusers", "numpy", "omegaconf", "cryptography")
    code = (
        "import sys; from client.cli import app; "
        f"sys.exit(any(name in sys.modules for name in {slow}))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
