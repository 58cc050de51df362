"""Provisioning: whole or not at all, added to, and a site.yaml that is valid."""

import re
import shutil
import stat
from datetime import UTC, datetime
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from client import policy
from client.policy import History
from client.request import Request
from server import provision as module
from server.kits import CoordinatorConfig, Kits
from tests.provisioned import SITES, contents, days_until, made, seal_base
from vgmedgen.base import seal
from vgmedgen.config.load import load_run
from vgmedgen.errors import BaseError, ConfigError, PolicyError, StateError
from vgmedgen.exchange.wire import Kind
from vgmedgen.privacy.accountant import spent
from vgmedgen.privacy.plan import PrivacyPlan
from vgmedgen.site.config import Policy, SitePrivacy, load_config
from vgmedgen.trust import certificates, nodekeys
from vgmedgen.trust.journal import Journal


@pytest.fixture
def base(tmp_path) -> Path:
    return seal_base(tmp_path / "base")


@pytest.fixture
def kits(base) -> Kits:
    return made(base).kits


def test_a_kits_folder_has_what_is_agreed_and_nothing_else(kits):
    files = set(contents(kits.folder))
    own = {
        "ca.crt",
        "ca.key",
        "server.crt",
        "server.key",
        "signing.key",
        "coordinator.pub",
        "coordinator.yaml",
        "nodes.json",
    }
    for_site = {"site.yaml", "ca.crt", "coordinator.pub", "README.html"}
    assert files == {f"coordinator/{name}" for name in own} | {
        f"{site}/{name}" for site in SITES for name in for_site
    }
    assert {path.name for path in kits.folder.parent.iterdir()} == {"base", "kits"}
    assert kits.state.is_dir()
    for path in (kits.home, kits.state):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
    for name in ("ca.key", "server.key", "signing.key"):
        assert stat.S_IMODE((kits.home / name).stat().st_mode) == 0o600


def test_nothing_in_a_kit_is_secret(kits):
    secrets = [
        part
        for name in ("ca.key", "server.key", "signing.key")
        for part in (kits.home / name).read_bytes().splitlines()[1:-1]
    ]
    assert secrets
    for site in SITES:
        for content in contents(kits.folder / site).values():
            assert b"PRIVATE KEY" not in content
            assert not [part for part in secrets if part in content]


def test_what_was_made_is_told(base):
    told = made(base, days=30, authority_days=400)
    assert told.sites == SITES
    assert told.kept == ()
    assert set(told.folders) == {"coordinator", *SITES}
    assert all(path.is_dir() for path in told.folders.values())
    left = {name: days_until(end) for name, end in told.expiries.items()}
    assert left == {"ca": 400, "server": 30}
    assert told.coordinator == told.kits.signing_key().public
    assert told.coordinator == (told.kits.home / "coordinator.pub").read_text().strip()
    assert "register SITE node.pub" in told.todo[0]
    assert all("\n" not in step for step in told.todo)


def test_the_server_certificate_is_for_the_host_and_its_own_processes(kits):
    names = certificates.names(kits.home / "server.crt")
    assert names == ["fl.example.org", "localhost", "127.0.0.1"]
    certificates.check_chain(kits.home / "ca.crt", kits.home / "server.crt")
    for site in SITES:
        ca = (kits.folder / site / "ca.crt").read_bytes()
        assert ca == (kits.home / "ca.crt").read_bytes()


def test_settings_are_read_back_as_they_were_asked(base):
    name = 'St. "Mary": #1 {federation}'
    config = made(base, name=name, host="2001:db8::1", port=9001).kits.config
    assert config == CoordinatorConfig(
        name=name,
        host="2001:db8::1",
        port=9001,
        listen="0.0.0.0",  # noqa: S104
        admin_port=9002,
        page_port=9003,
        base=str(base),
        base_digest=config.base_digest,
    )
    site = (base.parent / "kits" / "hospital-a" / "site.yaml").read_text()
    assert OmegaConf.create(site).coordinator.address == "[2001:db8::1]:9001"


@pytest.mark.parametrize("port", [443, 8443, 65_535])
def test_the_loopback_ports_never_are_the_public_one(base, port):
    config = made(base, port=port).kits.config
    assert len({config.port, config.admin_port, config.page_port}) == 3


def filled_in(path: Path, base: Path) -> None:
    text = path.read_text(encoding="utf-8")
    text = text.replace('base: ""', f"base: {base}")
    data = "sources:\n  - {dataset: table, root: /data/lesions.csv}"
    path.write_text(text.replace("sources: []", data), encoding="utf-8")


