"""Which published layout the phantoms of a modality are written in."""

from pathlib import Path

from vgmedgen.data.phantom import Tint, write_busi, write_ham10000, write_kvasir_seg

LAYOUTS = {
    "dermoscopy": "ham10000",
    "endoscopy": "kvasir-seg",
    "ultrasound": "busi",
}
"""Modality -> adapter that reads what `write_phantoms` writes."""

_WRITERS = {
    "dermoscopy": write_ham10000,
    "endoscopy": write_kvasir_seg,
    "ultrasound": write_busi,
}


def write_phantoms(
    modality: str, folder: Path, n: int, seed: int, px: int, tint: Tint
) -> None:
    """Write `n` phantoms of a modality in its layout, with sides of about `px`.

    Raises:
        StateError: if the folder cannot be written.
    """
    _WRITERS[modality](folder, n, seed, px, tint)
