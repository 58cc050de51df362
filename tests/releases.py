"""Releases to be looked at, damaged and installed: seconds to make, nothing trained."""

import multiprocessing
import os
import resource
import shutil
import signal
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch

from vgmedgen.base import Bundle
from vgmedgen.config.plan import RunPlan
from vgmedgen.errors import VGMedGenError
from vgmedgen.release import install as installing
from vgmedgen.release import pipeline, store
from vgmedgen.release import write as writing
from vgmedgen.release.install import install_from
from vgmedgen.release.signature import FILE, Signature, sign
from vgmedgen.release.verify import digest
from vgmedgen.release.write import write
from vgmedgen.training.rounds import Workbench
from vgmedgen.trust.signing import SigningKey

FACTS = {
    "run": "r-1",
    "experiment": "demo",
    "config": "c" * 64,
    "sites": ["a", "b"],
    "data": {"a": "20-49", "b": "1-4"},
    "metrics": {"training_loss": 0.5, "heldout_loss": 0.625},
}
KEY = SigningKey.make()
TRUSTED = [KEY.public]


@dataclass(frozen=True)
class Made:
    """A release, and what it was made of."""

    folder: Path
    manifest: dict
    weights: dict
    signature: Signature


def weights_for(bundle: Bundle, plan: RunPlan, seed=0):
    """Weights that differ from the base everywhere, as a run exchanges them."""
    states = Workbench.open(bundle, plan, torch.device("cpu")).states()
    draw = np.random.default_rng(seed)
    return {
        group: {
            name: (a + 0.1 * draw.standard_normal(a.shape))
            .astype(np.float16)
            .astype(np.float32)
            for name, a in arrays.items()
        }
        for group, arrays in states.items()
    }


def make(folder, bundle, plan, *, run="r-1", seed=0, year=2026, key=KEY) -> Made:
    """Write a signed release."""
    weights = weights_for(bundle, plan, seed)
    manifest = write(folder, bundle, plan, weights, {**FACTS, "run": run})
    signature = sign(manifest, key, datetime(year, 1, 2, 3, 4, 5, tzinfo=UTC))
    (folder / FILE).write_text(signature.to_json())
    return Made(folder, manifest, weights, signature)


def name_of(made: Made) -> str:
    """What the folder of an installed release is called."""
    return digest(made.manifest)[:16]


PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["tests.releases"])
STEPS = {
    "write": writing,
    "merge": pipeline,
    "describe": installing,
    "settle": installing,
    "announce": store.Store,
    "place": store.Store,
    "sync": installing,
    "point": store.Store,
}
"""What an installation does in turn, and where it finds it."""
RENAMES = {
    "aside": lambda _, target: target.name.startswith(store.ASIDE),
    "in place": lambda path, _: path.name.startswith(store.SCRATCH),
}
"""How a release takes the place of another where the two cannot be exchanged."""


def attempt(releases, bundle, source, **told):
    """Install in a process of its own, just started; `answer` tells how it went."""
    ours, theirs = PROCESSES.Pipe()
    process = PROCESSES.Process(
        target=_attempt,
        args=(theirs, releases, bundle, source, KEY.public),
        kwargs=told,
    )
    process.start()
    theirs.close()
    if ours.recv() != "ready":
        raise RuntimeError("the process did not start")
    process.answer = ours
    return process


def kill_at_random(kills, site, source, bundle, tmp_path, survives, seed):
    """Kill so many installations, each somewhere between its start and its end.

    Args:
        kills: installations that are to be killed; those that end before do not count.
        site: folder of installed releases, of which each is made a copy.
        source: what is installed.
        bundle: the site's base.
        tmp_path: of the copies.
        survives: looks at a copy after each.
        seed: of the moments.
    """
    draw = np.random.default_rng(seed)
    process = attempt(shutil.copytree(site, tmp_path / "timed"), bundle, source)
    began = time.monotonic()  # without the start of a process
    assert process.answer.recv() == ""
    took, killed = time.monotonic() - began, 0
    for number in range(5 * kills):
        releases = shutil.copytree(site, tmp_path / f"releases-{number}")
        process = attempt(releases, bundle, source)
        time.sleep(took * draw.uniform(0, 1.1))
        process.kill()
        process.join(60)
        survives(releases)
        shutil.rmtree(releases)
        if process.exitcode == -signal.SIGKILL:
            killed += 1
        else:
            took *= 0.8  # the machine has less to do than when it was timed
        if killed == kills:
            return
    raise AssertionError(f"{killed} of {5 * kills} installations were killed")


def _attempt(
    answer,
    releases,
    bundle,
    source,
    key,
    limit=None,
    dies="",
    after=False,
    plain=False,
):
    if plain:  # a file system that cannot exchange two names
        store.exchange = lambda *_: False
    if limit is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    if dies:
        _die_at(dies, after=after)
    answer.send("ready")
    try:
        install_from(releases, bundle, source, [key])
    except VGMedGenError as error:
        answer.send(f"{error.code} {error}")
    else:
        answer.send("")


def _die_at(step, *, after):
    owner, name, meant = STEPS.get(step), step, lambda *_, **__: True
    if step in RENAMES:
        owner, name, meant = Path, "rename", RENAMES[step]
    works = getattr(owner, name)

    def dying(*args, **named):
        told = works(*args, **named) if after or not meant(*args, **named) else None
        if meant(*args, **named):
            os.kill(os.getpid(), signal.SIGKILL)
        return told

    setattr(owner, name, dying)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, by path."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def scratch(releases: Path) -> list[str]:
    """What an installation should have cleaned up."""
    kept = {".lock", "current"}
    return [
        path.name
        for path in releases.iterdir()
        if path.name not in kept and not (path / "installed.json").is_file()
    ]


def unchanged(releases: Path, made: Made) -> bool:
    """A release is in use, whole and alone, and nothing else lies about."""
    held = store.Store(releases)
    assert held.current().digest == made.signature.release
    held.verify(held.current().name)
    assert [one.name for one in held.all()] == [held.current().name]
    return not scratch(releases)
