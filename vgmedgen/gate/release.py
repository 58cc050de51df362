"""The release gate of one site: opened once, then asked about every synthetic image.

What it reads, the site's own training images, never leaves; a verdict names none of them.
Verdicts are a function of the image and of the site's data alone: not of a batch, not of
what was judged before.
"""

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
import safetensors
import safetensors.torch
import torch
from numpy.typing import NDArray
from torch import Tensor

from vgmedgen.config.ranges import digest_of
from vgmedgen.data.images import as_input, as_uint8
from vgmedgen.errors import ConfigError
from vgmedgen.files import write_bytes
from vgmedgen.gate.calibration import FEWEST, Calibration, Tails, Values
from vgmedgen.gate.compare import (
    DETECTORS,
    DIGITS,
    Compared,
    Comparer,
    described,
    shows_same,
)
from vgmedgen.gate.features import extractor
from vgmedgen.gate.report import Report
from vgmedgen.gate.verdict import REASONS, Neighbour, Verdict
from vgmedgen.site.folder import Site
from vgmedgen.training.samples import Samples

__all__ = ["Neighbour", "ReleaseGate", "Report", "Verdict"]

log = logging.getLogger(__name__)

VERSION = 4  # of what the gate computes; another one calibrates anew
FOLDER = "gate"  # below the site's private cache
DIGEST = 32  # bytes of sha256
USUAL = 100  # training images, at most, that say what is usual


@dataclass(frozen=True)
class _Held:
    """What the held-out images came to, those that are copies left out."""

    values: Values  # (n, detectors)
    distances: Values  # (n,)
    units: list[str]  # (n,)
    copies: int  # left out
    rate: float  # of false alarms, asked for


class ReleaseGate:
    """Compares synthetic images with a site's training images; opened by `of`."""

    def __init__(
        self,
        digest: str,
        samples: tuple[Samples, Samples],
        compare: Comparer,
        held: _Held,
        tails: Tails,
    ) -> None:
        self.digest = digest  # of everything that a verdict depends on
        self._training, self._heldout = samples
        self._compare, self._held = compare, held
        self._tails = tails
        self._calibration = Calibration.of(
            tails.scores(held.values), held.units, held.rate
        )
        self._px = int(self._training.pixels([0])[0].shape[-1])

    @classmethod
    def of(
        cls, site: Site, *, progress: Callable[[int], None] = lambda _: None
    ) -> "ReleaseGate":
        """Open the gate: describe the site's images and calibrate on the held-out ones.

        What was computed is kept in the site's private cache.

        Args:
            site: whose training images must not be copied.
            progress: called with the number of images that were just dealt with; see
                `steps`.

        Raises:
            ConfigError: if there are too few images for a false-alarm rate, or
                `gate.features` names no model.
        """
        training, heldout = site.training, site.heldout
        _check_enough(site.name, training, heldout)
        asked = site.config.gate
        seen, weights = extractor(asked.features, site.folder, site.bundle, site.device)
        data = digest_of(
            {
                "version": VERSION,
                "base": site.bundle.digest,
                "features": weights,
                "training": _names(training),
                "heldout": _names(heldout),
            }
        )
        path = site.folder / "cache" / FOLDER / f"{data[:32]}.gate"
        kept = _read(path, training, heldout)
        if kept is None:
            features = described(training, seen, site.device, progress)
            others = described(heldout, seen, site.device, progress)
            compare = Comparer(training, seen, features, others, site.device)
            usual, held_out = [], []
            for one in compare.usual(_usual_rows(training)):
                usual.append(one)
                progress(1)
            rows = range(len(heldout))
            for one in compare(heldout.pixels([row])[0] for row in rows):
                held_out.append(one)
                progress(1)
            kept = _packed(features, others, usual, held_out)
            _write(path, kept)
        known = kept["training"], kept["heldout"]
        compare = Comparer(training, seen, *known, site.device)
        digest = digest_of({"data": data, "false_alarms": asked.false_alarms})
        held = _held(kept, heldout, asked.false_alarms)
        tails = Tails.of(_own(kept["usual"])[:, :-1])
        if held.copies:
            log.warning(
                "%s: %d held-out images show the picture of a training image of another "
                "unit and calibrate nothing; vgmedgen data twins finds them",
                site.name,
                held.copies,
            )
        return cls(digest, (training, heldout), compare, held, tails)

    @staticmethod
    def steps(site: Site) -> int:
        """Images that opening the gate deals with, an image as often as that is done."""
        training, heldout = site.training, site.heldout
        usual = min(USUAL, len(training))
        return len(training) + usual + 2 * len(heldout)

    def judge(self, pixels: NDArray[np.uint8]) -> list[Verdict]:
        """Verdicts of images (N, H, W, 3).

        Raises:
            ConfigError: if they are not of the site's image size.
        """
        return [self._verdict(one) for one in self._compare(self._inputs(pixels))]

    def nearest(
        self, pixels: NDArray[np.uint8], count: int = 3
    ) -> list[list[Neighbour]]:
        """The real training images nearest to each image, nearest first, by features.

        Raises:
            ConfigError: if the images are not of the site's image size.
        """
        found = []
        for one in self._inputs(pixels):
            away, _ = self._compare.away(one)
            order = away.argsort(stable=True)[:count].tolist()
            found.append([self._neighbour(row, float(away[row])) for row in order])
        return found

    def report(self, verdicts: Sequence[Verdict]) -> Report:
        """What may go with the images: counts and bins, nothing of a single patient."""
        held = self._held
        return Report.of(
            verdicts,
            calibration=self._calibration,
            rate=held.rate,
            copies=held.copies,
            sizes=(len(self._training), len(self._heldout)),
            heldout=(self._tails.scores(held.values), held.distances),
            digest=self.digest,
        )

    def _inputs(self, pixels: NDArray[np.uint8]) -> list[Tensor]:
        """Each image as (1, 3, H, W) in [-1, 1]."""
        side = self._px
        if pixels.shape != (len(pixels), side, side, 3) or pixels.dtype != np.uint8:
            raise ConfigError(
                f"the release gate compares 8-bit colour images of {side} x {side} "
                f"pixels, got {pixels.dtype} of shape {pixels.shape}; bring them to the "
                "size of the site's base"
            )
        given = as_input(torch.from_numpy(np.ascontiguousarray(pixels)).movedim(-1, 1))
        return [given[row : row + 1].contiguous() for row in range(len(given))]

    def _verdict(self, found: Compared) -> Verdict:
        unusual = self._tails.parts(np.array([found.values]))[0]
        worst = int(unusual.argmax())
        score = round(float(unusual.max()), DIGITS)
        cleared = not found.same and score <= self._calibration.threshold
        return Verdict(
            cleared=cleared,
            reason="" if cleared else REASONS[worst],
            distance=found.distance,
            score=score,
            closer=found.distance < found.heldout,
            row=found.rows[worst],
        )

    def _neighbour(self, row: int, distance: float) -> Neighbour:
        record = self._training.records[row]
        image = as_uint8(self._training.pixels([row])[0][0]).movedim(0, -1)
        return Neighbour(
            image=record.image,
            unit=record.unit,
            distance=round(distance, DIGITS),
            pixels=image.numpy(),
        )


