"""The marks at both ends of a stream: which streams count as whole, as cut, and as somebody else's."""

from __future__ import annotations

from typing import Optional

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iii_sync.wire.frames import BINARY, TEXT, FrameParser
from iii_sync.wire.marks import OPENING, StreamEnd

from .recorded import server_frame

# One letter a message: e empty binary, d data, t text, n empty text; D and T began and did not end.
_PIECES = {
    "e": (BINARY, 0, True),
    "d": (BINARY, 7, True),
    "t": (TEXT, 3, True),
    "n": (TEXT, 0, True),
    "D": (BINARY, 4, False),
    "T": (TEXT, 2, False),
}


def follow(stream: str) -> StreamEnd:
    """A stream given in letters, followed to its end."""
    follower = StreamEnd()
    for letter in stream.replace(" ", ""):
        follower.piece(*_PIECES[letter])
    return follower


def verdict(stream: str) -> Optional[bool]:
    """What ``complete`` says of a stream given in letters."""
    return follow(stream).complete()


@pytest.mark.parametrize(
    "stream",
    [
        "eeeee d e",
        "eeeee dd e",
        "eeeee d t d e",
        "eeeee d t e",
        "eeeee d n e",
        "eeeee e",  # an empty stream
        "t eeeee d e",
        "t n t eeeee dtd e",
        "t eeeee e",  # texts alone, closed well
        "eeeee t e",
        "eeeee d e d e",  # a relay that appended something that ends well itself
        "eeeee d eeeee d e",
    ],
)
def test_whole(stream: str) -> None:
    """Opened by five empty messages, ended by one more: the stream is whole."""
    assert verdict(stream) is True


@pytest.mark.parametrize(
    "stream",
    [
        "eeeee",  # aborted before any data
        "t eeeee",
        "eeeee d",
        "eeeee D",
        "eeeee T",
        "eeeee t",
        "eeeee n",
        "eeeee d D",
        "eeeee d T",
        "eeeee dtd",
        "eeeee d e t",  # the end mark, then a text
        "eeeee d e n",
        "eeeee d e d",
        "eeeee d e D",
        "eeeee d e T",
        "t eeeee D",
    ],
)
def test_cut(stream: str) -> None:
    """Opened by five empty messages and not ended by one: the stream is cut."""
    assert verdict(stream) is False


@pytest.mark.parametrize(
    "stream",
    [
        "",
        "d",
        "D",
        "t",
        "T",
        "n",
        "dd",
        "d e",
        "e",
        "ee",
        "eee",
        "eeee",
        "eeeeeee",  # seven
        "e d e",
        "ee d e",
        "eee d e",
        "eeee d e",
        "eeeeee d e",
        "eeeeee D",
        "eeeeee t",
        "eeeeee T",
        "eeeeee n",
        "eeeeeee d e",
        "d eeeee e",  # too late
        "d eeeee d e",
        "eee t ee d e",  # a text within the five
        "eee n ee d e",
        "eeee t e d e",
        "t eeee d e",
        "t d eeeee d e",
        "t eeee",
        "eeee T",
        "eeee D",
    ],
)
def test_foreign(stream: str) -> None:
    """Any other number of leading empty messages is someone else's stream, about which nothing is said."""
    assert verdict(stream) is None


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 5, 6, 7, 50])
def test_only_exactly_five_open(count: int) -> None:
    """Before data, exactly five empty messages are the mark."""
    assert verdict("e" * count + "d e") is (True if count == OPENING else None)
    assert OPENING == 5


def test_marked_is_known_while_the_stream_runs() -> None:
    """``marked`` says so with the fifth message, and takes it back when a sixth is followed by data."""
    follower = StreamEnd()
    seen = []
    for letter in "eeeeeedd":
        follower.piece(*_PIECES[letter])
        seen.append(follower.marked)
    assert seen == [False] * 4 + [True, True, False, False]


def test_messages_counts_whole_messages() -> None:
    """Messages of any kind are counted when they end."""
    follower = StreamEnd()
    counts = []
    for opcode, size, end in [(BINARY, 0, True), (TEXT, 1, True), (BINARY, 5, False), (BINARY, 0, True)]:
        follower.piece(opcode, size, end)
        counts.append(follower.messages)
    assert counts == [1, 2, 2, 3]


@pytest.mark.parametrize("pieces", [[(0, False), (0, True)], [(0, False), (0, False), (0, True)]])
def test_an_empty_message_in_fragments_is_empty(pieces: list[tuple[int, bool]]) -> None:
    """Fragments without bytes make an empty message, as an opening and as an end."""
    follower = StreamEnd()
    for _ in range(OPENING):
        for size, end in pieces:
            follower.piece(BINARY, size, end)
    assert follower.complete() is False
    follower.piece(BINARY, 3, True)
    for size, end in pieces:
        follower.piece(BINARY, size, end)
    assert follower.complete() is True


def test_data_whose_last_fragment_is_empty_is_no_end_mark() -> None:
    """A message with bytes in an earlier fragment is not empty."""
    follower = StreamEnd()
    for _ in range(OPENING):
        follower.piece(BINARY, 0, True)
    follower.piece(BINARY, 3, False)
    follower.piece(BINARY, 0, True)
    assert follower.complete() is False
    assert follower.messages == OPENING + 1


