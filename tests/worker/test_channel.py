"""Parcels between a worker and its child come out as they went in, or the connection is broken."""

import os
from collections.abc import Iterator

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taskfarm.protocol.messages import Parcel
from taskfarm.worker.channel import MAX_KEPT, Channel, ChannelBroken


@pytest.fixture
def ends() -> Iterator[tuple[Channel, Channel]]:
    one, other = Channel.pair()
    yield one, other
    one.close()
    other.close()


def content(parcel: Parcel | None) -> tuple[int, bytes, list[bytes]]:
    assert parcel is not None
    return parcel.tag, bytes(parcel.head), [bytes(buffer) for buffer in parcel.buffers]


PARCELS = st.builds(
    Parcel,
    st.integers(0, 255),
    st.binary(max_size=300),
    st.lists(st.binary(max_size=3000) | st.integers(0, 1 << 17).map(bytes), max_size=4),
)


@settings(deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.lists(PARCELS, min_size=1, max_size=3)), max_size=6))
def test_parcels_keep_their_order_and_content(rounds: list[tuple[bool, list[Parcel]]]) -> None:
    ends = Channel.pair()
    for back, parcels in rounds:
        sender, receiver = reversed(ends) if back else ends
        for parcel in parcels:
            sender.send(parcel, 10)
        got = [content(receiver.receive(10)) for _ in parcels]
        assert got == [content(parcel) for parcel in parcels]
        assert receiver.poll() is None
    for end in ends:
        end.close()


def test_what_was_received_is_the_receivers_own(ends: tuple[Channel, Channel]) -> None:
    one, other = ends
    one.send(Parcel(1, b"", [b"a" * 100_000]), 10)
    first = other.receive(10)
    other.send(Parcel(2, b"", []), 10)
    assert content(one.receive(10)) == (2, b"", [])
    one.send(Parcel(1, b"", [b"b" * 100_000]), 10)
    assert content(other.receive(10))[2] == [b"b" * 100_000]
    assert content(first)[2] == [b"a" * 100_000]


def test_pages_are_used_again_and_very_large_files_shrink(ends: tuple[Channel, Channel]) -> None:
    one, other = ends
    _, outgoing, _ = one.descriptors
    sizes = []
    for size in (1 << 20, 1 << 20, MAX_KEPT + 1, 1 << 20):
        one.send(Parcel(1, b"", [numpy.ones(size, dtype=numpy.uint8)]), 10)
        received = other.receive(10)
        assert received is not None
        assert received.buffers[0].sum() == size
        other.send(Parcel(2, b"", []), 10)
        assert one.receive(10) is not None
        sizes.append(os.fstat(outgoing).st_size)
    assert sizes == [1 << 20, 1 << 20, MAX_KEPT, MAX_KEPT]


def test_receiving_ends_in_time(ends: tuple[Channel, Channel]) -> None:
    assert ends[0].receive(0.01) is None


def test_sending_to_an_end_that_does_not_read_ends_in_time(ends: tuple[Channel, Channel]) -> None:
    with pytest.raises(ChannelBroken, match="does not read"):
        ends[0].send(Parcel(1, b"x" * (1 << 24), []), 0.05)


def test_closed_end_is_told_after_its_last_parcel(ends: tuple[Channel, Channel]) -> None:
    one, other = ends
    one.send(Parcel(1, b"last", []), 10)
    one.close()
    assert content(other.receive(10)) == (1, b"last", [])
    with pytest.raises(ChannelBroken, match="closed"):
        other.receive(10)
    with pytest.raises(ChannelBroken, match="cannot send"):
        other.send(Parcel(1, b"", []), 10)


@given(st.binary(min_size=1, max_size=100).filter(lambda data: not b"farm".startswith(data[:4])))
def test_garbage_is_no_message(data: bytes) -> None:
    one, other = Channel.pair()
    os.write(one.descriptors[0], data)
    with pytest.raises(ChannelBroken, match="not a message"):
        other.receive(10)
    one.close()
    other.close()


def test_buffers_that_are_not_there_are_noticed(ends: tuple[Channel, Channel]) -> None:
    one, other = ends
    one.send(Parcel(1, b"", [bytes(50_000)]), 10)
    os.ftruncate(one.descriptors[1], 10)
    with pytest.raises(ChannelBroken, match="more data than its file holds"):
        other.receive(10)


def test_descriptor_that_means_another_file_now_is_left_alone(
    ends: tuple[Channel, Channel], tmp_path: object
) -> None:
    one, _ = ends
    _, outgoing, _ = one.descriptors
    with open(f"{tmp_path}/other", "w+b") as file:
        os.dup2(file.fileno(), outgoing)
        with pytest.raises(ChannelBroken, match="was closed"):
            one.send(Parcel(1, b"", [bytes(50_000)]), 10)
        assert os.fstat(file.fileno()).st_size == 0
    os.close(outgoing)
