"""Why a site and its coordinator cannot talk, in one line, and what to do about it.

Python's ssl, sockets, HTTP libraries and Flower's node each say it in their own words,
some of them misleading. All of them are read here, by one table.
"""

import errno
import json
import re
import signal
from collections.abc import Iterator
from dataclasses import dataclass

from client.proxy import Proxy, proxy_of
from vgmedgen.errors import (
    ConfigError,
    StateError,
    TrustError,
    UnreachableError,
    VGMedGenError,
)
from vgmedgen.trust.nodekeys import MOST_SKEW_S

WHERE = "the coordinator"
_SAID = 160  # characters of a text that no rule knows
_TAIL = 60  # last lines of a process's output that are looked at
# what a SuperNode says and does when its requests are answered by 401: nothing at all
_GRACEFUL = (
    "it ended as if it was told to; unless somebody did, the coordinator does not accept "
    "its signature: its key is registered no more, or it has become another's"
)
_LOGS = "look into the logs below node/"
_EXIT = re.compile(r"Exit Code: \d+")
_RETRIED = re.compile(r"^\W*WARN")  # Flower goes on after these
_ERROR = re.compile("^ERROR|Error:")  # a log line, or the end of a traceback
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(frozen=True)
class _Rule:
    """What a text of another's making means here."""

    pattern: re.Pattern[str]
    kind: type[VGMedGenError]
    told: str  # {where}, {proxy}, and the groups of the pattern
    through: str  # the same where the other end of the line is a proxy's


def _rule(
    pattern: str, kind: type[VGMedGenError], told: str, through: str = ""
) -> _Rule:
    return _Rule(re.compile(pattern, re.IGNORECASE), kind, told, through or told)


_NO_PROXY = (
    "so {where} cannot be reached; correct the variable, or put the coordinator's host "
    "into no_proxy"
)


