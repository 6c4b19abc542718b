#!/usr/bin/env bash
# Install the real Triton server (release 24.10, CPU) for the tests of what optkit packages, and put our ONNX backend beside it.
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
test -x "$wheel/bin/tritonserver"
