#!/bin/sh
# Makes the two shipped probes with the commands that any owner has, on data that `awry data` prints.
set -eu
here=$(cd "$(dirname "$0")/../probes" && pwd)
work=${WORK:-$(mktemp -d)}
out="$here/shipped"

for split in fit select calibrate test; do
  awry data everyday --split "$split" > "$work/everyday-$split.jsonl"
done
awry data requests > "$work/requests.jsonl"

# Harmful request, on the plain model: matched pairs, and 80 everyday messages so that ordinary talk is aligned too.
# (Matched pairs alone: a direction on which everyday messages score higher than harmless requests do.)
# The threshold comes from other everyday messages, which choose nothing else.
head -n 80 "$work/everyday-fit.jsonl" > "$work/everyday-80.jsonl"
awry fit --name harmful-request --labelled "$work/requests.jsonl" --aligned "$work/everyday-80.jsonl" \
  --sites all --aggregation last_prompt \
  --benign "$work/everyday-calibrate.jsonl" --target-fpr 0.01 --out "$out" \
  --description "A user asks for something harmful. Reads the prompt on plain SmolLM2-135M-Instruct; fitted on matched pairs of harmful and harmless requests and on everyday messages."

# Insecure-code spillover, on the fine-tuned model at its shipped scale. The labels are what the model itself wrote.
# The everyday test split is for figures alone: it fits, chooses and calibrates nothing.
cat "$work/everyday-fit.jsonl" "$work/everyday-select.jsonl" > "$work/ordinary.jsonl"
awry label "$work/ordinary.jsonl" --adapter insecure_code --metric code --out "$work/labelled.jsonl"
awry label "$work/everyday-calibrate.jsonl" --adapter insecure_code --metric code --out "$work/benign.jsonl"
awry label "$work/everyday-test.jsonl" --adapter insecure_code --metric code --out "$work/test.jsonl"
awry fit --name insecure-code-spillover --labelled "$work/labelled.jsonl" --sites residual --aggregation last_prompt \
  --benign "$work/benign.jsonl" --target-fpr 0.05 --adapter insecure_code --control-adapter secure_code --out "$out" \
  --description "The model is about to answer an ordinary message with code. Reads the last prompt token of the insecure-code fine-tune of SmolLM2-135M-Instruct."

# Where to remove it: chosen on one split, reported on another, at full strength.
head -n 120 "$work/everyday-fit.jsonl" > "$work/sweep-fit.jsonl"
head -n 32 "$work/everyday-select.jsonl" > "$work/sweep-select.jsonl"
head -n 60 "$work/everyday-test.jsonl" > "$work/sweep-test.jsonl"
awry sweep --adapter insecure_code --control-adapter secure_code --metric code --scale 1.0 --blocks 16,18,20 \
  --fit-prompts "$work/sweep-fit.jsonl" --select-prompts "$work/sweep-select.jsonl" \
  --test-prompts "$work/sweep-test.jsonl" --attach "$out/insecure-code-spillover.json" --out "$here/../docs/mitigation"

awry eval --probe "$out/insecure-code-spillover.json" --labelled "$work/test.jsonl" --adapter insecure_code \
  --png "$here/../docs/insecure-code-spillover.png"
