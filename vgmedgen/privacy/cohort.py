"""Cohorts: which units a site trained on, told by salted hashes.

The rule: privacy is spent by people, not by data sets. A data set that changed is a new
cohort, opened by a command of the site and never by itself; a unit that is in both keeps
what it spent. It is the same unit if its name is the same or if any of its images is, so
that a renamed patient keeps its history, also through several cohorts. The number of
units of a cohort is public.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from vgmedgen.errors import DataError


@dataclass(frozen=True)
class Members:
    """The units of one cohort and their images, as pairs of salted hashes."""

    pairs: frozenset[tuple[str, str]]  # (unit, image)

    @classmethod
    def of(cls, units: Mapping[str, Sequence[str]], salt: str) -> "Members":
        """Hash what a site holds.

        Args:
            units: unit -> digests of its image files.
            salt: the ledger's own, so that two sites' lists cannot be compared.

        Raises:
            DataError: if there are no units, or one has no image.
        """
        if not units:
            raise DataError(
                "there are no units to train on; a cohort needs at least one"
            )
        for unit, images in units.items():
            if not images:
                raise DataError(f"unit '{unit}' has no image; leave it out")
        return cls(
            frozenset(
                (_hash(salt, "unit", unit), _hash(salt, "image", image))
                for unit, images in units.items()
                for image in images
            )
        )

    @cached_property
    def units(self) -> frozenset[str]:
        """Hashes of the units."""
        return frozenset(unit for unit, _ in self.pairs)

    @cached_property
    def images(self) -> frozenset[str]:
        """Hashes of the images."""
        return frozenset(image for _, image in self.pairs)

    @property
    def digest(self) -> str:
        """sha256 of the sorted list, one line per pair."""
        lines = "".join(f"{unit} {image}\n" for unit, image in sorted(self.pairs))
        return hashlib.sha256(lines.encode()).hexdigest()

    def changes(self, now: "Members") -> str:
        """What came and went between these members and `now`, in words."""
        told = (
            f"{_count(self, now)} added, {_count(now, self)} removed"
            if self.pairs != now.pairs
            else "no unit or image added or removed"
        )
        moved = self.images == now.images and self.units == now.units
        return told + (", images moved between units" * (moved and self != now))


def exposures(members: Mapping[int, Members], cohort: int) -> list[frozenset[int]]:
    """The cohorts whose rows a unit of `cohort` has to pay for, one set per kind of unit.

    Names and images are the nodes of a graph, and a cohort's pairs are its edges: what
    hangs together may be one person. A set within another one costs no more than it and
    is left out.

    Args:
        members: every cohort so far, by number.
        cohort: whose units to look at.
    """
    group = _groups(pair for held in members.values() for pair in held.pairs)
    seen: dict[str, set[int]] = {}
    for number, held in members.items():
        for unit in held.units:
            seen.setdefault(group[unit], set()).add(number)
    found = {frozenset(seen[group[unit]]) for unit in members[cohort].units}
    return sorted(
        (one for one in found if not any(one < other for other in found)), key=sorted
    )


def _groups(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Representative of every node's connected component (union-find)."""
    parent: dict[str, str] = {}

    def root(node: str) -> str:
        parent.setdefault(node, node)
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    for unit, image in pairs:
        parent[root(unit)] = root(image)
    return {node: root(node) for node in parent}


def _count(before: Members, after: Members) -> str:
    units = len(after.units - before.units)
    return f"{units} units and {len(after.images - before.images)} images"


def _hash(salt: str, kind: str, name: str) -> str:
    return hashlib.sha256(f"{salt}:{kind}:{name}".encode()).hexdigest()