_RULES = (
    # the certificate that the coordinator shows
    _rule(
        r"(?:hostname|IP address) mismatch,? certificate is not valid for '(?P<name>[^']+)",
        TrustError,
        "the certificate of {where} is not for the name '{name}'; set coordinator.address "
        "to a name that it has, or ask for a certificate that has this one",
    ),
    _rule(
        "certificate has expired",
        TrustError,
        "the certificate of {where}, or the CA behind it, has expired by this machine's "
        "clock; ask the coordinator to renew it, if the clock here is right",
    ),
    _rule(
        "certificate is not yet valid",
        TrustError,
        "the certificate of {where} is not valid yet by this machine's clock; set the "
        "clock here, or wait",
    ),
    _rule(
        "unable to get (?:local )?issuer|self.signed certificate|signature failure"
        "|invalid CA certificate|unable to verify the first certificate",
        TrustError,
        "the certificate of {where} is not by the CA in this site's ca.crt; compare the "
        "CA's fingerprint with the coordinator: the kit is old, or somebody on the way "
        "opens TLS",
    ),
    _rule(
        r"certificate.verify.failed(?:\] certificate verify failed)?:? ?"
        r"(?P<why>[\w ,'-]*)",
        TrustError,
        "the certificate of {where} cannot be trusted ({why}); send this line to the "
        "coordinator",
    ),
    _rule(
        r"no.certificate.or.crl.found|not enough data: cadata|\bPEM lib\b|x509: .*lib",
        TrustError,
        "the CA certificate of this site cannot be read; copy ca.crt from the kit again",
    ),
    _rule(
        "wrong.version.number|http.request|record layer failure|packet length too long"
        "|unknown protocol|illegal status line|BadStatusLine",
        TrustError,
        "{where} answers, but not with TLS; check host and port of coordinator.address, "
        "and that no proxy takes TLS apart",
    ),
    _rule(
        "unexpected.eof|EOF occurred",
        UnreachableError,
        "{where} closed the connection during the TLS handshake; a firewall on the way "
        "may refuse it: ask your network's people for outbound TLS to this host and port",
    ),
    _rule(
        r"(?:tls|ssl)v\d+.alert|handshake.failure|no.shared.cipher|unsupported.protocol"
        "|no.protocols",
        TrustError,
        "{where} and this machine agree on no way of TLS; it needs TLS 1.2 or 1.3 on "
        "both sides and nothing on the way that opens it",
    ),
    # what Flower's SuperLink answers
    _rule(
        r"code: 2004\b",
        TrustError,
        "{where} did not activate this node: its key is not registered there, or a node "
        "with this key still counts as online, as for a minute after a crash; wait a "
        "minute, then send node.pub to the coordinator and start no second node with it",
    ),
    _rule(
        r"code: 2001\b",
        TrustError,
        "{where} takes registered nodes only and this one showed no key; set "
        "coordinator.key, or make a key with `vgmedgen-client keygen`",
    ),
    _rule(
        r"401 unauthorized|does not recognize this SuperNode|status 401\b",
        TrustError,
        "{where} does not accept this node's signature: its key is registered no more, or "
        "it is another's; send node.pub to the coordinator and compare its fingerprint",
    ),
    _rule(
        r"status 425\b|425 too early",
        TrustError,
        "the clock of this machine is more than "
        f"{MOST_SKEW_S:.0f} s ahead of that of {{where}} or behind it; set it by NTP, here "
        "or there",
    ),
    _rule(
        r"(?:Tunnel connection failed|ProxyError): 407|407 proxy",
        UnreachableError,
        "the proxy {proxy} wants a login, " + _NO_PROXY,
    ),
    _rule(
        r"(?:Tunnel connection failed|ProxyError): (?P<status>5\d\d)",
        UnreachableError,
        "the proxy {proxy} cannot reach {where} (HTTP {status}); try again when the server "
        "is up, check coordinator.address, or put the host into no_proxy",
    ),
    _rule(
        r"Tunnel connection failed: \d+|ProxyError",
        UnreachableError,
        "the proxy {proxy} does not let the connection to {where} through; ask your "
        "network's people to allow it, or put the host into no_proxy",
    ),
    _rule(
        r"(?:client error '|status )(?P<status>4\d\d)\b",
        TrustError,
        "{where} answers with HTTP status {status}: it is no coordinator, or its "
        "proxy hands on too little; check host and port of coordinator.address",
    ),
    _rule(
        r"(?:server error '|status )(?P<status>5\d\d)\b",
        UnreachableError,
        "{where} answers with HTTP status {status}: the server is not running, or not "
        "well; try again later, then ask the coordinator",
    ),
    _rule(
        "invalid protobuf",
        TrustError,
        "{where} answers otherwise than Flower does; check host and port of "
        "coordinator.address, and that nothing on the way changes answers",
    ),
    # why a SuperNode does not start
    _rule(
        "exit code: 302|requires elliptic curve private key",
        TrustError,
        "the node's key is not an elliptic-curve key in OpenSSH form; make one with "
        "`vgmedgen-client keygen` and send node.pub to the coordinator",
    ),
    _rule(
        "exit code: 303|started without TLS",
        TrustError,
        "the node was started without TLS; start it with `vgmedgen-client start`",
    ),
    _rule(
        "exit code: 600",
        ConfigError,
        "coordinator.address is not of the form host:port; write it like "
        "fl.example.org:8443",
    ),
    _rule(
        "exit code: 60[45]",
        StateError,
        "a file that the node was started with is missing; run `vgmedgen-client check`",
    ),
    _rule(
        "exit code: 606",
        StateError,
        "this machine and {where} have different versions of Flower; install the "
        "version that the coordinator names",
    ),
    _rule(
        "exit code: 401|SuperExec auth secret",
        StateError,
        "the secret between the node and its runner cannot be read; stop the node, "
        "remove the folder node/ and start it again",
    ),
    _rule(
        "address already in use",
        StateError,
        "a port that the node needs on this machine is in use; stop what uses it, or "
        "the other node, then start again",
    ),
    _rule(
        "no space left on device|disk quota exceeded",
        StateError,
        "the disk is full; free some space, then start again",
    ),
    # the way there
    _rule(
        "name or service not known|name resolution|nodename nor|no address associated"
        "|name does not resolve",
        UnreachableError,
        "the name of {where} is unknown to this machine's name server; check the host "
        "in coordinator.address, or ask your network's people",
        "the name of the proxy {proxy} is unknown to this machine, " + _NO_PROXY,
    ),
    _rule(
        "connection refused",
        UnreachableError,
        "nothing listens at {where}; check the port in coordinator.address, or "
        "try again when the server is up",
        "the proxy {proxy} does not answer: nothing listens there, " + _NO_PROXY,
    ),
    _rule(
        "timed out|timeout",
        UnreachableError,
        "{where} does not answer in time; ask your network's people to open outbound "
        "TCP to this host and port, or try again when the server is up",
        "the proxy {proxy} does not answer in time, " + _NO_PROXY,
    ),
    _rule(
        "no route to host|network is (?:unreachable|down)|host is down",
        UnreachableError,
        "there is no way from this machine to {where}; check its network",
        "there is no way from this machine to the proxy {proxy}, " + _NO_PROXY,
    ),
    _rule(
        "connection (?:was )?(?:reset|aborted)|broken pipe|server disconnected"
        "|closed connection without|peer closed|RemoteDisconnected",
        UnreachableError,
        "{where} broke the connection off; try again, then ask your network's people "
        "whether a firewall does it",
        "the connection to {where} through the proxy {proxy} broke off; try again, then "
        "ask your network's people, or put the host into no_proxy",
    ),
)


