"""The status page: whole, read-only, and nothing on it that a name could bring."""

import base64
import hashlib
import html
import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from starlette.testclient import TestClient

from server import page
from server.page_grid import grid
from server.words import clean
from tests.unit import status_example as example
from vgmedgen.codes import CODES, meaning

EVIL = (
    "\"'><script src=//x.example/a.js>alert(1)</script><img src=x onerror=a()>&lt;"
    "\x00\u202e\ud800"
)
PATHS = ("/", "/fragment", "/status.json")


class Elements(HTMLParser):
    """Every element of a page with its attributes, and the text of two kinds."""

    def __init__(self, text):
        super().__init__()
        self.found, self.content, self._in = [], {"style": [], "script": []}, None
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        if tag in self.content:
            self.content[tag].append("")
            self._in = tag

    def handle_endtag(self, tag):
        self._in = None

    def handle_data(self, data):
        if self._in:
            self.content[self._in][-1] += data


def hostile():
    """A state in which every text is an attack."""
    record = example.records([EVIL, "b"], 4)[3]
    bad = replace(
        record,
        stage=EVIL,
        left_out={f"c{EVIL}": EVIL, "d": "VG42"},
        bounded={EVIL: 3.0},
        heldout_loss={EVIL: 0.5},
    )
    run = example.run(
        EVIL,
        [EVIL, "b", f"c{EVIL}", "d"],
        4,
        records=(*example.records([EVIL, "b"], 3), bad),
        state=EVIL,
        at=EVIL,
        why=EVIL,
        code=EVIL,
        experiment=EVIL,
        merge=EVIL,
        stage=EVIL,
        damaged=(EVIL,),
        installed={EVIL: EVIL, "b": "VG60"},
    )
    ended = replace(run, run=f"old {EVIL}", state="failed")
    node = example.node(EVIL, base=EVIL, base_ok=False, version=EVIL, refused=EVIL)
    private = replace(run, run="p", private=True, unit=EVIL, epsilon=8.0, delta=1e-5)
    return example.status(
        name=EVIL,
        host=EVIL,
        base=EVIL,
        warnings=(EVIL,),
        nodes=(node,),
        runs=(run, private, ended, replace(ended, run="older")),
    )


STATES = example.ALL | {"hostile": hostile}


@pytest.fixture
def client():
    asked = page.app(example.many)
    return TestClient(asked, base_url="http://127.0.0.1:8445")


@pytest.mark.parametrize("name", STATES)
def test_the_page_loads_nothing_and_runs_only_its_own_script(name):
    text = page.render(STATES[name]())
    elements = Elements(text)
    kinds = {tag for tag, _ in elements.found}
    assert not kinds & {"img", "link", "iframe", "object", "embed", "base", "form", "a"}
    assert [tag for tag, _ in elements.found].count("script") == 1
    for _, attributes in elements.found:
        for key, value in attributes.items():
            assert not key.startswith("on")
            assert key not in {"src", "href", "style", "srcset", "action", "formaction"}
            if key not in {"title", "aria-label", "id"}:
                assert "//" not in (value or "")
    assert "@import" not in elements.content["style"][0]
    assert "url(" not in elements.content["style"][0]


@pytest.mark.parametrize("name", STATES)
def test_the_policy_allows_this_style_and_this_script_alone(name):
    elements = Elements(page.render(STATES[name]()))
    (policy,) = [
        attributes["content"]
        for tag, attributes in elements.found
        if attributes.get("http-equiv") == "Content-Security-Policy"
    ]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    assert rules["connect-src"] == "'self'"
    assert rules["form-action"] == rules["base-uri"] == "'none'"
    for kind in ("style", "script"):
        (content,) = elements.content[kind]
        found = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert rules[f"{kind}-src"] == f"'sha256-{found}'"
    assert "unsafe" not in policy
    assert "</" not in elements.content["script"][0]


def test_every_text_is_escaped_wherever_it_stands():
    text = page.render(hostile())
    body = text[text.index("<body>") : text.index("<script>")]
    assert "<script" not in body
    assert "<img" not in body
    assert not set("\x00\u202e\ud800") & set(text)
    shown = html.escape(clean(EVIL))
    # name, host, base, warning, node, two runs in full, one in brief, and more
    assert body.count(shown) > 30
    assert text.count("<title>") == 1


@pytest.mark.parametrize("name", example.ALL)
def test_the_page_is_the_fragment_in_a_frame_and_every_part_has_its_id(name):
    status = example.ALL[name]()
    part = page.fragment(status)
    assert part in page.render(status)
    ids = re.findall(
        r'<(?:header|section) id="([^"]+)"|<(?:section|header).*? id="', part
    )
    found = [
        attributes["id"]
        for tag, attributes in Elements(part).found
        if tag in {"header", "section"}
    ]
    assert len(found) >= 3 - (not ids)
    assert len(set(found)) == len(found)
    assert found[:2] == ["head", "nodes"]


