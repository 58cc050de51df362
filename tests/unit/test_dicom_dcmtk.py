"""What we read of files by others is what dcmtk reads of them."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom.data import get_testdata_file

from vgmedgen.data import dicom


@pytest.mark.parametrize(
    "name",
    [
        *("MR_small_implicit", "MR_small_bigendian", "SC_rgb_rle_16bit"),
        *("SC_ybr_full_422_uncompressed", "examples_palette", "liver_1frame"),
    ],
)
def test_dcmtk_sees_the_same_in_files_by_others(tmp_path: Path, name: str) -> None:
    tool = shutil.which("dcm2pnm")
    if tool is None:
        pytest.skip("dcm2pnm is not installed")
    path = get_testdata_file(f"{name}.dcm", download=False)
    if path is None:
        pytest.skip(f"pydicom came without {name}.dcm")
    out = tmp_path / "a.png"
    for window in (["--use-window", "1"], []):
        if not out.exists():
            subprocess.run([tool, "--write-png", *window, path, out], check=False)
    expected = np.asarray(Image.open(out).convert("RGB")).astype(int)
    assert np.ptp(expected) > 50
    assert np.abs(dicom.read_pixels(Path(path)) - expected).max() <= 1
