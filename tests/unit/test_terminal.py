"""Commands where standard output knows fewer signs than they write."""

import os
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest

from tests.federation.processes import BIN
from vgmedgen.process import terminal

ROOT = Path(__file__).parents[2]
PARTS = ("vgmedgen", "server", "client", "simulations")
LOCALES = {
    "ascii": {"PYTHONIOENCODING": "ascii"},
    "latin-1": {"PYTHONIOENCODING": "latin-1"},
    "cp1252": {"PYTHONIOENCODING": "cp1252"},
    "strict": {"PYTHONIOENCODING": "ascii:strict"},
    "C": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    "POSIX": {"LANG": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
}
SAY = (
    "from vgmedgen.process import terminal; terminal.settle(); import sys;"
    "print(sys.argv[1]); print(sys.argv[1], file=sys.stderr)"
)


def said(text, locale):
    """Both streams of a process that prints `text` under a locale."""
    done = subprocess.run(
        [sys.executable, "-c", SAY, text],
        env={**os.environ, **LOCALES.get(locale, {"PYTHONUTF8": "1"})},
        capture_output=True,
        check=True,
    )
    assert done.stdout == done.stderr
    return done.stdout.rstrip(b"\n")


@pytest.mark.parametrize("locale", ["ascii", "latin-1", "cp1252", "strict"])
def test_a_tick_is_a_word_where_the_encoding_has_none(locale):
    assert said("✓ policy ✗ data → ε ≤ 3", locale) == (
        b"ok policy x data -> epsilon <= 3"
    )


def test_signs_stay_where_the_encoding_has_them():
    assert said("✓ Müller · ε", "utf-8") == "✓ Müller · ε".encode()
    assert said("Müller ·", "latin-1") == "Müller ·".encode("latin-1")


def test_a_letter_is_a_number_so_that_no_name_looks_like_another():
    assert said("Müller 患", "ascii") == b"M\\xfcller \\u60a3"


def test_a_name_that_is_no_text_is_spelled_out_under_any_encoding():
    name = os.fsdecode(b"m\xfcller.png")
    for locale in ("utf-8", "ascii", "C"):
        assert said(name, locale).startswith(b"m\\u")


def test_every_sign_that_the_code_writes_has_a_plain_one():
    used = {
        sign
        for part in PARTS
        for path in (ROOT / part).rglob("*.py")
        for sign in path.read_text(encoding="utf-8")
        if (not sign.isascii() and not sign.isalpha()) or sign in "εδσ"
    }
    assert "✓" in used
    spelled = {
        sign
        for sign in used
        if terminal.plain(UnicodeEncodeError("ascii", sign, 0, 1, ""))[0].startswith(
            "\\"
        )
    }
    assert not spelled, [unicodedata.name(sign, sign) for sign in spelled]


@pytest.mark.parametrize("locale", ["ascii", "C"])
@pytest.mark.parametrize(
    ("name", "words", "status"),
    [
        ("vgmedgen-client", ("check", "--site", "site.yaml"), 1),
        ("vgmedgen-client", ("--help",), 0),
        ("vgmedgen-server", ("status", "--kits", "kits"), 1),
        ("vgmedgen", ("synthesize", "--help"), 0),
        ("vgmedgen-simulate", ("data=Münster",), 1),
    ],
)
def test_every_command_ends_as_it_would_under_utf_8(
    tmp_path, locale, name, words, status
):
    (tmp_path / "site.yaml").write_text("name: münster\n", encoding="utf-8")
    done = subprocess.run(
        [BIN / name, *words],
        cwd=tmp_path,
        env={**os.environ, **LOCALES[locale]},
        capture_output=True,
        check=False,
    )
    both = done.stdout + done.stderr
    assert done.returncode == status, both.decode(errors="replace")
    assert b"Traceback" not in both
    assert b"Error" not in both
