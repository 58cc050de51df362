"""Files are whole or absent, and a base bundle tells which byte of it changed."""

import errno
import os
from pathlib import Path

import pytest

from vgmedgen.base import open_bundle, seal
from vgmedgen.errors import BaseError, StateError
from vgmedgen.files import write_bytes, write_text


@pytest.fixture
def bundle(tmp_path: Path):
    folder = tmp_path / "base"
    (folder / "vae").mkdir(parents=True)
    (folder / "vae" / "weights").write_bytes(b"\x00" * 64)
    (folder / "config.json").write_text("{}")
    return seal(folder, {"image_px": 64, "seed": 0})


def test_a_full_disk_leaves_the_old_file_and_is_named(tmp_path: Path, monkeypatch):
    path = tmp_path / "state"
    write_bytes(path, b"old")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StateError, match=r"state: No space left.*free some space"):
        write_bytes(path, b"new")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["state"]


def test_text_is_written_as_utf8_with_its_folders(tmp_path: Path):
    write_text(tmp_path / "a" / "b", "\N{MICRO SIGN}")
    assert (tmp_path / "a" / "b").read_bytes() == "\N{MICRO SIGN}".encode()


def test_an_untouched_bundle_opens_with_the_digest_it_was_sealed_with(bundle):
    assert open_bundle(bundle.folder).digest == bundle.digest
    assert open_bundle(bundle.folder, expect=bundle.digest).image_px == 64


def test_a_changed_byte_is_detected_and_named(bundle):
    path = bundle.folder / "vae" / "weights"
    content = bytearray(path.read_bytes())
    content[17] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(BaseError, match="vae/weights has changed"):
        open_bundle(bundle.folder)


def test_a_missing_and_an_added_file_are_named(bundle):
    (bundle.folder / "extra").write_text("x")
    with pytest.raises(BaseError, match="extra is not in the manifest"):
        open_bundle(bundle.folder)
    (bundle.folder / "extra").unlink()
    (bundle.folder / "config.json").unlink()
    with pytest.raises(BaseError, match=r"config\.json is missing"):
        open_bundle(bundle.folder)


def test_another_digest_than_the_runs_is_refused(bundle):
    with pytest.raises(BaseError, match="the run needs abcdef"):
        open_bundle(bundle.folder, expect="abcdef")


def test_a_folder_without_manifest_and_a_damaged_manifest_are_told_apart(bundle):
    with pytest.raises(BaseError, match="no base bundle"):
        open_bundle(bundle.folder / "vae")
    (bundle.folder / "manifest.json").write_text("{")
    with pytest.raises(BaseError, match="damaged"):
        open_bundle(bundle.folder)