def address_of(text: str) -> tuple[str, int]:
    """Host and port of `coordinator.address`, such as fl.example.org:8443.

    Raises:
        ConfigError: if it is empty or of another form.
    """
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not re.fullmatch("[0-9A-Za-z._:-]+", host) or not re.fullmatch("[0-9]+", port):
        raise ConfigError(
            f"coordinator.address is '{text[:80]}', not host:port; copy it from the kit, "
            "such as fl.example.org:8443"
        )
    if not 0 < int(port) < 2**16:
        raise ConfigError(f"coordinator.address: there is no port {port[:8]}")
    return host, int(port)


def explain(
    error: BaseException, *, where: str = WHERE, proxy: Proxy | None = None
) -> VGMedGenError:
    """The error of ours that another's error of a connection means.

    Args:
        error: of ssl, sockets, an HTTP library, or ours, which is given back.
        where: what the line calls the other side, such as host:port.
        proxy: that was gone through; an HTTP library's error tells by itself.

    Returns:
        TrustError, UnreachableError or StateError with one line for a person; not raised.
    """
    chain = list(chain_of(error))
    for one in chain:
        if isinstance(one, VGMedGenError):
            return one
        if isinstance(one, OSError) and one.errno in {errno.ENOSPC, errno.EDQUOT}:
            return StateError("the disk is full; free some space, then start again")
    proxy = proxy or next(filter(None, map(_gone_through, chain)), None)
    for one in chain:
        if found := _ruled(_text(one), where, proxy):
            return found
    said = _short(_text(error))
    if any(isinstance(one, OSError) for one in chain):
        return UnreachableError(f"{where} cannot be reached ({said}); try again later")
    return StateError(f"{where}: unforeseen ({said}); run `vgmedgen-client check`")


def explain_exit(output: str, exit_code: int, proxy: Proxy | None = None) -> str:
    """One line on why a SuperNode ended.

    Args:
        output: the end of what it printed, both streams.
        exit_code: of its process; negative where a signal ended it.
        proxy: that it goes through.
    """
    if exit_code < 0:
        name = _signal(-exit_code)
        hint = ", as when memory runs out" if name == "SIGKILL" else ""
        return f"{name} stopped it{hint}; {_LOGS}"
    lines = [line for line in _COLOUR.sub("", output).splitlines() if line.strip()]
    lines = lines[-_TAIL:]
    codes = [n for n, line in enumerate(lines) if _EXIT.search(line)]
    if codes:  # Flower says why right behind its exit code, on several lines
        why = "\n".join(lines[codes[-1] :])
        said = " ".join(lines[codes[-1] : codes[-1] + 2])
        return str(_ruled(why, WHERE, proxy) or f"{_short(said)}; {_LOGS}")
    # what goes wrong once it has joined is logged, and it ends as if it was told to
    lines = [line for line in lines if not _RETRIED.search(line)]
    errors = [line for line in lines if _ERROR.search(line)]
    for line in reversed(lines if exit_code else errors):
        if found := _ruled(line, WHERE, proxy):
            return str(found)
    if exit_code == 0 and not errors:
        return _GRACEFUL
    last = (errors or lines or ["it said nothing"])[-1]
    return f"{_short(last)} (exit {exit_code}); {_LOGS}"


def chain_of(error: BaseException) -> Iterator[BaseException]:
    """The error and what caused it; an HTTP library wraps what TLS said."""
    seen: set[int] = set()
    one: BaseException | None = error
    while one is not None and id(one) not in seen:
        seen.add(id(one))
        yield one
        one = one.__cause__ or one.__context__


def _text(error: BaseException) -> str:
    said = f"{type(error).__name__}: {error}"
    body = getattr(getattr(error, "response", None), "text", None)
    if not isinstance(body, str):
        return said
    try:
        code = json.loads(body).get("code")
    except (ValueError, AttributeError):
        return said
    return f"[code: {code}] {said}" if isinstance(code, int) else said


def _gone_through(error: BaseException) -> Proxy | None:
    """The proxy that an HTTP library's request went through."""
    url = getattr(getattr(error, "_request", None), "url", None)
    try:
        return proxy_of(str(url.host)) if url is not None else None
    except ConfigError:
        return None


def _ruled(text: str, where: str, proxy: Proxy | None) -> VGMedGenError | None:
    for rule in _RULES:
        if found := rule.pattern.search(text):
            words = {name: word or "" for name, word in found.groupdict().items()}
            words["why"] = words.get("why", "").strip() or "no reason given"
            told = rule.through if proxy else rule.told
            name = proxy or "of this machine"
            return rule.kind(told.format(where=where, proxy=name, **words))
    return None


def _short(text: str) -> str:
    return " ".join(text.split())[:_SAID]


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
