"""What somebody might send, sign, leave about or name in order to be installed."""

import json
import os
import shutil
import struct

import pytest

from tests.releases import TRUSTED, name_of, scratch
from vgmedgen.cli.shared import one_line
from vgmedgen.errors import PolicyError, ReleaseError, StateError
from vgmedgen.release import verify as verifying
from vgmedgen.release.archive import opened, pack, unpack
from vgmedgen.release.install import install_from
from vgmedgen.release.signature import FILE
from vgmedgen.release.store import DAMAGED
from vgmedgen.release.verify import manifest_json, verify

ESCAPE = "\x1b[2J\x1b]0;mine\x07\nwhole"


def told(error):
    """What was said: one line that moves no cursor."""
    said = str(error.value)
    assert said.isprintable(), said
    assert said.isascii()
    assert len(said) < 600
    return said


def altered(folder, **facts):
    """Have the manifest say something else."""
    path = folder / "manifest.json"
    path.write_text(manifest_json(json.loads(path.read_text()) | facts))


# what is told of what somebody has written


@pytest.mark.parametrize("name", [ESCAPE, "\ud800", "../../etc/passwd", "A" * 10_000])
def test_names_of_an_unsigned_manifest_reach_no_terminal(carried, tmp_path, name):
    listed = json.loads((carried / "manifest.json").read_text())["files"]
    altered(carried, files=listed | {name: "0" * 64})
    with pytest.raises(ReleaseError) as caught:
        verify(carried)
    assert "manifest.json is damaged" in told(caught)
    assert name not in str(caught.value)


@pytest.mark.parametrize("name", [ESCAPE + ".json", os.fsdecode(b"\xff\xfe.json")])
def test_names_of_files_are_spelled_out(carried, store, by_year, name):
    for folder in (carried, store.releases / name_of(by_year[2025]) / "pipeline"):
        (folder / name).write_text("")
    with pytest.raises(ReleaseError) as caught:
        verify(carried)
    assert "\\x" in told(caught) or "\\udc" in told(caught)
    with pytest.raises(ReleaseError) as caught:
        pack(carried, carried.parent / "r.vgrel")
    assert "does not belong" in told(caught)
    with pytest.raises(ReleaseError) as caught:
        store.verify(name_of(by_year[2025]))
    assert "has changed" in told(caught)


def test_an_altered_run_name_is_not_listed(store, by_year):
    altered(store.releases / name_of(by_year[2025]) / "release", run=ESCAPE)
    assert {one.run for one in store.all()} == {"r-2023", DAMAGED}


def test_what_a_person_typed_is_spelled_out(store):
    with pytest.raises(ReleaseError) as caught:
        store.find(ESCAPE)
    assert "no release starts with" in told(caught)


def test_a_line_on_the_terminal_holds_no_sign_that_acts():
    said = one_line(f"caf\u00e9 \u2717 {ESCAPE}\r\u202e\x9b\ud800")
    assert said.startswith("caf\u00e9 \u2717 \\x1b[2J")
    assert said.isprintable()
    assert said.encode()


def test_what_is_wrong_with_a_file_is_told_of_that_file(by_year, tmp_path):
    folder = shutil.copytree(by_year[2025].folder, tmp_path / "spoilt")
    (folder / "further.json").write_text("{}")
    file = tmp_path / "r.vgrel"
    pack(folder, file)
    with pytest.raises(ReleaseError) as caught, opened(file) as inside:
        verify(inside)
    assert f"release {file}: further.json" in str(caught.value)


# what would cost a reader too much


def test_a_second_table_of_contents_is_not_believed(tmp_path):
    rows = struct.pack(
        "<4s6H3I5H2I", b"PK\1\2", 0, 20, 0, 0, 0, 33, 0, 0, 0, 1, *[0] * 6
    )
    table = (rows + b"a") * 100_000
    numbers = 100_000, 100_000, len(table), 0
    further = struct.pack("<4sQHHIIQQQQ", b"PK\6\6", 44, 45, 45, 0, 0, *numbers)
    place = struct.pack("<4sIQI", b"PK\6\7", 0, len(table), 1)
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 1, 1, 47, 0, 0)
    path = tmp_path / "r.vgrel"
    path.write_bytes(table + further + place + end)
    read = []

    def counting(*told):
        read.append(told)
        return listed(*told)

    from vgmedgen.release import archive

    listed = archive._listed
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(archive, "_listed", counting)
        with pytest.raises(ReleaseError, match="no whole zip"):
            unpack(path, tmp_path / "out")
    assert [(len(table), count) for _, table, count in read] == [(47, 1)]


