"""One of every message, and what hypothesis needs to make more."""

import hashlib

from hypothesis import strategies as st

from p2p.ostree.objects import Checksum, ObjectName, ObjectType
from p2p.wire import limits
from p2p.wire import messages as m
from p2p.wire.fields import KINDS

HELLO = m.Hello(
    software="ostree-p2p/1.0",
    site="factory.example",
    instance=bytes(range(16)),
    epoch=7,
    seen_epoch=3,
    seen_seq=41,
    port=7878,
    dial=1,
    signing_key=b"k" * 32,
    abilities=frozenset({"later"}),
)


def digest(text: str) -> Checksum:
    """Return some checksum."""
    return Checksum(hashlib.sha256(text.encode()).hexdigest())


def name(text: str, kind: ObjectType = ObjectType.FILE) -> ObjectName:
    """Return some object's name."""
    return ObjectName(digest(text), kind)


COMMIT = digest("commit")
DEVICE = m.DeviceId(digest("device"))
R1 = m.RequestId(1)
NAMES = (name("a"), name("b", ObjectType.DIRTREE), name("c", ObjectType.DIRMETA))

REQUESTS: dict[str, m.Request] = {
    "GET_HEAD": m.GetHead(R1, "stable/x86_64", "org.example.Os"),
    "GET_COMMIT": m.GetCommit(R1, COMMIT),
    "ASK": m.Ask(R1, tuple(m.prefix_of(item) for item in NAMES)),
    "WANT": m.Want(R1, limits.BATCH_BYTES, NAMES),
    "GET_UNIT": m.GetUnit(R1, NAMES[0], 524_288, limits.UNIT_BYTES),
    "GET_HASHES": m.GetHashes(R1, NAMES[0], 2, 3),
    "WATCH": m.Watch(R1, COMMIT, 11),
}
"""One of each request, by its name on the wire."""

HASHES = m.Hashes(
    request=R1,
    size=1_000_000,
    first=2,
    hashes=bytes(range(64)),
    signer=b"k" * 32,
    signature=b"s" * 64,
)
ANSWERS: dict[str, m.Message] = {
    "GET_HEAD": m.CommitData(R1, COMMIT, b"commit object", b"signatures"),
    "GET_COMMIT": m.CommitData(R1, COMMIT, b"commit object"),
    "ASK": m.Sizes(R1, (4096, None, 0)),
    "WANT": m.Batch(R1, (b"first", m.Miss.OMITTED, b"third")),
    "GET_UNIT": m.Unit(R1, b"u" * 200_000),
    "GET_HASHES": HASHES,
    "WATCH": m.Map(R1, b"\xa5\xe0"),
}
"""An answer with content for each request above."""

REFUSALS: dict[str, m.Message] = {
    "NOT_HAVE": m.NotHave(R1),
    "REJECTED": m.Rejected(R1, m.Refusal.NOT_SHARED, "not shared"),
    "BUSY": m.Busy(R1, 1500),
}
"""Answers that any request may get."""

STATE: dict[str, m.Message] = {
    "HOLDINGS": m.Holdings(
        (m.HeldCommit(COMMIT, m.Held.PARTIAL),),
        (m.HeldRef("stable/x86_64", "", COMMIT),),
        more=True,
    ),
    "RECORD": m.Record(DEVICE, 7, 99, b"signed record", 3),
    "DIGEST": m.Digest(
        first=m.DeviceId("0" * 64),
        last=m.DeviceId("f" * 64),
        versions=(m.Version(DEVICE, 7, 99),),
        is_answer=False,
    ),
    "PING": m.Ping(77),
}

# -- for hypothesis --------------------------------------------------------------------

checksums = st.binary(min_size=32, max_size=32).map(lambda raw: Checksum(raw.hex()))
devices = checksums.map(m.DeviceId)
object_names = st.builds(ObjectName, checksums, st.sampled_from(list(KINDS.values())))


def numbers(most: int, least: int = 0) -> st.SearchStrategy[int]:
    return st.integers(least, most)


