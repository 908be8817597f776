"""The one exception inside this package, before it is known whose fault it is."""

from __future__ import annotations


class RuleError(Exception):
    """A rule was broken: by us while sending, by the peer while receiving.

    Only `Connection` lets it out, as LocalProtocolError or RemoteProtocolError.
    """
