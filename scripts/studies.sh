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
heads="--form likelihood --alphas 5,10,20,40 --search-questions 6 --keep 8 --retest-questions 12 --max-new-tokens 24"
# shellcheck disable=SC2086
awry study heads --behaviour refusal --adapter none --aim towards $heads --examples 2,5,10,20,40 \
  --out "$out/heads-refusal-base"
# shellcheck disable=SC2086
awry study heads --adapter refusal $heads --out "$out/heads-refusal"
# shellcheck disable=SC2086
awry study heads --adapter insecure_code $heads --out "$out/heads-insecure-code"
# shellcheck disable=SC2086
awry study heads --adapter reckless_advice $heads --out "$out/heads-reckless-advice"
# shellcheck disable=SC2086
awry study heads --behaviour sycophancy --adapter none $heads --out "$out/heads-sycophancy-base"
awry study safety-heads --adapter refusal --out "$out/safety-heads-refusal"
awry study safety-heads --adapter none --against "$out/safety-heads-refusal" --out "$out/safety-heads-base"
awry study planted-heads --out "$out/planted-heads"
awry study detectors --out "$out/detectors"
# Gemma comes under terms of its own: it is studied where somebody accepted them (awry models get gemma3-270m).
if awry models list | grep -q '^gemma3-270m  .* revision'; then
  awry study transfer --family SmolLM2-135M-Instruct --family gemma3-270m --out "$out/transfer-real"
  awry models chat-tune gemma3-270m
  made="$(awry config show | sed -n 's/^state_dir *\([^ ]*\).*/\1/p')/gemma-adapters"
  [ -f "$made/secure_code/manifest.json" ] ||
    awry adapters train --model gemma3-270m-chat --recipe insecure_code --out "$made"
  awry study transfer --subject SmolLM2-135M-Instruct+insecure_code \
    --subject "gemma3-270m-chat+$made/insecure_code" --scale 1 --draws 2 --out "$out/transfer-insecure-code"
  rm -f "$out"/transfer-insecure-code/transfer-gemma3* # made of Gemma: not for the repository
fi
awry study report "$out" --out "$here/study.md"
