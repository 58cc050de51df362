"""Examines what is installed, the base bundle, and what the machine has for it."""

import math
import os
import platform
import shutil
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from client.preflight.finding import Caution
from client.preflight.place import Place
from vgmedgen.errors import StateError

FLOWER = "1.41.0"  # its inside moves between versions
PYTHONS = ("3.11", "3.12")
GIB = 2**30
RESERVE_GIB = 1.0  # of disk: logs, ledger, updates of rounds


class Need(NamedTuple):
    """What a preset takes at rank 8 and its default batch, GiB."""

    gpu: float  # 0: trains without one
    memory: float
    without_gpu: bool  # whether a CPU alone gets anywhere


# Estimates, from the sizes of the weights and a little room, not measurements.
NEEDS = {
    "tiny": Need(gpu=0, memory=2, without_gpu=True),
    "small": Need(gpu=6, memory=4, without_gpu=True),
    "pixart-512": Need(gpu=16, memory=16, without_gpu=False),
}


def versions(place: Place) -> str:
    """What is installed is what this version was tested with."""
    del place
    python = platform.python_version()
    if python.rpartition(".")[0] not in PYTHONS:
        raise StateError(
            f"this is Python {python}; install it with {' or '.join(PYTHONS)}"
        )
    flower = metadata.version("flwr")
    if flower != FLOWER:
        raise StateError(
            f"flwr {flower} is installed, and only {FLOWER} is known to work; "
            f"pip install flwr=={FLOWER}"
        )
    ours, torch = metadata.version("vgmedgen"), metadata.version("torch")
    return f"vgmedgen {ours}, flwr {flower}, torch {torch}, Python {python}"


def base(place: Place) -> str | Caution:
    """The base bundle is whole, and the one that the coordinator named."""
    bundle = place.site.bundle
    told = f"{_preset(place)}, {bundle.image_px} px, digest {bundle.digest[:16]}"
    if not place.site.config.base_digest:
        return Caution(
            f"{told}; base_digest names none to compare it with",
            "copy base_digest from the kit's site.yaml",
        )
    return f"{told}, as base_digest says"


def gpu(place: Place) -> str | Caution:
    """There is the GPU that the base's size needs, with enough memory free."""
    import torch  # noqa: PLC0415 - costs seconds

    need, device = NEEDS.get(_preset(place)), place.site.config.device
    if need is None:
        return _no_estimate(place)
    if device == "cpu" or not torch.cuda.is_available():
        if device not in {"auto", "cpu"}:
            raise StateError(
                f"device is {device}, and torch sees no GPU; mend the driver, or set "
                "device: auto"
            )
        if not need.gpu:
            return "none needed"
        if not need.without_gpu:
            raise StateError(
                f"{_preset(place)} needs a GPU with about {need.gpu:g} GiB, and there is "
                f"{'one that device: cpu leaves idle' if device == 'cpu' else 'none'}; "
                "train on a machine with one"
            )
        return Caution(
            f"none is used; {_preset(place)} trains on the CPU, many times slower",
            "take a machine with a GPU if rounds are to be answered in time",
        )
    free, whole = (number / GIB for number in torch.cuda.mem_get_info())
    name = torch.cuda.get_device_name()
    told = f"{name}, {free:.0f} of {whole:.0f} GiB free, about {need.gpu:g} needed"
    if free < need.gpu:
        raise StateError(f"{told}; stop what else uses it, or take a larger one")
    return told


def memory(place: Place) -> str | Caution:
    """There is enough main memory for the base's size."""
    need, free = NEEDS.get(_preset(place)), _available() / GIB
    if need is None:
        return _no_estimate(place)
    told = f"{free:.0f} GiB free, about {need.memory:g} needed"
    if free < need.memory:
        raise StateError(f"{told}; stop other programs, or take a larger machine")
    return told


def disk(place: Place) -> str:
    """There is room for prepared samples and for releases."""
    bundle = place.site.bundle
    images = sum(len(dataset.records) for dataset in place.datasets)
    weights = sum(path.stat().st_size for path in bundle.folder.rglob("*"))
    cache = images * _sample_bytes(bundle.image_px)
    # a release is a whole pipeline, installed beside the one before it
    need = (cache + 2 * weights) / GIB + RESERVE_GIB
    free = shutil.disk_usage(place.folder).free / GIB
    # whole GiB: a finer number would tell how many images there are
    told = f"{free:.0f} GiB free, about {math.ceil(need)} needed for cache and releases"
    if free < need:
        raise StateError(f"{told}; free some space, or move the site to a larger disk")
    return told


def _preset(place: Place) -> str:
    return str(place.site.bundle.manifest.get("model", {}).get("preset", "unknown"))


def _no_estimate(place: Place) -> Caution:
    return Caution(
        f"there is no estimate for the preset '{_preset(place)[:40]}'",
        f"known are {', '.join(NEEDS)}; try one round before a long run",
    )


def _sample_bytes(px: int) -> int:
    pixels = 4 * px * px  # image and mask, a byte a value
    latent = 4 * 4 * (px // 8) ** 2  # four channels of float32
    return pixels + latent + 8192  # caption embedding, words, header, the disk's blocks


def _available() -> int:
    """Bytes of main memory that programs could get without swapping."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
        told = dict(line.split(":", 1) for line in lines)
        return int(told["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
