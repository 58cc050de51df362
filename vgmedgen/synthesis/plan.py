"""A synthesis plan: how many images of which class, with which attributes.

What a plan leaves open is drawn by chance from what the site's own training images of
that class look like, each attribute by itself: the combination of words that belongs to
one training image is not copied whole. For the same reason a class of fewer than
`FEWEST` units is not drawn from alone, but from all training images. How often a word
occurs among them is taken as it is, though, and `balance` counts the site's images of
each class. Both read training data and neither adds noise: no epsilon covers what
captions and counts tell of them. A plan that sets every attribute, and every count,
takes nothing from them.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from vgmedgen.config.values import number, truth, whole
from vgmedgen.config.yamlfile import Text, read_yaml
from vgmedgen.data.attributes import ANATOMY, STYLE
from vgmedgen.data.captions import OLDEST, PEOPLE, caption
from vgmedgen.data.records import Record
from vgmedgen.errors import ConfigError
from vgmedgen.site.folder import Site
from vgmedgen.synthesis import choices
from vgmedgen.synthesis.prompts import MOST_IMAGES, Wish

KEYS = ("classes", "balance", "most", "facts")
FEWEST = 5  # units; the words of fewer would be those of single patients

Said = Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Part:
    """Some images of one class."""

    label: str
    count: int
    attributes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def chosen(self, place: int) -> dict[str, str]:
        """The words of image `place` of the part: all combinations, in turn."""
        said = {}
        for key, words in reversed(list(self.attributes.items())):
            place, which = divmod(place, len(words))
            said[key] = words[which]
        return said


@dataclass(frozen=True, kw_only=True)
class SynthesisPlan:
    """What a plan file says."""

    parts: tuple[Part, ...] = ()
    balance: bool = False
    most: int = MOST_IMAGES  # images in all
    facts: Said = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What a site's training images are like."""

    modality: str
    labels: Mapping[str, int]  # training images by class
    words: Mapping[str, Sequence[Said]]  # of training images, by class, to draw from
    known: tuple[str, ...]  # classes that may be asked for


def seen_at(site: Site) -> Seen:
    """Look at the training images of a site.

    Raises:
        ConfigError: if they are of several modalities, whose captions differ.
    """
    found = {dataset.modality for dataset in site.datasets}
    if len(found) > 1:
        raise ConfigError(
            f"{site.name} holds several modalities ({', '.join(sorted(found))}); a plan "
            "makes captions of one: write the captions into a csv and give --prompts"
        )
    modality = found.pop()
    training = site.training
    said = [training.cache.words(key) for key in training.keys]
    labels = Counter(record.label for record in training.records if record.label)
    rows: defaultdict[str, list[int]] = defaultdict(list)
    for row, record in enumerate(training.records):
        rows[record.label].append(row)
    every = range(len(said)) if training.units >= FEWEST else ()
    words = {
        label: [
            said[row]
            for row in (
                own if len({training.records[r].unit for r in own}) >= FEWEST else every
            )
        ]
        for label, own in rows.items()
    }
    here = {record.label for record in site.samples.records if record.label}
    published = choices.CLASSES[modality]
    return Seen(
        modality=modality,
        labels=dict(sorted(labels.items())),
        words=words,
        known=(*published, *sorted(here - set(published))),
    )


def read_plan(path: Path, seen: Seen) -> SynthesisPlan:
    """Read and check a plan.

    Args:
        path: YAML with the keys classes, balance, most, facts.
        seen: tells the classes and words that there are.

    Raises:
        ConfigError: naming the file, what is wrong in it, and what there is instead.
    """
    told = _load(path)
    _known(path, "key", told, KEYS)
    classes = told.get("classes", {})
    if not isinstance(classes, dict):
        raise ConfigError(f"{path}: classes must map a class to what is wanted of it")
    balance = truth(told["balance"]) if "balance" in told else False
    if balance is None:
        raise ConfigError(
            f"{path}: balance must be true or false, got '{told['balance']}'"
        )
    _known(path, "class", classes, seen.known)
    parts = tuple(_part(path, k, v, seen.modality) for k, v in classes.items())
    most = _count(path, "most", told.get("most", Text(str(MOST_IMAGES))))
    asked = sum(part.count for part in parts)
    if asked > most:
        raise ConfigError(f"{path} asks for {asked} images; the limit is {most}")
    if not parts and not balance:
        raise ConfigError(f"{path} asks for nothing; name classes, or balance: true")
    if balance and not seen.labels:
        raise ConfigError(
            f"{path}: balance needs classes, and no training image here has one"
        )
    facts = _facts(path, told.get("facts", {}), seen.modality)
    return SynthesisPlan(parts=parts, balance=balance, most=most, facts=facts)


