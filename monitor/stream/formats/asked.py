"""What a request asks, in any provider's fields: turns, tools, settings.

Contract: everything in a request that a model reads is read, whichever API it is for: instructions at the top, the
turns, and text beside them (documents, a schema's descriptions). A request with several inputs (`messages` and
`prompt`, a list of prompts) gives several: which of them a server would read is not known here, and nothing hides
behind another.
"""

from __future__ import annotations

from typing import Any

from monitor.stream.formats.reading import MAX_MESSAGES, Reading
from monitor.stream.formats.strings import strings

Request = dict[str, Any]

BESIDE = "request: text beside the turns was read as a system turn"
SEVERAL = "request: has several inputs, each was read as a message of its own"
ALONE = "request: has many inputs, its instructions were read as a message of their own"

# Inputs of one request that each get its instructions, tools, answer and attributes again.
MAX_SHARING = 16

SYSTEM_KEYS = ("system", "instructions", "systemInstruction", "system_instruction", "preamble", "system_prompt")
INPUT_KEYS = ("messages", "contents", "input", "prompt", "inputs", "inputText", "message", "instances")
TOOL_KEYS = ("tools", "functions", "toolConfig", "tool_config")
# Objects within a request that hold settings, instructions and tools too.
_CONFIGS = ("config", "extra_body", "generationConfig", "generation_config", "inferenceConfig", "options", "parameters")
_BESIDE_KEYS = (
    *("documents", "context", "examples", "suffix", "prediction", "chat_template", "chat_template_kwargs", "template"),
    *("input_prefix", "input_suffix", "input_extra", "tool_results", "tool_prompt", "promptVariables", "data_sources"),
    "additionalModelRequestFields",
)
_SCHEMA_KEYS = ("response_format", "format", "responseSchema", "response_schema", "responseJsonSchema", "output_config")
# A description of fewer words and characters names a field; it asks for nothing.
_MIN_WORDS, _MIN_CHARACTERS = 4, 20

_SETTINGS = {
    "temperature": ("temperature",),
    "top_p": ("top_p", "topP"),
    "top_k": ("top_k", "topK"),
    "max_tokens": ("max_tokens", "max_completion_tokens", "maxTokens", "num_predict"),
    "max_output_tokens": ("max_output_tokens", "maxOutputTokens"),
    "seed": ("seed",),
    "n": ("n", "candidateCount", "candidate_count"),
    "frequency_penalty": ("frequency_penalty", "frequencyPenalty"),
    "presence_penalty": ("presence_penalty", "presencePenalty"),
    "reasoning_effort": ("reasoning_effort",),
    "service_tier": ("service_tier",),
    "stream": ("stream",),
    "tool_choice": ("tool_choice",),
}
_SETTING_OF = {key: name for name, keys in _SETTINGS.items() for key in keys}
SETTING_KEYS = frozenset(_SETTING_OF)


def configs(request: Request) -> list[Request]:
    """The request and the objects of settings within it."""
    return [request, *(request[key] for key in _CONFIGS if isinstance(request.get(key), dict))]


def conversations(request: Request, notes: list[str]) -> list[list[Any]]:
    """The turns of every input, each with the instructions and the text beside. Those of over MAX_SHARING inputs are a
    conversation of their own, the last one: else a small payload would become a very long text."""
    before, beside = _system(request), _beside(request)
    if beside:
        notes.append(BESIDE)
        before = before + beside
    found = _inputs(request, 0)
    if len(found) > 1:
        notes.append(SEVERAL)
    if len(found) > MAX_SHARING:
        del found[MAX_MESSAGES + 1 :]
        if before:
            notes.append(ALONE)
    return _after(before, found) if found else [before] if before else []


def _after(before: list[Any], found: list[list[Any]]) -> list[list[Any]]:
    """Each with what comes before it, or that by itself where there are too many."""
    if not before or len(found) <= MAX_SHARING:
        return [before + each for each in found]
    # At the end: answers come in the order of the inputs.
    return [*found[:MAX_MESSAGES], before, *found[MAX_MESSAGES:]]


def tools(request: Request) -> Any:
    """All declarations; None where there are none."""
    found = [each[key] for each in configs(request) for key in TOOL_KEYS if each.get(key)]
    return None if not found else found[0] if len(found) == 1 else found


