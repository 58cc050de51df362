"""Two worlds that differ in one patient only, and everything that leaves a hospital.

Words, numbers, codes, sizes and, where the present data are the same, every byte: none of
it may differ, or whoever reads it is certain of that patient. The noise is the same in
both worlds, so that what differs does so for another reason.
"""

import hashlib
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from flwr.supercore.task_identity import TaskIdentity
from omegaconf import OmegaConf

import client.app
from client.rehearsal import FOLDER as SHOWN
from server.launch import Launch
from tests.federation.toys import asking
from vgmedgen.data.layouts import write_phantoms
from vgmedgen.data.phantom import tint_of
from vgmedgen.exchange.wire import Kind
from vgmedgen.privacy import randomness
from vgmedgen.site.folder import Site

COUNT = 20  # images of a cohort
LONG = (
    "a large dark lesion with an irregular border on the left and seen at its edge " * 4
)


@pytest.fixture(autouse=True)
def _server(monkeypatch):
    for name in ("_run_id", "_node_id", "_task_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Bytes of images, all different."""
    folder = tmp_path_factory.mktemp("pictures")
    write_phantoms("ultrasound", folder, 2 * COUNT + 2, 3, 32, tint_of(0))
    found = [
        p.read_bytes() for p in sorted(folder.rglob("*.png")) if "mask" not in p.stem
    ]
    assert len(set(found)) >= 2 * COUNT + 2
    return found


@pytest.fixture(scope="module")
def launches(private_micro, bundle, tmp_path_factory):
    """Two runs under one plan: the earlier one, and the one that is looked at."""
    from vgmedgen.training.rounds import Workbench

    weights = Workbench.open(bundle, private_micro.plan, "cpu").states()
    folder = tmp_path_factory.mktemp("launches")
    return [
        Launch.prepare(
            run=run,
            folder=folder / run,
            config=private_micro,
            bundle=bundle,
            weights=weights,
            sites=1,
        )
        for run in ("earlier", "looked-at")
    ]


class Hospital:
    """A real site behind the real gate, whose images a test may exchange."""

    def __init__(self, folder, bundle, **settings):
        self.folder = folder
        folder.mkdir(parents=True)
        told = {
            "name": "site-a",
            "base": str(bundle.folder.resolve()),
            "sources": [{"dataset": "table", "root": "table.csv"}],
            "privacy": {"epsilon": 40.0},
        }
        OmegaConf.save(OmegaConf.create(told), folder / "site.yaml")
        self.set(**settings)

    def set(self, **settings):
        path = self.folder / "site.yaml"
        OmegaConf.save(OmegaConf.merge(OmegaConf.load(path), settings), path)

    def hold(self, images, captions=None):
        """Put these images, by name, in the place of what is there."""
        shutil.rmtree(self.folder / "images", ignore_errors=True)
        (self.folder / "images").mkdir()
        lines = ["image,caption"]
        for name, content in images.items():
            (self.folder / "images" / name).write_bytes(content)
            lines.append(
                f"images/{name},{(captions or {}).get(name, 'a round lesion')}"
            )
        (self.folder / "table.csv").write_text("\n".join(lines) + "\n")
        self.site = Site(self.folder)
        self.site.ledger().open_cohort(self.site.members(), self.site.unit_kind)

    def answers(self, launch, rounds, monkeypatch):
        """All that leaves in a run, message by message, under noise that repeats."""
        app = client.app.build(lambda context: self.site)
        messages = [asking(launch, Kind.HELLO)]
        messages += [asking(launch, Kind.TRAIN, n) for n in range(1, rounds + 1)]
        messages += [messages[-1], asking(launch, Kind.EVALUATE, rounds)]
        with monkeypatch.context() as patch:
            patch.setattr(randomness, "os", SimpleNamespace(urandom=Repeated()))
            return [left(app(message, None)) for message in messages]


class Repeated:
    """What the operating system draws, the same in both worlds."""

    def __init__(self):
        self.count = 0

    def __call__(self, size):
        self.count += 1
        return hashlib.shake_128(str(self.count).encode()).digest(size)


def left(reply):
    """Everything of a reply that a receiver can look at."""
    if reply.has_error():
        return reply.error.code, reply.error.reason
    content = reply.content
    return (
        {name: dict(one) for name, one in content.config_records.items()},
        {name: dict(one) for name, one in content.metric_records.items()},
        {
            (name, group): (array.dtype, array.shape, array.data)
            for name, one in content.array_records.items()
            for group, array in one.items()
        },
    )


def shapes(reply):
    """The same without the values of tensors, which are noised."""
    if len(reply) == 2:
        return reply
    words, numbers, arrays = reply
    return (
        words,
        numbers,
        {key: (kind, shape, len(data)) for key, (kind, shape, data) in arrays.items()},
    )


def named(pictures, kind):
    return {f"{kind}-{k:02d}.png": content for k, content in enumerate(pictures)}


@pytest.mark.parametrize(
    ("settings", "code"),
    [
        ({"privacy": {"epsilon": 40.0}}, None),
        # the run alone fits, and with all that was ever booked it does not
        ({"privacy": {"epsilon": 6.2}}, "VG41"),
        ({"policy": {"dry_run": True}}, "VG44"),
    ],
    ids=["accepted", "over budget", "dry run"],
)
def test_nothing_tells_whether_an_earlier_patient_is_among_the_new_ones(
    tmp_path, bundle, pictures, launches, monkeypatch, settings, code
):
    """A hospital that spent its run, and then holds other images: all new, or but one.

    In one world an image of the earlier cohort is there again under another name.
    """
    first, second = launches
    new = named(pictures[COUNT : 2 * COUNT], "new")
    worlds, exact = [], []
    for name, before in (
        ("apart", pictures[:COUNT]),
        ("overlap", [*pictures[: COUNT - 1], pictures[2 * COUNT - 1]]),
    ):
        hospital = Hospital(tmp_path / name, bundle)
        hospital.hold(named(before, "old"))
        shared_ledger_id(hospital, monkeypatch)
        hospital.answers(first, 2, monkeypatch)
        hospital.hold(new)
        hospital.set(**settings)
        hospital.site = Site(hospital.folder)
        worlds.append(hospital.answers(second, 1 if code else 2, monkeypatch))
        exact.append(hospital.site.ledger().worst_unit(delta=1e-5).epsilon)
        if code == "VG44":
            assert list((hospital.folder / SHOWN).rglob("round-*.json"))
    assert worlds[0] == worlds[1]
    assert exact[0] < exact[1], "the hospital itself sees who is there again"
    trained = worlds[0][1:-2]
    if code is None:
        spent = [numbers["numbers"]["epsilon-spent"] for _, numbers, _ in trained]
        assert spent == sorted(spent)
        assert spent[-1] == pytest.approx(exact[1]), "all rows, in both worlds"
        assert trained[0][0]["origin"]["ledger"].startswith("3-")
    else:
        assert trained == [(100, code)]


def shared_ledger_id(hospital, monkeypatch):
    """The random id of a ledger is drawn alike in both worlds, as the noise is."""
    shutil.rmtree(hospital.folder / "cache", ignore_errors=True)
    for path in hospital.folder.glob("ledger.*"):
        path.unlink()
    with monkeypatch.context() as patch:
        patch.setattr(
            "vgmedgen.privacy.ledger.secrets.token_hex", lambda size: "ab" * size
        )
        hospital.site.ledger().open_cohort(
            hospital.site.members(), hospital.site.unit_kind
        )


def test_another_record_of_one_patient_changes_nothing_but_noised_tensors(
    tmp_path, bundle, pictures, launches, monkeypatch
):
    """Its picture and its caption, here one that is much longer than all others."""
    worlds, prepared = [], []
    for name, picture, caption in (
        ("one", pictures[0], "a small red spot"),
        ("other", pictures[-1], LONG),
    ):
        hospital = Hospital(tmp_path / name, bundle)
        images = named(pictures[:COUNT], "x") | {"x-00.png": picture}
        hospital.hold(images, {"x-00.png": caption})
        shared_ledger_id(hospital, monkeypatch)
        worlds.append(hospital.answers(launches[1], 2, monkeypatch))
        prepared.append(hospital.site.samples)
    assert [shapes(reply) for reply in worlds[0]] == [shapes(r) for r in worlds[1]]
    one, other = prepared
    assert one.captions[0] != other.captions[0]
    for made in ("latents", "embeddings"):
        here, there = getattr(one, made).numpy(), getattr(other, made).numpy()
        assert not np.array_equal(here[0], there[0])
        assert np.array_equal(here[1:], there[1:]), "no other record moves by a bit"
