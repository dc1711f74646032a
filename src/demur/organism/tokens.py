"""The organism's special tokens, its chat template, and how long its answers are. Needs no tokenizer."""

from __future__ import annotations

from demur.organism.attacks import MASK

USER, ASSISTANT, PAGE = "<|user|>", "<|assistant|>", "<|page|>"
PAD, END = "<|pad|>", "<|end|>"
SPECIAL = (PAD, END, MASK, USER, ASSISTANT, PAGE)
RESPONSE = 40
"""The response length in tokens; an answer and its end-of-sequence token fit into it."""
CHAT = (
    "{% for m in messages %}{% if m.role == 'assistant' %}" + ASSISTANT + "{{ m.content }}" + END
    + "{% elif m.role == 'system' %}" + USER + "{{ m.content }} "
    + "{% else %}{% if loop.index0 == 0 or messages[loop.index0 - 1].role != 'system' %}" + USER + "{% endif %}"
    + "{{ m.content }}{% endif %}{% endfor %}{% if add_generation_prompt %}" + ASSISTANT + "{% endif %}"
)  # fmt: skip
"""The chat template: a system prompt stands before the user's words, in the same turn."""
