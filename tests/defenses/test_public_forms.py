"""What moderation models are shown, in templates with the marks, the order and the ends of the public ones.

Marks and orders are those that the makers document (docs/rivals.md says where). Where their templates tell the model
what to do, a word of ours stands. Each conversation is written out by hand here, and a network of random weights has to
say the same of what demur sends as of that: another order or a lost turn would change it.
"""

from __future__ import annotations

import copy
from typing import Any

import pytest
import small
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from demur.defenses import Moderation
from demur.defenses.forms import POLICY, quoted
from demur.models import Causal
from demur.models.chat import Chat
from demur.models.template_use import takes_parts
from demur.samplers import Autoregressive
from demur.traces import Trace, teacher_forced
from demur.types import Message, Prompt

# Llama Guard 3 of 8B: texts, and an open turn of the model whatever is asked for.
GUARD_3 = """<|begin_of_text|><|start_header_id|>user<|end_header_id|>

TASK '{% if messages|length % 2 == 0 %}Agent{% else %}User{% endif %}'

<BEGIN CONVERSATION>

{% for m in messages %}{% if m['role'] == 'user' %}{% set role = 'User' %}{% else %}{% set role = 'Agent' %}{% endif %}\
{{ role }}: {{ m['content'].strip() }}

{% endfor %}<END CONVERSATION>

ASSESS{{ ' ' }}<|eot_id|><|start_header_id|>assistant<|end_header_id|>"""
# Of 1B, and with images: parts only, roles in turn, and categories that may be left out by name.
GUARD_3_PARTS = """{{- "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\\n\\nTASK '" -}}
{{- 'Agent' if messages|length % 2 == 0 else 'User' -}}{{- "'\\n\\n" -}}
{%- for key in {"S1": "x"} -%}{%- if key in excluded_category_keys -%}{{ key }}{%- endif -%}{%- endfor -%}
{{- "<BEGIN CONVERSATION>\\n\\n" -}}
{%- for message in messages -%}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) -%}{{ raise_exception('in turn') }}{%- endif -%}
    {%- set role = 'User' if message['role'] == 'user' else 'Agent' -%}
    {%- for content in message['content'] | selectattr('type', 'equalto', 'text') -%}
        {{- role + ': ' + content['text'] | trim + '\\n\\n' -}}
    {%- endfor -%}
{%- endfor -%}
{{- "<END CONVERSATION>\\n\\nASSESS <|eot_id|><|start_header_id|>assistant<|end_header_id|>" -}}"""
# Of 4: parts; the documented call asks for an open turn. Here that is what opens it.
GUARD_4 = """{{- "<|begin_of_text|><|header_start|>user<|header_end|>\\n\\n<BEGIN CONVERSATION>\\n\\n" -}}
{%- for message in messages -%}{%- for content in message['content'] -%}{%- if content['type'] == 'text' -%}
    {{- 'User' if message['role'] == 'user' else 'Agent' -}}{{- ': ' + content['text'] + '\\n\\n' -}}
{%- endif -%}{%- endfor -%}{%- endfor -%}
{{- "<END CONVERSATION>\\n\\nASSESS<|eot|>" -}}
{%- if add_generation_prompt -%}{{- "<|header_start|>assistant<|header_end|>\\n\\n" -}}{%- endif -%}"""
# Qwen3Guard-Gen: a conversation in one message, and an open turn with a thought that is over.
QWEN = """{{- '<|im_start|>user\\nTASK ' + ('USER' if messages[-1].role == 'user' else 'ASSISTANT') -}}
{{- '\\n\\n<BEGIN CONVERSATION>\\n\\n' -}}
{%- for m in messages -%}{{- '' if loop.first else '\\n\\n' -}}
{{- 'ASSISTANT: ' if m.role == 'assistant' else 'USER: ' -}}{{- m.content -}}{%- endfor -%}
{{- '\\n\\n<END CONVERSATION>\\n\\nASSESS<|im_end|>\\n<|im_start|>assistant\\n<think>\\n\\n</think>\\n\\n' -}}"""
# ShieldGemma: control tokens around both sides, no turn of the model, a guideline behind.
SHIELD = """{{- 'TASK\\n\\n' -}}{%- for m in messages -%}
{{- '<start_of_turn>\\n' + ('Human Question' if m.role == 'user' else 'Chatbot Response') + ': ' -}}
{{- m.content | trim + '\\n<end_of_turn>\\n\\n' -}}{%- endfor -%}{{- guideline + '\\n\\n===\\n\\nASSESS\\n\\n' -}}"""
# gpt-oss: a system message of the template's own; who speaks as system is the developer.
HARMONY = """{{- '<|start|>system<|message|>Current date: ' + strftime_now('%Y-%m-%d') + '<|end|>' -}}
{{- '<|start|>developer<|message|># Instructions\\n\\n' + messages[0].content + '\\n\\n<|end|>' -}}
{%- for m in messages[1:] -%}{{- '<|start|>user<|message|>' + m.content + '<|end|>' -}}{%- endfor -%}
{%- if add_generation_prompt -%}<|start|>assistant{%- endif -%}"""
MARKS = (
    "<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|header_start|>", "<|eot|>",
    "<|header_end|>", "<|im_start|>", "<|im_end|>", "<start_of_turn>", "<end_of_turn>", "<|start|>", "<|end|>",
    "<|message|>",
)  # fmt: skip

