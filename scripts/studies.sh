#!/bin/sh
# Runs every study of docs/study.md and writes the page. Hours on two cores; what was interrupted goes on.
set -eu
here=$(cd "$(dirname "$0")/../docs" && pwd)
out="$here/studies"

awry study transfer --out "$out/transfer"
awry study transfer --organism llama:1 --organism qwen2:1 --organism qwen3:1 --organism gemma2:1 \
  --organism ministral3:1 --out "$out/transfer-seed1"
awry study direction --adapter insecure_code --out "$out/direction-insecure-code"
awry study direction --adapter reckless_advice --out "$out/direction-reckless-advice"
awry study heads --adapter reckless_advice --out "$out/heads-reckless-advice"
awry study safety-heads --adapter refusal --out "$out/safety-heads-refusal"
awry study safety-heads --adapter none --against "$out/safety-heads-refusal" --out "$out/safety-heads-base"
awry study detectors --out "$out/detectors"
awry study report "$out" --out "$here/study.md"
