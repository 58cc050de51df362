"""What a job remembers on disk, so that a killed one can go on.

`job.json` tells everything that decides pixels and verdicts, and on which kinds of
machine the job ran: equal words on equal machines give equal bytes. `.job/verdicts.jsonl`
holds one line per finished image, written after the image's own files: an image without
its line is drawn again, to the same bytes.
"""

import fcntl
import hashlib
import json
import os
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from vgmedgen.errors import ConfigError, StateError
from vgmedgen.files import is_system, sha256, write_bytes, write_text
from vgmedgen.synthesis.layouts import Box

JOB = "job.json"
PRIVATE = ".job"  # folder; stays at the site
VERDICTS = "verdicts.jsonl"
_SIDES = 4  # of a box
PART = ".*.part"  # of a file that was being written

Words = Mapping[str, Any]  # what decides pixels and verdicts


@dataclass(frozen=True, kw_only=True)
class Line:
    """One finished image."""

    number: int
    verdict: str | None  # as the gate's own JSON; None where no gate compared it
    kept: bool  # in the layout, not in quarantine
    files: dict[str, str] = field(default_factory=dict)  # sha256 by path
    box: Box | None = None  # around the mask

    def to_json(self) -> str:
        """One line of text."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: bytes) -> "Line":
        """Read one line.

        Raises:
            ValueError: if it is torn or not one.
        """
        try:
            told = json.loads(text)
        except RecursionError:
            raise ValueError("no line is nested so deeply") from None
        if not isinstance(told, dict) or told.keys() != cls.__annotations__.keys():
            raise ValueError("not the keys of a line")
        box, names = told.pop("box"), told["files"]
        if not (
            _is_number(told["number"])
            and isinstance(told["verdict"], str | None)
            and isinstance(told["kept"], bool)
            and isinstance(names, dict)
            and all(isinstance(value, str) for value in names.values())
            and (box is None or (isinstance(box, list) and len(box) == _SIDES))
            and all(_is_number(side) for side in box or ())
        ):
            raise ValueError("not the types of a line")
        return cls(**told, box=tuple(box) if box else None)


class State:
    """The memory of the job in `out`; made by `opened`."""

    def __init__(self, out: Path, words: Words, machine: Words) -> None:
        self.out = out
        self.words = dict(words)
        self.machines: list[Words] = [dict(machine)]
        self.lines: dict[int, Line] = {}  # by number of the image
        self._path = out / PRIVATE / VERDICTS

    def begin(self) -> None:
        """Read what an earlier, killed process finished; sweep what it left torn."""
        told = self.out / JOB
        before = _machines(told)
        self.machines = [*before, *(m for m in self.machines if m not in before)]
        if self.machines != before:
            self._tell()
        for part in self.out.rglob(PART):
            part.unlink()
        whole = []
        raw = self._path.read_bytes() if self._path.exists() else b""
        for text in raw.split(b"\n")[:-1]:
            try:
                line = Line.from_json(text)
            except ValueError:
                continue
            whole.append(text + b"\n")
            self.lines[line.number] = line
        if raw != b"".join(whole):
            write_bytes(self._path, b"".join(whole))

    def keep(self, sound: Callable[[Line], bool]) -> None:
        """Go on with lines that are sound and whose files stand, and with no other."""
        self.lines = {
            number: line
            for number, line in self.lines.items()
            if sound(line) and self._stands(line)
        }

    def _stands(self, line: Line) -> bool:
        return all(
            (self.out / name).is_file() and sha256(self.out / name) == digest
            for name, digest in line.files.items()
        )

    def add(self, lines: Sequence[Line]) -> None:
        """Commit images whose files are written."""
        with self._path.open("ab") as stream:
            stream.write("".join(f"{line.to_json()}\n" for line in lines).encode())
            stream.flush()
            os.fsync(stream.fileno())
        self.lines.update({line.number: line for line in lines})

    def finish(self, counts: Mapping[str, int]) -> None:
        """Put the lines in the order of the images, and say that the job is whole."""
        ordered = "".join(
            f"{self.lines[number].to_json()}\n" for number in sorted(self.lines)
        )
        if (
            self._path.read_text(encoding="utf-8") != ordered
        ):  # a lost image was made again
            write_text(self._path, ordered)
        self._tell(counts=dict(counts))

    def _tell(self, **more: object) -> None:
        told = {"words": self.words, "machines": self.machines, **more}
        write_text(self.out / JOB, _text(told))


def machine(device: str) -> dict[str, object]:
    """What else may decide how sums are rounded, and with them a byte; no name of it."""
    on_gpu = device.startswith("cuda")
    return {
        "device": torch.cuda.get_device_name(device) if on_gpu else platform.machine(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda or "" if on_gpu else "",
    }


@contextmanager
def opened(out: Path, words: Words, machine: Words, *, resume: bool) -> Iterator[State]:
    """The state of the job in `out`, for this process alone.

    Args:
        out: folder of the job.
        words: what decides it; a job that goes on has the same.
        machine: what it runs on; another one is noted beside the first.
        resume: whether it may go on.

    Raises:
        ConfigError: if `out` holds something and `resume` is off, or holds another job.
        StateError: if another process works on it, or it cannot be written.
    """
    check(out, words, resume=resume)
    private = out / PRIVATE
    private.mkdir(parents=True, exist_ok=True, mode=0o700)
    number = os.open(private, os.O_RDONLY)
    try:
        try:
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise StateError(
                f"another process is drawing into {out}; stop that one first"
            ) from None
        check(out, words, resume=resume or not (out / JOB).exists())
        state = State(out, words, machine)
        state.begin()
        yield state
    finally:
        os.close(number)


def check(out: Path, words: Words, *, resume: bool) -> None:
    """Refuse a folder that this job may not write to (see `opened`)."""
    try:
        if not out.exists():
            return
        if not out.is_dir():
            raise ConfigError(f"{out} is a file; choose a folder")
        found = {path.name for path in out.iterdir() if not is_system(path)}
    except OSError as error:
        raise StateError(
            f"cannot read {out}: {error.strerror or error}; choose another folder"
        ) from error
    told = out / JOB
    if (out / PRIVATE).is_symlink():
        raise ConfigError(
            f"{out / PRIVATE} is a link, and a job keeps its memory to itself; choose "
            "another folder"
        )
    if not resume and found:
        raise ConfigError(
            f"{out} is not empty; choose another folder, or go on with the job that was "
            "stopped there with --resume"
        )
    if told.is_file():
        _same(told, words)
    elif found - {PRIVATE, f".{JOB}.part"}:
        raise ConfigError(f"{out} holds no job to go on with; choose another folder")


def _same(told: Path, words: Words) -> None:
    try:
        held = json.loads(told.read_text(encoding="utf-8"))["words"]
        other = sorted(
            name
            for name in {*held, *words}
            if held.get(name) != json.loads(json.dumps(words.get(name)))
        )
    except (
        *(OSError, ValueError, TypeError),
        *(KeyError, AttributeError, RecursionError),
    ):
        raise ConfigError(f"{told} is damaged; choose another folder") from None
    if other:
        changes = ", ".join(
            f"{name} was {_short(held.get(name))}, is {_short(words.get(name))}"
            for name in other
        )
        raise ConfigError(
            f"{told.parent} holds a job of other words ({changes}); go on with the words "
            "it was started with, or choose another folder"
        )


def _machines(told: Path) -> list[Words]:
    """Those that a job ran on before; it may be one of an older version."""
    if not told.is_file():
        return []
    found = json.loads(told.read_text(encoding="utf-8")).get("machines")
    return found if isinstance(found, list) else []


def digest(content: bytes) -> str:
    """sha256 of a file's content, in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def _is_number(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _short(value: object) -> str:
    return str(value)[:16]


def _text(told: Mapping[str, Any]) -> str:
    return json.dumps(told, indent=1, sort_keys=True) + "\n"
