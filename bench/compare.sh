#!/usr/bin/env bash
# Measures Kvasir against llama.cpp, alternated, on the same model file with the same number of threads, and writes what it finds to a folder.
#   compare.sh OUT_DIR
# Settings from the environment:
#   KVASIR     the kvasir binary                     (bin/kvasir of this repository)
#   PEERS      where peers.sh put llama.cpp          (~/.cache/kvasir-peers)
#   MODEL      the file that Kvasir serves           ($PEERS/SmolLM2-135M-Instruct.Q4_1.gguf)
#   PEER_MODEL the file that llama-server serves     (MODEL)
#   THREADS    compute threads of each               (2)
#   VLLM=1     also measures vLLM, set up by peers.sh
#   PYTHON     a Python that has aiohttp             (python3)
#   BATTERY    further flags of battery.py           e.g. "--only repeat,exact"
#   PEER_FLAGS further flags of llama-server         e.g. "-np 8 -c 16384"
#   BENCH      further flags of kvasir bench         e.g. "--rounds 5 --only cold,warm,itl"
# OUT_DIR gets machine.txt, limits.txt, limits.json (the machine's own limits), bench.txt, bench.json, bench.svg, battery.txt, battery.json and a log of each server.
set -euo pipefail
[ $# -eq 1 ] || { sed -n '2,/^set /s/^# \{0,1\}//p' "$0"; exit 2; }
mkdir -p "$1"
out=$(cd "$1" && pwd)
cd "$(dirname "$0")/.."
kvasir=${KVASIR:-bin/kvasir}
peers=${PEERS:-$HOME/.cache/kvasir-peers}
model=${MODEL:-$peers/SmolLM2-135M-Instruct.Q4_1.gguf}
peer_model=${PEER_MODEL:-$model}
threads=${THREADS:-2}
python=${PYTHON:-python3}
read -ra battery <<<"${BATTERY:-}"
read -ra bench <<<"${BENCH:-}"
read -ra peer_flags <<<"${PEER_FLAGS:-}"

pids=()
state=$(mktemp -d)
stop() {
  # Only what was started here, by process id.
  for p in "${pids[@]}"; do kill "$p" 2>/dev/null || true; done
  for p in "${pids[@]}"; do wait "$p" 2>/dev/null || true; done
  rm -rf "$state"
}
trap stop EXIT
trap 'exit 130' INT TERM

free_port() { "$python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

# await NAME URL PID: until the server lists its models.
await() {
  for _ in $(seq 1800); do
    if "$python" -c 'import sys, urllib.request; urllib.request.urlopen(sys.argv[1] + "/v1/models", timeout=2)' "$2" 2>/dev/null; then return; fi
    kill -0 "$3" 2>/dev/null || { echo "compare.sh: $1 ended; see $out/$1.log" >&2; tail -5 "$out/$1.log" >&2; exit 1; }
    sleep 0.2
  done
  echo "compare.sh: $1 does not answer at $2" >&2
  exit 1
}

servers=()
# start NAME PORT COMMAND...
start() {
  local name=$1 url=http://127.0.0.1:$2
  shift 2
  "$@" >"$out/$name.log" 2>&1 &
  pids+=($!)
  await "$name" "$url" $!
  servers+=("$name=$url#smol")
}

port=$(free_port)
start kvasir "$port" "$kvasir" serve --model "$model" --served-model-name smol --addr "127.0.0.1:$port" --threads "$threads" --data-dir "$state" --log-level warn
port=$(free_port)
start llama "$port" "$peers/llama-server" -m "$peer_model" --alias smol --host 127.0.0.1 --port "$port" -t "$threads" "${peer_flags[@]}"
if [ -n "${VLLM:-}" ]; then
  port=$(free_port)
  start vllm "$port" "$peers/vllm-serve" "$port"
fi

{
  "$kvasir" version
  echo "threads: $threads"
  echo "kvasir: $(basename "$model")"
  echo "llama: $(basename "$peer_model"), $("$peers/llama-server" --version 2>&1 | grep -i '^version' || true)"
  uname -srm
  uptime
} | tee "$out/machine.txt"
urls=(--url "${servers[0]}")
for s in "${servers[@]:1}"; do urls+=(--against "$s"); done
failed=0
"$kvasir" bench machine --json "$out/limits.json" | tee "$out/limits.txt" || failed=1
"$kvasir" bench "${urls[@]}" --json "$out/bench.json" --svg "$out/bench.svg" "${bench[@]}" | tee "$out/bench.txt" || failed=1
"$python" bench/battery.py "${servers[@]}" --json "$out/battery.json" "${battery[@]}" | tee "$out/battery.txt" || failed=1
uptime | tee -a "$out/machine.txt"
exit $failed
