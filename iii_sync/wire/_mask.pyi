from typing import Union

def mask_into(
    target: bytearray, at: int, data: Union[bytes, bytearray, memoryview], key: bytes, turn: int, /
) -> None: ...
