"""What a reply may make the server say: codes of closed forms, and nothing else."""

import pytest
from flwr.app import ArrayRecord, ConfigRecord, Error, RecordDict

from server.replies import LATE, OFFLINE, code_of, unreadable, whole
from vgmedgen.errors import ExchangeError
from vgmedgen.exchange.schema import SITE_ERROR
from vgmedgen.trust.facts import checked

PATIENT = "/data/ward-7/patient-0815.png"
FORGED = (12345, -1, 101, 100, 99, 0, 2**63 - 1, -(2**63))


@pytest.mark.parametrize("code", [*FORGED, *range(-2, 13)])
@pytest.mark.parametrize("reason", ["", PATIENT, "VG41", "VG41\n", "VG4\u0661", "vg41"])
def test_whatever_number_a_site_sends_the_audit_log_takes_its_code(code, reason):
    told = code_of(Error(code, reason))
    assert checked("in", {"code": told}) == {"code": told}
    assert PATIENT not in told


def test_codes_are_flowers_or_ours_and_others_count_as_malformed():
    assert code_of(Error(SITE_ERROR, "VG41")) == "VG41"
    assert code_of(Error(SITE_ERROR, PATIENT)) == ExchangeError.code
    assert code_of(Error(SITE_ERROR, None)) == ExchangeError.code
    assert [code_of(Error(code, "VG41")) for code in (3, 4, 5)] == [LATE, LATE, OFFLINE]
    assert code_of(Error(2, "VG41")) == "FL02"
    for code in (12345, -1, 101):
        assert code_of(Error(code, "VG41")) == ExchangeError.code


def reply(content=None):
    found = unreadable("asked")
    if content is not None:
        found.__dict__.update(_content=content, _error=None)
    return found


def test_a_message_that_answers_what_was_asked_is_passed_on_as_it_is():
    for found in (reply(), reply(RecordDict({"origin": ConfigRecord({"site": "a"})}))):
        assert whole(found, "asked") is found


@pytest.mark.parametrize(
    "found",
    [
        None,
        "text",
        RecordDict(),
        reply(ConfigRecord()),
        reply(ArrayRecord()),
        reply(""),
    ],
)
def test_anything_but_a_message_with_records_is_refused(found):
    with pytest.raises(ExchangeError):
        whole(found, "asked")


def test_a_reply_that_says_that_it_answers_another_message_is_refused():
    with pytest.raises(ExchangeError, match="another message"):
        whole(reply(RecordDict()), "of another site")


def test_what_stands_for_an_unreadable_reply_says_no_more_than_a_code():
    found = unreadable("asked")
    assert found.metadata.reply_to_message_id == "asked"
    assert not found.has_content()
    assert (found.error.code, found.error.reason) == (SITE_ERROR, ExchangeError.code)
