"""Channels: two ends that are file objects, and the references by which they travel."""

from .channel import Channel
from .reader import ChannelReader
from .refs import StreamChannelRef, extract_channel_refs, is_channel_ref
from .writer import ChannelWriter

__all__ = [
    "Channel",
    "ChannelReader",
    "ChannelWriter",
    "StreamChannelRef",
    "extract_channel_refs",
    "is_channel_ref",
]