def texts(most: int, least: int = 0) -> st.SearchStrategy[str]:
    letters = st.characters(exclude_categories=["Cc", "Cs"])
    return st.text(letters, min_size=least, max_size=most // 4)


def ascending(limit: int) -> st.SearchStrategy[tuple[int, ...]]:
    found = st.sets(numbers(limits.MAX_CLOSURE_OBJECTS - 1), min_size=1, max_size=limit)
    return found.map(lambda items: tuple(sorted(items)))


ids = numbers(limits.U32, 1).map(m.RequestId)
blobs = st.binary(max_size=300)
some_bytes = st.binary(min_size=1, max_size=300)

hellos = st.builds(
    m.Hello,
    software=texts(limits.MAX_SOFTWARE_BYTES),
    site=texts(limits.MAX_SITE_BYTES),
    instance=st.binary(min_size=16, max_size=16),
    epoch=numbers(limits.U63),
    dial=numbers(limits.U32),
    port=numbers(limits.U16),
    seen_epoch=numbers(limits.U63),
    seen_seq=numbers(limits.U63),
    max_requests=st.sampled_from(limits.REQUESTS),
    max_names=st.sampled_from(limits.NAMES),
    signing_key=st.sampled_from([b"", b"k" * 32]),
    abilities=st.frozensets(texts(limits.MAX_ABILITY_BYTES, 1), max_size=8),
    minor=numbers(limits.U16),
)
holdings = st.builds(
    m.Holdings,
    st.lists(
        st.builds(m.HeldCommit, checksums, st.sampled_from(m.Held)), max_size=5
    ).map(tuple),
    st.lists(
        st.builds(m.HeldRef, texts(255, 1), texts(255), checksums), max_size=5
    ).map(tuple),
    st.booleans(),
)
requests = st.one_of(
    st.builds(m.GetHead, ids, texts(limits.MAX_REF_BYTES, 1), texts(255)),
    st.builds(m.GetCommit, ids, checksums),
    st.builds(
        m.Ask,
        ids,
        st.lists(object_names.map(m.prefix_of), min_size=1, max_size=9).map(tuple),
    ),
    st.builds(
        m.Want,
        ids,
        numbers(limits.MAX_BATCH_BYTES, 1),
        st.lists(object_names, min_size=1, max_size=9).map(tuple),
    ),
    st.builds(
        m.GetUnit,
        ids,
        object_names,
        numbers(limits.U63),
        numbers(limits.UNIT_BYTES, 1),
    ),
    st.builds(
        m.GetHashes,
        ids,
        object_names,
        numbers(limits.U32),
        numbers(limits.MAX_PAGE_HASHES, 1),
    ),
    st.builds(m.Watch, ids, checksums, numbers(limits.MAX_CLOSURE_OBJECTS, 1)),
)
plain_answers = st.one_of(
    st.builds(
        m.Sizes,
        ids,
        st.lists(st.none() | numbers(limits.U63), min_size=1, max_size=9).map(tuple),
    ),
    st.builds(
        m.Hashes,
        request=ids,
        size=numbers(limits.U63),
        first=numbers(limits.U32),
        hashes=numbers(9, 1).map(lambda count: b"h" * 32 * count),
        signer=st.binary(min_size=32, max_size=32),
        signature=st.binary(min_size=64, max_size=64),
    ),
    st.builds(m.NotHave, ids),
    st.builds(m.Rejected, ids, st.sampled_from(m.Refusal), texts(200)),
    st.builds(m.Cancelled, ids),
    st.builds(m.Elsewhere, ids, devices),
    st.builds(m.Busy, ids, numbers(limits.MAX_WAIT_MILLISECONDS)),
)
bulk_answers = st.one_of(
    st.builds(m.CommitData, ids, checksums, some_bytes, st.none() | blobs),
    st.builds(
        m.Batch,
        ids,
        st.lists(blobs | st.sampled_from(m.Miss), min_size=1, max_size=9).map(tuple),
    ),
    st.builds(m.Unit, ids, some_bytes),
    st.builds(m.Map, ids, st.none() | some_bytes),
)
others = st.one_of(
    st.builds(m.Bye, st.sampled_from(m.Farewell), texts(limits.MAX_TEXT_BYTES)),
    st.builds(m.Ping, numbers(limits.U32)),
    st.builds(m.Pong, numbers(limits.U32)),
    holdings,
    st.builds(
        m.Record,
        devices,
        numbers(limits.U63),
        numbers(limits.U63),
        st.binary(min_size=1, max_size=limits.MAX_RECORD_BYTES),
        numbers(limits.MAX_RECORD_AGE),
    ),
    st.builds(
        m.Digest,
        first=devices,
        last=devices,
        versions=st.lists(
            st.builds(m.Version, devices, numbers(limits.U63), numbers(limits.U63)),
            max_size=5,
        ).map(tuple),
        is_answer=st.booleans(),
    ),
    st.builds(m.Cancel, ids),
    st.builds(m.Have, ids, ascending(20)),
    st.builds(
        m.Units,
        ids,
        st.lists(
            st.builds(
                m.UnitMap,
                numbers(limits.MAX_CLOSURE_OBJECTS - 1),
                st.binary(min_size=1),
            ),
            min_size=1,
            max_size=5,
            unique_by=lambda found: found.number,
        ).map(tuple),
    ),
    st.builds(m.Status, ids, numbers(limits.U63), numbers(limits.U63)),
)
plain_messages = st.one_of(hellos, requests, plain_answers, others)
"""Every message that is a control body by itself, valid in its fields."""