def test_a_filled_in_site_yaml_is_valid_and_careful(kits, base):
    path = kits.folder / "hospital-a" / "site.yaml"
    filled_in(path, base)
    config = load_config(path)
    assert config.name == "hospital-a"
    assert config.base_digest == kits.config.base_digest
    assert config.coordinator.address == "fl.example.org:8443"
    assert (path.parent / config.coordinator.ca).is_file()
    assert config.coordinator.key == "node.key"
    assert config.policy == Policy(
        coordinators=[kits.signing_key().public],
        dp="required",
        approval="required",
        min_units=20,
        min_heldout=5,
        min_batch=8,
    )
    assert config.privacy == SitePrivacy(epsilon=8.0)


def test_a_site_yaml_that_was_not_filled_in_is_refused_in_one_line(kits):
    with pytest.raises(ConfigError, match="names no data") as caught:
        load_config(kits.folder / "hospital-a" / "site.yaml")
    assert "\n" not in str(caught.value)


def test_every_limit_that_is_a_comment_says_what_holds_without_it(kits, base):
    path = kits.folder / "hospital-a" / "site.yaml"
    filled_in(path, base)
    before = load_config(path)
    text = path.read_text()
    further = text.index("# Further limits")
    told = re.sub(r"(?m)^  # (\w+: )", r"  \1", text[further:])
    path.write_text(text[:further] + told)
    assert load_config(path) == before
    named = set(OmegaConf.load(path).policy)
    assert named == set(Policy.__dataclass_fields__)


def test_a_site_name_that_yaml_would_take_for_something_else_stays_a_name(base):
    for name in ("on", "123", "1e5", "null", "-"):
        kits = made(base, name).kits
        path = kits.folder / name / "site.yaml"
        filled_in(path, base)
        assert load_config(path).name == name


@pytest.mark.parametrize(
    "changes",
    [
        {"sites": []},
        {"sites": ["Hospital-A"]},
        {"sites": ["../hospital"]},
        {"sites": ["coordinator"]},
        {"sites": ["a" * 41]},
        {"sites": [""]},
        {"sites": ["hospital-a", "hospital-a"]},
        {"host": "https://fl.example.org"},
        {"host": "*.example.org"},
        {"port": 0},
        {"port": 65_536},
        {"days": 0},
        {"authority_days": -1},
        {"name": ""},
        {"name": "two\nlines"},
    ],
)
def test_what_cannot_be_is_refused_and_nothing_is_written(base, changes):
    with pytest.raises(ConfigError) as caught:
        made(base, **changes)
    assert "\n" not in str(caught.value)
    assert [path.name for path in base.parent.iterdir()] == ["base"]


def test_a_changed_base_bundle_is_refused_and_nothing_is_written(base):
    (base / "vae" / "weights").write_text("other")
    with pytest.raises(BaseError, match="has changed"):
        made(base)
    assert [path.name for path in base.parent.iterdir()] == ["base"]


def test_a_folder_of_other_things_is_left_alone(base):
    out = base.parent / "kits"
    out.mkdir()
    made(base)  # an empty one is as good as none
    shutil.rmtree(out)
    out.mkdir()
    (out / "thesis.txt").write_text("mine")
    with pytest.raises(ConfigError, match="holds other files"):
        made(base)
    assert contents(out) == {"thesis.txt": b"mine"}


STEPS = ("_begin", "_make_kit", "_register", "_moved", "page", "sha256")


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("error", [OSError(28, "No space left"), KeyboardInterrupt()])
def test_a_failure_at_any_step_leaves_nothing_behind(base, monkeypatch, step, error):
    calls = []

    def fails(*args, **kwargs):
        calls.append(step)
        raise error

    monkeypatch.setattr(module, step, fails)
    expected = StateError if isinstance(error, OSError) else KeyboardInterrupt
    with pytest.raises(expected):
        made(base, make_keys=True)
    assert calls
    assert [path.name for path in base.parent.iterdir()] == ["base"]


def test_sites_can_be_added_and_nothing_that_was_there_changes(kits, base):
    before = contents(kits.folder)
    told = made(base, "hospital-b", "hospital-c")
    assert (told.kept, told.sites) == (("hospital-b",), ("hospital-c",))
    after = contents(kits.folder)
    assert {name: after[name] for name in before} == before
    new = {name for name in after if name not in before}
    assert {name.partition("/")[0] for name in new} == {"hospital-c"}
    assert told.coordinator == kits.signing_key().public
    assert Kits.open(kits.folder).sites() == ["hospital-a", "hospital-b", "hospital-c"]


