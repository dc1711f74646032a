"""``--worker-extension-cls demur.engines.vllm.extension.Extension``: verdicts, out of the process that has them."""

from __future__ import annotations

from typing import Any


class Extension:
    """Methods for ``collective_rpc``; each worker answers."""

    def demur_verdicts(self, id_: str | None = None) -> list[dict[str, Any]]:
        """Verdicts of a request, or of all that are remembered, in the order in which they came."""
        from demur.engines.vllm.processor import running_desk

        desk = running_desk()
        return [] if desk is None else desk.verdicts(id_)

    def demur_status(self) -> dict[str, Any]:
        """The guards that stand, with what they promise, and how many requests they have seen."""
        from demur.engines.vllm.processor import running_desk

        desk = running_desk()
        if desk is None:
            return {"engine": {}, "guards": {}, "counters": {}}
        guards = {
            name: {
                "mode": str(post.mode),
                "model": post.guard.spec.model,
                "steps": post.guard.spec.steps,
                "promise": post.guard.promise,
                "notes": list(post.notes),
                "sha256": post.digest,
            }
            for name, post in desk.posts.items()
        }
        return {"engine": desk.engine, "guards": guards, "counters": desk.counters()}
