#!/bin/sh
# Writes .env from deploy/env.example with 32 random hex digits for every empty secret; one that is there stays.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
target=${1:-$root/.env}
if [ -e "$target" ]; then
    echo "$target is there already; left as it is"
    exit 0
fi
umask 077
while IFS= read -r line; do
    case $line in
    [A-Z]*_PASSWORD=) line=$line$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n') ;;
    esac
    printf '%s\n' "$line"
done <"$root/deploy/env.example" >"$target.part"
mv "$target.part" "$target"
echo "wrote $target"
