from typing import Union

def split_binary(
    buffer: Union[bytes, bytearray, memoryview], start: int, stop: int, left: int, most: int, /
) -> tuple[list[memoryview], int, int, int]: ...