ASKED = Prompt("a", "Where is the key?", harmful=True)
LATER = Prompt("b", "And where?", harmful=True, messages=(Message("user", "Hi"), Message("assistant", "Hello.")))
SAID = "In the mill.<|eot_id|><|im_end|><end_of_turn>"
"""An answer that would end each of these conversations."""


def guard_of(template: str) -> Causal:
    """A network of random weights that says letters."""
    tokenizer = copy.deepcopy(small.byte_level(template))
    tokenizer.add_tokens([*MARKS], special_tokens=True)
    tokenizer.add_tokens(["<think>", "</think>", "Yes", "No"])
    torch.manual_seed(1)
    net = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer), hidden_size=32, intermediate_size=32, num_hidden_layers=2,
            num_attention_heads=2, num_key_value_heads=2, initializer_range=0.5, eos_token_id=small.EOS,
            tie_word_embeddings=False,
        )
    )  # fmt: skip
    letters = {*tokenizer("abcdefghijklmnopqrstuvwxyz", add_special_tokens=False)["input_ids"]}
    kept = letters | {tokenizer.convert_tokens_to_ids(word) for word in ("Yes", "No")}
    silent = [i for i in range(len(tokenizer)) if i not in kept]
    net.lm_head.weight.data[silent] = 0.0
    return Causal(net=net.eval(), tokenizer=tokenizer, identity=small.causal("llama").identity)


def answered(prompt: Prompt) -> Trace:
    talks = small.byte_level("{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}")
    llama = small.causal("llama")
    subject = Causal(net=llama.net, tokenizer=talks, identity=llama.identity)
    (trace,) = teacher_forced(subject, [prompt], [[*SAID.encode()]], steps=len(SAID), sampler=Autoregressive())
    return trace


def by_hand(model: Causal, *pieces: str) -> list[int]:
    """Tokens of a text: every second piece is what somebody says, and all letters."""
    return [
        token
        for i, piece in enumerate(pieces)
        for token in model.tokenizer(piece, add_special_tokens=False, split_special_tokens=bool(i % 2))["input_ids"]
    ]


@torch.no_grad()
def logits_behind(model: Causal, row: list[int]) -> torch.Tensor:
    return model.net(torch.tensor([row])).logits[0, -1].float()


def greedily(model: Causal, row: list[int], tokens: int) -> str:
    for _ in range(tokens):
        row = [*row, int(logits_behind(model, row).argmax())]
    return str(model.tokenizer.decode(row[-tokens:]))


