"""What an agent reads in an X.509 certificate: key, times, name; pure.

TLS has checked the signatures when these bytes are read here; this module only
finds the few fields that Python's ssl does not hand out, and judges the times.
Source: RFC 5280 §4.1 for the fields, X.690 for DER.
"""

from __future__ import annotations

import calendar
import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import NamedTuple

from p2p.errors import ConnectError, FormatError, LimitError
from p2p.trust.policy import Clock, format_time
from p2p.wire.messages import DeviceId

# A leaf with every extension a device PKI puts in has 2 KiB; RSA-16384 has 5.
MAX_BYTES = 1 << 16
# Clocks that are believed still differ; a new certificate must work at once.
EARLY_SECONDS = 86400
_NAME_LENGTH = 64

_SEQUENCE = 0x30
_SET = 0x31
_INTEGER = 0x02
_OBJECT_ID = 0x06
_UTC_TIME = 0x17
_GENERALIZED_TIME = 0x18
_VERSION = 0xA0
_COMMON_NAME = bytes.fromhex("550403")
_ENCODINGS = {0x0C: "utf-8", 0x13: "ascii", 0x14: "latin-1", 0x16: "ascii"}
_ENCODINGS |= {0x1C: "utf-32-be", 0x1E: "utf-16-be"}
_TIME = re.compile(rb"(\d{2}|\d{4})(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)Z")


@dataclass(frozen=True, slots=True)
class Certificate:
    """The facts of one certificate; times are seconds since 1970 in UTC.

    Attributes:
        device_id: names the holder of the key.
        not_before: first second it is meant for.
        not_after: last second it is meant for.
        name: the subject's last common name for people, printable; may be "".

    """

    device_id: DeviceId
    not_before: int
    not_after: int
    name: str


class Validity(StrEnum):
    """What is known about a certificate's times; every one of these is accepted."""

    CURRENT = "current"
    UNJUDGED = "not judged: this device does not know the time"


class _Value(NamedTuple):
    """One DER value: its tag, where it begins, and where its content lies."""

    tag: int
    begin: int
    start: int
    stop: int


def parse_certificate(der: bytes) -> Certificate:
    """Return the facts of a DER certificate; FormatError for anything else."""
    if len(der) > MAX_BYTES:
        raise LimitError(f"a certificate of {len(der)} bytes; {MAX_BYTES} are allowed")
    outer = _expect(der, _value(der, 0, len(der)), _SEQUENCE, "certificate")
    if outer.stop != len(der):
        raise FormatError("bytes follow the certificate")
    signed = next(_values(der, outer), None)
    if signed is None:
        raise FormatError("the certificate is empty")
    _expect(der, signed, _SEQUENCE, "certificate body")
    fields = _values(der, signed)
    value = _next(fields, "version")
    if value.tag == _VERSION:
        value = _next(fields, "serial number")
    _expect(der, value, _INTEGER, "serial number")
    for name in ("signature algorithm", "issuer"):
        _expect(der, _next(fields, name), _SEQUENCE, name)
    validity = _expect(der, _next(fields, "validity"), _SEQUENCE, "validity")
    subject = _expect(der, _next(fields, "subject"), _SEQUENCE, "subject")
    key = _expect(der, _next(fields, "public key"), _SEQUENCE, "public key")
    not_before, not_after = _times(der, validity)
    return Certificate(
        device_id=device_id_of(der[key.begin : key.stop]),
        not_before=not_before,
        not_after=not_after,
        name=_common_name(der, subject),
    )


def device_id_of(public_key: bytes) -> DeviceId:
    """Return the device id of a DER SubjectPublicKeyInfo: its SHA-256 in hex."""
    return DeviceId(hashlib.sha256(public_key).hexdigest())


