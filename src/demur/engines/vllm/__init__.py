"""The guard inside vLLM, through its public entry points alone. docs/vllm.md is the way in.

Its name ends in ``vllm`` and shadows nothing: imports are absolute, so that ``import vllm`` in here is the engine.
What does not need the engine stands apart from what does, and is tested without it:

- ``options``: what the operator says in the environment, and a request in its arguments;
- ``look``: the guard for a whole batch at once, where the states lie;
- ``request``: a request, and what is told of it;
- ``desk``: which row of a batch is which request, what acts on its logits, and what is told of it;
- ``fits``: whether a guard belongs to the engine that runs;
- ``layer``, ``processor``, ``extension``, ``routes``: the four places where vLLM lets somebody in.
"""
