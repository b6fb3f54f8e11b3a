from __future__ import annotations

import email
import email.policy
from typing import Any

import pytest

from airflow_media_tasks.wire.forms import form_of


def read(content_type: str, content: bytes) -> list[tuple[str, str]]:
    """The fields of a form, as another implementation reads them."""
    head = f"Content-Type: {content_type}\r\nMIME-Version: 1.0\r\n\r\n".encode()
    form = email.message_from_bytes(head + content, policy=email.policy.HTTP)
    return [
        (str(part.get_param("name", header="content-disposition")), part.get_payload(decode=True).decode())
        for part in form.iter_parts()
    ]


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        ({"prompt": "a cup", "fps": 16, "cfg": 7.5}, [("prompt", "a cup"), ("fps", "16"), ("cfg", "7.5")]),
        ({"audio": True, "loop": False, "seed": None}, [("audio", "true"), ("loop", "false")]),
        (
            {"reference": {"image_url": "u", "at": {"x": 1}}},
            [("reference[image_url]", "u"), ("reference[at][x]", "1")],
        ),
        ({"tags": ["a", {"b": 1}], "none": []}, [("tags[]", "a"), ("tags[][b]", "1")]),
        ({"prompt": 'ü\r\n--x\r\n"quoted"'}, [("prompt", 'ü\r\n--x\r\n"quoted"')]),
    ],
)
def test_fields(body: dict[str, Any], fields: list[tuple[str, str]]) -> None:
    """Each value is a field, also within objects and lists; what is None is none."""
    assert read(*form_of(body)) == fields


def test_a_name_ends_no_header() -> None:
    """Whatever a field is called, it adds nothing to the form but itself."""
    (field,) = read(*form_of({'a"\r\nX-Evil: 1\r\n\r\n': "x"}))
    assert field == ("a%22%0D%0AX-Evil: 1%0D%0A%0D%0A", "x")


def test_no_two_forms_have_one_boundary() -> None:
    """A text cannot know what its form is divided by."""
    assert form_of({"a": "b"})[0] != form_of({"a": "b"})[0]