@pytest.mark.parametrize("depth", [25, 300, 100_000])
def test_a_plan_that_is_nested_deeply_is_refused_in_one_line(carried, depth):
    for text in (
        '{"generate":' + '{"a":' * depth + "1" + "}" * (depth + 1),
        "[" * depth,
    ):
        (carried / "plan.json").write_text(text)
        files = verifying.parts_of(carried)
        altered(carried, files=files)
        (carried / FILE).unlink(missing_ok=True)
        with pytest.raises(ReleaseError) as caught:
            verify(carried)
        assert "plan.json is damaged" in told(caught)


@pytest.mark.parametrize(
    "text", ["[" * 100_000, "", "null", "[]", '{"files": []}', "{"]
)
def test_a_manifest_in_a_message_that_is_none_is_refused(hospital, text):
    class Order:
        plan = None
        weights = None

    with pytest.raises(ReleaseError, match="nothing was installed"):
        hospital.install(Order(), text)


def test_of_an_untrusted_folder_no_file_is_read(bundle, store, carried, monkeypatch):
    (carried / FILE).unlink()
    with (carried / "further.json").open("wb") as stream:
        stream.truncate(8 << 30)
    monkeypatch.setattr(verifying, "sha256", lambda _: pytest.fail("it was read"))
    with (
        store.alone(),  # nor has anybody to wait for it
        pytest.raises(PolicyError, match="not signed"),
    ):
        install_from(store.releases, bundle, carried, TRUSTED)
    shutil.copy(store.current().release / FILE, carried)
    with pytest.raises(ReleaseError, match=r"further\.json is not what"):
        verify(carried)


@pytest.mark.parametrize("name", ["x" * 300, "a/" + "x" * 300, "/etc/passwd/x"])
def test_a_name_that_no_disk_holds_is_told(bundle, store, name, tmp_path):
    with pytest.raises(ReleaseError, match="there is no release"):
        install_from(store.releases, bundle, tmp_path / name, TRUSTED)
    with (
        pytest.raises(ReleaseError, match="there is no release"),
        opened(tmp_path / name),
    ):
        pass


# what lies about in the folder


@pytest.mark.parametrize(
    "name", [".new-x", "next", "current", ".current.part", ".next.part", "f" * 16]
)
@pytest.mark.parametrize("kind", ["file", "folder", "link", "link to nothing"])
def test_a_foreign_entry_stops_neither_an_installation_nor_a_choice(
    bundle, by_year, store, tmp_path, name, kind
):
    mine = tmp_path / "mine"
    (mine / "deep").mkdir(parents=True)
    (mine / "deep" / "thesis").write_text("x")
    place = store.releases / name
    place.unlink(missing_ok=True)
    make_it = {
        "file": lambda: place.write_text("x"),
        "folder": lambda: shutil.copytree(mine, place),
        "link": lambda: place.symlink_to(mine),
        "link to nothing": lambda: place.symlink_to(tmp_path / "nothing"),
    }
    make_it[kind]()
    install_from(
        store.releases, bundle, by_year[2024].folder, TRUSTED, allow_downgrade=True
    )
    assert store.current().run == "r-2024"
    assert store.use(name_of(by_year[2023])).run == "r-2023"
    if name == "f" * 16:
        store.remove(name)
    assert not scratch(store.releases)
    assert (mine / "deep" / "thesis").read_text() == "x"
    assert not (tmp_path / "nothing").exists()


def test_a_release_on_another_disk_can_be_removed(store, by_year, tmp_path):
    name = name_of(by_year[2023])
    shutil.move(store.releases / name, tmp_path / "big")
    (store.releases / name).symlink_to(tmp_path / "big")
    store.verify(name)
    store.remove(name)
    assert not os.path.lexists(store.releases / name)
    assert (tmp_path / "big" / "release").is_dir()
    store.use(name_of(by_year[2025]))
    assert not scratch(store.releases)


def test_what_is_no_lock_is_refused_at_once(store, by_year, tmp_path):
    lock = store.releases / ".lock"
    lock.unlink()
    for spoil in (lock.mkdir, lambda: lock.symlink_to(tmp_path / "elsewhere")):
        spoil()
        with pytest.raises(StateError, match="is no lock file"):
            store.use(name_of(by_year[2023]))
        lock.rmdir() if not lock.is_symlink() else lock.unlink()
    assert not (tmp_path / "elsewhere").exists()
