"""How uvicorn serves an application here: one protocol, no words of clients in a log, bounded headers and clients."""

from __future__ import annotations

from typing import Any

from demur.extras import need


def config_of(app: Any, clients: int, grace: float) -> Any:
    """A configuration for at most ``clients`` connections, which have ``grace`` seconds to end."""
    return need("uvicorn", "serve").Config(
        app,
        http="h11",
        ws="none",
        lifespan="off",
        access_log=False,
        log_config=None,
        log_level="critical",  # what it says may hold what clients send; ours is demur.serving.logs
        proxy_headers=False,
        server_header=False,
        limit_concurrency=clients,
        timeout_keep_alive=5,
        timeout_graceful_shutdown=max(1, round(grace)),
        h11_max_incomplete_event_size=1 << 16,
    )
