"""Every way in which a connection fails gets one line that says what to do."""

import errno
import socket
import ssl
import urllib.request

import httpx
import pytest

from client.connection import address_of, explain, explain_exit
from tests.loopback import HOST, authority, closed_port, coordinator, rude, server_files
from vgmedgen.errors import (
    ApprovalError,
    ConfigError,
    StateError,
    TrustError,
    UnreachableError,
)

EXIT = """\
\x1b[92mINFO \x1b[0m:      Starting Flower SuperNode
\x1b[93mWARNING \x1b[0m:   Connection attempt failed (connection refused), retrying
INFO:     Uvicorn running on http://127.0.0.1:37061 (Press CTRL+C to quit)
\x1b[91mERROR \x1b[0m:     Exit Code: {code}
{why}

For more information, visit: <https://flower.ai/docs/framework/ref-exit-codes.html>
INFO:     Shutting down
INFO:     Finished server process [13037]
"""
JOINING = (
    "Failed to initialize the connection to the SuperLink.\n{}\n"
    "The SuperNode could not establish a connection to the SuperLink."
)
VERIFY = "[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: {} (_ssl.c:1006)"


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    return tmp_path_factory.mktemp("certificates")


@pytest.fixture(scope="module")
def ca(here):
    authority(here, "other")
    return authority(here)


class Patience:
    """How long a server is waited for: longer than any that answers needs."""

    seconds = 60.0


def context_of(path):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(path)
    return context


def by_socket(port, context, host=HOST):
    with (
        socket.create_connection((HOST, port), timeout=Patience.seconds) as bare,
        context.wrap_socket(bare, server_hostname=host),
    ):
        pass


def by_http(port, context, host=HOST):
    with httpx.Client(
        verify=context, timeout=Patience.seconds, trust_env=False
    ) as client:
        client.get(f"https://{host}:{port}/health").raise_for_status()


def by_urllib(port, context, host=HOST):
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
    )
    opener.open(f"https://{host}:{port}/health", timeout=Patience.seconds).close()


dials = pytest.mark.parametrize("dial", [by_socket, by_http, by_urllib])


def failed(dial, *words):
    """What our table makes of the error that `dial` ends with."""
    try:
        dial(*words)
    except (OSError, httpx.HTTPError) as error:
        found = explain(error, where="fl.example.org:8443")
    else:
        pytest.fail("nothing failed")
    assert "\n" not in str(found)
    assert "; " in str(found)  # what is wrong, and what to do
    return found


@dials
def test_a_certificate_by_another_ca_is_not_trusted(dial, here, ca):
    with coordinator(server_files(here, ca)) as port:
        found = failed(dial, port, context_of(here / "other.crt"))
        assert type(found) is TrustError
        assert "not by the CA in this site's ca.crt" in str(found)
        dial(port, context_of(here / "ca.crt"))  # and by the right one it is


@dials
def test_an_expired_certificate_says_so(dial, here, ca):
    with coordinator(server_files(here, ca, days=10, ago=20)) as port:
        found = failed(dial, port, context_of(here / "ca.crt"))
    assert type(found) is TrustError
    assert "has expired" in str(found)


@dials
def test_a_certificate_of_tomorrow_blames_the_clock(dial, here, ca):
    with coordinator(server_files(here, ca, ago=-2)) as port:
        found = failed(dial, port, context_of(here / "ca.crt"))
    assert type(found) is TrustError
    assert "not valid yet" in str(found)
    assert "clock" in str(found)


@dials
@pytest.mark.parametrize("dialled", [HOST, "localhost"])
def test_a_name_that_the_certificate_lacks_is_told(dial, dialled, here, ca):
    with coordinator(server_files(here, ca, hosts=("fl.example.org",))) as port:
        found = failed(dial, port, context_of(here / "ca.crt"), dialled)
    assert type(found) is TrustError
    assert f"not for the name '{dialled}'" in str(found)


@dials
def test_a_server_without_tls_is_known_as_one(dial, here, ca):
    with coordinator(None) as port:
        found = failed(dial, port, context_of(here / "ca.crt"))
    assert type(found) is TrustError
    assert "not with TLS" in str(found)


