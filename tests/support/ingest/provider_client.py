"""Run by tests in an environment with openai and anthropic: posts what their clients make of a call to argv[1].

The clients send to a transport that answers by hand, so that nothing leaves this process; the bodies that they made are
posted to `/v1/ingest` with the secret argv[2], as JSON and as NDJSON. Prints the status of each answer.
"""

import json
import sys

import anthropic  # type: ignore[import-not-found,unused-ignore]
import httpx  # type: ignore[import-not-found,unused-ignore]
import openai  # type: ignore[import-not-found,unused-ignore]


def main(url: str, secret: str) -> None:
    made: list[bytes] = []

    def keep(request: httpx.Request) -> httpx.Response:
        made.append(request.content)
        return httpx.Response(400, json={"error": {"message": "kept"}})

    def ask(text: str) -> None:
        transport = httpx.MockTransport(keep)
        turns = [{"role": "user", "content": text}]
        kept = httpx.Client(transport=transport)
        try:
            if "openai" in text:
                client = openai.OpenAI(api_key="x", base_url="http://127.0.0.1:9", http_client=kept, max_retries=0)
                client.chat.completions.create(model="m", messages=turns)
            else:
                other = anthropic.Anthropic(api_key="x", base_url="http://127.0.0.1:9", http_client=kept, max_retries=0)
                other.messages.create(model="m", max_tokens=9, messages=turns, system="Be brief.")
        except (openai.BadRequestError, anthropic.BadRequestError):
            pass

    for text in ("from openai", "from anthropic", "from openai, as a line", "from anthropic, as a line"):
        ask(text)
    with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {secret}"}, trust_env=False) as http:
        for body in made[:2]:
            print(http.post("/v1/ingest", content=body, headers={"Content-Type": "application/json"}).status_code)
        lines = b"\n".join(json.dumps(json.loads(body)).encode() for body in made[2:])
        answer = http.post("/v1/ingest", content=lines, headers={"Content-Type": "application/x-ndjson"})
        print(*[answer.status_code] * answer.json()["accepted"])


main(sys.argv[1], sys.argv[2])