@pytest.mark.parametrize("step", ["_make_kit", "_moved", "_register"])
def test_a_failure_while_adding_leaves_the_folder_as_it_was(
    kits, base, monkeypatch, step
):
    before = contents(kits.folder)
    real, calls = getattr(module, step), []

    def fails(*args, **kwargs):
        calls.append(step)
        if len(calls) == (1 if step == "_register" else 2):
            raise OSError(28, "No space left")
        return real(*args, **kwargs)

    monkeypatch.setattr(module, step, fails)
    with pytest.raises(StateError):
        made(base, "hospital-c", "hospital-d", make_keys=True)
    assert len(calls) == (1 if step == "_register" else 2)
    assert contents(kits.folder) == before
    assert not list(kits.folder.glob(".provision*"))


def test_a_site_that_is_there_otherwise_is_refused(kits, base):
    path = kits.folder / "hospital-a" / "site.yaml"
    path.write_text(path.read_text() + "# ours\n")
    before = contents(kits.folder)
    with pytest.raises(
        ConfigError, match=r"its site\.yaml is not what would be written"
    ):
        made(base, "hospital-a", "hospital-c")
    assert contents(kits.folder) == before


@pytest.mark.parametrize("changes", [{"host": "other.example.org"}, {"port": 9000}])
def test_sites_are_only_added_for_the_same_address(kits, base, changes):
    before = contents(kits.folder)
    with pytest.raises(ConfigError, match="was made for"):
        made(base, "hospital-c", **changes)
    assert contents(kits.folder) == before


def test_sites_are_only_added_for_the_same_base(kits, base):
    (base / "vae" / "weights").write_text("other")
    seal(base, {"image_px": 32})
    with pytest.raises(ConfigError, match="was made for base_digest"):
        made(base, "hospital-c")


def test_keys_of_a_pilot_are_made_and_registered(base):
    told = made(base, make_keys=True)
    nodes = told.kits.nodes()
    assert tuple(nodes) == SITES
    for site in SITES:
        folder = told.kits.folder / site
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        line = nodekeys.public_line(nodekeys.load(folder / "node.key"))
        assert nodekeys.public_bytes(line).hex() == nodes[site]
    assert len(set(nodes.values())) == len(SITES)
    assert "password" in told.todo[0]
    journal = Journal(told.kits.state / "audit.jsonl")
    assert journal.verify().count == len(SITES)


def test_a_crash_before_registering_is_made_good_by_the_same_command(base):
    kits = made(base, make_keys=True).kits
    nodes = kits.nodes()
    (kits.home / "nodes.json").write_text("{}")
    told = made(base, make_keys=True)
    assert told.kept == SITES
    assert told.kits.nodes() == nodes


def test_a_site_with_its_own_key_gets_none_from_here(kits, base):
    with pytest.raises(ConfigError, match="without a key"):
        made(base, "hospital-a", make_keys=True)


@pytest.mark.parametrize("name", ["demo", "pilot"])
def test_a_kit_as_it_comes_serves_only_runs_that_bound_what_they_tell(kits, base, name):
    path = kits.folder / "hospital-a" / "site.yaml"
    filled_in(path, base)
    config, plan = load_config(path), load_run([f"experiment={name}"]).plan
    asked = Request(
        kind=Kind.HELLO, words={"run": "r-1", "exchange": "e" * 64}, plan=plan
    )

    def check(site=config):
        now, history = datetime(2026, 11, 21, 12, 0, tzinfo=UTC), History(units=96)
        policy.check(site.policy, site.privacy, asked, history, now)

    if name == "demo":
        with pytest.raises(PolicyError, match=r"policy\.dp in site\.yaml is required"):
            check()
        # the hospital may go without, in two places that say so
        text = path.read_text().replace("epsilon: 8", "epsilon: 0")
        path.write_text(text.replace("dp: required", "dp: optional"))
        assert load_config(path).privacy.epsilon == 0
        check(load_config(path))
    else:
        check()
        whole = PrivacyPlan.of(plan).whole()
        assert plan.privacy.epsilon < config.privacy.epsilon
        twice = spent([*whole, *whole], config.privacy.delta).epsilon
        assert twice <= config.privacy.epsilon  # a second such run fits as well


def test_a_kit_says_what_its_privacy_costs(kits):
    folder = kits.folder / "hospital-a"
    page = (folder / "README.html").read_text(encoding="utf-8")
    text = (folder / "site.yaml").read_text(encoding="utf-8")
    for told in (page, text):
        assert "epsilon 8" in told
        assert "about a fifth" in told
        assert "64" in told
        assert "dp: optional" in told