@dials
def test_a_closed_port_is_unreachable(dial, here, ca):
    found = failed(dial, closed_port(), context_of(here / "ca.crt"))
    assert type(found) is UnreachableError
    assert "nothing listens at fl.example.org:8443" in str(found)


@dials
@pytest.mark.parametrize(
    ("silent", "told"), [(True, "in time"), (False, "closed|broke")]
)
def test_a_server_that_says_nothing_is_unreachable(
    dial, silent, told, here, ca, monkeypatch
):
    monkeypatch.setattr(Patience, "seconds", 0.4)
    with rude(silent=silent) as port:
        found = failed(dial, port, context_of(here / "ca.crt"))
    assert type(found) is UnreachableError
    assert any(word in str(found) for word in told.split("|")), str(found)


def test_an_old_tls_is_named(here, ca):
    pair, context = server_files(here, ca), context_of(here / "ca.crt")
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.maximum_version = ssl.TLSVersion.TLSv1_2
    server.load_cert_chain(*pair)
    with coordinator(pair, context=server) as port:
        found = failed(by_socket, port, context)
    assert type(found) is TrustError
    assert "TLS 1.2 or 1.3" in str(found)


@pytest.mark.parametrize(
    ("status", "kind", "told"),
    [
        (401, TrustError, "key is registered no more"),
        (425, TrustError, "more than 300 s ahead of that of"),
        (404, TrustError, "HTTP status 404: it is no coordinator"),
        (502, UnreachableError, "HTTP status 502"),
    ],
)
def test_what_http_answers_is_told_by_its_kind(status, kind, told, here, ca):
    with coordinator(server_files(here, ca), health=status) as port:
        found = failed(by_http, port, context_of(here / "ca.crt"))
    assert type(found) is kind
    assert told in str(found)


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({"code": 2004, "detail": "Failed"}, "its key is not registered there"),
        ({"code": 2001, "detail": "must be registered"}, "this one showed no key"),
        ({"detail": "no code"}, "HTTP status 412"),
        (["not", "an", "object"], "HTTP status 412"),
    ],
)
def test_a_code_of_flower_counts_before_its_http_status(body, told, here, ca):
    def ask(port):
        with httpx.Client(
            verify=context_of(here / "ca.crt"), trust_env=False
        ) as client:
            client.post(f"https://{HOST}:{port}/x", content=b"").raise_for_status()

    with coordinator(server_files(here, ca), fleet=(412, body)) as port:
        found = failed(ask, port)
    assert type(found) is TrustError
    assert told in str(found)


@pytest.mark.parametrize(
    ("error", "kind", "told"),
    [
        (socket.gaierror(-2, "Name or service not known"), UnreachableError, "name"),
        (
            socket.gaierror(-3, "Temporary failure in name resolution"),
            UnreachableError,
            "name server",
        ),
        (
            OSError(113, "No route to host"),
            UnreachableError,
            "no way from this machine",
        ),
        (OSError(101, "Network is unreachable"), UnreachableError, "no way from"),
        (
            ConnectionResetError(104, "Connection reset by peer"),
            UnreachableError,
            "off",
        ),
        (OSError("Tunnel connection failed: 403 Forbidden"), UnreachableError, "proxy"),
        (OSError(errno.ENOSPC, "No space left on device"), StateError, "disk is full"),
        (OSError(5, "Input/output error"), UnreachableError, "Input/output error"),
        (RuntimeError("boo\nhoo"), StateError, "unforeseen (RuntimeError: boo hoo)"),
    ],
)
def test_errors_that_loopback_does_not_make(error, kind, told):
    found = explain(error)
    assert type(found) is kind
    assert told in str(found)
    assert "\n" not in str(found)


def test_an_error_of_ours_is_given_back_as_it_is():
    ours = ApprovalError("run r waits")
    assert explain(ours) is ours
    wrapped = RuntimeError("a library's words around it")
    wrapped.__cause__ = ours
    assert explain(wrapped) is ours


def test_errors_that_name_each_other_as_causes_end():
    one, two = RuntimeError("one"), RuntimeError("two")
    one.__cause__, two.__cause__ = two, one
    assert type(explain(one)) is StateError


