"""`vgmedgen-server publish`: what a coordinator hands on, to the byte what was signed."""

import dataclasses
import json
import multiprocessing
import shutil
import zipfile

import pytest
from typer.testing import CliRunner

from server import publish as publishing
from server import runs
from server.app import sign_release
from server.cli import app
from server.facts import facts
from server.kits import Kits
from server.launch import Launch
from server.registry import Registry
from tests.finished import coordinator, finish, record
from vgmedgen.errors import ReleaseError, StateError, TrustError, VGMedGenError
from vgmedgen.files import tree_digests
from vgmedgen.process.lock import only_one
from vgmedgen.release import facts as forms
from vgmedgen.release.archive import unpack
from vgmedgen.release.facts import range_of
from vgmedgen.release.signature import FILE, Signature, check
from vgmedgen.release.verify import digest, verify
from vgmedgen.trust.signing import SigningKey

RUN = "demo-1"


@pytest.fixture(scope="module")
def made(bundle, micro, tmp_path_factory):
    """A coordinator with one finished run; read it, do not write."""
    kits = coordinator(tmp_path_factory.mktemp("coordinator"), bundle)
    finish(kits, bundle, micro, RUN)
    return kits


@pytest.fixture
def kits(made, tmp_path):
    """The same, to be written."""
    shutil.copytree(made.folder, tmp_path / "kits")
    return Kits.open(tmp_path / "kits", serving=False)


def ask(kits, out, run=RUN, code=0):
    words = ["publish", run, "--kits", str(kits.folder), "--out", str(out)]
    result = CliRunner().invoke(app, words)
    if isinstance(result.exception, VGMedGenError):
        raise result.exception
    assert result.exit_code == code, (result.output, result.exception)
    return result.output


def refused(kits, out, kind, match, run=RUN):
    """One line, and nothing is left behind."""
    before = everything(out)
    with pytest.raises(kind, match=match) as caught:
        ask(kits, out, run)
    assert "\n" not in str(caught.value)
    assert everything(out) == before
    return str(caught.value)


