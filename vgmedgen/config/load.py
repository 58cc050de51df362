"""Fill the configuration from grouped YAML and overrides.

Order of precedence: dataclass default < configs/base.yaml < group files < experiment <
overrides. A key that is in no dataclass is refused with the nearest name, a value out of
its range with the range.
"""

import difflib
import json
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from locale import getpreferredencoding
from pathlib import Path
from typing import Any, TypeVar

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from vgmedgen.config.plan import RunPlan
from vgmedgen.config.run import RunConfig
from vgmedgen.config.values import override, typed
from vgmedgen.config.yamlfile import MOST_DEPTH, Text, read_yaml, write_yaml
from vgmedgen.errors import ConfigError
from vgmedgen.files import write_text

T = TypeVar("T")

GROUPS = ("data", "model", "privacy", "federation")


def config_root(package: Path = Path(__file__).parents[1]) -> Path:
    """The folder of the YAML files: inside an installed wheel, or beside the package.

    Beside an installed package there may be a `configs` of somebody else's.

    Args:
        package: folder of this package.

    Raises:
        ConfigError: if the installation lacks them.
    """
    for folder in (package / "_configs", package.parent / "configs"):
        if (folder / "base.yaml").is_file() and (folder / "experiment").is_dir():
            return folder
    raise ConfigError(
        f"{package} was installed without its configuration files; install vgmedgen anew"
    )


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
        {group: _read(root, group, defaults[group])}
        for group in GROUPS
        if group in defaults
    ]
    layers += [experiment, {"experiment": Text(name, plain=False)}]
    layers += [override(RunConfig, word) for word in rest]
    return fill(RunConfig, layers)


def save(config: RunConfig, path: Path) -> None:
    """Write `config` as YAML; `load_file` reads it back equal.

    Raises:
        StateError: if the disk is full or not writable.
    """
    told: Any = OmegaConf.to_container(OmegaConf.structured(config))
    write_text(path, write_yaml(told))


def load_file(path: Path) -> RunConfig:
    """Read a resolved run as written by `save`.

    Raises:
        ConfigError: if it cannot be read, has an unknown key or a value out of range.
    """
    return load(RunConfig, path)


def load(schema: type[T], path: Path) -> T:
    """An instance of the dataclass `schema` from one YAML file.

    Raises:
        ConfigError: naming the file, if it cannot be read, has an unknown key or a value
            out of range.
    """
    told = read_yaml(path)
    try:
        return fill(schema, [told])
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def plan_from_json(text: str) -> RunPlan:
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
    return fill(RunPlan, [OmegaConf.create(values)])


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
        if not word.isprintable() and any(
            "\ud800" <= sign <= "\udfff" for sign in word
        ):
            raise ConfigError(
                f"{word!a} is no text in this locale ({getpreferredencoding()}); "
                "set one of UTF-8, such as LC_ALL=C.UTF-8"
            )
        key, equals, value = word.partition("=")
        if not equals or not key:
            raise ConfigError(f"'{word}' is not of the form key=value")
        if key == "experiment" or key in GROUPS:
            picks[key] = value
        else:
            rest.append(word)
    return picks, rest


def _read(root: Path, *parts: str) -> dict[str, Any]:
    path = root.joinpath(*parts[:-1], f"{parts[-1]}.yaml")
    if not path.is_file():
        known = sorted(file.stem for file in path.parent.glob("[!.]*.yaml"))
        raise ConfigError(
            f"there is no {parts[0]} '{parts[-1]}'; there are: {', '.join(known)}"
        )
    found = read_yaml(path)
    if not isinstance(found, dict | None):
        raise ConfigError(f"{path} must hold keys and values at its top level")
    return found or {}


def fill(schema: type[T], layers: Sequence[object]) -> T:
    """An instance of the dataclass `schema`, from layers of which the last one wins.

    Args:
        schema: says what type each key takes.
        layers: what `read_yaml` gave, or plain values; None holds nothing.

    Raises:
        ConfigError: for an unknown key, with the nearest name, or a value out of range.
    """
    merged = OmegaConf.structured(schema)
    try:
        for layer in layers:
            merged = OmegaConf.merge(
                merged, typed(schema, {} if layer is None else layer)
            )
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
