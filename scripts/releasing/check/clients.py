"""Each package is installed into an empty project, whose program makes a call of a running gateway."""

import hashlib
import json
import shutil
import zipfile
from pathlib import Path

from .. import plan
from ..build.clients import MODULE, TARGET
from ..project import CLIENT, ROOT, empty, run, version

ACCOUNT = "0000123456-00001"


def check(release):
    yield plan.go_module(), call(release, "go", install_go(release))
    yield plan.maven_artifact(), call(release, "java", install_java(release)) + check_maven_files(release)
    for package in plan.python_packages():
        yield package, call(release, f"python-{Path(package).suffix}", install_python(release, package))
    yield plan.crate(), call(release, "rust", install_rust(release))
    yield plan.npm_package(), call(release, "typescript", install_typescript(release))


def call(release, key, command):
    """Runs the conformance program (clients/README.md), which uses only the installed package."""
    request = {"target": release.gateway().address, "do": "change", "account": ACCOUNT, "key": f"release-{key}",
               "plan": "Example Plan", "devices": 2}
    answer = json.loads(run(*command, json.dumps(request)).splitlines()[-1])
    assert answer.get("state") in ("ACCEPTED", "FINISHED") and answer["device_count"] == 2, answer
    return "installed into an empty project, whose program has made a change"


def conformance(language, project):
    """Copies the conformance program. It is not a part of the package."""
    shutil.rmtree(project, ignore_errors=True)
    shutil.copytree(ROOT / "clients" / language / "conformance", project,
                    ignore=shutil.ignore_patterns("target", "node_modules"))
    return project


def install_go(release):
    project = empty(release.temporary / "go")
    shutil.copyfile(ROOT / "clients" / "go" / "conformance" / "main.go", project / "main.go")
    # A directory that a module proxy serves.
    served = release.temporary / "proxy" / MODULE / "@v"
    served.mkdir(parents=True)
    for path in plan.go_module():
        shutil.copyfile(release.path(path), served / Path(path).name)
    (served / "list").write_text(f"v{version()}\n")
    cache = run("go", "env", "GOMODCACHE").strip()
    environment = {
        "GOPROXY": f"file://{release.temporary}/proxy,file://{cache}/cache/download,{run('go', 'env', 'GOPROXY').strip()}",
        "GONOSUMDB": MODULE,
        "GOMODCACHE": str(release.temporary / "go-modules"),
        "GOFLAGS": "-modcacherw -buildvcs=false",
        "CGO_ENABLED": "0",
    }
    for command in (["mod", "init", "example.com/project"], ["mod", "edit", f"-require={MODULE}@v{version()}"],
                    ["get", "."], ["build", "-o", "program", "."]):
        run("go", *command, cwd=project, env=environment, quiet=True)
    return [project / "program"]


def install_java(release):
    project = conformance("java", release.temporary / "java")
    repository = TARGET / "maven"
    # A copy of an earlier build.
    shutil.rmtree(repository / plan.MAVEN_GROUP, ignore_errors=True)
    run("mvn", "--quiet", "--batch-mode", "--strict-checksums", f"-Dmaven.repo.local={repository}",
        f"-Dclient.repository=file://{release.path('clients/java')}", "package", cwd=project, quiet=True)
    return ["java", "-cp", f"{project}/target/classes:{project}/target/lib/*", "conformance.Conformance"]


def check_maven_files(release):
    """Checks the files that Maven Central demands in addition to the library."""
    files = {path: release.path(path).read_bytes() for path in plan.maven_artifact()}
    for path, content in files.items():
        for algorithm in ("md5", "sha1"):
            if not path.endswith((".md5", ".sha1")):
                digest = hashlib.new(algorithm, content, usedforsecurity=False).hexdigest()
                assert files[f"{path}.{algorithm}"].decode() == digest, f"{path} has another {algorithm}"
    for end, member in ((".jar", "META-INF/LICENSE"), ("-sources.jar", "thingspace/gateway/client/GatewayClient.java"),
                        ("-javadoc.jar", "index.html")):
        [path] = [path for path in files if path.endswith(f"{version()}{end}")]
        with zipfile.ZipFile(release.path(path)) as jar:
            assert member in jar.namelist(), f"{path} lacks {member}"
    return "; with sources, documentation and checksums"


def install_python(release, package):
    environment = release.temporary / f"python-{Path(package).suffix}"
    run("python", "-m", "venv", environment)
    run(environment / "bin" / "pip", "install", "--quiet", "--disable-pip-version-check", release.path(package))
    program = environment / "conformance.py"
    shutil.copyfile(ROOT / "clients" / "python" / "conformance" / "conformance.py", program)
    return [environment / "bin" / "python", program]


def install_rust(release):
    project = conformance("rust", release.temporary / "rust")
    # cargo compares times, and all files in the package have the same old one.
    run("tar", "--extract", "--touch", "--file", release.path(plan.crate()), "--directory", release.temporary)
    package = release.temporary / f"{CLIENT}-{version()}"
    build = TARGET / "clients-rust" / "cargo"
    run("cargo", "build", "--quiet", "--locked", "--config", f"patch.crates-io.{CLIENT}.path='{package}'", cwd=project,
        env={"CARGO_TARGET_DIR": str(build)})
    return [build / "debug" / "conformance"]


def install_typescript(release):
    project = conformance("typescript", release.temporary / "typescript")
    run("npm", "install", "--silent", "--no-audit", "--no-fund", release.path(plan.npm_package()), cwd=project)
    return ["node", project / "conformance.ts"]
