"""Random pieces: never the same twice, whoever takes them."""

from __future__ import annotations

import os
import threading

import pytest

from iii_sync.wire.entropy import Pieces


def test_pieces_have_their_size_and_differ() -> None:
    pieces = Pieces(16)
    taken = [pieces.next() for _ in range(1000)]  # several fetches
    assert {len(piece) for piece in taken} == {16}
    assert len(set(taken)) == 1000


def test_threads_never_get_the_same_piece() -> None:
    pieces = Pieces(16)
    barrier = threading.Barrier(4)
    taken: list[list[bytes]] = [[] for _ in range(4)]

    def take(number: int) -> None:
        barrier.wait(10)
        taken[number] += [pieces.next() for _ in range(5000)]

    threads = [threading.Thread(target=take, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(set(sum(taken, []))) == 20_000


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_does_not_repeat_what_its_parent_gives_out() -> None:
    pieces = Pieces(16)
    pieces.next()  # the rest of what this fetched is in both
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.write(writing, b"".join(pieces.next() for _ in range(100)))
        finally:
            os._exit(0)
    os.close(writing)
    with open(reading, "rb") as pipe:
        theirs = pipe.read()
    assert os.waitpid(child, 0)[1] == 0
    assert len(theirs) == 1600
    assert {pieces.next() for _ in range(300)}.isdisjoint(theirs[at : at + 16] for at in range(0, 1600, 16))
