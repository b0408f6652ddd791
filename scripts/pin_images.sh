#!/bin/sh
# Writes the digest that each image's tag has today behind the tag, in Dockerfile and docker-compose.yml or in the files
# given: `postgres:18` becomes `postgres:18@sha256:...`. A second run moves the digests. awry's own images have none before
# they are pushed. Needs skopeo (Debian: apt-get install skopeo) and the registries; nothing is changed where one fails.
set -eu
cd "$(dirname "$0")/.."
[ "$#" -gt 0 ] || set -- Dockerfile docker-compose.yml

digests=$(mktemp)
trap 'rm -f "$digests"' EXIT
image='^([[:space:]]*-?[[:space:]]*image: |ARG PYTHON_IMAGE=)([^ @$]+:[^ @$/]+)(@sha256:[0-9a-f]{64})?[[:space:]]*$'
sed -nE "s#$image#\\2#p" "$@" | grep -v '^awry:' | sort -u | while read -r name; do
    digest=$(skopeo inspect --format '{{.Digest}}' "docker://$name") \
        || { echo "pin-images: no digest for $name" >&2; exit 1; }
    echo "$name $digest" >>"$digests"
done
while read -r name digest; do
    escaped=$(printf '%s' "$name" | sed 's/[.]/\\./g')
    sed -i -E "s#^([[:space:]]*-?[[:space:]]*image: |ARG PYTHON_IMAGE=)$escaped(@sha256:[0-9a-f]{64})?[[:space:]]*\$#\\1$name@$digest#" "$@"
    echo "pin-images: $name@$digest"
done <"$digests"
