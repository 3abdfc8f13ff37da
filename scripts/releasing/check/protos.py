"""The descriptor set serves a call, the protos generate code, and the OpenAPI document describes a call."""

import json
import urllib.request

from .. import plan
from ..archive import unpack
from ..project import NAME, ROOT, run, version

SERVICE = "thingspace.gateway.v1.GatewayService"
LANGUAGES = ("cpp", "java", "python")


def check(release):
    descriptors = release.path(plan.descriptors())
    url = f"http://{release.gateway().address}/{SERVICE}/GetServerInfo"
    answer = json.loads(run("buf", "curl", "--schema", descriptors, "--protocol", "grpc", "--http2-prior-knowledge",
                            "--data", "{}", url))
    assert answer["version"] == version(), answer
    comments = (ROOT / "proto/thingspace/gateway/v1/gateway_service.proto").read_text().split("\n// ")[1].split("\n")[0]
    assert comments.encode() in descriptors.read_bytes(), "no comments"
    yield plan.descriptors(), "buf curl makes a call of a running gateway with it; it has the comments"

    source = unpack(release.path(plan.protos()), release.temporary / "protos") / f"{NAME}-{version()}-protos"
    again = release.temporary / "again.binpb"
    run("buf", "build", "--as-file-descriptor-set", "-o", again, cwd=source)
    assert again.read_bytes() == descriptors.read_bytes(), "the protos have another descriptor set"
    files = sorted(str(file.relative_to(source / "proto")) for file in source.glob("proto/**/*.proto"))
    generated = release.temporary / "generated"
    for language in LANGUAGES:
        (generated / language).mkdir(parents=True)
    run("protoc", "--proto_path=proto", "--proto_path=third_party/proto",
        *(f"--{language}_out={generated / language}" for language in LANGUAGES), *files, cwd=source)
    for language in LANGUAGES:
        assert len(list(generated.glob(f"{language}/**/*.*"))) >= len(files), f"protoc has made no {language}"
    assert (source / "LICENSE").is_file() and "googleapis" in (source / "NOTICE").read_text()
    yield plan.protos(), f"protoc generates {', '.join(LANGUAGES)}; buf builds the same descriptor set; with licence"

    run("openapi-spec-validator", release.path(plan.openapi()))
    assert f"\n  /{SERVICE}/GetServerInfo:\n" in release.path(plan.openapi()).read_text()
    request = urllib.request.Request(url, data=b"{}", headers={"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as response:
        assert json.load(response)["version"] == version()
    yield plan.openapi(), "valid OpenAPI; a running gateway answers one of its calls"
