#!/usr/bin/env bash
# Makes the Python stubs from the gateway's protos, beside the example.
# PYTHON names the interpreter that has requirements.txt installed.
set -euo pipefail

here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
proto=$(cd -- "$here/../../proto" && pwd)

# google/rpc is not generated: googleapis-common-protos has it.
"${PYTHON:-python3}" -m grpc_tools.protoc -I "$proto" \
  --python_out="$here" --pyi_out="$here" --grpc_python_out="$here" \
  "$proto"/thingspace/gateway/v1/*.proto
