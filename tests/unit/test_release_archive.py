"""A `.vgrel` file: one form only, and nothing is written of any other."""

import io
import stat
import zipfile

import numpy as np
import pytest

from tests.releases import contents
from vgmedgen.errors import ReleaseError, StateError
from vgmedgen.release import archive
from vgmedgen.release.archive import opened, pack, unpack


@pytest.fixture
def folder(tmp_path):
    """Files such as a release has."""
    made = tmp_path / "release"
    for name in ("README.md", "manifest.json", "adapter/weights.safetensors"):
        (made / name).parent.mkdir(parents=True, exist_ok=True)
        (made / name).write_bytes(name.encode() * 20)
    return made


@pytest.fixture
def packed(folder, tmp_path):
    pack(folder, tmp_path / "r.vgrel")
    return tmp_path / "r.vgrel"


def refused(path, why):
    out = path.parent / "out"
    with pytest.raises(ReleaseError, match=why):
        unpack(path, out)
    assert not out.exists()


def zipped(path, *entries, method=zipfile.ZIP_STORED):
    """A zip by the standard library; an entry is a name or a ZipInfo, and its bytes."""
    with zipfile.ZipFile(path, "w", method) as made:
        for entry, content in entries:
            made.writestr(entry, content)
    return path


def test_what_is_packed_unpacks_equal(folder, packed, tmp_path):
    unpack(packed, tmp_path / "out")
    assert contents(tmp_path / "out") == contents(folder)


def test_the_same_release_gives_the_same_bytes(folder, packed, tmp_path):
    again = tmp_path / "elsewhere" / "release"
    for name, content in reversed(contents(folder).items()):
        (again / name).parent.mkdir(parents=True, exist_ok=True)
        (again / name).write_bytes(content)
        (again / name).chmod(0o600)
    pack(again, tmp_path / "again.vgrel")
    assert (tmp_path / "again.vgrel").read_bytes() == packed.read_bytes()


def test_any_zip_tool_reads_it(folder, packed):
    with zipfile.ZipFile(packed) as read:
        assert read.testzip() is None
        assert {n: read.read(n) for n in read.namelist()} == contents(folder)


def test_every_byte_of_it_counts(packed):
    held = packed.read_bytes()
    draw = np.random.default_rng(0)
    for place in range(len(held)):
        flipped = bytearray(held)
        flipped[place] ^= 1 << int(draw.integers(8))
        packed.write_bytes(flipped)
        refused(packed, "nothing was unpacked")


def test_a_file_that_is_cut_or_grown_is_refused(packed):
    held = packed.read_bytes()
    for spoilt in (b"", held[:-1], held[:40], held + b"\0", b"\0" + held, held + held):
        packed.write_bytes(spoilt)
        refused(packed, "nothing was unpacked")


@pytest.mark.parametrize(
    "name",
    [
        "../evil.json",
        "/evil.json",
        "a/../../evil.json",
        "a/b/c.json",
        "..\\evil.json",
        "a//b.json",
        "./b.json",
        "b.py",
        "b.pkl",
        "b.bin",
        "b.json/",
        "b",
        ".hidden.json",
        "b.json\n",
        "\u00e4.json",
        "x" * 200 + ".json",
    ],
)
def test_an_entry_of_another_name_is_refused(tmp_path, name):
    path = zipped(tmp_path / "r.vgrel", (name, b"{}"))
    refused(path, "entry is called|not laid out|entries, the limit")
    assert not (tmp_path / "evil.json").exists()
    assert not (tmp_path.parent / "evil.json").exists()


def test_a_link_in_an_archive_is_refused(tmp_path):
    link = zipfile.ZipInfo("b.json", (1980, 1, 1, 0, 0, 0))
    link.create_system = 3
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    refused(zipped(tmp_path / "r.vgrel", (link, b"/etc/passwd")), "table of contents")


def test_an_entry_that_is_there_twice_is_refused(tmp_path):
    with pytest.warns(UserWarning, match="Duplicate"):
        path = zipped(tmp_path / "r.vgrel", ("b.json", b"{}"), ("b.json", b"[]"))
    refused(path, "twice")
    refused(zipped(path, ("b.json", b"{}"), ("B.json", b"[]")), "twice")


def test_a_bomb_is_refused_before_it_goes_off(tmp_path, monkeypatch):
    path = tmp_path / "r.vgrel"
    zipped(path, ("b.safetensors", bytes(10**7)), method=zipfile.ZIP_DEFLATED)
    refused(path, "not laid out")
    refused(zipped(path, *((f"b{n}.json", b"") for n in range(65))), "65 entries")
    refused(zipped(path, *((f"b{n}.json", b"") for n in range(3000))), "3000 entries")
    refused(zipped(path, ("b.json", bytes(archive.MOST_TEXT + 1))), "bytes")
    monkeypatch.setattr(archive, "MOST_BYTES", 1000)
    refused(zipped(path, ("b.safetensors", bytes(1001))), "the limit is 1000")


def test_entries_that_share_their_bytes_are_refused(tmp_path):
    # the table names one stretch of the file many times over
    one = io.BytesIO()
    with zipfile.ZipFile(one, "w") as made:
        made.writestr(zipfile.ZipInfo("a.safetensors"), bytes(1000))
        made.filelist.append(made.filelist[0])
        again = zipfile.ZipInfo("b.safetensors")
        again.CRC = made.filelist[0].CRC
        again.file_size = again.compress_size = 1000
        again.header_offset = 0
        made.filelist[1] = again
    path = tmp_path / "r.vgrel"
    path.write_bytes(one.getvalue())
    refused(path, "not laid out|no whole zip")


def test_an_empty_zip_and_no_file_are_refused(tmp_path):
    refused(zipped(tmp_path / "r.vgrel"), "0 entries")
    refused(tmp_path / "none.vgrel", "no release file")


def test_what_does_not_belong_into_a_release_is_not_packed(folder, tmp_path):
    path = tmp_path / "new.vgrel"
    (folder / "run.py").write_text("print()")
    with pytest.raises(ReleaseError, match=r"run\.py does not belong"):
        pack(folder, path)
    (folder / "run.py").unlink()
    (folder / "other.json").symlink_to("/etc/hostname")
    with pytest.raises(ReleaseError, match=r"other\.json does not belong"):
        pack(folder, path)
    assert not path.exists()


def test_a_folder_that_is_there_is_left_alone(packed, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("x")
    with pytest.raises(StateError, match=r"cannot unpack .*r\.vgrel"):
        unpack(packed, tmp_path / "out")
    assert (tmp_path / "out" / "mine").read_text() == "x"


def test_a_disk_that_refuses_leaves_nothing(folder, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StateError, match="cannot write"):
        pack(folder, tmp_path / "file" / "r.vgrel")


def test_a_folder_and_a_file_open_alike(folder, packed):
    with opened(folder) as one, opened(packed) as other:
        assert contents(one) == contents(other)
        kept = other
    assert not kept.exists()
    assert folder.exists()