def _check_enough(name: str, training: Samples, heldout: Samples) -> None:
    if len(heldout) < FEWEST:
        raise ConfigError(
            f"the release gate needs {FEWEST} held-out images to know how near is too "
            f"near, and {name} holds {len(heldout)} of its "
            f"{len(heldout) + len(training)} out; raise heldout in site.yaml (0.5 at "
            "most) or add data"
        )
    if training.units < FEWEST:
        raise ConfigError(
            f"the release gate compares with the images of {FEWEST} units at least, and "
            f"{name} trains on {training.units}; add data"
        )


def _names(samples: Samples) -> list[tuple[str, str]]:
    units = [record.unit for record in samples.records]
    return list(zip(samples.keys, units, strict=True))


def _usual_rows(training: Samples) -> list[int]:
    """Images that say what is usual: of as many units as there are, an image each first.

    Which they are hangs on the images' digests alone, not on the order of files.
    """
    seen: Counter[str] = Counter()
    turn = {}
    for row in sorted(range(len(training)), key=lambda row: training.keys[row]):
        unit = training.records[row].unit
        turn[row] = (seen[unit], training.keys[row])
        seen[unit] += 1
    return sorted(turn, key=turn.__getitem__)[:USUAL]


def _packed(
    features: Tensor, others: Tensor, usual: list[Compared], heldout: list[Compared]
) -> dict[str, Tensor]:
    def values(found: list[Compared]) -> Tensor:
        told = [(*one.values, one.distance) for one in found]
        return torch.tensor(told, dtype=torch.float64)

    return {
        "training": features,
        "heldout": others,
        "usual": values(usual),
        "values": values(heldout),
    }


def _own(values: Tensor) -> Values:
    """Those of images that show no picture of another unit."""
    found: Values = values.numpy()
    return found[~shows_same(found[:, :-1])]


def _held(kept: dict[str, Tensor], heldout: Samples, rate: float) -> _Held:
    every: Values = kept["values"].numpy()
    values = _own(kept["values"])
    own = ~shows_same(every[:, :-1])
    units = [one.unit for one, kept in zip(heldout.records, own, strict=True) if kept]
    copies = len(every) - len(values)
    return _Held(values[:, :-1], values[:, -1], units, copies, rate)


def _write(path: Path, kept: dict[str, Tensor]) -> None:
    """Keep it for the site's own eyes, with a digest of every byte in front."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    path.parent.chmod(0o700)
    content = safetensors.torch.save(kept)
    write_bytes(path, sha256(content).digest() + content)
    path.chmod(0o600)


def _read(path: Path, training: Samples, heldout: Samples) -> dict[str, Tensor] | None:
    """What an earlier opening kept; None where there is nothing whole."""
    try:
        stored = path.read_bytes()
        digest, content = stored[:DIGEST], stored[DIGEST:]
        if sha256(content).digest() != digest:
            return None
        kept: dict[str, Tensor] = safetensors.torch.load(content)
        names = ("training", "heldout", "usual", "values")
        sizes = {name: len(kept[name]) for name in names}
        wide = {kept[name].shape[1] for name in names[2:]}
    except (safetensors.SafetensorError, OSError, KeyError, IndexError):
        return None  # computed again
    usual = min(USUAL, len(training))
    wanted = (len(training), len(heldout), usual, len(heldout))
    whole = tuple(sizes.values()) == wanted and wide == {len(DETECTORS) + 1}
    return kept if whole else None
