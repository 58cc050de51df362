"""Fill the configuration from grouped YAML and overrides.

Order of precedence: dataclass default < configs/base.yaml < group files < experiment <
overrides. A key that is in no dataclass is refused with the nearest name, a value out of
its range with the range.
"""

import difflib
import io
import json
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import CollectionEndEvent, CollectionStartEvent, SafeLoader, YAMLError, parse

from vgmedgen.config import RunConfig
from vgmedgen.errors import ConfigError
from vgmedgen.plan import Plan

T = TypeVar("T")

GROUPS = ("data", "model", "privacy", "federation")
MOST_BYTES = 2**20  # of a YAML file
MOST_DEPTH = 20  # of maps and lists in each other; ours are 5 deep


def config_root() -> Path:
    """The folder of the YAML files: beside the package, or inside an installed wheel."""
    beside = Path(__file__).parent.parent / "configs"
    return beside if beside.is_dir() else Path(__file__).parent / "_configs"


def load_run(overrides: Sequence[str] = (), *, root: Path | None = None) -> RunConfig:
    """Resolve one run from the YAML files and `key=value` overrides.

    `experiment=NAME` and `data=NAME`, `model=NAME`, `federation=NAME` pick files; every
    other override sets one key, such as `federation.generate_rounds=4`.

    Args:
        overrides: words of the form key=value.
        root: folder of the YAML files; the project's own by default.

    Raises:
        ConfigError: for an unknown key, a file that is not there, a value out of range.
    """
    root = root or config_root()
    picks, rest = _picks(overrides)
    name = picks.pop("experiment", "demo")
    base = _read(root, "base")
    experiment = _read(root, "experiment", name)
    defaults = {
        **(base.pop("defaults", None) or {}),
        **(experiment.pop("defaults", None) or {}),
        **picks,
    }
    layers = [base]
    layers += [
        OmegaConf.create({group: _read(root, group, defaults[group])})
        for group in GROUPS
        if group in defaults
    ]
    layers += [experiment, OmegaConf.create({"experiment": name})]
    try:
        layers.append(OmegaConf.from_dotlist(rest))
    except OmegaConfBaseException as error:
        raise ConfigError(f"cannot read the overrides: {error}") from None
    return fill(RunConfig, layers)


def save(config: RunConfig, path: Path) -> None:
    """Write `config` as YAML; `load_file` reads it back equal."""
    path.write_text(OmegaConf.to_yaml(OmegaConf.structured(config)))


def load_file(path: Path) -> RunConfig:
    """Read a resolved run as written by `save`."""
    return fill(RunConfig, [read_yaml(path)])


def read_yaml(path: Path) -> DictConfig | ListConfig:
    """What a YAML file holds.

    Its size and depth are looked at first: the libraries that make objects of it call
    themselves for every level, until the process is dead.

    Raises:
        ConfigError: if it is too large or too deep.
        OSError: if it cannot be read.
        ValueError: if it is no text.
        YAMLError: if it is no YAML.
    """
    with path.open("rb") as stream:
        content = stream.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise ConfigError(
            f"{path} has more than {MOST_BYTES} bytes, which is the limit"
        )
    text, depth = content.decode(), 0
    for event in parse(text, Loader=SafeLoader):  # makes no objects
        depth += isinstance(event, CollectionStartEvent)
        depth -= isinstance(event, CollectionEndEvent)
        if depth > MOST_DEPTH:
            raise ConfigError(
                f"{path} is nested more than {MOST_DEPTH} deep, which is the limit"
            )
    return OmegaConf.load(io.StringIO(text))


def plan_from_json(text: str) -> Plan:
    """Read and check a plan that came from elsewhere.

    Raises:
        ConfigError: if it is not JSON, has another key, or a value out of range.
    """
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:  # also a number of 5,000 digits
        raise ConfigError(f"the plan is not JSON: {str(error)[:80]}") from None
    if not isinstance(values, dict):
        raise ConfigError("the plan is not a JSON object")
    if _deeper(values, MOST_DEPTH):
        raise ConfigError("the plan is nested too deeply")
    if "$" in json.dumps(values, ensure_ascii=False):
        # an expression would be worked out here, and mean one thing to the officer who
        # reads it and another to the process that trains
        raise ConfigError("the plan holds '$'; it may hold plain values only")
    return fill(Plan, [OmegaConf.create(values)])


def _deeper(value: object, most: int) -> bool:
    """Whether a value of JSON has more than `most` maps and lists in each other."""
    if isinstance(value, dict):
        value = list(value.values())
    if not isinstance(value, list):
        return False
    return most == 0 or any(_deeper(inner, most - 1) for inner in value)


def _picks(overrides: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    picks, rest = {}, []
    for word in overrides:
        key, equals, value = word.partition("=")
        if not equals or not key:
            raise ConfigError(f"'{word}' is not of the form key=value")
        if key == "experiment" or key in GROUPS:
            picks[key] = value
        else:
            rest.append(word)
    return picks, rest


def _read(root: Path, *parts: str) -> DictConfig:
    path = root.joinpath(*parts[:-1], f"{parts[-1]}.yaml")
    if not path.is_file():
        known = sorted(file.stem for file in path.parent.glob("*.yaml"))
        raise ConfigError(
            f"there is no {parts[0]} '{parts[-1]}'; there are: {', '.join(known)}"
        )
    try:
        found = read_yaml(path)
    except YAMLError as error:
        told = " ".join(str(error).split())
        raise ConfigError(f"{path} is not YAML: {told}") from None
    if not isinstance(found, DictConfig):
        raise ConfigError(f"{path} must hold keys and values at its top level")
    return found


def fill(schema: type[T], layers: Sequence[object]) -> T:
    """An instance of the dataclass `schema`, from layers of which the last one wins.

    Raises:
        ConfigError: for an unknown key, with the nearest name, or a value out of range.
    """
    merged = OmegaConf.structured(schema)
    try:
        for layer in layers:
            merged = OmegaConf.merge(merged, layer)
        filled: Any = OmegaConf.to_object(merged)
    except OmegaConfBaseException as error:
        key = getattr(error, "full_key", None) or ""
        nearest = difflib.get_close_matches(key, _keys(schema), n=1, cutoff=0.5)
        first = str(error).splitlines()[0].split(". Did you mean")[0].rstrip(".")
        hint = f"; did you mean '{nearest[0]}'?" if nearest else ""
        where = f"'{key}': " if key and key not in first else ""
        raise ConfigError(f"{where}{first}{hint}") from None
    found: T = filled
    return found


def _keys(schema: type, prefix: str = "") -> list[str]:
    found = []
    for entry in fields(schema):
        found.append(prefix + entry.name)
        if isinstance(entry.type, type) and is_dataclass(entry.type):
            found += _keys(entry.type, f"{prefix}{entry.name}.")
    return found