# What a user of a writer does: texts (empty ones too) and data in any order.
_writes = st.lists(
    st.one_of(
        st.tuples(st.just(TEXT), st.integers(0, 9)),
        st.tuples(st.just(BINARY), st.integers(1, 9)),
    ),
    max_size=8,
)


def written(writes: list[tuple[int, int]]) -> tuple[list[tuple[int, int]], int]:
    """The messages of our writer, and how many of them there are when its opening mark is complete."""
    messages: list[tuple[int, int]] = []
    opened = 0
    for opcode, size in writes:
        if opcode == BINARY and not opened:
            messages += [(BINARY, 0)] * OPENING
            opened = len(messages)
        messages.append((opcode, size))
    if not opened:
        messages += [(BINARY, 0)] * OPENING
        opened = len(messages)
    messages.append((BINARY, 0))
    return messages, opened


def expected(received: int, of: int, opened: int) -> Optional[bool]:
    """The model: unknown before the opening mark is complete, whole only at the very end."""
    if received < opened:
        return None
    return received == of


@settings(deadline=None, max_examples=300)
@given(writes=_writes, data=st.data())
def test_a_cut_anywhere_is_seen(writes: list[tuple[int, int]], data: st.DataObject) -> None:
    """Cut at any border or inside any message, in any fragments: only the uncut stream is whole."""
    messages, opened = written(writes)
    received = data.draw(st.integers(0, len(messages)))
    follower = StreamEnd()
    for opcode, size in messages[:received]:
        borders = sorted(data.draw(st.lists(st.integers(0, size), max_size=3)))
        for start, stop in zip([0, *borders], borders):
            if stop > start:
                follower.piece(opcode, stop - start, False)
        follower.piece(opcode, size - (borders[-1] if borders else 0), True)
    inside = False
    if received < len(messages):
        opcode, size = messages[received]
        part = data.draw(st.integers(0, size))
        inside = part > 0
        if inside:
            follower.piece(opcode, part, False)
    assert follower.complete() is expected(received, len(messages), opened)
    assert follower.messages == received


@settings(deadline=None, max_examples=200)
@given(writes=_writes, data=st.data())
def test_a_cut_at_any_byte_is_seen(writes: list[tuple[int, int]], data: st.DataObject) -> None:
    """The same through the parser: a stream of frames, fragmented, cut at any byte, fed in any parts."""
    messages, opened = written(writes)
    stream = b""
    ends = []
    for opcode, size in messages:
        border = data.draw(st.integers(0, size))
        if data.draw(st.booleans()):
            stream += server_frame(opcode, b"a" * border, end=False)
            stream += server_frame(0, b"a" * (size - border))
        else:
            stream += server_frame(opcode, b"a" * size)
        ends.append(len(stream))
    cut = data.draw(st.integers(0, len(stream)))
    parser, follower = FrameParser(), StreamEnd()
    borders = sorted(data.draw(st.lists(st.integers(0, cut), max_size=5)))
    for start, stop in zip([0, *borders], [*borders, cut]):
        for opcode, payload, end in parser.feed(stream[start:stop])[0]:
            follower.piece(opcode, len(payload), end)
    received = sum(end <= cut for end in ends)
    assert parser.error is None
    assert follower.messages == received
    assert follower.complete() is expected(received, len(messages), opened)


@settings(deadline=None)
@given(
    before=st.builds(
        "".join, st.tuples(st.sampled_from(["", "eeeee", "eeee", "t eeeee"]), st.text("edtnDT", max_size=9))
    ),
    messages=st.integers(0, 3),
    unfinished=st.booleans(),
    after=st.text(alphabet="edtn", max_size=8),
)
def test_data_taken_at_once(before: str, messages: int, unfinished: bool, after: str) -> None:
    """Many pieces of binary data in one go are the same as one after the other, at any place of a stream."""
    follower, other = follow(before), follow(before)
    for _ in range(messages):
        follower.piece(BINARY, 7, True)
    if unfinished:
        follower.piece(BINARY, 4, False)
    if messages or unfinished:
        other.data(messages, unfinished)
    for letter in ["", *after]:
        if letter:
            follower.piece(*_PIECES[letter])
            other.piece(*_PIECES[letter])
        assert other.complete() is follower.complete()
        assert (other.messages, other.marked, other.torn) == (follower.messages, follower.marked, follower.torn)


@settings(deadline=None)
@given(st.text(alphabet="edtnDT", max_size=12))
def test_any_stream_gets_a_verdict(letters: str) -> None:
    """Whatever comes, only a stream with the mark is judged, and whole ones end with an empty message."""
    result = verdict(letters)
    leading = len(letters.lstrip("tnT")) - len(letters.lstrip("tnT").lstrip("e"))
    if leading not in (OPENING, OPENING + 1):
        assert result is None
    if result is True:
        assert letters.endswith("e")


@pytest.mark.parametrize("stream", ["e", "ee", "eee", "eeee", "t e", "t n eeee"])
def test_torn(stream: str) -> None:
    """Nothing but a part of the opening mark, so far."""
    assert follow(stream).torn
    assert verdict(stream) is None


@pytest.mark.parametrize("stream", ["", "t", "n", "eeeee", "eeeee e", "e d", "eeee t", "eee D", "d", "eeeee d"])
def test_not_torn(stream: str) -> None:
    """No part of it, all of it, or something behind it."""
    assert not follow(stream).torn