def everything(folder):
    if not folder.is_dir():
        return folder.exists()
    return {str(p): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def release_of(kits):
    return runs.folder_of(kits.state, RUN) / "release"


def test_a_finished_run_is_published_as_a_folder_and_a_file_without_a_server(
    made, tmp_path
):
    out = tmp_path / "out"
    told = ask(made, out)
    manifest = verify(out / RUN)
    key = made.signing_key().public
    signature = Signature.from_json((out / RUN / FILE).read_text())
    check(signature, manifest, [key])
    for word in (digest(manifest), signature.created, key, f"{RUN}.vgrel"):
        assert word in told
    assert "vgmedgen-client install" in told
    unpack(out / f"{RUN}.vgrel", tmp_path / "unpacked")
    same = tree_digests(tmp_path / "unpacked", leave_out=frozenset())
    assert same == tree_digests(out / RUN, leave_out=frozenset())
    assert {path.name for path in out.iterdir()} == {RUN, f"{RUN}.vgrel"}


def test_the_file_is_a_plain_zip_without_code_in_it(made, tmp_path):
    ask(made, tmp_path / "out")
    with zipfile.ZipFile(tmp_path / "out" / f"{RUN}.vgrel") as archive:
        names = archive.namelist()
    assert "manifest.json" in names
    assert {name.rpartition(".")[2] for name in names} == {"json", "md", "safetensors"}


def test_the_same_run_always_gives_the_same_bytes(made, tmp_path):
    ask(made, tmp_path / "one")
    ask(made, tmp_path / "two")
    first = everything(tmp_path / "one")
    second = everything(tmp_path / "two")
    assert len(first) > 5
    assert [*first.values()] == [*second.values()]
    assert "was there already" in ask(made, tmp_path / "one")
    assert everything(tmp_path / "one") == first


@pytest.mark.parametrize("missing", [RUN, f"{RUN}.vgrel"])
def test_of_a_publication_that_was_cut_off_the_rest_is_made(made, tmp_path, missing):
    ask(made, tmp_path)
    whole = everything(tmp_path)
    path = tmp_path / missing
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    (tmp_path / f".new-{RUN}").mkdir()  # what a killed one leaves
    ask(made, tmp_path)
    assert everything(tmp_path) == whole
    assert not (tmp_path / f".new-{RUN}").exists()


def test_an_unknown_run_is_told_with_those_there_are(made, tmp_path):
    told = refused(made, tmp_path / "out", StateError, "there is no run", run="demo-2")
    assert RUN in told
    refused(made, tmp_path / "out", StateError, "no run", run="../../etc")


@pytest.mark.parametrize("state", [s for s in runs.STATES if s != runs.FINISHED])
def test_a_run_that_is_not_finished_has_no_release(kits, tmp_path, state):
    runs.write(runs.folder_of(kits.state, RUN), state)
    refused(kits, tmp_path / "out", StateError, f"is {state}")


def test_every_changed_byte_of_the_release_is_found_before_it_is_handed_on(
    kits, tmp_path
):
    files = sorted(p for p in release_of(kits).rglob("*") if p.is_file())
    assert len(files) >= 8
    for path in files:
        held = path.read_bytes()
        changed = bytearray(held)
        changed[len(held) // 2] ^= 1
        path.write_bytes(changed)
        with pytest.raises((ReleaseError, TrustError)) as caught:
            ask(kits, tmp_path / "out")
        assert "\n" not in str(caught.value), path
        path.write_bytes(held)
    assert not (tmp_path / "out").exists()
    ask(kits, tmp_path / "out")


def test_a_release_of_another_form_is_not_handed_on(made, tmp_path, monkeypatch):
    now = forms.FORM
    monkeypatch.setattr(forms, "FORM", now + 1)
    said = f"in form {now}, this software reads form {now + 1}"
    refused(made, tmp_path / "out", ReleaseError, said)
    assert not (tmp_path / "out").exists()


def test_a_release_that_nobody_signed_is_not_signed_afterwards(kits, tmp_path):
    (release_of(kits) / FILE).unlink()
    refused(kits, tmp_path / "out", ReleaseError, "has no signature")


def test_a_run_of_another_key_is_refused(kits, tmp_path):
    for name in ("signing.key", "coordinator.pub"):
        (kits.home / name).unlink()
    new = SigningKey.make()
    new.save(kits.home / "signing.key")
    (kits.home / "coordinator.pub").write_text(f"{new.public}\n")
    told = refused(kits, tmp_path / "out", TrustError, "was signed by")
    assert new.public[:16] in told


def test_a_release_of_another_run_is_refused(kits, bundle, micro, tmp_path):
    other = finish(kits, bundle, micro, "demo-2", seed=1)
    shutil.rmtree(release_of(kits))
    shutil.copytree(other / "release", release_of(kits))
    refused(kits, tmp_path / "out", ReleaseError, "run demo-2, not of demo-1")


def test_nothing_is_overwritten(kits, bundle, micro, tmp_path):
    out = tmp_path / "out"
    ask(kits, out)
    (out / RUN / "README.md").write_text("mine")
    refused(kits, out, StateError, "is there already and is another")
    elsewhere = tmp_path / "mine"
    elsewhere.mkdir()
    (elsewhere / "thesis.tex").write_text("years of work")
    refused(kits, elsewhere, StateError, r"is not empty: it holds thesis\.tex")
    refused(kits, elsewhere / "thesis.tex", StateError, "is a file")
    finish(kits, bundle, micro, "demo-2", seed=1)
    ask(kits, tmp_path / "both")
    ask(kits, tmp_path / "both", "demo-2")
    assert len(list((tmp_path / "both").iterdir())) == 4


def test_a_full_disk_is_one_line_and_leaves_nothing(made, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(publishing.shutil, "copytree", full)
    refused(made, tmp_path / "out", StateError, "No space left on device")
    assert not (tmp_path / "out").exists()


def test_a_disk_that_fills_up_is_told_by_its_first_refusal(made, tmp_path, monkeypatch):
    def full(*_, **__):
        why = "[Errno 28] No space left on device: '/a/file'"
        raise shutil.Error([("from", "to", why)] * 40)

    monkeypatch.setattr(publishing.shutil, "copytree", full)
    told = refused(made, tmp_path / "out", StateError, "No space left on device; free")
    assert len(told) < 400


def test_nothing_is_written_through_a_link_that_somebody_left(made, tmp_path):
    out, mine = tmp_path / "out", tmp_path / "mine"
    out.mkdir()
    mine.mkdir()
    (mine / "thesis.tex").write_text("years of work")
    (out / f".new-{RUN}").symlink_to(mine)
    refused(made, out, StateError, "which is no release")
    assert [path.name for path in mine.iterdir()] == ["thesis.tex"]
    (out / f".new-{RUN}").unlink()
    (out / f".new-{RUN}-abcdefgh").mkdir()  # what a killed one leaves
    ask(made, out)
    assert {path.name for path in out.iterdir()} == {RUN, f"{RUN}.vgrel"}


def publish_once(folder, out, start, answers):
    kits = Kits.open(folder, serving=False)
    start.wait()
    try:
        publishing.publish(kits, RUN, out)
    except VGMedGenError as error:
        answers.put(str(error))
    else:
        answers.put("")


def test_two_publications_at_once_leave_a_whole_release(made, tmp_path):
    context = multiprocessing.get_context("fork")
    for number in range(4):
        out = tmp_path / str(number)
        start, answers = context.Barrier(3), context.Queue()
        told = made.folder, out, start, answers
        both = [context.Process(target=publish_once, args=told) for _ in range(3)]
        for process in both:
            process.start()
        said = [answers.get(timeout=600) for _ in both]
        for process in both:
            process.join(60)
        assert "" in said
        assert all("running already" in one for one in said if one)
        verify(out / RUN)
        unpack(out / f"{RUN}.vgrel", tmp_path / f"unpacked-{number}")
        assert {path.name for path in out.iterdir()} == {RUN, f"{RUN}.vgrel"}


def test_one_publication_waits_for_no_other(made, tmp_path):
    lock = release_of(made).parent / publishing.LOCK
    with only_one(lock, "a test"):
        refused(made, tmp_path / "out", StateError, "running already")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["launch/launch.json", "state.json"])
def test_what_is_kept_of_a_run_is_read_however_deep_it_is(kits, tmp_path, name):
    (release_of(kits).parent / name).write_text("[" * 100_000)
    refused(kits, tmp_path / "out", StateError, "start the run again")


def test_a_run_is_told_as_it_was_typed_and_moves_no_cursor(made, tmp_path):
    told = refused(made, tmp_path / "out", StateError, "no run", run="a\x1b[2J\nb")
    assert told.isprintable()


def test_a_run_that_is_taken_up_again_keeps_signature_and_date(made, tmp_path):
    """Or a site that has answered would be asked something else for the same round."""
    key, manifest = SigningKey.make(), {"a": 1}
    (tmp_path / "release").mkdir()
    first = sign_release(tmp_path, manifest, key)
    told = Signature.from_json(first)
    (tmp_path / "release" / FILE).unlink()  # as publishing anew does
    assert sign_release(tmp_path, manifest, key) == first
    assert (tmp_path / "release" / FILE).read_text() == first
    other = Signature.from_json(sign_release(tmp_path, {"a": 2}, key))
    assert other.release != told.release
    (tmp_path / FILE).write_text(first.replace(told.created, "2001-01-01T00:00:00Z"))
    check(
        Signature.from_json(sign_release(tmp_path, manifest, key)),
        manifest,
        [key.public],
    )
    assert sign_release(tmp_path, manifest, None) == ""


def test_a_release_tells_ranges_of_units_and_means_of_losses(made):
    launch = Launch.load(runs.launch_file(runs.folder_of(made.state, RUN)))
    told = facts(launch, Registry(launch.folder))
    assert told["data"] == {"hospital-a": "5-9", "hospital-b": "20-49"}
    assert told["metrics"] == {"training_loss": 0.5, "heldout_loss": 0.5}
    assert told["exchange"] == launch.schema.digest
    assert set(told["data"]) == set(told["sites"])
    published = json.loads((release_of(made) / "manifest.json").read_text())
    assert published["data"] == told["data"]
    assert not {7, 24} & {v for v in published.values() if isinstance(v, int)}


class Schema:
    """As far as facts look at one."""

    digest = "e" * 64


def described(config, folder):
    return Launch(
        run=RUN,
        folder=folder,
        config=config,
        base=folder,
        base_digest="b" * 64,
        schema=Schema(),
    )


@pytest.mark.parametrize(
    ("units", "range_"),
    [
        *((1, "1-4"), (4, "1-4"), (5, "5-9"), (9, "5-9"), (10, "10-19"), (19, "10-19")),
        *((20, "20-49"), (50, "50-99"), (199, "100-199"), (200, "200-499")),
        *((500, "500-999"), (999, "500-999"), (1000, "1000+"), (10**6, "1000+")),
    ],
)
def test_ranges_of_units(units, range_):
    assert range_of(units) == range_


def test_no_metric_is_told_where_losses_stay_or_are_one_sites_own(
    micro, private_micro, tmp_path
):
    class Told(Registry):
        held: list

        def rounds(self):
            return self.held

    launch, registry = described(micro, tmp_path), Told(tmp_path)
    last = dataclasses.asdict(record(micro, 4))
    registry.held = [last]
    assert set(facts(launch, registry)["metrics"]) == {"training_loss", "heldout_loss"}
    registry.held = [last | {"loss": {}, "heldout_loss": {"hospital-a": 0.123}}]
    told = facts(launch, registry)
    assert "metrics" not in told
    assert "0.123" not in str(told)
    registry.held = [dataclasses.asdict(record(private_micro, 4))]
    private = facts(dataclasses.replace(launch, config=private_micro), registry)
    assert "metrics" not in private
    assert private["data"] == {"hospital-a": "5-9", "hospital-b": "20-49"}


def test_a_site_is_told_of_by_the_last_round_that_counted_with_it(micro, tmp_path):
    first = dataclasses.asdict(record(micro, 1))
    alone = {"hospital-a": 600}
    later = dataclasses.asdict(record(micro, 2)) | {"sites": [*alone], "units": alone}
    lost = dataclasses.asdict(record(micro, 3)) | {"counted": False}

    class Told(Registry):
        def rounds(self):
            return [first, later, lost]

    told = facts(described(micro, tmp_path), Told(tmp_path))
    assert told["data"] == {"hospital-a": "500-999", "hospital-b": "20-49"}
