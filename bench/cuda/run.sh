#!/usr/bin/env bash
# Runs the tests that need a GPU, then measures a decoder of random weights in the shape of a 7B model, in bfloat16: bytes read a token beside the
# bandwidth of the memory, reports a minute side by side beside one at a time. Five minutes on an H200, 15 GB in $WORK.
# Needs `GPU=1 make parts` (or CHATXRAY_ONNXRUNTIME: the library inside of an unpacked onnxruntime-gpu, its providers beside it). CUDA 13's libraries are
# taken from where the loader finds them, else from the packages of $PYTHON (PyTorch brings them).
#   SHAPE=tiny DEVICE=cpu PRECISION=float16 bench/cuda/run.sh     tries the script without a GPU
# A machine without Go or the network gets dist/cuda of `bench/cuda/run.sh pack`: the graphs and the compiled tests.
set -euo pipefail
cd "$(dirname "$0")/../.."
shape=${SHAPE:-7b} device=${DEVICE:-cuda} precision=${PRECISION:-bfloat16} python=${PYTHON:-python3}
room=$(df --output=avail -B1G /dev/shm 2>/dev/null | tail -1 || echo 0)
if [ "$room" -ge 40 ]; then fast=/dev/shm; else fast=${TMPDIR:-/tmp}; fi # a disk may be slow
work=${WORK:-$fast/chatxray-cuda}
pack=dist/cuda

graphs() { # FOLDER
  [ -f "$1/shape.json" ] || "$python" -m train.shape "$1" --shape "$shape" --precision "$precision"
}

tests() { # FILE
  go test -c -o "$1" ./modelrt
}

if [ "${1:-}" = pack ]; then
  mkdir -p "$pack"
  graphs "$pack/$shape-$precision"
  tests "$pack/modelrt.test"
  du -sh "$pack"
  exit
fi

if [ "$device" = cuda ] && [ ! -e /dev/nvidiactl ] && [ ! -e /dev/nvidia0 ] && ! command -v nvidia-smi >/dev/null; then
  echo "bench/cuda: no GPU here"
  exit
fi
mkdir -p "$work"
if [ -f "$pack/$shape-$precision/shape.json" ]; then
  mkdir -p "$work/$shape-$precision"
  cp "$pack/$shape-$precision"/* "$work/$shape-$precision/"
fi
graphs "$work/$shape-$precision"
if [ -f "$pack/modelrt.test" ]; then
  run=$PWD/$pack/modelrt.test
else
  run=$work/modelrt.test
  tests "$run"
fi

if [ "$device" = cuda ]; then
  # Folders of NVIDIA's Python packages, if there are any.
  folders=$("$python" -c 'import glob, sysconfig; print(":".join(sorted(glob.glob(sysconfig.get_paths()["purelib"] + "/nvidia/*/lib"))))' 2>/dev/null || true)
  export LD_LIBRARY_PATH=${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$folders
  if command -v nvidia-smi >/dev/null; then
    nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.max.mem --format=csv
  fi
fi
cd modelrt
if [ "$device" = cuda ]; then
  CHATXRAY_GPU=cuda timeout 120 "$run" -test.run '^TestGPU' -test.v -test.timeout 110s || echo "bench/cuda: tests failed; the figures follow all the same"
fi
# 4,800 GB/s is what NVIDIA says of an H200 (141 GB HBM3e).
CHATXRAY_GPU=$device CHATXRAY_SHAPE=$work/$shape-$precision NOMINAL_GBS=${NOMINAL_GBS:-4800} \
  timeout "${LIMIT:-240}" "$run" -test.run '^$' -test.bench '^BenchmarkGPU$' -test.benchtime 1x -test.timeout "${LIMIT:-240}s"
