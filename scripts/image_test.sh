#!/usr/bin/env bash
# Builds the image for real and runs it (`make image-test`): no container engine, no image registry, but root and
# Debian's packages. The base image is a debootstrap of the release that the Dockerfile's FROM names, under its name,
# so that its Python is the one of FROM. Containers run as in docker-compose.yml: read-only, no capabilities.
#
#   TORCH_BACKEND     as in the Dockerfile; empty where only the package index can be reached
#   IMAGE_TEST_DIR    a folder that is kept, with the base image and the built one (default: a fresh one, removed)
#   IMAGE_TEST_STATE  a state folder with models/ to copy, which saves the minute that makes the built-in model
#
# Prints the figures; the first thing that is not as it should be ends it with status 1. With torch's CUDA build it takes
# about ten minutes on two cores, and 35 GB of disk for a while.
set -euo pipefail
cd "$(dirname "$0")/.."

fail() { echo "image-test: $*" >&2; exit 1; }
say() { echo "image-test: $*"; }
seconds() { awk -v a="$1" -v b="$EPOCHREALTIME" 'BEGIN { printf "%.1f", b - a }'; }

[ "$(id -u)" = 0 ] || fail "needs root"
missing=()
for program in podman buildah runc debootstrap; do
    command -v "$program" >/dev/null || missing+=("$program")
done
if [ "${#missing[@]}" -gt 0 ]; then
    say "installing ${missing[*]}"
    apt-get update -qq
    apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi

work=${IMAGE_TEST_DIR:-$(mktemp -d /var/tmp/awry-image.XXXXXX)}
mkdir -p "$work"
container=""
finish() {
    [ -z "$container" ] || engine rm --force "$container" >/dev/null 2>&1 || true
    rm -rf "$work/network" "$work/state" "$work/overlay"
    [ -n "${IMAGE_TEST_DIR:-}" ] || rm -rf "$work"
}
trap finish EXIT

# Overlay mounts where the kernel lets us; else vfs, which copies the whole image for each layer and each container.
driver=vfs
mkdir -p "$work"/overlay/{lower,upper,work,merged}
if mount -t overlay overlay "$work/overlay/merged" \
    -o "lowerdir=$work/overlay/lower,upperdir=$work/overlay/upper,workdir=$work/overlay/work" 2>/dev/null; then
    umount "$work/overlay/merged"
    driver=overlay
fi
layers=$([ "$driver" = overlay ] && echo true || echo false)
engine() {
    podman --storage-driver="$driver" --root "$work/$driver" --runroot "$work/run" --log-level=error "$@"
}

