"""Chat templates in the manners of well-known families, for what each of them refuses or drops. Our own writing."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch

from probes.model.load import ChatModel, wrap
from tests.support.models.tiny import VOCAB, tiny_model, tiny_tokenizer

# Takes every role by its name and knows nothing of tools.
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

# Trims, has headers, prints the date, takes a single tool call and quotes results.
LLAMA3 = """{{- bos_token }}
{%- if date_string is not defined %}{% set date_string = strftime_now('%d %b %Y') %}{% endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system = messages[0]['content'] | trim %}
    {%- set messages = messages[1:] %}
{%- else %}{%- set system = '' %}{%- endif %}
{{- '<|start|>system<|stop|>\n\nToday: ' + date_string + '\n' }}
{%- if tools %}{% for tool in tools %}{{- tool | tojson(indent=2) }}{{- '\n' }}{% endfor %}{% endif %}
{{- system + '<|eot|>' }}
{%- for m in messages %}
    {%- if m.role in ['tool', 'ipython'] %}
        {{- '<|start|>ipython<|stop|>\n\n' + (m.content | tojson) + '<|eot|>' }}
    {%- elif m.tool_calls is defined %}
        {%- if m.tool_calls | length != 1 %}{{- raise_exception('one call at a time') }}{% endif %}
        {%- set call = m.tool_calls[0].function %}
        {{- '<|start|>assistant<|stop|>\n\n{"name": "' + call.name + '", "parameters": ' }}
        {{- (call.arguments | tojson) + '}<|eot|>' }}
    {%- else %}
        {{- '<|start|>' + m.role + '<|stop|>\n\n' + (m.content | trim) + '<|eot|>' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|start|>assistant<|stop|>\n\n' }}{% endif %}"""

# No system, no tools, strict alternation; the assistant is called model.
GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    "{% for m in messages %}"
    "{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('must alternate') }}{% endif %}"
    "{% if m['role'] not in ['user', 'assistant'] %}{{ raise_exception('bad role ' + m['content']) }}{% endif %}"
    "<|turn|>{{ 'model' if m['role'] == 'assistant' else 'user' }}\n{{ m['content'] | trim }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|turn|>model\n{% endif %}"
)

# Tools in the system turn, calls and results with tags, results within a user turn, reasoning only since the last user.
QWEN = """{%- if tools %}
    {{- '<|im_start|>system\n' }}
    {%- if messages[0].role == 'system' %}{{- messages[0].content + '\n\n' }}{% endif %}
    {{- '# Tools\n<tools>' }}
    {%- for tool in tools %}{{- '\n' }}{{- tool | tojson }}{% endfor %}
    {{- '\n</tools><|im_end|>\n' }}
{%- elif messages[0].role == 'system' %}
    {{- '<|im_start|>system\n' + messages[0].content + '<|im_end|>\n' }}
{%- endif %}
{%- set ns = namespace(last=-1) %}
{%- for m in messages %}{% if m.role == 'user' %}{% set ns.last = loop.index0 %}{% endif %}{% endfor %}
{%- for m in messages %}
    {%- if m.role == 'user' or (m.role == 'system' and not loop.first) %}
        {{- '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}
    {%- elif m.role == 'assistant' %}
        {%- set content = m.content %}
        {%- if '</think>' in content and loop.index0 < ns.last %}
            {%- set content = content.split('</think>')[-1].lstrip('\n') %}
        {%- endif %}
        {{- '<|im_start|>assistant\n' + content }}
        {%- for call in m.tool_calls or [] %}
            {{- '\n<tool_call>\n{"name": "' + call.function.name + '", "arguments": ' }}
            {{- (call.function.arguments if call.function.arguments is string else call.function.arguments | tojson) }}
            {{- '}\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\n' }}
    {%- elif m.role == 'tool' %}
        {{- '<|im_start|>user\n<tool_response>\n' + m.content + '\n</tool_response><|im_end|>\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{% endif %}"""

# The system goes into the last user turn; alternation without tool turns; arguments must be a string.
MISTRAL = """{%- if messages[0].role == 'system' %}
    {%- set system = messages[0].content + '\n\n' %}{%- set turns = messages[1:] %}
{%- else %}{%- set system = '' %}{%- set turns = messages %}{%- endif %}
{%- set ns = namespace(n=0, last=-1) %}
{%- for m in turns %}
    {%- if m.role == 'user' %}{% set ns.last = loop.index0 %}{% endif %}
    {%- if m.role == 'user' or (m.role == 'assistant' and m.tool_calls is not defined) %}
        {%- if (m.role == 'user') != (ns.n % 2 == 0) %}{{- raise_exception('must alternate') }}{% endif %}
        {%- set ns.n = ns.n + 1 %}
    {%- endif %}
{%- endfor %}
{{- bos_token }}
{%- for m in turns %}
    {%- if m.role == 'user' %}
        {{- '[INST]' + (system if loop.index0 == ns.last else '') + m.content + '[/INST]' }}
    {%- elif m.role == 'assistant' and m.tool_calls is defined %}
        {%- for call in m.tool_calls %}
            {{- '[CALL]' + call.function.name + ' ' + call.function.arguments }}
        {%- endfor %}
    {%- elif m.role == 'assistant' %}
        {{- m.content | trim + '</s>' }}
    {%- elif m.role == 'tool' %}
        {{- '[RESULT]' + m.content + '[/RESULT]' }}
    {%- else %}{{- raise_exception('only user, assistant, tool') }}
    {%- endif %}
{%- endfor %}"""

# Drops whatever is not a user's or the assistant's, without a word.
SILENT = (
    "{% for m in messages %}{% if m.role == 'user' %}U: {{ m.content }}\n"
    "{% elif m.role == 'assistant' %}A: {{ m.content }}\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}A: {% endif %}"
)

TEMPLATES = {
    "chatml": CHATML,
    "llama3": LLAMA3,
    "gemma": GEMMA,
    "qwen": QWEN,
    "mistral": MISTRAL,
    "silent": SILENT,
}


@cache
def _model() -> Any:
    """With room for the control tokens below."""
    model = tiny_model("llama")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model.resize_token_embeddings(VOCAB + 8, mean_resizing=False)
    return model.requires_grad_(False)


def chat_with(template: str | dict[str, str], **options: Any) -> ChatModel:
    """A tiny model with a byte-level tokenizer and this template."""
    tokenizer = tiny_tokenizer()
    tokenizer.add_special_tokens(
        {"bos_token": "<|bos|>", "additional_special_tokens": ["<|im_start|>", "<|im_end|>", "<|turn|>"]}
    )
    tokenizer.chat_template = template
    return wrap(_model(), tokenizer, name="tiny", **options)


def call(name: str, arguments: dict[str, Any] | str, number: int = 1) -> dict[str, Any]:
    return {"id": f"call_{number}", "type": "function", "function": {"name": name, "arguments": arguments}}


def tool(name: str, description: str) -> dict[str, Any]:
    parameters = {"type": "object", "properties": {"city": {"type": "string", "description": f"{description}-city"}}}
    return {"type": "function", "function": {"name": name, "description": description, "parameters": parameters}}