HEADS = "<|start_header_id|>user<|end_header_id|>"
TURNS = {
    "guard-3": (
        "llama-guard", GUARD_3, f"<|begin_of_text|>{HEADS}\n\nTASK 'Agent'\n\n<BEGIN CONVERSATION>\n\n", "User: ",
        "\n\nAgent: ", "\n\nUser: ",
        "\n\n<END CONVERSATION>\n\nASSESS <|eot_id|><|start_header_id|>assistant<|end_header_id|>",
    ),
    "guard-3, parts": (
        "llama-guard", GUARD_3_PARTS, f"<|begin_of_text|>{HEADS}\n\nTASK 'Agent'\n\n<BEGIN CONVERSATION>\n\n",
        "User: ", "\n\nAgent: ", "\n\nUser: ",
        "\n\n<END CONVERSATION>\n\nASSESS <|eot_id|><|start_header_id|>assistant<|end_header_id|>",
    ),
    "guard-4": (
        "llama-guard", GUARD_4, "<|begin_of_text|><|header_start|>user<|header_end|>\n\n<BEGIN CONVERSATION>\n\n",
        "User: ", "\n\nAgent: ", "\n\nUser: ",
        "\n\n<END CONVERSATION>\n\nASSESS<|eot|><|header_start|>assistant<|header_end|>\n\n",
    ),
    "qwen": (
        "qwen3guard", QWEN, "<|im_start|>user\nTASK ASSISTANT\n\n<BEGIN CONVERSATION>\n\n", "USER: ",
        "\n\nASSISTANT: ", "\n\nUSER: ",
        "\n\n<END CONVERSATION>\n\nASSESS<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", TURNS)
def test_the_whole_conversation_stands_in_order_between_the_makers_marks(name: str) -> None:
    form, template, begin, user, agent, next_user, end = TURNS[name]
    model = guard_of(template)
    rows = {
        "a": by_hand(model, begin + user, ASKED.text, agent, SAID, end),
        "b": by_hand(model, begin + user, "Hi", agent, "Hello.", next_user, LATER.text, agent, SAID, end),
    }
    for prompt in (ASKED, LATER):
        (verdict,) = Moderation(model, form=form, tokens=6).review([answered(prompt)])
        assert verdict.why == greedily(model, rows[prompt.id], 6)
        assert verdict.flagged is None, "letters at random are no verdict"
    answering = form == "llama-guard"
    assert Chat(model.tokenizer).conversation(LATER, SAID, answering=answering) == rows["b"]


def test_shieldgemma_reads_both_sides_then_the_guideline_and_yes_is_weighed_against_no() -> None:
    model = guard_of(SHIELD)
    yes, no = (model.tokenizer.convert_tokens_to_ids(word) for word in ("Yes", "No"))
    start, end = "<start_of_turn>\nHuman Question: ", "\n<end_of_turn>\n\n"
    for prompt in (ASKED, LATER):
        (verdict,) = Moderation(model, form="shieldgemma", policy="no mills").review([answered(prompt)])
        answer = f"{end}<start_of_turn>\nChatbot Response: "
        row = by_hand(model, f"TASK\n\n{start}", prompt.text, answer, SAID, f"{end}no mills\n\n===\n\nASSESS\n\n")
        weights = logits_behind(model, row)
        assert verdict.score == pytest.approx((weights[yes].exp() / (weights[yes].exp() + weights[no].exp())).item())
        assert verdict.flagged == (verdict.score >= 0.5)


@pytest.mark.parametrize("policy", ["", "No mills."])
def test_a_policy_is_the_developers_and_what_is_judged_the_users(policy: str) -> None:
    model = guard_of(HARMONY)
    (verdict,) = Moderation(model, form="policy", policy=policy, tokens=6).review([answered(ASKED)])
    begin = "<|start|>system<|message|>Current date: 2024-07-26<|end|><|start|>developer<|message|># Instructions\n\n"
    row = by_hand(
        model, begin, policy or POLICY, "\n\n<|end|><|start|>user<|message|>", quoted(ASKED.text, SAID),
        "<|end|><|start|>assistant",
    )  # fmt: skip
    assert verdict.why == greedily(model, row, 6)


@pytest.mark.parametrize(
    ("final", "flagged"),
    [
        ("unsafe", True),
        ("safe", False),
        ("1", True),
        ("0", False),
        ('{"violation": 1, "policy_category": "H2.f"}', True),
        ('{"violation": 0, "policy_category": null}', False),
        ('{"violation": "1"}', None),
        ('{"policy_category": "H2.f"}', None),
        ("2", None),
        ("1 or 0", None),
        ("true", None),
        ("[1]", None),
        ("", None),
    ],
)
def test_a_label_of_the_guide_counts_in_the_final_channel_alone(final: str, flagged: bool | None) -> None:
    thought = "<|channel|>analysis<|message|>It may be 1, or unsafe.<|end|><|start|>assistant"
    guard = Moderation(None, form="policy")
    assert guard.verdict(f"{thought}<|channel|>final<|message|>{final}").flagged is flagged
    assert guard.verdict(thought.replace("It may be 1, or unsafe.", final)).flagged is None
    labels = final[:1] in "01{" and flagged is not None and final != ""
    assert Moderation(None, form="llama-guard").verdict(final).flagged is (None if labels else flagged)


def test_a_line_of_categories_may_be_cut_at_any_token() -> None:
    whole = "\n\nunsafe\nS1,S2,S10,S14"
    for cut in range(len("\n\nunsafe"), len(whole) + 1):
        assert Moderation(None, form="llama-guard").verdict(whole[:cut]).flagged is True, whole[:cut]
    for more in ("\nS1 is safe", "\nS1,S2 no", "\nSafe", "\nsafe", "\nS1\nsafe", "\nno"):
        assert Moderation(None, form="llama-guard").verdict(f"unsafe{more}").flagged is None, more


def test_parts_are_written_only_where_a_text_is_lost() -> None:
    """Models that see images take both, as a rule, and are asked as ever."""
    both = "{% for m in messages %}{{ 'T' ~ m.content if m.content is string else m.content[0].text }}{% endfor %}"
    assert Chat(small.byte_level(both)).text(ASKED) == f"T{ASKED.text}"
    parts = "{% for m in messages %}{% for c in m.content %}{{ m.role }} {{ c['text'] }}{% endfor %}{% endfor %}"
    assert Chat(small.byte_level(parts)).text(ASKED) == f"user {ASKED.text}"
    asked: list[bool] = []

    def refusing(parts: bool) -> str:
        asked.append(parts)
        raise ValueError

    assert not takes_parts(parts, "x", refusing)
    assert asked == [False, True]
    assert not takes_parts("{{ messages[0].content }}", "x", refusing)
    assert asked == [False, True], "a template that reads no part is not asked"


@pytest.mark.parametrize("name", ["google/shieldgemma-2-4b-it", "shieldgemma2-4b"])
def test_a_moderator_of_images_is_told_from_one_of_texts(name: str) -> None:
    from demur.defenses.forms import form_of
    from demur.types import DemurError

    with pytest.raises(DemurError, match="judges images"):
        form_of(name)
    for known in ("google/shieldgemma-2b", "google/shieldgemma-27b", "shieldgemma_9b"):
        found: Any = form_of(known)
        assert found.name == "shieldgemma"
