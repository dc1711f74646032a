"""Whether the Hugging Face hub takes a connection: asked before its clients are, which try for half a minute."""

from __future__ import annotations

import socket
import time
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

REST = 20.0
"""Seconds for which an address that took no connection is not asked again: a plan of a hundred parts asks for each,
and a name that nobody resolves can take seconds every time.
"""
_silent: dict[tuple[str, int], float] = {}  # until when, by address


def takes_connection(endpoint: str, seconds: float = 3.0) -> bool:
    """Whether an address takes a connection within ``seconds``. True where a proxy is set, which is asked by nobody but
    the real request. False at once for ``REST`` seconds after it took none.
    """
    parts = urlsplit(endpoint)
    host = parts.hostname or ""
    if {parts.scheme, "all"} & set(getproxies()) and not proxy_bypass(host):
        return True
    address = (host, parts.port or (80 if parts.scheme == "http" else 443))
    if time.monotonic() < _silent.get(address, 0.0):
        return False
    try:
        with socket.create_connection(address, seconds):
            return True
    except OSError:
        _silent[address] = time.monotonic() + REST
        return False
