"""How one run stands, read from its folder as far as its files can be read."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from pathlib import Path
from statistics import fmean
from typing import Any, TypeVar

from server import runs, waiting
from server.launch import CONFIG, Launch
from server.registry import Registry, RoundRecord
from vgmedgen.errors import ConfigError, StateError, VGMedGenError

T = TypeVar("T")

TOOK, ABSENT = "took part", "was not there"
UNKNOWN = "unknown"  # state of a run whose own word on it is damaged


@dataclass(frozen=True, kw_only=True)
class RunStatus:
    """One run, as far as its files can be read."""

    run: str
    state: str  # of server.runs, or `UNKNOWN`
    at: str = ""  # since when, ISO 8601
    why: str = ""
    code: str = ""
    experiment: str = ""
    base: str = ""  # digest of the bundle that it trains on
    round: int = 0  # the last one that is complete
    rounds: int = 0
    align_rounds: int = 0
    stage: str = ""  # of the round that is next or under way; empty after the last
    merge: str = ""
    min_sites: int = 0
    weight_cap: float = 0.0  # as in the configuration of a run
    norm_bound: float = 0.0
    private: bool = False
    epsilon: float = 0.0  # claimed by the run, where it is private
    delta: float = 0.0
    unit: str = ""
    sites: tuple[str, ...] = ()  # that were asked, or took part
    records: tuple[RoundRecord, ...] = ()  # complete rounds, oldest first
    installed: Mapping[str, str] | None = None  # site -> release, or code of why not
    waits: str = ""  # whom for and until when, in words; empty where it does not
    damaged: tuple[str, ...] = ()  # one line per file that cannot be read

    @property
    def ended(self) -> bool:
        """Whether nothing more will come by itself."""
        return self.state in runs.ENDED

    @property
    def left_s(self) -> float | None:
        """Seconds that the rounds to come may take, by the last ones like them."""
        like = [entry.seconds for entry in self.records if entry.stage == self.stage]
        if self.state != runs.RUNNING or not like:
            return None
        recent = like[-5:]
        return (self.rounds - self.round) * sum(recent) / len(recent)


def stand(state: Path, run: str) -> RunStatus:
    """How the run of that id stands; never fails."""
    folder = runs.folder_of(state, run)
    told: list[str] = []
    now = attempt(told, lambda: runs.read(folder))
    found = RunStatus(run=run, state=UNKNOWN)
    if now is not None:
        found = replace(
            found,
            state=str(now.state),
            at=str(now.at),
            why=str(now.why),
            code=str(now.code),
        )
    records = _records(folder, told)
    sites = {name for entry in records for name in (*entry.sites, *entry.left_out)}
    path = runs.launch_file(folder)
    launch = attempt(told, lambda: _launch(path, path.stat().st_mtime_ns))
    done = max((entry.number for entry in records), default=0)
    found = replace(found, records=records, round=done, damaged=tuple(told))
    if launch is None:
        return replace(found, sites=tuple(sorted(sites)))
    config, federation = launch.config, launch.config.federation
    going = not found.ended and done < federation.rounds
    installed = folder / "installed.json"
    waits = waiting.read(folder) if found.state == runs.RUNNING else None
    facts = facts_of(installed, told).get("sites") if installed.is_file() else None
    return replace(
        found,
        experiment=config.experiment,
        base=launch.base_digest,
        rounds=federation.rounds,
        align_rounds=federation.align_rounds,
        stage=federation.stage(done + 1) if going else "",
        merge=config.merge,
        min_sites=federation.min_sites,
        weight_cap=federation.weight_cap,
        norm_bound=federation.norm_bound,
        private=config.privacy.enabled,
        epsilon=config.privacy.epsilon,
        delta=config.privacy.delta,
        unit=config.privacy.unit,
        sites=tuple(sorted(sites | launch.nodes.keys())),
        installed=_words(facts),
        waits=waits.line if waits is not None else "",
        damaged=tuple(told),
    )


def part_of(record: RoundRecord, site: str) -> str:
    """`TOOK`, `ABSENT`, or the code under which the site was left out of the round."""
    if site in record.sites:
        return TOOK
    return record.left_out.get(site, ABSENT)


def loss_of(record: RoundRecord) -> float | None:
    """Mean of what the sites told of their losses; None where none did."""
    return fmean(record.loss.values()) if record.loss else None


def heldout_of(record: RoundRecord) -> float | None:
    """Mean of the sites' held-out losses; None where none was told."""
    return fmean(record.heldout_loss.values()) if record.heldout_loss else None


def spent_of(record: RoundRecord) -> float | None:
    """The most epsilon that a site had spent by then, over all its runs."""
    return max(record.epsilon.values(), default=None)


def attempt(told: list[str], read: Callable[[], T]) -> T | None:
    """What `read` gives, or None with its error among what is told."""
    try:
        return read()
    except VGMedGenError as error:
        told.append(f"{error} [{error.code}]")
    except OSError as error:
        told.append(f"cannot read {error.filename}: {error.strerror} [VG55]")
    return None


def facts_of(path: Path, told: list[str]) -> dict[str, Any]:
    """Values of a JSON file; none where there is no file, or it is damaged."""
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(facts, dict):
            return facts
    except FileNotFoundError:
        return {}
    except (OSError, ValueError):
        pass
    told.append(f"{path.name} is damaged; what it says is left out [VG55]")
    return {}


def word(facts: Mapping[str, Any], name: str) -> str:
    """The text under `name`; empty for anything else."""
    value = facts.get(name, "")
    return value if isinstance(value, str) else ""


def _words(facts: object) -> dict[str, str] | None:
    if not isinstance(facts, dict):
        return None
    return {str(name): str(value) for name, value in facts.items()}


def _records(folder: Path, told: list[str]) -> tuple[RoundRecord, ...]:
    found = []
    for number in range(1, Registry(folder).last_complete() + 1):
        path = folder / "rounds" / f"{number:04d}.json"
        try:
            found.append(_record(path, path.stat().st_mtime_ns, number))
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            told.append(
                f"the record of round {number} is damaged; restore it from a copy"
            )
    return tuple(found)


@lru_cache(maxsize=20_000)  # a round's record never changes, and a view reads it often
def _record(path: Path, _: int, number: int) -> RoundRecord:
    facts = json.loads(path.read_text(encoding="utf-8"))
    record = RoundRecord(**{f.name: facts[f.name] for f in fields(RoundRecord)})
    words = (record.stage, *record.sites, *record.left_out, *record.left_out.values())
    maps = (
        *(record.loss, record.heldout_loss, record.bounded, record.epsilon),
        *(record.bytes_to, record.bytes_from),
    )
    numbers = [value for named in maps for value in named.values()]
    if not all(isinstance(word, str) for word in words):
        raise TypeError
    if not all(isinstance(value, int | float) for value in (record.seconds, *numbers)):
        raise TypeError
    if record.number != number:
        raise ValueError
    return record


@lru_cache(maxsize=1000)
def _launch(path: Path, _: int) -> Launch:
    try:
        return Launch.load(path)
    except (ValueError, ConfigError):
        raise StateError(
            f"{path.with_name(CONFIG)} is damaged; restore it from a copy"
        ) from None
