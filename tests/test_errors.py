"""The exceptions: their tree, their texts, and that they travel."""

from __future__ import annotations

import copy
import inspect
import pickle
import re
from typing import Any

import pytest

from iii_sync import errors
from iii_sync.errors import fresh, invocation_error

CLASSES = [getattr(errors, name) for name in errors.__all__]


def make(kind: type[BaseException]) -> BaseException:
    """An instance with every attribute set to something."""
    if issubclass(kind, errors.InvocationError):
        return kind("CODE", "what happened", "f::x", "id-1", "trace")
    if issubclass(kind, errors.HttpError):
        return kind(404, "what happened", "CODE", {"x-a": "b"})
    extra = [p for p in inspect.signature(kind.__init__).parameters if p in ("status", "may_have_run", "code")]
    return kind("what happened", *([403] if extra else []))


@pytest.mark.parametrize("kind", CLASSES)
def test_every_error_pickles_and_copies(kind: type[BaseException]) -> None:
    """With its text and its attributes, and to an equal kind."""
    error = make(kind)
    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error), fresh(error)):
        assert type(again) is kind and again is not error
        assert str(again) == str(error) and "what happened" in str(again)
        assert again.__dict__ == error.__dict__
    assert fresh(error).__cause__ is error


@pytest.mark.parametrize("kind", CLASSES)
def test_every_error_has_the_root_and_says_what_it_is(kind: type[BaseException]) -> None:
    """One except for all of them; a docstring each; a place in the tree of the module's docstring."""
    assert issubclass(kind, errors.IIISyncError)
    assert kind.__doc__ and errors.__doc__ and re.search(rf"\b{kind.__name__}\b", errors.__doc__)


@pytest.mark.parametrize(
    ("kind", "builtin"),
    [
        (errors.ReadTimeout, TimeoutError),
        (errors.CallTimeout, TimeoutError),
        (errors.CallTimeout, errors.InvocationError),
        (errors.ConnectFailedError, ConnectionError),
        (errors.ChannelTruncatedError, OSError),
        (errors.ChannelBrokenError, BrokenPipeError),
        (errors.ConfigurationError, ValueError),
    ],
)
def test_builtin_idioms_work(kind: type[BaseException], builtin: type[BaseException]) -> None:
    """Code that knows nothing of iii catches what it expects."""
    assert issubclass(kind, builtin)


def test_errors_of_the_wire_become_their_classes() -> None:
    """By code; unknown ones stay InvocationError; nonsense does not raise."""
    assert type(invocation_error({"code": "FORBIDDEN", "message": "m"}, "f", "i")) is errors.PermissionDeniedError
    assert type(invocation_error({"code": "mine", "message": "m"}, "f", "i")) is errors.InvocationError
    assert invocation_error({"code": "x", "message": "m", "stacktrace": "t"}, "f", "i").stacktrace == "t"
    cases: list[Any] = [None, 3, "text", {}, {"code": 5, "message": []}, []]
    for nonsense in cases:
        assert invocation_error(nonsense, "f", "i").code == "UNKNOWN"
