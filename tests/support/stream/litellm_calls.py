"""Run by tests in LiteLLM's own environment: calls with made-up answers, logged to the address in argv[1].

Every call is answered by `mock_response`: nothing leaves this machine. LiteLLM's callback is its own `generic_api`,
made here by its class: the name alone needs a package that is not free.
"""

import asyncio
import contextlib
import os
import sys

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"

import litellm  # type: ignore[import-not-found]
from litellm.integrations.generic_api.generic_api_callback import (  # type: ignore[import-not-found]
    GenericAPILogger,
)

TOOL = {
    "type": "function",
    "function": {"name": "weather", "description": "of a city", "parameters": {"type": "object", "properties": {}}},
}
CALL = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Rome"}'}}
MODEL = "openai/gpt-4o-mini"


async def main(endpoint: str, log_format: str) -> None:
    litellm.telemetry = False
    logger = GenericAPILogger(endpoint=endpoint, log_format=log_format)
    litellm.callbacks = [logger]
    await litellm.acompletion(
        model=MODEL,
        messages=[
            {"role": "system", "content": "Be brief."},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "What is this?"},
                    {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}},
                ],
            },
        ],
        mock_response="A cat.",
        user="ann",
        tools=[TOOL],
        metadata={"user_api_key_team_id": "team-7", "user_api_key_team_alias": "shop", "session_id": "s1"},
    )
    await litellm.acompletion(
        model=MODEL,
        messages=[
            {"role": "user", "content": "Weather in Rome?"},
            {"role": "assistant", "content": None, "tool_calls": [CALL]},
            {"role": "tool", "tool_call_id": "c1", "content": "sunny"},
        ],
        mock_response="It is sunny.",
    )
    await litellm.acompletion(
        model=MODEL,
        messages=[{"role": "user", "content": "Call it."}],
        mock_tool_calls=[CALL],
        mock_response="Calling.",
    )
    with contextlib.suppress(litellm.exceptions.InternalServerError):
        await litellm.acompletion(
            model=MODEL, messages=[{"role": "user", "content": "Will fail."}], mock_response=RuntimeError("no")
        )
    stream = await litellm.acompletion(
        model=MODEL, messages=[{"role": "user", "content": "Count."}], mock_response="one two three", stream=True
    )
    async for _ in stream:
        pass
    await litellm.aresponses(
        model=MODEL,
        input=[{"role": "user", "content": [{"type": "input_text", "text": "Responses."}]}],
        mock_response="Answered.",
    )
    await litellm.atext_completion(model="openai/gpt-3.5-turbo-instruct", prompt="Once upon", mock_response="a time")
    await litellm.anthropic_messages(
        model="anthropic/claude-3-haiku-20240307",
        max_tokens=10,
        messages=[{"role": "user", "content": "Hello."}],
        mock_response="Hi.",
    )
    await litellm.aembedding(model="openai/text-embedding-3-small", input=["vector"], mock_response=[0.1])
    await _sent(logger)
    litellm.turn_off_message_logging = True
    await litellm.acompletion(model=MODEL, messages=[{"role": "user", "content": "hidden"}], mock_response="hidden too")
    await _sent(logger)


async def _sent(logger: GenericAPILogger) -> None:
    # Callbacks run in the background; each has put its payload into the queue by then.
    await asyncio.sleep(1.5)
    await logger.flush_queue()


asyncio.run(main(sys.argv[1], sys.argv[2]))
