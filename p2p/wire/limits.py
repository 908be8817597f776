"""The numbers of the protocol, each checked before memory is taken for it."""

from __future__ import annotations

from p2p.ostree.objects import MAX_METADATA_BYTES
from p2p.ostree.walk import MAX_OBJECTS

# -- frames ----------------------------------------------------------------------

MAX_CONTROL_BYTES = 64 << 10
# Cancelling cannot recall what was handed to the socket, so that is kept small.
MAX_SLICE_BYTES = 64 << 10
# Control has no credit; who lets this much of it pile up does not read.
MAX_CONTROL_QUEUE_BYTES = 256 << 10
# Arrays are made before their items are read; nested ones multiply.
MAX_ARRAY_ITEMS = 512

# -- content -----------------------------------------------------------------------

# Measured in simulation: units of 1 MiB cost a site up to 1.8 times as long.
UNIT_BYTES = 256 << 10
# Objects above this are cut into units, so that they are passed on before they
# are complete; up to it they travel whole, in batches.
LARGE_OBJECT_BYTES = 512 << 10
# What an asker usually gives WANT as its bound.
BATCH_BYTES = UNIT_BYTES
MAX_BATCH_BYTES = LARGE_OBJECT_BYTES
MAX_BATCH_OBJECTS = 512
MAX_ASK_PREFIXES = 4096
MAX_PAGE_HASHES = 1024
# One object of 16 GiB; its unit map has 8 KiB.
MAX_OBJECT_UNITS = 65_536
MAX_CLOSURE_OBJECTS = MAX_OBJECTS
MAX_HAVE_INDICES = 8192
MAX_UNITS_OBJECTS = MAX_ARRAY_ITEMS
# All bitmaps of one UNITS; with numbers and lengths they fit a control frame.
MAX_UNITS_BYTES = 48 << 10
MAX_COMMIT_BYTES = MAX_METADATA_BYTES
MAX_COMMITMETA_BYTES = 64 << 10
MAX_RECORD_BYTES = 512
# Even then a claim, an Ed25519 key and its signature fit a record.
MAX_CLAIM_ADDRESSES = 3
MAX_CLAIM_COMMITS = 4
MAX_CLAIM_LEASES = 8
COMMIT_TAG_BYTES = 16
MAX_DIGEST_VERSIONS = 512
MAX_HELD_COMMITS = 64
MAX_HELD_REFS = 64

# -- requests ------------------------------------------------------------------------

MAX_WATCHES = 16
# Each side says in HELLO how many requests it lets the other leave open, and how
# many names they may hold together. The lower bounds let every single request pass.
REQUESTS = range(4, 1025)
NAMES = range(MAX_ASK_PREFIXES, 65_537)
# What this implementation lets a neighbour leave open: a few batches and lists of
# hashes for each round trip, beside one ASK.
OPEN_REQUESTS = 256
OPEN_NAMES = 16_384

# -- numbers and text --------------------------------------------------------------

U16 = (1 << 16) - 1
U32 = (1 << 32) - 1
# Sizes, offsets and counters fit a signed 64-bit integer in any language.
U63 = (1 << 63) - 1
MAX_WAIT_MILLISECONDS = 3_600_000
MAX_RECORD_AGE = 3600
MAX_REF_BYTES = 255
MAX_SITE_BYTES = 255
MAX_SOFTWARE_BYTES = 64
MAX_TEXT_BYTES = 200
MAX_ABILITIES = 32
MAX_ABILITY_BYTES = 32
INSTANCE_BYTES = 16
PREFIX_BYTES = 8
