"""Whether the Hugging Face hub takes a connection: asked before its clients are, which try for half a minute."""

from __future__ import annotations

import socket
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass


def takes_connection(endpoint: str, seconds: float = 3.0) -> bool:
    """Whether an address takes a connection within ``seconds``. True where a proxy is set, which is asked by nobody but
    the real request.
    """
    parts = urlsplit(endpoint)
    host = parts.hostname or ""
    if {parts.scheme, "all"} & set(getproxies()) and not proxy_bypass(host):
        return True
    try:
        with socket.create_connection((host, parts.port or (80 if parts.scheme == "http" else 443)), seconds):
            return True
    except OSError:
        return False
