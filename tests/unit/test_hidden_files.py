"""What a system or a program puts into folders of its own accord is passed over."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from server.publish import _check_out
from vgmedgen.data import adapters
from vgmedgen.data.layouts import write_phantoms
from vgmedgen.data.phantom import tint_of
from vgmedgen.errors import ConfigError, DataError, StateError
from vgmedgen.files import is_hidden, is_system, visible, visible_below
from vgmedgen.gate.folder import files_of
from vgmedgen.studio.serve import packed
from vgmedgen.synthesis import claims, state

JUNK = ("._a.png", ".DS_Store", "Thumbs.db", "desktop.ini", "._0.png")
FOLDERS = (".job", "__MACOSX", ".Trashes", "@eaDir", "$RECYCLE.BIN", "lost+found")


def littered(folder: Path) -> None:
    """Put into a folder, and into what lies below it, what systems put there."""
    for place in [folder, *(path for path in folder.rglob("*") if path.is_dir())]:
        for name in JUNK:
            (place / name).write_bytes(b"\0\5\x16\7")
        for name in FOLDERS:
            (place / name).mkdir()
            (place / name / "x.png").write_bytes(b"no picture")
            (place / name / "images").mkdir()
            (place / name / "HAM10000_images_part_1").mkdir()
            (place / name / "benign").mkdir()


@pytest.mark.parametrize(
    ("modality", "dataset"),
    [("dermoscopy", "ham10000"), ("ultrasound", "busi"), ("endoscopy", "kvasir-seg")],
)
@pytest.mark.parametrize("above", [False, True])
def test_a_dataset_reads_alike_with_and_without_them(
    tmp_path, modality, dataset, above
):
    root = tmp_path / "above" if above else tmp_path
    write_phantoms(modality, root, 6, 0, 32, tint_of(0))
    before = adapters.read(dataset, root)
    littered(tmp_path)
    assert adapters.read(dataset, root) == before


def test_the_gate_is_shown_pictures_alone(tmp_path):
    for name in ("a.png", "below/b.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / name)
    littered(tmp_path)
    assert files_of([tmp_path]) == [tmp_path / "a.png", tmp_path / "below/b.png"]
    hidden = tmp_path / "._a.png"
    assert files_of([hidden]) == [hidden]  # whoever names a file means it
    with pytest.raises(DataError, match="nothing was compared"):
        files_of([tmp_path / ".job" / "images"])


def test_a_folder_below_a_hidden_one_is_read_when_it_is_named(tmp_path):
    root = tmp_path / ".cache" / "data"
    write_phantoms("ultrasound", root, 6, 0, 32, tint_of(0))
    assert len(adapters.read("busi", root).records) == 6
    assert len(files_of([root])) > 6


def test_an_export_holds_nothing_hidden(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "0.png").write_bytes(b"cleared")
    (tmp_path / "quarantine").mkdir()
    (tmp_path / "quarantine" / "1.png").write_bytes(b"held back")
    littered(tmp_path)
    with zipfile.ZipFile(io.BytesIO(packed(tmp_path))) as archive:
        assert archive.namelist() == [f"{tmp_path.name}/images/0.png"]


def test_a_job_does_not_stop_at_what_a_desktop_left(tmp_path):
    (tmp_path / ".DS_Store").write_bytes(b"x")
    (tmp_path / "._0.png").write_bytes(b"x")
    state.check(tmp_path, {}, resume=False)
    assert list(claims._others(tmp_path, set())) == []
    (tmp_path / ".0.png").write_bytes(b"an image that nobody compared")
    assert list(claims._others(tmp_path, set())) == [".0.png"]
    with pytest.raises(ConfigError, match="not empty"):
        state.check(tmp_path, {}, resume=False)


def test_a_link_or_a_folder_is_nothing_that_a_desktop_left(tmp_path):
    (tmp_path / ".DS_Store").mkdir()
    (tmp_path / "._a.png").symlink_to("/etc/hostname")
    assert not any(map(is_system, tmp_path.iterdir()))
    assert set(claims._others(tmp_path, set())) == {".DS_Store", "._a.png"}


def test_a_folder_of_releases_counts_as_empty_with_them(tmp_path):
    (tmp_path / ".DS_Store").write_bytes(b"x")
    _check_out(tmp_path)
    (tmp_path / "a.txt").write_text("a file of somebody's")
    with pytest.raises(StateError, match=r"holds a\.txt, which is no release"):
        _check_out(tmp_path)


def test_names_of_people_are_not_hidden(tmp_path):
    for name in ("a.png", "macosx", "a.DS_Store", "_a.png", "thumbs", "lost"):
        assert not is_hidden(name)
        (tmp_path / name).touch()
    littered(tmp_path)
    assert len(visible(tmp_path)) == len(visible_below(tmp_path)) == 6