@pytest.mark.parametrize(
    ("code", "why", "told"),
    [
        (305, VERIFY.format("unable to get local issuer certificate"), "ca.crt"),
        (305, VERIFY.format("certificate has expired"), "has expired"),
        (
            305,
            VERIFY.format(
                "IP address mismatch, certificate is not valid for '127.0.0.1'."
            ),
            "not for the name '127.0.0.1'",
        ),
        (305, VERIFY.format("unsupported certificate purpose"), "(unsupported certif"),
        (305, "[SSL: WRONG_VERSION_NUMBER] wrong version number", "not with TLS"),
        (305, "[code: 2004] Failed to activate SuperNode.", "wait a minute"),
        (305, "[code: 2001] All SuperNodes must be registered via the CLI.", "no key"),
        (
            305,
            "Client error '404 Not Found' for url 'https://127.0.0.1:4/v1/fleet/x'",
            "HTTP status 404",
        ),
        (302, "Unable to parse the private key file.", "vgmedgen-client keygen"),
        (303, "Insecure connection is enabled", "without TLS"),
        (401, "Failed to load SuperExec auth secret: x", "remove the folder node/"),
        (600, "Please provide a domain name", "host:port"),
        (604, "The provided path is invalid", "vgmedgen-client check"),
        (606, "Upgrade your Flower version", "versions of Flower"),
        (999, "Something new", "Exit Code: 999 Something new; look into the logs"),
    ],
)
def test_each_exit_of_a_supernode_is_explained(code, why, told):
    text = JOINING.format(why) if code == 305 else why
    said = explain_exit(EXIT.format(code=code, why=text), 1)
    assert told in said
    assert "nothing listens" not in said  # a retry that came before is no cause
    assert "\n" not in said


def test_a_port_that_is_taken_is_found_above_the_traceback():
    output = (
        "ERROR:    [Errno 98] error while attempting to bind on address ('127.0.0.1', "
        "45945): address already in use\nINFO:     Waiting for shutdown.\n"
        'Traceback (most recent call last):\n  File "x.py", line 8, in <module>\n'
        "RuntimeError: SuperNode Runtime HTTP API failed to start.\n"
    )
    assert "is in use" in explain_exit(output, 1)


def test_a_supernode_that_was_killed_did_not_fail_to_connect():
    retried = "WARNING :   Connection refused, retrying in 0.38 seconds\n"
    assert explain_exit(retried, -9).startswith("SIGKILL stopped it, as when memory")
    assert explain_exit(retried, -15).startswith("SIGTERM stopped it; ")
    assert explain_exit(retried, -99).startswith("signal 99 stopped it; ")


def test_a_supernode_that_is_refused_ends_without_a_word_and_is_explained():
    # 1.41.0 sends itself SIGINT on 401: exit 0, nothing in its output
    said = explain_exit("INFO :      SuperNode terminated gracefully.\n", 0)
    assert "registered no more" in said
    logged = (
        "ERROR :     Client error '401 Unauthorized' for url 'https://x/v1/fleet/y'"
    )
    assert "does not accept this node's signature" in explain_exit(logged, 0)


def test_a_traceback_that_no_rule_knows_ends_with_its_last_line():
    output = "Traceback (most recent call last):\n  x\nKeyError: 'boo'\n"
    assert explain_exit(output, 1).startswith("KeyError: 'boo' (exit 1); look into")
    assert explain_exit("", 1).startswith("it said nothing (exit 1)")


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("fl.example.org:8443", "fl.example.org", 8443),
        ("127.0.0.1:1", "127.0.0.1", 1),
        ("[::1]:443", "::1", 443),
    ],
)
def test_an_address_is_read(text, host, port):
    assert address_of(text) == (host, port)


@pytest.mark.parametrize(
    "text",
    ["", "fl.example.org", ":8443", "x:", "https://x:8443", "x:0", "x:65536", "a b:1"],
)
def test_an_address_of_another_form_is_refused(text):
    with pytest.raises(ConfigError, match=r"coordinator\.address"):
        address_of(text)
