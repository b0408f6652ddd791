#!/bin/sh
# A release in dist/ (`make dist`): wheel and sdist, what the wheel needs with versions and hashes, an SBOM of that in
# CycloneDX, and the checksums. The wheel is built from the sdist, so that the sdist is whole.
set -eu
cd "$(dirname "$0")/.."
out=${1:-dist}
# What is pinned is the package index's torch, whichever one this machine uses.
unset UV_TORCH_BACKEND
rm -rf "$out"
uv build -q --build-constraint scripts/build.lock --out-dir "$out"
rm -f "$out/.gitignore"
# Without the tools of development, which requirements.lock has.
uv pip compile pyproject.toml --constraint requirements.lock --universal --python-version 3.11 --generate-hashes \
    --no-header --no-emit-index-url --no-annotate -q -o "$out/requirements.txt"
wheel=$(basename "$out"/*.whl)
uv tool run -q --from cyclonedx-bom==7.5.0 cyclonedx-py requirements "$out/requirements.txt" \
    --pyproject pyproject.toml --output-reproducible --output-format JSON --output-file "$out/${wheel%-py3-none-any.whl}.cdx.json"
(cd "$out" && sha256sum -- *.whl *.tar.gz *.txt *.json >SHA256SUMS)
