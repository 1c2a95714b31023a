"""A channel as its creator holds it."""

from __future__ import annotations

from typing import Any

from .end import End
from .reader import ChannelReader
from .refs import StreamChannelRef
from .writer import ChannelWriter

__all__ = ["Channel"]


class Channel:
    """Two ends and the references to them, made by ``Worker.create_channel``.

    Use one end here and pass the reference of the other, or pass both.

    Attributes:
        writer: The writing end, connected at its first use.
        reader: The reading end, likewise.
        writer_ref: What to pass so that somebody else writes.
        reader_ref: What to pass so that somebody else reads.
    """

    def __init__(
        self,
        writer: ChannelWriter,
        reader: ChannelReader,
        writer_ref: StreamChannelRef,
        reader_ref: StreamChannelRef,
    ) -> None:
        self.writer = writer
        self.reader = reader
        self.writer_ref: StreamChannelRef = writer_ref._when_handed_out(_hand_out(writer))
        self.reader_ref: StreamChannelRef = reader_ref._when_handed_out(_hand_out(reader))

    @property
    def channel_id(self) -> str:
        """The channel's id."""
        return self.writer_ref.channel_id

    def __repr__(self) -> str:
        return f"<iii_sync.Channel {self.channel_id}>"

    def __reduce__(self) -> Any:
        raise TypeError("a Channel cannot be pickled; pass writer_ref or reader_ref")


def _hand_out(end: End) -> Any:
    def handed_out() -> None:
        end._handed_out += 1

    return handed_out
