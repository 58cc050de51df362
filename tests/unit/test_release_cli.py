"""`vgmedgen release`: what is shown of a release, and what is refused."""

import json
import sys

import pytest

from tests.releases import KEY, make
from vgmedgen import cli
from vgmedgen.release.archive import pack
from vgmedgen.trust.signing import SigningKey


@pytest.fixture(scope="module")
def release(bundle, micro, tmp_path_factory):
    """A signed release, as a folder and beside it as one file; read only."""
    folder = tmp_path_factory.mktemp("published") / "r-1"
    made = make(folder, bundle, micro.plan)
    pack(folder, folder.with_suffix(".vgrel"))
    (folder.parent / "coordinator.pub").write_text(f"{KEY.public}\n")
    return made


@pytest.fixture
def said(monkeypatch, capsys):
    """Runs `vgmedgen release ...`; tells exit code, output and what was complained of."""

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["vgmedgen", "release", *map(str, words)])
        try:
            cli.main()
            code = 0
        except SystemExit as error:
            code = error.code or 0
        told = capsys.readouterr()
        return code, told.out, told.err

    return run


def test_a_release_is_shown_in_words(release, said):
    code, out, _ = said("show", release.folder)
    assert code == 0
    assert f"signed by {KEY.public[:16]} on 2026-01-02T03:04:05Z" in out
    assert "the key is not checked" in out
    assert release.signature.release in out
    for word in ("a, b", "a 20-49, b 1-4", "training_loss 0.5", "r-1"):
        assert word in out
    assert "{" not in out
    assert "'" not in out


@pytest.mark.parametrize("verb", ["show", "verify"])
def test_a_release_of_another_form_is_told_in_one_line(
    release, said, tmp_path, monkeypatch, verb
):
    from vgmedgen.release import facts

    now = facts.FORM
    monkeypatch.setattr(facts, "FORM", now + 1)  # as the next version might
    for source in (release.folder, release.folder.with_suffix(".vgrel")):
        code, out, complained = said(verb, source)
        assert code != 0
        assert out == ""
        assert len(complained.splitlines()) == 1
        other = f"is written in form {now}, this software reads form {now + 1}"
        assert other in complained
        assert "ask for it anew" in complained


def test_one_file_is_shown_as_the_folder_is(release, said):
    shown = said("show", release.folder)
    assert said("show", release.folder.with_suffix(".vgrel")) == shown


def test_json_tells_the_whole_manifest(release, said):
    code, out, _ = said("show", release.folder, "--json")
    told = json.loads(out)
    assert code == 0
    assert told["manifest"] == release.manifest
    assert told["signature"]["coordinator"] == KEY.public
    assert told["digest"] == release.signature.release
    assert told["key_checked"] is False


def test_a_release_is_verified_against_base_and_key(release, bundle, said):
    pub = release.folder.parent / "coordinator.pub"
    for key in (KEY.public, pub):
        code, out, _ = said(
            "verify", release.folder, "--base", bundle.folder, "--key", key
        )
        assert code == 0
        assert "is whole: 8 files" in out
        assert "the key is one of yours" in out


def test_a_release_by_another_key_is_refused(release, said):
    other = SigningKey.make().public
    for verb in ("verify", "show"):
        code, out, err = said(verb, release.folder, "--key", other)
        assert code == 1
        assert not out
        assert KEY.public[:16] in err
        assert "[VG40]" in err


def test_what_is_no_key_is_told(release, said):
    for word in ("12", release.folder / "README.md", "none.pub"):
        code, _, err = said("verify", release.folder, "--key", word)
        assert code == 1
        assert "coordinator.pub" in err


def test_a_damaged_release_ends_in_one_line(release, said, tmp_path):
    path = tmp_path / "r.vgrel"
    held = bytearray(release.folder.with_suffix(".vgrel").read_bytes())
    held[len(held) // 2] ^= 1
    path.write_bytes(held)
    for source in (path, tmp_path, tmp_path / "none"):
        for verb in ("verify", "show"):
            code, out, err = said(verb, source)
            assert (code, out) == (1, "")
            assert err.count("\n") == 1
            assert "[VG60]" in err


def test_an_unsigned_release_is_shown_as_one(bundle, micro, said, tmp_path):
    made = make(tmp_path / "r", bundle, micro.plan)
    (made.folder / "signature.json").unlink()
    code, out, _ = said("verify", made.folder)
    assert code == 0
    assert "not signed" in out
    assert said("verify", made.folder, "--key", KEY.public)[0] == 1
