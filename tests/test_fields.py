"""Header fields: one opinion of what can be sent, wherever they are given."""

from __future__ import annotations

from typing import Any, Callable

import pytest

from iii_sync import HttpError, HttpInvocationConfig, HttpResponse, InitOptions

Make = Callable[[dict[Any, Any]], object]

GIVEN = pytest.mark.parametrize(
    "make",
    [
        lambda headers: InitOptions(headers=headers),
        lambda headers: HttpInvocationConfig("https://host/", headers=headers),
        lambda headers: HttpResponse(200, "text", headers),
        lambda headers: HttpError(404, "text", headers=headers),
    ],
    ids=["options", "invocation", "response", "error"],
)


@GIVEN
@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("", "v", "'…' is not the name of a header: use letters"),
        ("a hidden", "v", "'a…' is not the name"),
        ("a: hidden", "v", "'a…' is not the name"),
        ("ä", "v", "'…' is not the name"),
        (3, "v", "'…' is not the name"),
        ("x-a", "hidden\r\nx-b: c", "the value of 'x-a' is not a line of text"),
        ("x-a", "hidden\0", "'x-a' is not a line"),
        ("x-a", "hidden\x85", "'x-a' is not a line"),
        ("x-a", "hidden\u2028", "'x-a' is not a line"),
        ("x-a", "hidden\ud800", "'x-a' is not a line"),
    ],
)
def test_what_cannot_be_sent_is_refused_and_not_shown(make: Make, name: Any, value: str, said: str) -> None:
    """It may be a secret, and may have been put into the name."""
    with pytest.raises(ValueError, match=said) as caught:
        make({name: value})
    assert "hidden" not in str(caught.value)


@GIVEN
@pytest.mark.parametrize(("name", "value"), [("x-a", "a\tb"), ("x.a", "Grüße"), ("X_A", "")])
def test_what_can_be_sent_is_taken(make: Make, name: str, value: str) -> None:
    """Tabs too, and what is not in ASCII."""
    assert make({name: value})
