#!/usr/bin/env bash
# Generates the Python code of the gateway's protos beside the example.
# PYTHON names the interpreter that has requirements.txt installed.
set -euo pipefail

here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
root=$(cd -- "$here/../.." && pwd)
proto=$root/proto

# google.rpc is not generated: the package googleapis-common-protos has it.
"${PYTHON:-python3}" -m grpc_tools.protoc -I "$proto" -I "$root/third_party/proto" \
  --python_out="$here" --pyi_out="$here" --grpc_python_out="$here" \
  "$proto"/thingspace/gateway/v1/*.proto
