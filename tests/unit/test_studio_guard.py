"""The studio's guard: loopback's own browser with the key, and nobody else."""

import zipfile
from io import BytesIO

import pytest

from vgmedgen.errors import ConfigError, StateError

pytest.importorskip("gradio")
from starlette.testclient import TestClient

from vgmedgen.studio import serve
from vgmedgen.studio.guard import PATHS, Guard
from vgmedgen.studio.serve import CACHE, listening, packed, workplace

PORT, KEY = 7860, "k" * 32
HTML = (
    b'<head><meta property="og:image"\n content="https://raw.example/x.jpg" />'
    b'<meta name="twitter:creator" content="@x" /><meta charset="utf-8" /></head>'
)


async def page(scope, receive, send):
    """What stands behind the guard: answers everything."""
    headers = [(b"content-type", b"text/html"), (b"content-length", b"%d" % len(HTML))]
    start = {"type": "http.response.start", "status": 200, "headers": headers}
    await send(start)
    await send({"type": "http.response.body", "body": HTML})


def client(host=f"127.0.0.1:{PORT}", **headers):
    guard = Guard(page, port=PORT, key=KEY)
    return TestClient(
        guard, base_url=f"http://{host}", headers=headers, follow_redirects=False
    )


def entered(host=f"127.0.0.1:{PORT}", **headers):
    """A browser that opened the printed address."""
    browser = client(host, **headers)
    answer = browser.get(f"/?key={KEY}")
    assert answer.status_code == 303
    assert answer.headers["location"] == "/"
    return browser


@pytest.mark.parametrize("host", ["127.0.0.1:7860", "localhost:7860"])
def test_the_printed_address_opens_the_page(host):
    answer = entered(host).get("/")
    assert answer.status_code == 200
    assert b"charset" in answer.content


def test_the_address_without_the_key_is_refused_in_one_line():
    for path in ("/", "/?key=wrong", "/config", "/exports/a.zip"):
        answer = client().get(path)
        assert answer.status_code == 403
        assert answer.text.count("\n") == 1
        assert "vgmedgen studio" in answer.text


@pytest.mark.parametrize(
    "host", ["evil.example:7860", "127.0.0.1:7861", "127.0.0.1", "0.0.0.0:7860", ""]
)
def test_another_host_is_refused_even_with_the_key(host):
    browser = client()
    answer = browser.get(f"/?key={KEY}", headers={"host": host})
    assert answer.status_code == 403
    assert "set-cookie" not in answer.headers


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "http://127.0.0.1:9000", "file://"]
)
def test_a_request_that_another_page_makes_is_refused(origin):
    browser = entered()
    ask = "/gradio_api/queue/join"
    assert browser.post(ask, headers={"origin": origin}).status_code == 403
    own = {"origin": f"http://127.0.0.1:{PORT}"}
    assert browser.post(ask, headers=own).status_code == 200


def test_only_the_paths_of_the_page_are_served():
    browser = entered()
    outside = (
        *("/gradio_api/upload", "/gradio_api/file=/etc/passwd", "/gradio_api/file/a"),
        *("/gradio_api/proxy=http://evil.example/", "/monitoring", "/docs", "/login"),
        *("/gradio_api/runs", "/gradio_api/openapi.json", "/openapi.json", "/runs"),
        *("/exports/../site.zip", "/exports/a/b.zip", "/gradio_api/vibe-edit/"),
    )
    for path in outside:
        assert not PATHS.fullmatch(path), path
    for path in ("/monitoring", "/gradio_api/upload", "/gradio_api/file=/etc/passwd"):
        assert browser.get(path).status_code == 403
        assert browser.post(path).status_code == 403


def test_every_answer_forbids_the_browser_to_go_elsewhere():
    for answer in (entered().get("/"), entered().get("/config"), client().get("/")):
        policy = answer.headers["content-security-policy"]
        told = dict(part.strip().split(" ", 1) for part in policy.split(";"))
        assert told["default-src"] == "'self'"
        assert told["connect-src"] == "'self'"
        assert told["frame-ancestors"] == "'none'"
        assert "http" not in policy
        assert "*" not in policy
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["referrer-policy"] == "no-referrer"


def test_the_cookie_is_for_this_page_alone():
    cookie = client().get(f"/?key={KEY}").headers["set-cookie"]
    assert cookie.startswith(f"vgmedgen-studio-{PORT}={KEY};")
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie


def test_the_page_loses_what_link_previews_would_fetch():
    content = entered().get("/").content
    assert b"https://" not in content
    assert b"twitter" not in content


def test_a_port_in_use_is_refused_in_one_line():
    with listening(0) as held:
        host, port = held.getsockname()
        held.listen()
        assert host == "127.0.0.1"
        told = f"127.0.0.1:{port}.*another --port"
        with pytest.raises(StateError, match=told), listening(port):
            pass
    with pytest.raises(ConfigError, match="--port"), listening(70_000):
        pass


def test_what_the_server_may_write_is_private_and_gone_afterwards(
    tmp_path, monkeypatch
):
    import os

    monkeypatch.setattr(os, "environ", {**os.environ, "GRADIO_SHARE": "True"})
    left = tmp_path / CACHE / "left.png"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"of a studio that was killed")
    with workplace(tmp_path):
        folder = tmp_path / CACHE
        assert os.environ["GRADIO_TEMP_DIR"] == str(folder)
        assert os.environ["GRADIO_ANALYTICS_ENABLED"] == "False"
        assert "GRADIO_SHARE" not in os.environ
        assert not list(folder.iterdir())
        assert folder.stat().st_mode & 0o777 == 0o700
        with pytest.raises(StateError, match="running already"), workplace(tmp_path):
            pass
        (folder / "picture.png").write_bytes(b"x")
    assert not (tmp_path / CACHE).exists()


def test_a_download_holds_nothing_that_was_held_back(tmp_path):
    folder = tmp_path / "export"
    for name in ("images/00000.png", "quarantine/00001.png", ".job/verdicts.jsonl"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())
    with zipfile.ZipFile(BytesIO(packed(folder))) as archive:
        assert archive.namelist() == ["export/images/00000.png"]
        assert archive.read("export/images/00000.png") == b"images/00000.png"


def test_without_gradio_the_command_says_what_to_install(monkeypatch):
    monkeypatch.setattr(serve, "find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=r"pip install 'vgmedgen\[studio\]'"):
        serve.check_installed()
