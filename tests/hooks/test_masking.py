from __future__ import annotations

import base64
import json
import string
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_media_tasks.wire.masking import masked


KEY = "the-key/with=signs+in.it"
secrets = st.text(string.ascii_letters + string.digits + "+/=._-~ &%\"\\'", min_size=8, max_size=60)
around = st.text(string.ascii_letters + " :{}<>", max_size=20)


def in_base64(text: str) -> str:
    """*text* as basic authentication shows it."""
    return base64.b64encode(text.encode()).decode()


SPELLINGS = {
    "as it is": str,
    "json": lambda key: json.dumps(key)[1:-1],
    "slashes": lambda key: key.replace("/", "\\/"),
    "unicode": lambda key: "".join(f"\\u{ord(character):04x}" for character in key),
    "UNICODE": lambda key: "".join(f"\\u{ord(character):04X}" for character in key),
    "percent": lambda key: quote(key, safe=""),
    "all percent": lambda key: "".join(f"%{ord(character):02x}" for character in key),
    "percent in unicode": lambda key: "".join(f"\\u0025{ord(character):02x}" for character in key),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
@settings(deadline=None)
@given(secrets, around, around)
def test_every_spelling(spelling: str, secret: str, before: str, after: str) -> None:
    """However a secret is escaped, it is taken out, and nothing else."""
    written = SPELLINGS[spelling](secret)
    text = masked(f"{before} {written} {after}", (secret,))
    assert written not in text
    assert secret not in text
    assert "***" in text
    assert text == "***" or text.startswith(before.rstrip()) or before.strip() in secret


@settings(deadline=None)
@given(secrets, around, around)
def test_base64_of_whatever_has_it(secret: str, before: str, after: str) -> None:
    """Base64 of a text with a secret in it, as of `user:password`, does not show the secret."""
    for encoded in (
        in_base64(f"{before}{secret}{after}"),
        quote(in_base64(f"{before}{secret}{after}"), safe=""),
    ):
        text = masked(f"Basic {encoded} it was", (secret,))
        assert encoded not in text
        assert "***" in text


@settings(deadline=None)
@given(around, around)
def test_neighbours_stay(before: str, after: str) -> None:
    """What stands beside a secret is still there."""
    assert masked(f"{before}{KEY}{after}", (KEY, "")) == f"{before}***{after}"
    assert json.loads(masked(json.dumps({before: f"a\n{KEY}"}), (KEY,))) == {before: "a\n***"}


def test_a_mixture_that_nobody_writes() -> None:
    """A secret whose characters are each escaped in another way is taken out, too."""
    forms = (str, lambda c: f"\\u{ord(c):04x}", lambda c: f"%{ord(c):02X}", lambda c: f"\\{c}")
    text = "".join(forms[number % 4](character) for number, character in enumerate("a-long-secret"))
    assert masked(f"say {text} again", ("a-long-secret",)) == "say *** again"


def test_short_and_absent_ones() -> None:
    """A secret of a few characters stands in any text by chance; text without a secret is untouched."""
    assert masked("a short text", ("short", "")) == "a short text"
    text = json.dumps({"url": "https://x/?a=%2F\u00e9", "key": "another"})
    assert masked(text, (KEY,)) is text
