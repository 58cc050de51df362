"""A made-up run, awkward where runs are, for the tests of the report."""

import numpy as np
from PIL import Image

LABELS = {
    "melanocytic nevus": 412,
    "melanoma": 61,
    "benign keratosis": 58,
    "basal cell carcinoma": 27,
    "actinic keratosis": 14,
    "vascular lesion": 6,
    "dermatofibroma": 5,
}
LONG = (
    "a dermoscopic image of a melanoma on the back, "
    + "with a broad pigment network, " * 40
)


def curve(start, end, steps, seed):
    rng = np.random.default_rng(seed)
    at = np.arange(steps)
    loss = end + (start - end) * np.exp(-at / (steps / 5))
    loss = loss * rng.normal(1, 0.08, steps)
    return [[int(step), float(value)] for step, value in zip(at, loss, strict=True)]


def picture(path, seed, px=64):
    noise = np.random.default_rng(seed).integers(0, 255, (px, px, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    return path


def example(names, folder, *, pairs=None, rounds=5, studies=True):
    """A made-up run over `names`; the last site gains nothing."""
    rng = np.random.default_rng(7)
    base = {name: 0.18 + 0.03 * rng.random() for name in names}
    gain = {name: 0.04 * rng.random() + 0.015 for name in names}
    if len(names) > 1:
        gain[names[-1]] = -0.0011
    federated = {name: base[name] - gain[name] for name in names}
    local = {
        at: {
            on: federated[on]
            + (0.02 * rng.random() + 0.005) * (-0.2 if at == on else 1)
            for on in names
        }
        for at in names
    }
    losses = {
        name: {"base": base[name], "federated": federated[name]} for name in names
    }
    gaps = {
        name: {"base": 0.004 * rng.random(), "federated": 0.009 + 0.006 * rng.random()}
        for name in names
    }
    report = {
        "title": "Four dermatology sources train one model",
        "experiment": "ham10000-sources",
        "created": "2025-11-21 09:14 UTC",
        "seed": 0,
        "version": "0.1.0",
        "run": "r-20251121-091402",
        "config_digest": "3f" * 32,
        "base": {"digest": "a7" * 32, "source": "made here from 3000 phantoms, seed 0"},
        "release": {"digest": "c1" * 32, "folder": folder / "release"},
        "unit_note": None,
        "sites": [
            {
                "name": name,
                "dataset": "ham10000",
                "modality": "dermoscopy",
                "unit_kind": "lesion" if index else "image",
                "units": {"train": 380 - 31 * index, "heldout": 95 - 8 * index},
                "images": {"train": 466 - 33 * index, "heldout": 117 - 9 * index},
                "labels": {k: max(1, v - 23 * index) for k, v in LABELS.items()},
            }
            for index, name in enumerate(names)
        ],
        "rounds": [],
        "loss_curves": {
            name: {
                "prior": curve(1.4, 0.35, 80, index),
                "mapper": curve(1.9, 0.6, 240, index + 50),
                "generate": curve(0.24, 0.15, 360, index + 90),
            }
            for index, name in enumerate(names)
        },
        "heldout_denoising_loss": losses,
        "caption_gap": gaps,
        "caption_gap_spread": {n: {"base": 0.0011, "federated": 0.0009} for n in names},
        "alignment": {
            "rounds": [
                {
                    "round": at,
                    "sites": {
                        "anatomy": 0.5 + 0.08 * at,
                        "style": 0.2 + 0.15 * at,
                    },
                    "mapper": {
                        "anatomy": 0.4 + 0.1 * at,
                        "style": 0.3 + 0.1 * at,
                    },
                }
                for at in (1, 2)
            ]
        },
        "seconds": {
            "base": 61.4,
            "sites": 3.2,
            "align": 94.0,
            "generate": 3921.7,
            "release": 0.8,
        },
        "images": pairs or {},
        "notes": [
            "The sites are virtual: one public dataset, split by where it came from."
        ],
    }
    for at in range(1, rounds + 1):
        align = at <= 2
        left = {names[1]: "VG50"} if at == 3 and len(names) > 2 else {}
        here = [name for name in names if name not in left]
        report["rounds"].append(
            {
                "number": at,
                "stage": "align" if align else "generate",
                "counted": True,
                "sites": here,
                "left_out": left,
                "seconds": 40.0 + at,
                "bytes_to": dict.fromkeys(names, 812_344),
                "bytes_from": dict.fromkeys(here, 274_432 if align else 537_912),
                "loss": dict.fromkeys(here, 0.9 / at),
                "heldout_loss": {}
                if align
                else {n: base[n] - gain[n] * (at - 2) / 3 for n in here},
            }
        )
    if studies:
        report["local_on_sites"] = local
        for name in names:
            losses[name] |= {
                "local": local[name][name],
                "pooled": federated[name] - 0.003,
            }
        if len(names) > 1:
            report["others"] = {
                "federated": federated,
                "local_mean": {
                    on: sum(local[at][on] for at in names if at != on)
                    / (len(names) - 1)
                    for on in names
                },
            }
        report["alignment"]["variants"] = {
            "independent": {
                "sites": {"anatomy": -0.02, "style": 0.01},
                "mapper": {"anatomy": 0.1, "style": 0.0},
            },
            "common_start": {
                "sites": {"anatomy": 0.56, "style": -0.01},
                "mapper": {"anatomy": 0.5, "style": 0.1},
            },
            "anchor": {
                "sites": {"anatomy": 0.66, "style": 0.5},
                "mapper": {"anatomy": 0.6, "style": 0.5},
            },
        }
    return report
