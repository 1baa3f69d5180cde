"""Messages become bytes and come back; each has a tag of its own."""

from hypothesis import given
from hypothesis import strategies as st

from taskfarm.protocol import messages
from taskfarm.protocol.messages import Blob, Failure, Limits

PLAIN_BLOBS = st.builds(Blob, st.binary(), st.just([]), st.just(()), st.just(()))
RESULTS = st.lists(st.tuples(st.integers(0), PLAIN_BLOBS), max_size=2).map(tuple)
BLOBS = st.builds(Blob, st.binary(), st.just([]), st.just(()), RESULTS)
ALONE = st.builds(Failure, BLOBS, st.text(), st.text(), st.text(), st.none())
FAILURES = st.one_of(ALONE, st.builds(Failure, BLOBS, st.text(), st.text(), st.text(), ALONE))
IDS = st.integers(0, 2**60)
PARTS = st.builds(messages.Part, IDS, IDS, IDS, IDS, st.one_of(st.binary(), st.lists(BLOBS)))
OUTCOMES = st.builds(
    messages.Outcomes,
    IDS,
    IDS,
    IDS,
    st.one_of(st.binary(), st.lists(BLOBS)),
    st.dictionaries(IDS, FAILURES),
    *(st.floats(0, 1e6) for _ in ("seconds", "started", "cpu", "core_wait")),
    st.booleans(),
    kept=st.none(),
)
LOCATIONS = st.builds(messages.Location, IDS, IDS, IDS, IDS, IDS)
MESSAGES = st.one_of(
    st.builds(messages.DefineNames, st.lists(st.tuples(IDS, st.tuples(st.text()), BLOBS))),
    st.builds(messages.Define, IDS, st.text(), BLOBS, st.just(Limits()), st.booleans(), IDS),
    st.builds(messages.Forget, st.lists(IDS), st.lists(IDS)),
    st.builds(messages.SetPath, st.lists(st.text())),
    st.builds(messages.Work, st.lists(PARTS)),
    st.builds(messages.Initialize, IDS, st.lists(st.text()), st.one_of(st.none(), BLOBS)),
    st.builds(messages.Stop),
    st.builds(messages.Hello, st.text(), st.text(), st.text(), IDS),
    st.builds(messages.Ready, IDS, st.one_of(st.none(), FAILURES), st.floats(0, 1e6)),
    st.builds(messages.Results, st.lists(OUTCOMES)),
    st.builds(messages.Goodbye, IDS),
    st.builds(messages.Reserve, st.binary(), IDS),
    st.builds(messages.Give, st.binary(), st.binary(), st.just((3, 4)), st.just(())),
    st.builds(messages.Attach, st.binary(), LOCATIONS, st.just((3, 4)), st.just(())),
    st.builds(messages.Build, st.binary(), BLOBS, st.booleans(), st.just(())),
    st.builds(messages.Unavailable, st.binary(), st.text(), st.text()),
    st.builds(messages.Drop, st.lists(st.binary())),
    st.builds(messages.Fetch, st.binary(), st.text(), st.booleans()),
    st.builds(messages.Have, st.binary(), st.text(), LOCATIONS),
    st.builds(
        messages.Spawn,
        *[IDS] * 5,
        st.one_of(st.binary(), st.lists(BLOBS)),
        st.just((0, 1, 2)),
        IDS,
        st.one_of(st.none(), st.builds(messages.NewFunction, st.text(), BLOBS, st.just({}), st.booleans())),
        st.one_of(st.none(), st.dictionaries(IDS, st.lists(IDS))),
    ),
    st.builds(messages.Await, IDS, IDS, st.just([(1, 2)]), st.just([]), st.none()),
    st.builds(messages.GoOn),
    st.builds(messages.Withdraw, IDS, IDS, IDS),
    st.builds(messages.Withdrawn, st.just([(1, 2)]), st.text()),
    st.builds(messages.Settled, IDS, IDS, st.lists(BLOBS), st.dictionaries(IDS, FAILURES), st.just(())),
    st.builds(messages.Failed, st.binary(), st.text(), st.text(), st.text(), st.booleans()),
    st.builds(messages.SendKept, st.binary()),
    st.builds(messages.Release, st.lists(st.binary())),
    st.builds(messages.SentKept, st.binary(), BLOBS),
)


@given(MESSAGES)
def test_message_round_trip(message: messages.Message) -> None:
    assert messages.decode(messages.encode(message)) == message


def test_every_message_has_a_tag_of_its_own() -> None:
    assert len(messages.TAGS) == len(messages.CLASSES)
