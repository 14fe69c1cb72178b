#!/usr/bin/env bash
# Starts a head and two worker nodes on this machine and runs the training job on them.
#
#   ./local_cluster.sh [arguments of train.py ...]
#   KILL_NODE_AFTER=20 ./local_cluster.sh      also kills a worker node, 20 seconds into training
#
# It is a rehearsal for a real cluster: the job goes through the same submission, packaging, placement
# and checkpointing. PYTHON, PORT, DASHBOARD_PORT, CPUS_PER_NODE and STORAGE may be set in the
# environment. Other Ray clusters on this machine are left alone.
set -euo pipefail

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
python="${PYTHON:-python}"
port="${PORT:-6390}"
dashboard_port="${DASHBOARD_PORT:-8290}"
cpus="${CPUS_PER_NODE:-2}"
storage="${STORAGE:-$PWD/results/local_cluster}"
temp="$(mktemp -d /tmp/ray-local-XXXX)"
log="$temp/nodes.log"
nodes=()

stop_nodes() {
    # Only the nodes started here: `ray stop` would end every Ray process of this machine.
    for ((i = ${#nodes[@]} - 1; i >= 0; i--)); do
        kill -TERM "${nodes[i]}" 2>/dev/null || true
    done
    wait
}
trap stop_nodes EXIT

start_node() {
    "$python" -m ray.scripts.scripts start --block --disable-usage-stats --num-cpus="$cpus" "$@" \
        >>"$log" 2>&1 &
    nodes+=($!)
    # One after the other: nodes that start at the same time on few cores miss their deadlines.
    for _ in $(seq 90); do
        [ "$(grep -c 'Ray runtime started' "$log")" -ge "${#nodes[@]}" ] && return
        kill -0 "${nodes[-1]}" 2>/dev/null || break
        sleep 1
    done
    echo "node ${#nodes[@]} did not start, see $log" >&2
    exit 1
}

# A cluster must not be steered by the address of another one, and gets a token of its own.
unset RAY_ADDRESS
export RAY_AUTH_MODE=token
RAY_AUTH_TOKEN="$("$python" -c 'import secrets; print(secrets.token_hex(32))')"
export RAY_AUTH_TOKEN

# Each node unpacks the job's files in a folder of its own, as on machines of their own: in a shared
# one the nodes would delete them from under each other.
start_node --head --port="$port" --dashboard-port="$dashboard_port" --temp-dir="$temp/1"
start_node --address="127.0.0.1:$port" --temp-dir="$temp/2"
start_node --address="127.0.0.1:$port" --temp-dir="$temp/3"

kill_a_node() {
    # A lost machine, as far as the others can tell: the node's raylet dies without a farewell.
    until grep -q "env_steps" "$temp/job.log" 2>/dev/null; do sleep 1; done
    sleep "$1"
    pkill -KILL -P "${nodes[-1]}" -f raylet/raylet
    echo "killed the raylet of worker node ${#nodes[@]}" | tee -a "$temp/job.log"
}

mkdir -p "$storage"
echo "nodes log to $log, results go to $storage"
if [ -n "${KILL_NODE_AFTER:-}" ]; then
    kill_a_node "$KILL_NODE_AFTER" &
fi
"$python" "$here/submit.py" --address="http://127.0.0.1:$dashboard_port" -- \
    --storage-path="$storage" --num-env-runners=2 "$@" | tee -a "$temp/job.log"
