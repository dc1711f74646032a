"""Serving a model, with its guard, to clients that speak OpenAI's protocol: ``demur serve``.

Names are looked up when they are first used: the packages of the extra ``serve`` are loaded by none before.
"""

from typing import TYPE_CHECKING

from demur.lazy import looked_up

if TYPE_CHECKING:
    from demur.serving.app import app_of as app_of
    from demur.serving.keys import Keys as Keys
    from demur.serving.keys import new_key as new_key
    from demur.serving.limits import Limits as Limits
    from demur.serving.orders import Terms as Terms
    from demur.serving.running import Address as Address
    from demur.serving.running import serve as serve
    from demur.serving.service import Service as Service

_HOMES = {
    "Address": "running",
    "Keys": "keys",
    "Limits": "limits",
    "Service": "service",
    "Terms": "orders",
    "app_of": "app",
    "new_key": "keys",
    "serve": "running",
}
__all__ = list(_HOMES)
__getattr__, __dir__ = looked_up(__name__, _HOMES)
