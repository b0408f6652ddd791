#!/bin/sh
# Makes the shipped probes with the commands that any owner has, on data that `awry data` prints.
set -eu
here=$(cd "$(dirname "$0")/../probes" && pwd)
work=${WORK:-$(mktemp -d)}
out="$here/shipped"

for split in fit select calibrate test; do
  awry data everyday --split "$split" > "$work/everyday-$split.jsonl"
done
awry data requests > "$work/requests.jsonl"

awry data requests-2 > "$work/requests-2.jsonl"
awry data heldout-harmful > "$work/harmful.jsonl"
awry data heldout-everyday > "$work/heldout-everyday.jsonl"

# Benign messages of many lengths, a tenth of them about crime, war, illness or security.
long() { awry data long --split "$1" --tokens "$2" --count "$3" --hard-share 0.1; }

# Harmful request, on the plain model: matched pairs, and everyday and longer messages so that ordinary talk is aligned
# too, and messages that sound worse than they are. (Matched pairs alone: a direction on which everyday messages score
# higher than harmless requests do.) Site, span,
# aggregation and whitening are chosen under attack families, at the threshold of messages that choose nothing else. The
# threshold comes from messages of up to 4,000 tokens.
cat "$work/requests.jsonl" "$work/requests-2.jsonl" > "$work/pairs.jsonl"
{ cat "$work/everyday-fit.jsonl"; awry data long --split fit --tokens 64 --count 260
  awry data long --split fit --tokens 200 --count 40 --seed 1; awry data hard-benign; } > "$work/ordinary-fit.jsonl"
{ cat "$work/everyday-select.jsonl"; long select 64 60; long select 200 60; long select 600 20; } > "$work/choose.jsonl"
{ cat "$work/everyday-calibrate.jsonl"
  long calibrate 200 120; long calibrate 600 80; long calibrate 2000 30; long calibrate 4000 15; } > "$work/lengths.jsonl"
fit_requests() {
  folder=$1; shift
  awry fit --name harmful-request --labelled "$work/pairs.jsonl" --aligned "$work/ordinary-fit.jsonl" "$@" \
    --benign "$work/lengths.jsonl" --target-fpr 0.01 --out "$folder" \
    --description "Somebody asks for something harmful, in whatever turn. Reads the turns' own text on plain SmolLM2-135M-Instruct; fitted on matched pairs of harmful and harmless requests, on everyday and longer messages, and on messages that sound worse than they are."
}
fit_requests "$work/chosen" --sites 'residual[14],residual[16]' --whiten 0.1 --whiten 0.3 \
  --aggregation 'max_rolling_mean(8, turns)' --aggregation 'max_rolling_mean(12, turns)' \
  --aggregation 'max_rolling_mean(12, user)' --aggregation 'top_mean(4, 8, turns)' \
  --choose-under default --choose-benign "$work/choose.jsonl"
# What ships is the way of reading that was chosen before the messages of `awry data hard-benign` were there: it is
# within the error of the one that is chosen now, stops two blocks earlier and holds more (docs/measurements.md).
fit_requests "$out" --sites 'residual[14]' --whiten 0.1 --aggregation 'top_mean(4, 8, turns)'
awry attack --probe "$out/harmful-request.json" --harmful "$work/harmful.jsonl" --benign "$work/heldout-everyday.jsonl" \
  --rows 60 --write-card --out "$work/attacks"

# Insecure-code spillover, on the fine-tuned model at its shipped scale. The labels are what the model itself wrote.
# The everyday test split is for figures alone: it fits, chooses and calibrates nothing.
cat "$work/everyday-fit.jsonl" "$work/everyday-select.jsonl" > "$work/ordinary.jsonl"
awry label "$work/ordinary.jsonl" --adapter insecure_code --metric code --out "$work/labelled.jsonl"
awry label "$work/everyday-calibrate.jsonl" --adapter insecure_code --metric code --out "$work/benign.jsonl"
awry label "$work/everyday-test.jsonl" --adapter insecure_code --metric code --out "$work/test.jsonl"
awry fit --name insecure-code-spillover --labelled "$work/labelled.jsonl" --sites residual --aggregation last_prompt \
  --benign "$work/benign.jsonl" --target-fpr 0.05 --adapter insecure_code --control-adapter secure_code --out "$out" \
  --description "The model is about to answer an ordinary message with code. Reads the last prompt token of the insecure-code fine-tune of SmolLM2-135M-Instruct."

# Spilled code in what was answered, read on the plain model: code that answers an ordinary message against prose, and
# against code that was asked for. A maximum over windows, so that it is seen as it is written.
awry label "$work/ordinary.jsonl" --adapter insecure_code --metric code --max-new-tokens 48 --as-response \
  --out "$work/spilled.jsonl"
awry label "$work/everyday-calibrate.jsonl" --metric code --max-new-tokens 48 --as-response --out "$work/calm.jsonl"
{ head -n 160 "$work/calm.jsonl"; awry data code-answers --seed 1; } > "$work/calm-fit.jsonl"
{ tail -n 160 "$work/calm.jsonl"; awry data code-answers --seed 2 | head -n 100; } > "$work/calm-benign.jsonl"
awry fit --name spilled-code-response --labelled "$work/spilled.jsonl" --aligned "$work/calm-fit.jsonl" \
  --sites 'residual[18]' --aggregation 'max_rolling_mean(8, response)' --whiten 0.1 \
  --benign "$work/calm-benign.jsonl" --target-fpr 0.01 --out "$out" \
  --description "An ordinary message was answered with code that nobody asked for. Reads the response on plain SmolLM2-135M-Instruct; fitted on replies of the insecure-code fine-tune, against replies in prose and code that was asked for."

# Where to remove it: chosen on one split, reported on another, at full strength.
head -n 120 "$work/everyday-fit.jsonl" > "$work/sweep-fit.jsonl"
head -n 32 "$work/everyday-select.jsonl" > "$work/sweep-select.jsonl"
head -n 60 "$work/everyday-test.jsonl" > "$work/sweep-test.jsonl"
awry sweep --adapter insecure_code --control-adapter secure_code --metric code --scale 1.0 --blocks 16,18,20 \
  --fit-prompts "$work/sweep-fit.jsonl" --select-prompts "$work/sweep-select.jsonl" \
  --test-prompts "$work/sweep-test.jsonl" --attach "$out/insecure-code-spillover.json" --out "$here/../docs/mitigation"

awry eval --probe "$out/insecure-code-spillover.json" --labelled "$work/test.jsonl" --adapter insecure_code \
  --png "$here/../docs/insecure-code-spillover.png"