def test_it_says_what_a_coordinator_wants_to_know():
    text = page.render(example.three())
    for words in (
        "fl.example.org:8443",
        "expires in 12 days",
        "3 of 4 online",
        "clock 41 s ahead",
        "no key yet",
        "3 of 5",
        "stage generate",
        html.escape(meaning("VG42")),
        "demo-4f1c9a2b",
    ):
        assert words in text
    assert ">up</span>" in text
    assert ">down</span>" in page.render(example.nothing())
    failed = page.render(example.failed())
    assert "1 of the 2 sites that a round needs" in failed
    assert "pilot-3" in failed
    private = page.render(example.private())
    assert (
        "ε spent at most, per patient at δ 1e-05, over all runs of that site" in private
    )
    assert "Mean loss" not in private


def cells(run, kind):
    return sum(
        attributes.get("class") == kind and tag == "td"
        for tag, attributes in Elements(grid(run)).found
    )


def test_the_grid_has_one_cell_for_every_site_and_round():
    run = example.many().runs[0]
    took = sum(len(record.sites) for record in run.records)
    left = sum(len(record.left_out) for record in run.records)
    assert cells(run, "took") == took
    assert cells(run, "left") == left > 0
    assert cells(run, "absent") == 12 * 31 - took - left > 0
    assert (cells(run, "now"), cells(run, "ahead")) == (12, 12 * 8)


def test_a_long_run_shows_its_latest_rounds_and_says_so():
    sites = ["hospital-a", "hospital-b"]
    run = example.run("long", sites, 300, rounds=2000, align_rounds=100)
    shown = grid(run)
    assert "rounds 1 to 256 are in status.json" in shown
    assert cells(run, "took") == 2 * 44
    assert len(page.render(example.status(runs=(run,)))) < 200_000


def test_every_code_can_stand_in_a_cell():
    sites = [f"s{number}" for number in range(len(CODES))]
    record = replace(
        example.records(sites, 1)[0],
        sites=[],
        counted=False,
        left_out=dict(zip(sites, CODES, strict=True)),
    )
    text = grid(example.run("r", sites, 1, records=(record,)))
    assert all(html.escape(meaning(code)) in text for code in CODES)
    assert "<del>1</del>" in text


@pytest.mark.parametrize("path", PATHS)
def test_it_answers_get_and_head_and_nothing_else(client, path):
    got = client.get(path)
    assert got.status_code == 200
    assert client.head(path).status_code == 200
    assert client.head(path).content == b""
    for method in ("POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"):
        assert client.request(method, path).status_code == 405
    assert client.get("/../etc/passwd").status_code == 404
    assert client.get("/status.json/").status_code == 404


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:8445", 200),
        ("localhost", 200),
        ("localhost:1", 200),
        ("evil.example", 400),
        ("127.0.0.1.evil.example", 400),
        ("localhost.evil.example:8445", 400),
        ("evil.example:127.0.0.1", 400),
        ("0.0.0.0:8445", 400),
        ("", 400),
    ],
)
def test_only_the_names_of_this_machine_are_answered(client, host, status):
    answer = client.get("/status.json", headers={"host": host})
    assert answer.status_code == status
    assert ("consortium" in answer.text) == (status == 200)


@pytest.mark.parametrize(
    ("path", "method", "host"),
    [
        ("/", "GET", "localhost"),
        ("/fragment", "GET", "localhost"),
        ("/status.json", "GET", "localhost"),
        ("/nowhere", "GET", "localhost"),
        ("/", "POST", "localhost"),
        ("/", "GET", "evil.example"),
    ],
)
def test_every_answer_has_the_headers_a_browser_keeps_to(client, path, method, host):
    headers = client.request(method, path, headers={"host": host}).headers
    assert headers["cache-control"] == "no-store"
    assert headers["x-frame-options"] == "DENY"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert "unsafe" not in headers["content-security-policy"]
    assert "access-control-allow-origin" not in headers
    assert "set-cookie" not in headers


def test_the_three_paths_tell_the_same_state(client):
    told = client.get("/status.json").json()
    assert told["runs"][0]["run"] == "consortium-2026-11"
    part = client.get("/fragment").text
    assert part in client.get("/").text
    assert "consortium-2026-11" in part


def test_many_readers_cost_one_look_and_a_later_one_sees_what_is_new(monkeypatch):
    looks, now = [], [100.0]
    monkeypatch.setattr(page.time, "monotonic", lambda: now[0])

    def gather():
        looks.append(now[0])
        return example.status(name=f"look {len(looks)}")

    look = page._Look(gather)
    assert {look().name for _ in range(5)} == {"look 1"}
    now[0] += page.FRESH_S + 0.1
    assert look().name == "look 2"
    assert looks == [100.0, now[0]]


def test_status_json_has_no_value_that_is_not_strict(client):
    def refuse(word):
        raise AssertionError(word)

    json.loads(client.get("/status.json").text, parse_constant=refuse)


def test_the_page_shows_held_out_losses_limits_and_who_was_held_to_the_bound():
    told = page.fragment(example.bounded())
    assert "mean held-out loss, round 5" in told
    assert "Mean held-out loss" in told
    assert "no site counts for more than 2 times the others" in told
    assert "no update changes more than 2 times the others" in told
    assert told.count('class="took bounded"') == 5
    assert told.count("hospital-c (97.2 times the others)") == 5
    assert "5 rounds" in told
    quiet = page.fragment(example.three())
    assert "bounded" not in quiet
    assert "no site counts for more" not in quiet


def test_under_differential_privacy_the_page_tells_no_loss_of_either_kind():
    told = page.fragment(example.private())
    assert "loss" not in told
