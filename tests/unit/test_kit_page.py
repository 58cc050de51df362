"""The page of a kit: says what its readers need, fetches nothing."""

from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.provisioned import made, seal_base
from vgmedgen.files import sha256
from vgmedgen.trust import certificates


@pytest.fixture
def base(tmp_path) -> Path:
    return seal_base(tmp_path / "base")


class Seen(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [
            value
            for name, value in attrs
            if name in {"src", "href", "srcset", "action"}
        ]

    def handle_data(self, data):
        self.text += data


def test_the_page_of_a_kit_tells_what_its_readers_need_and_fetches_nothing(base):
    kits = made(base).kits
    content = (kits.folder / "hospital-a" / "README.html").read_text()
    seen = Seen(content)
    assert not seen.links
    assert not {"script", "link", "img", "iframe"} & set(seen.tags)
    assert "url(" not in content
    assert "@import" not in content
    assert "default-src &#x27;none&#x27;" in content
    home = kits.home
    for needed in (
        "hospital-a",
        "fl.example.org:8443",
        "8443/tcp",
        certificates.fingerprint(home / "ca.crt"),
        kits.signing_key().public,
        kits.config.base_digest,
        *(f"{end:%Y-%m-%d}" for end in kits.expiries().values()),
        *(f"vgmedgen-client {verb}" for verb in ("keygen", "check", "policy show")),
        *(f"vgmedgen-client {verb}" for verb in ("approve", "start", "audit verify")),
        "vgmedgen-client ledger show",
        "never leaves".capitalize(),
        "node.pub",
    ):
        assert needed in seen.text, needed
    assert "private key (node.key)" not in seen.text


def test_the_pages_digests_are_those_of_the_files(base):
    kits = made(base, make_keys=True).kits
    folder = kits.folder / "hospital-a"
    text = Seen((folder / "README.html").read_text()).text
    for name in ("ca.crt", "coordinator.pub", "site.yaml", "node.pub"):
        assert sha256(folder / name) in text
    assert sha256(folder / "node.key") not in text
    assert "This kit holds a private key" in text


def test_what_leaves_is_told_as_in_the_projects_readme():
    from server.kit_page import LEAVES, STAYS

    readme = (Path(__file__).parents[2] / "README.md").read_text()
    table = readme[: readme.index("## ")]
    assert LEAVES[0] in table
    assert LEAVES[1] in table
    for thing in STAYS[:2]:
        assert thing in table
    assert STAYS[2] in table.replace(" (only a code)", "")


def test_a_coordinators_name_cannot_become_markup(base):
    kits = made(base, name="<script>alert(1)</script>").kits
    content = (kits.folder / "hospital-a" / "README.html").read_text()
    assert "<script" not in content
    assert "alert(1)" in Seen(content).text