base=$(sed -nE 's/^ARG PYTHON_IMAGE=([^@]*).*/\1/p' Dockerfile)   # python:3.13-slim-trixie; the digest is of no use here
release=${base##*-}
python=${base#*:}
python=${python%%-*}
if ! engine image exists "localhost/$base"; then
    say "base image from debootstrap $release"
    rm -rf "$work/base"
    debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates "$release" "$work/base" \
        >"$work/debootstrap.log" 2>&1 || fail "debootstrap failed: $(tail -1 "$work/debootstrap.log")"
    tar -C "$work/base" -c . | engine import - "localhost/$base" >/dev/null 2>&1
    rm -rf "$work/base"
fi

# How this machine reaches packages: a secret of the build, in none of its layers.
: >"$work/network"
for name in HTTP_PROXY HTTPS_PROXY NO_PROXY http_proxy https_proxy no_proxy ALL_PROXY PIP_INDEX_URL \
    PIP_EXTRA_INDEX_URL PIP_DEFAULT_TIMEOUT PIP_TRUSTED_HOST UV_DEFAULT_INDEX UV_INDEX UV_INDEX_URL UV_HTTP_TIMEOUT; do
    [ -z "${!name:-}" ] || printf '%s=%q\n' "$name" "${!name}" >>"$work/network"
done
index=$(python3 -m pip config get global.index-url 2>/dev/null || true)
[ -z "$index" ] || printf 'PIP_INDEX_URL=%q\nUV_DEFAULT_INDEX=%q\n' "$index" "$index" >>"$work/network"
secrets=(--secret "id=network,src=$work/network")
authority=${SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt}
[ ! -f "$authority" ] || secrets+=(--secret "id=ca,src=$authority")

say "building (torch backend: ${TORCH_BACKEND-cpu}; storage: $driver)"
began=$EPOCHREALTIME
engine build --isolation=chroot --network=host --format docker --layers="$layers" "${secrets[@]}" \
    --build-arg PYTHON_IMAGE="$base" --build-arg TORCH_BACKEND="${TORCH_BACKEND-cpu}" --tag localhost/awry:test . >"$work/build.log" 2>&1 \
    || { tail -30 "$work/build.log" >&2; fail "the build failed"; }
say "built in $(seconds "$began") s"

megabytes() { engine image inspect --format '{{.Size}}' "$1" | awk '{ printf "%.0f", $1 / 1e6 }'; }
say "size: $(megabytes localhost/awry:test) MB, $(megabytes "localhost/$base") MB of it the base image"
engine image inspect --format '{{.Config.Healthcheck}}' localhost/awry:test | grep -q :9464/healthz \
    || fail "no health check"

rm -rf "$work/state"
mkdir "$work/state"
if [ -d "${IMAGE_TEST_STATE:-/nonexistent}/models" ]; then
    cp -r "$IMAGE_TEST_STATE/models" "$work/state/"
fi
chown -R 10001:10001 "$work/state"

# create OPTION... IMAGE ARGUMENT...: a container as docker-compose.yml has it, but with no network beyond its own
# loopback: nothing is fetched at run time. Its making (vfs copies the image) is not part of its start.
create() {
    container=$(engine create --interactive --runtime runc --network=none --no-healthcheck \
        --ulimit nofile=1024:1024 --ulimit nproc=1000:1000 \
        --read-only --tmpfs /tmp --cap-drop ALL --security-opt no-new-privileges \
        --volume "$work/state:/var/lib/awry" "$@")
}
remove() {
    engine rm --force "$container" >/dev/null
    container=""
}
# run INPUT OPTION... IMAGE ARGUMENT...: leaves $output, $status and $took (seconds).
run() {
    local input=$1 began
    shift
    create "$@"
    began=$EPOCHREALTIME
    status=0
    output=$(engine start --attach --interactive "$container" <<<"$input" 2>&1) || status=$?
    took=$(seconds "$began")
    remove
}
expect() { [[ $output == *"$1"* ]] || { printf '%s\n' "$output" >&2; fail "$2"; }; }

run '
echo "user $(id -u):$(id -g)"
python3 -c "import sys; print(\"python %d.%d\" % sys.version_info[:2])"
touch /opt/venv/x 2>/dev/null && echo "packages can be written"
for tool in gcc cc g++ make uv git curl; do command -v $tool && echo "left: $tool"; done
ls -d /opt/uv /src /run/secrets/* 2>/dev/null | sed "s/^/left: /"
env | grep -E "^(PIP_|UV_|SSL_|HTTPS?_PROXY)" | sed "s/^/left: /"
cd /opt/venv/lib/python3*/site-packages
echo "size $(du -scm nvidia triton 2>/dev/null | tail -1 | cut -f1) $(du -sm /opt/venv | cut -f1)"
' --entrypoint /bin/sh localhost/awry:test
expect "user 10001:10001" "the process is not user and group 10001"
expect "python $python" "not the Python of FROM"
[[ $output != *"can be written"* ]] || fail "the packages can be written"
[[ $output != *"left: "* ]] || { printf '%s\n' "$output" >&2; fail "something of the build is left"; }
read -r _ nvidia together < <(grep '^size' <<<"$output")
say "packages: $together MiB, $nvidia MiB of them NVIDIA's libraries and triton"

run "" localhost/awry:test --help
expect "model's own activations" "awry --help says something else"
say "awry --help: $took s, the container's own start included"
run "" localhost/awry:test no-such-command
[ "$status" != 0 ] || fail "an unknown command succeeds"

messages='{"id": "1", "prompt": "How do I sort a list in Python?"}
{"id": "2", "prompt": "What is a good name for a cat?"}
{"id": "3", "prompt": "Tell me about the moon."}'
for time in first second; do
    run "$messages" localhost/awry:test run --source - --logs json
    expect '"event": "finished"' "the worker did not finish"
    expect '"records": 3' "the worker did not read three messages"
    if [ "$time" = first ]; then
        expect '"scored": 3' "three messages were not scored"
    else
        expect '"already_known": 3' "the second container did not find the first one's rows"
    fi
    [ "$status" = 0 ] || fail "the worker ended with status $status"
    say "worker, three messages, $time time: $took s"
done
owner=$(stat -c %u "$work/state/postgres")
[ "$owner" = 10001 ] || fail "the embedded database belongs to user $owner"

# What an orchestrator does: the health check of the image, then SIGTERM to process 1, which drains and ends with 0.
printf '%s\n' "$messages" >"$work/state/traffic.jsonl"
chown 10001:10001 "$work/state/traffic.jsonl"
create localhost/awry:test run --source traffic.jsonl --follow --logs json --listen 127.0.0.1:9464
engine start "$container" >/dev/null
for _ in $(seq 180); do
    # After its first batch.
    if engine logs "$container" 2>&1 | grep -q '"event": "progress"'; then break; fi
    [ "$(engine inspect --format '{{.State.Running}}' "$container")" = true ] || break
    sleep 1
done
readarray -t check < <(
    sed -n 's/^HEALTHCHECK.* CMD //p' Dockerfile | python3 -c 'import json; print(*json.loads(input()), sep="\n")'
)
engine exec "$container" "${check[@]}" || { engine logs "$container" >&2; fail "the health check fails"; }
began=$EPOCHREALTIME
engine stop --time 60 "$container" >/dev/null
took=$(seconds "$began")
status=$(engine inspect --format '{{.State.ExitCode}}' "$container")
[ "$status" = 0 ] || { engine logs "$container" >&2; fail "SIGTERM: exit status $status"; }
remove
say "health check answered; SIGTERM: ended with 0 after $took s"
say "passed"
