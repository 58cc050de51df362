"""A kits folder of two sites on a base bundle that is real and empty."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from server.provision import Provisioned, provision
from vgmedgen.base import seal
from vgmedgen.trust import nodekeys

SITES = ("hospital-a", "hospital-b")


def seal_base(folder: Path) -> Path:
    (folder / "vae").mkdir(parents=True)
    (folder / "vae" / "weights").write_text("weights")
    return seal(folder, {"image_px": 32}).folder


def made(base: Path, *sites: str, **changes) -> Provisioned:
    asked = {
        "sites": list(sites or SITES),
        "host": "fl.example.org",
        "port": 8443,
        "out": base.parent / "kits",
        "base": base,
    }
    return provision(**asked | changes)


def contents(folder: Path) -> dict[str, bytes]:
    paths = sorted(folder.rglob("*"))
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in paths
        if path.is_file()
    }


def days_until(end: datetime) -> int:
    return round((end - datetime.now(UTC)) / timedelta(days=1))


def line(tmp_path: Path, name: str) -> str:
    return nodekeys.make(tmp_path / "keys" / f"{name}.key")
