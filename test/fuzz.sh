#!/usr/bin/env bash
# Runs the fuzz targets, five at once, one worker each: those that read what strangers send for the given time (default 60s),
# the others for five seconds.
set -euo pipefail
cd "$(dirname "$0")/.."
time=${1:-60s}
go=${GO:-go}
core='internal/gguf FuzzParse|token FuzzEncode|template FuzzRender|openai FuzzDecodeChat|openai FuzzDecodeCompletions'
targets=$($go list -f '{{.ImportPath}} {{.Dir}}' ./... | while read -r pkg dir; do
  { grep -ohE '^func Fuzz[A-Za-z0-9_]+' "$dir"/*_test.go 2>/dev/null || true; } | sed "s|^func |$pkg |"
done | sort -u)
[ -n "$targets" ] || { echo "no fuzz targets found"; exit 1; }
{ grep -E "($core)\$" <<<"$targets" | sed "s/\$/ $time/"; grep -vE "($core)\$" <<<"$targets" | sed 's/$/ 5s/'; } |
  GO=$go xargs -P 5 -L 1 bash -c '
    # One target can see its deadline as a failure when the time ends in the middle of an input: only a crasher counts.
    if out=$($GO test -run "^$" -fuzz "^$1\$" -fuzztime "$2" -parallel 1 "$0" 2>&1) ||
      { ! grep -q "Failing input" <<<"$out" && grep -q "context deadline exceeded" <<<"$out"; }; then
      echo "$0 $1 $2: $(grep -o "execs: [0-9]*" <<<"$out" | tail -1)"
    else
      echo "$out"; exit 255
    fi'
