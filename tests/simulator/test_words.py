from __future__ import annotations

import pytest

from airflow_media_tasks.simulator.words import NO_WORDS, without_words, words_in


def test_words_are_found_in_any_text_of_a_request():
    """Words count wherever they stand: in a prompt, in nested settings, in a list."""
    body = {
        "prompt": "a [sim:seconds=2.5] b",
        "input": {"text": "[sim:no-id]"},
        "list": ["[sim:reject=rate*2]"],
    }
    words = words_in(body)
    assert words.seconds("seconds") == 2.5
    assert "no-id" in words
    assert (words.text("reject"), words.found["reject"].first) == ("rate", 2)
    assert words.text("fail") is None


def test_a_request_without_words_costs_nothing():
    """All requests without words share one empty object."""
    assert words_in({"prompt": "a mug", "n": 1}) is NO_WORDS


@pytest.mark.parametrize(
    "text",
    [
        "[sim:sec=3]",
        "[sim:seconds=soon]",
        "[sim:fail=badly]",
        "[sim:status]",
        "[sim:no-id=1]",
        "[sim:reject]",
    ],
)
def test_a_wrong_word_is_an_error_that_names_it(text):
    """A misspelt word is not ignored: the sentence repeats it."""
    with pytest.raises(ValueError, match=text[5:11]):
        words_in({"prompt": text})


def test_words_are_taken_out_for_people():
    """What a picture shows is the prompt without its words."""
    assert without_words("a red [sim:seconds=3] mug [sim:no-id]") == "a red mug"