def judge(certificate: Certificate, clock: Clock) -> Validity:
    """Return what the clock says of a certificate's times, or raise ConnectError.

    A clock that is believed decides, with a day's grace for one that is not valid
    yet. One that is not believed (never set, 1970, behind its own floor) proves
    nothing: then a certificate is refused only if it ended before the floor, a time
    that has passed for certain. So a device whose battery died joins its site, and
    a certificate that ended long ago stays ended for it too.
    """
    believed = clock.trusted and clock.now >= clock.floor
    known = clock.now if believed else clock.floor
    if certificate.not_after < known:
        raise ConnectError(
            f"the certificate ended {format_time(certificate.not_after)}",
            hint="Issue a new certificate for that device.",
        )
    if not believed:
        return Validity.UNJUDGED
    if certificate.not_before > clock.now + EARLY_SECONDS:
        raise ConnectError(
            f"the certificate begins {format_time(certificate.not_before)}, and "
            f"this device's clock says {format_time(int(clock.now))}",
            hint="Check this device's clock and the one of the certificate authority.",
        )
    return Validity.CURRENT


def _value(der: bytes, at: int, end: int) -> _Value:
    """Read the value at `at`, which must end by `end`."""
    if end - at < 2:
        raise FormatError("a DER value is cut short")
    tag, length, start = der[at], der[at + 1], at + 2
    if tag & 0x1F == 0x1F:
        raise FormatError("a DER tag of several bytes has no place in a certificate")
    if length >= 0x80:
        count = length & 0x7F
        # 0 is the indefinite form, which DER forbids; 3 bytes exceed MAX_BYTES.
        if not 1 <= count <= 3 or end - start < count:
            raise FormatError("a DER length is not one")
        length = int.from_bytes(der[start : start + count])
        start += count
    if length > end - start:
        raise FormatError("a DER value is longer than what holds it")
    return _Value(tag, at, start, start + length)


def _values(der: bytes, outer: _Value) -> Iterator[_Value]:
    at = outer.start
    while at < outer.stop:
        value = _value(der, at, outer.stop)
        yield value
        at = value.stop


def _next(values: Iterator[_Value], name: str) -> _Value:
    value = next(values, None)
    if value is None:
        raise FormatError(f"the certificate has no {name}")
    return value


def _expect(der: bytes, value: _Value, tag: int, name: str) -> _Value:
    if value.tag != tag:
        raise FormatError(f"the {name} has DER tag {der[value.begin]:#x}")
    return value


def _times(der: bytes, validity: _Value) -> tuple[int, int]:
    values = _values(der, validity)
    return _time(der, _next(values, "begin")), _time(der, _next(values, "end"))


def _time(der: bytes, value: _Value) -> int:
    text = der[value.start : value.stop]
    match = _TIME.fullmatch(text)
    short = match is not None and len(match[1]) == 2
    if match is None or value.tag != (_UTC_TIME if short else _GENERALIZED_TIME):
        raise FormatError("a time in the certificate is not in the form of RFC 5280")
    year, month, day, hour, minute, second = map(int, match.groups())
    if short:
        year += 1900 if year >= 50 else 2000
    try:
        moment = datetime(year, month, day, hour, minute, second, tzinfo=UTC)
    except ValueError as error:
        raise FormatError("a time in the certificate is not on the calendar") from error
    return calendar.timegm(moment.utctimetuple())


def _common_name(der: bytes, subject: _Value) -> str:
    name = ""
    for group in _values(der, subject):
        for pair in _values(der, _expect(der, group, _SET, "subject")):
            _expect(der, pair, _SEQUENCE, "subject")
            parts = _values(der, pair)
            kind = _expect(der, _next(parts, "name"), _OBJECT_ID, "kind of name")
            text = _next(parts, "name")
            if der[kind.start : kind.stop] == _COMMON_NAME:
                name = _text(der[text.start : text.stop], text.tag)
    return name


def _text(data: bytes, tag: int) -> str:
    """Return a name for people: decoded as far as possible, short, printable."""
    text = data.decode(_ENCODINGS.get(tag, "ascii"), "replace")
    return "".join(c if c.isprintable() else "�" for c in text)[:_NAME_LENGTH]
