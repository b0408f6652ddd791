# shellcheck shell=sh
# Sourced by the Dockerfile's steps that fetch packages: takes the optional build secrets `network` and `ca`.
set -eu
if [ -f /run/secrets/ca ]; then
    export PIP_CERT=/run/secrets/ca SSL_CERT_FILE=/run/secrets/ca
fi
if [ -f /run/secrets/network ]; then
    set -a
    . /run/secrets/network
    set +a
fi
