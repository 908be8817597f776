"""Peer-to-peer update service for OSTree."""

__version__ = "0.1.0"
