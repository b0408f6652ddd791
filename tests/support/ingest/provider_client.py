"""Run by tests in an environment with openai and anthropic: one call of each, to the address argv[1] on loopback."""

import sys
from typing import Any

import anthropic  # type: ignore[import-not-found,unused-ignore]
import openai  # type: ignore[import-not-found,unused-ignore]


def turns(text: str) -> Any:
    return [{"role": "user", "content": text}]


def main(url: str) -> None:
    one = openai.OpenAI(api_key="x", base_url=url, max_retries=0)
    one.chat.completions.create(model="m", messages=turns("from openai"))
    one.responses.create(model="m", input=turns("from responses"), instructions="Be brief.")
    other = anthropic.Anthropic(api_key="x", base_url=url, max_retries=0)
    other.messages.create(model="m", max_tokens=9, messages=turns("from anthropic"), system="Be brief.")


main(sys.argv[1])