def settings(request: Request) -> dict[str, Any]:
    """Settings under the names of attributes."""
    found: dict[str, Any] = {}
    for each in configs(request):
        for key, value in each.items():
            if key in _SETTING_OF and isinstance(value, str | int | float):
                found.setdefault(_SETTING_OF[key], value)
    choice, reasoning = request.get("tool_choice"), request.get("reasoning")
    if isinstance(choice, dict) and isinstance(choice.get("type"), str):
        found["tool_choice"] = choice["type"]
    if isinstance(reasoning, dict) and isinstance(reasoning.get("effort"), str):
        found["reasoning_effort"] = reasoning["effort"]
    return found


def _system(request: Request) -> list[Any]:
    found = []
    for each in configs(request):
        for key in SYSTEM_KEYS:
            said = each.get(key)
            if said is None or said in ("", [], {}):
                continue
            if isinstance(said, list) and any(isinstance(one, dict) and "role" in one for one in said):
                found += said
            else:
                found.append({"role": "system", "content": said})
    return found


def _beside(request: Request) -> list[Any]:
    """Documents, a template of the client's, descriptions in a schema: models read them too."""
    if OTHER_KEYS.isdisjoint(request):
        return []
    into = Reading()
    texts: list[str] = []
    for each in configs(request):
        texts += [text for key in _BESIDE_KEYS if each.get(key) for text in strings(each[key], into)]
        schemas = [each[key] for key in _SCHEMA_KEYS if isinstance(each.get(key), dict)]
        if isinstance(each.get("text"), dict):
            schemas.append(each["text"])
        for schema in schemas:
            texts += [text for text in strings(schema, into) if _asks(text)]
    unread = [{"type": "unread_data"} for _ in range(into.unread.get("data", 0))]
    return [{"role": "system", "content": ["\n".join(texts), *unread] if unread else "\n".join(texts)}] * (
        1 if texts or unread else 0
    )


def _asks(text: str) -> bool:
    """Whether a text of a schema may ask for something: titles and names of classes do not."""
    if not text.isascii() or len(text.split()) >= _MIN_WORDS:
        return True
    return len(text) >= _MIN_CHARACTERS and not (text.isidentifier() and len(text) <= 64)


OTHER_KEYS = frozenset((*_BESIDE_KEYS, *_SCHEMA_KEYS, *_CONFIGS, "text"))


def _inputs(request: Request, depth: int) -> list[list[Any]]:
    found: list[list[Any]] = []
    for key in INPUT_KEYS:
        asked = request.get(key)
        if asked is None:
            continue
        if key == "instances":
            for each in asked if isinstance(asked, list) else [asked]:
                # Each may be a whole request.
                whole = isinstance(each, dict) and depth < 4 and any(name in each for name in INPUT_KEYS)
                found += (
                    _after(_system(each) + _beside(each), _inputs(each, depth + 1))
                    if whole
                    else [[each if isinstance(each, dict) else {"role": "user", "content": each}]]
                )
        elif key == "prompt":
            found += _prompts(asked)
        elif key == "message":
            if isinstance(asked, str):
                history = request.get("chat_history")
                found.append([*(history if isinstance(history, list) else []), {"role": "user", "content": asked}])
        elif isinstance(asked, list) and not _tokens(asked):
            if asked:
                found.append(asked)
        elif isinstance(asked, list):
            found.append([{"role": "user", "content": [{"type": "token_ids"}]}])
        elif asked != "":
            found.append([asked if isinstance(asked, dict) else {"role": "user", "content": asked}])
    return found


def _prompts(asked: Any) -> list[list[Any]]:
    if isinstance(asked, dict):
        # A prompt that the provider has stored: only its variables are here.
        stored: list[Any] = [{"type": "stored_prompt"}] if "id" in asked else []
        values: list[Any] = []
        for key, each in asked.items():
            if key not in ("id", "version") and each:
                values += list(each.values()) if key == "variables" and isinstance(each, dict) else [each]
        return [[{"role": "user", "content": [*stored, *([values] if values else [])]}]]
    if not isinstance(asked, list):
        return [[{"role": "user", "content": asked}]]
    if _tokens(asked):
        return [[{"role": "user", "content": [{"type": "token_ids"}]}]]
    if any(isinstance(each, dict) for each in asked):
        # Turns, or parts of one.
        return [asked]
    return [
        [{"role": "user", "content": [{"type": "token_ids"}] if isinstance(each, list) and _tokens(each) else each}]
        for each in asked
    ]


def _tokens(raw: list[Any]) -> bool:
    """Whether a list is one of token ids, or of such lists."""
    return bool(raw) and all(
        (isinstance(each, int) and not isinstance(each, bool)) or (isinstance(each, list) and each and _tokens(each))
        for each in (raw if not isinstance(raw[0], list) else raw[:1] if len(raw) == 1 else raw)
    )
