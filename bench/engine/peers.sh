#!/bin/sh
# Decoding of the default bundle's base model in 4 bits, exact and with activations of 8 bits, beside llama.cpp (PyPI llama-cpp-python, built here from source
# the first time: several minutes) and onnxruntime-genai, all in one run with two threads. Needs `make parts`. PEERS="genai" leaves llama.cpp out.
set -eu
export ORT_DISABLE_TELEMETRY=1
cd "$(dirname "$0")/../.."
cache=${XDG_CACHE_HOME:-$HOME/.cache}/chatxray/clients
dir=$cache/peers-$(cat bench/engine/peers.txt | sha256sum | cut -c1-16)
: "${PEERS:=llama genai}"
if [ ! -x "$dir/bin/python" ]; then
  mkdir -p "$cache"
  rm -rf "$dir.new"
  python3 -m venv "$dir.new"
  rm -rf "$dir"
  mv "$dir.new" "$dir"
fi
# A venv's own scripts have its first name in them; python -m pip does not mind.
case $PEERS in *genai*) "$dir/bin/python" -m pip install --quiet --disable-pip-version-check --only-binary=:all: -r bench/engine/peers.txt ;; esac
case $PEERS in *llama*) "$dir/bin/python" -m pip install --quiet --disable-pip-version-check numpy==2.4.6 llama-cpp-python==0.3.36 ;; esac
gguf=$(find "${XDG_CACHE_HOME:-$HOME/.cache}/chatxray/parts" -name 'SmolLM2-135M-Instruct.Q4_1.gguf' | head -n 1)
[ -n "$gguf" ] || { echo "peers.sh: the base model is absent: run make parts" >&2; exit 1; }
case $PEERS in *genai*) [ -f "$dir/genai/genai_config.json" ] || "$dir/bin/python" bench/engine/genai.py "$gguf" "$dir/genai" ;; esac
PEERS=$PEERS PEERS_PYTHON=$dir/bin/python PEERS_GENAI=$dir/genai \
  go test ./modelrt -run '^$' -bench '^BenchmarkPeers$' -benchtime 1x -count 1 -timeout 30m | grep -v -e '^goos' -e '^goarch' -e '^pkg' -e '^cpu' -e '^Benchmark' -e '^PASS' -e '^ok'
