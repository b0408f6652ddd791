#!/bin/sh
# requirements.lock as a constraint for uv. Where UV_TORCH_BACKEND takes torch and its CUDA libraries from PyTorch's own
# index, as other builds of the same versions, their hashes are left out: those in the lock are of the package index's.
set -eu
cd "$(dirname "$0")/.."
if [ -z "${UV_TORCH_BACKEND:-}" ]; then
    exec cat requirements.lock
fi
awk '
    /^[a-zA-Z0-9]/ { other = /^(torch|triton|nvidia-[a-z0-9-]+|cuda-[a-z0-9-]+)==/ }
    other && /^ +--hash=/ { next }
    other { sub(/ *\\$/, "") }
    { print }
' requirements.lock
