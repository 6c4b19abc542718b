#!/usr/bin/env bash
# Install the real Triton server (release 24.10, CPU) for the tests of what optkit packages, and put our ONNX backend and perf_analyzer
# beside it.
# Usage: install_triton.sh FOLDER; then run the tests with OPTKIT_TRITON=FOLDER. For loopback tests only: never deploy this release.
set -euo pipefail
folder=$1
here=$(cd "$(dirname "$0")" && pwd)
if [ ! -x "$folder/bin/python" ]; then
  # An environment of its own: the server's Python backend answers with empty tensors under numpy 2, which optkit uses.
  python3 -m venv "$folder"
  # torch and torchserve are for the handlers of archives that `optkit migrate` turned.
  "$folder/bin/pip" install --quiet "nvidia-pytriton==0.7.0" "onnxruntime>=1.20" "numpy<2" \
    "torch==2.13.0" "torchserve==0.12.0" PyYAML
fi
folder=$(cd "$folder" && pwd)
packages=$("$folder/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
version=$("$folder/bin/python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
wheel="$packages/pytriton/tritonserver"
mkdir -p "$folder/backends/python"
cp -r "$wheel/backends/python/." "$folder/backends/python/"
cp "$wheel/python_backend_stubs/$version/triton_python_backend_stub" "$folder/backends/python/"
ln -sfn "$here/onnxruntime" "$folder/backends/onnxruntime"
if [ ! -x "$folder/bin/perf_analyzer" ]; then
  # The last client wheel whose perf_analyzer runs with glibc 2.36; two of its libraries are among the server's, under longer names.
  "$folder/bin/pip" download --quiet --no-deps --only-binary=:all: --platform manylinux1_x86_64 \
    --dest "$folder/perf_analyzer" "tritonclient==2.51.0"
  "$folder/bin/python" -m zipfile -e "$folder"/perf_analyzer/tritonclient-2.51.0-*.whl "$folder/perf_analyzer"
  ln -sf "$packages"/nvidia_pytriton.libs/libb64-*.so.0d "$folder/perf_analyzer/libb64.so.0d"
  ln -sf "$packages"/nvidia_pytriton.libs/libcudart-*.so.12.* "$folder/perf_analyzer/libcudart.so.12"
  binary="$folder/perf_analyzer/tritonclient-2.51.0.data/data/bin/perf_analyzer"
  chmod +x "$binary"
  printf '#!/bin/sh\nLD_LIBRARY_PATH=%s exec %s "$@"\n' "$folder/perf_analyzer" "$binary" >"$folder/bin/perf_analyzer"
  chmod +x "$folder/bin/perf_analyzer"
fi
test -x "$wheel/bin/tritonserver"
"$folder/bin/perf_analyzer" --version >/dev/null
