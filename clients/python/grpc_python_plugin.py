#!/usr/bin/env python3
"""A protoc plugin for `buf generate` that generates gRPC stubs.

grpcio-tools contains the generator only as a part of its protoc, so this plugin runs that protoc.
"""

import sys
import tempfile
from pathlib import Path

from google.protobuf.compiler import plugin_pb2
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from grpc_tools import protoc

request = plugin_pb2.CodeGeneratorRequest.FromString(sys.stdin.buffer.read())
response = plugin_pb2.CodeGeneratorResponse(
    supported_features=plugin_pb2.CodeGeneratorResponse.FEATURE_PROTO3_OPTIONAL
)
with tempfile.TemporaryDirectory() as directory:
    descriptors, out = Path(directory, "descriptors.binpb"), Path(directory, "out")
    descriptors.write_bytes(FileDescriptorSet(file=request.proto_file).SerializeToString())
    out.mkdir()
    options = [f"--descriptor_set_in={descriptors}", f"--grpc_python_out={out}"]
    code = protoc.main(["protoc", *options, *request.file_to_generate])
    for path in out.rglob("*.py"):
        response.file.add(name=path.relative_to(out).as_posix(), content=path.read_text())
sys.stdout.buffer.write(response.SerializeToString())
sys.exit(code)
