#!/bin/bash
# Creates awry's topics where they are missing; it changes none that is there. Run by the service `topics`.
set -euo pipefail
bootstrap=${1:?HOST:PORT of a broker}
topics=${KAFKA_HOME:-/opt/kafka}/bin/kafka-topics.sh

create() {
    local name=$1 partitions=$2
    shift 2
    "$topics" --bootstrap-server "$bootstrap" --create --if-not-exists --topic "$name" --partitions "$partitions" \
        --replication-factor 1 "$@"
}

# Twelve: as many workers can share the traffic. A week: so long an investigator finds a prompt by its coordinates.
# The size is AWRY_MAX_MESSAGE_BYTES; verdicts and dead letters carry coordinates, no text.
week=604800000
create awry.traffic 12 --config retention.ms=$week --config max.message.bytes=4194304
create awry.verdicts 12 --config retention.ms=$week
create awry.answers 12 --config retention.ms=$week
# What a serving engine says of its requests (docs/vllm.md): numbers, no text.
create awry.readings 12 --config retention.ms=$week
create awry.dead-letters 1 --config retention.ms=$((4 * week))