def wishes_of(plan: SynthesisPlan, seen: Seen, seed: int) -> list[Wish]:
    """The captions that a plan asks for: its classes in their order, then the balance.

    Args:
        plan: from `read_plan`.
        seen: what open attributes are drawn from.
        seed: of the open attributes; image k depends on it and on k alone.

    Raises:
        ConfigError: if the plan comes to nothing.
    """
    parts = [*plan.parts, *(_balance(plan, seen) if plan.balance else ())]
    wishes: list[Wish] = []
    for part in parts:
        for place in range(part.count):
            rng = np.random.default_rng([seed, len(wishes)])
            given = part.chosen(place)
            said = _open(rng, seen.words.get(part.label, ()), given)
            said = choices.agreed(said, given)
            record = Record("asked", Path(), (), "asked", part.label, plan.facts)
            text = caption(record, seen.modality, said)
            wishes.append(Wish(prompt=text, label=part.label))
    if not wishes:
        raise ConfigError(
            "the plan comes to no image: the classes are balanced as they are"
        )
    return wishes


def _balance(plan: SynthesisPlan, seen: Seen) -> list[Part]:
    """What fills every class up to the most frequent one; the rarest come first."""
    have = dict(seen.labels)
    for part in plan.parts:
        have[part.label] = have.get(part.label, 0) + part.count
    goal = max(seen.labels.values())
    left = plan.most - sum(part.count for part in plan.parts)
    missing = {label: goal - have[label] for label in seen.labels if have[label] < goal}
    if sum(missing.values()) > left:
        missing = _rarest_first(have, missing, left)
    return [Part(label=label, count=n) for label, n in missing.items() if n > 0]


def _rarest_first(
    have: Mapping[str, int], missing: Mapping[str, int], left: int
) -> dict[str, int]:
    """`left` images, each given to the class that then has the fewest."""
    given = dict.fromkeys(missing, 0)
    for _ in range(left):
        label = min(missing, key=lambda name: (have[name] + given[name], name))
        given[label] += 1
    return given


def _open(
    rng: np.random.Generator, seen: Sequence[Said], given: Mapping[str, object]
) -> dict[str, str]:
    """A word for every attribute that is not given, each from an image of its own."""
    if not seen:
        return {}
    found = {}
    for key in (*ANATOMY, *STYLE):
        word = seen[int(rng.integers(len(seen)))].get(key, "")
        if key not in given:
            found[key] = word
    return found


def _load(path: Path) -> dict[Any, Any]:
    if not path.is_file():
        raise ConfigError(f"there is no plan {path}")
    told = {} if (told := read_yaml(path)) is None else told
    if not isinstance(told, dict):
        raise ConfigError(f"{path} must hold keys and values at its top level")
    return told


def _known(
    path: Path, kind: str, told: Mapping[Any, Any], known: Sequence[str]
) -> None:
    for name in told:
        if name not in known:
            hint = choices.nearest(str(name), known)
            raise ConfigError(
                f"{path}: there is no {kind} '{str(name)[:60]}'{hint}; there are: "
                f"{', '.join(known)}"
            )


def _part(path: Path, label: str, told: object, modality: str) -> Part:
    if isinstance(told, Text) and not told.nothing:
        told = {"count": told}
    if not isinstance(told, dict) or "count" not in told:
        raise ConfigError(f"{path}: the class {label} needs a count")
    keys = choices.attributes(modality)
    _known(path, f"attribute of {label}", told, ("count", *keys))
    attributes = {
        key: _chosen(path, f"{label}.{key}", told[key], key, modality)
        for key in told
        if key != "count"
    }
    count = _count(path, f"{label}.count", told["count"])
    return Part(label=label, count=count, attributes=attributes)


def _chosen(
    path: Path, where: str, told: object, key: str, modality: str
) -> tuple[str, ...]:
    listed = told if isinstance(told, list) else [told]
    known = (*choices.words(key, modality), choices.unsaid(key))
    _known(path, f"word for {where}", {str(word): None for word in listed}, known)
    if not listed:
        raise ConfigError(f"{path}: {where} lists no word; name one or leave it out")
    return tuple(dict.fromkeys(str(word) for word in listed))


def _count(path: Path, where: str, told: object) -> int:
    count = whole(told)
    if count is None:
        raise ConfigError(
            f"{path}: {where} must be a whole number, got '{str(told)[:60]}'"
        )
    if not 1 <= count <= MOST_IMAGES:
        raise ConfigError(
            f"{path}: {where} must lie in [1, {MOST_IMAGES}], got {str(count)[:20]}"
        )
    return count


def _facts(path: Path, told: object, modality: str) -> dict[str, str]:
    if not isinstance(told, dict):
        raise ConfigError(f"{path}: facts must map a fact to its word")
    _known(path, "fact", told, choices.FACTS)
    allowed = {
        "localization": choices.facts("localization", modality),
        "sex": tuple(name for name in PEOPLE if name),
    }
    for name, value in told.items():
        if name in allowed:
            if not isinstance(value, Text):
                raise ConfigError(
                    f"{path}: {name} must be one word, got '{str(value)[:60]}'"
                )
            _known(path, name, {value: None}, allowed[name])
        elif (age := number(value)) is None:
            raise ConfigError(f"{path}: age must be a number of years, got '{value}'")
        elif not 0 < age < OLDEST:
            raise ConfigError(f"{path}: age must lie in (0, {OLDEST}), got {value}")
    return {name: str(value) for name, value in told.items()}
