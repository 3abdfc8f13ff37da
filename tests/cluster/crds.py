"""Collects the custom resource definitions that the chart has objects of, from the Go modules of their projects.

    python tests/cluster/crds.py DIRECTORY [LINKERD]

LINKERD is the directory of a clone of Linkerd's repository, which is not a Go module that the proxy serves.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import yaml

# The files of each module.
MODULES = {
    "sigs.k8s.io/gateway-api@v1.6.3": ["config/crd/standard/gateway.networking.k8s.io_*s.yaml"],
    "github.com/cert-manager/cert-manager@v1.20.2": ["deploy/crds/cert-manager.io_*.yaml"],
    "github.com/prometheus-operator/prometheus-operator@v0.92.1": [
        f"example/prometheus-operator-crd/monitoring.coreos.com_{kind}.yaml"
        for kind in ("servicemonitors", "podmonitors", "prometheusrules")
    ],
    "github.com/envoyproxy/gateway@v1.9.0": [
        "charts/gateway-crds-helm/templates/generated/gateway.envoyproxy.io_backendtrafficpolicies.yaml"
    ],
    "istio.io/api@v1.32.0": ["kubernetes/customresourcedefinitions.gen.yaml"],
}


def download(module):
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(["go", "mod", "download", "-json", module], check=True, capture_output=True, env=environment)
    return Path(json.loads(done.stdout)["Dir"])


def definitions(text):
    # Templates of Helm are in conditions and labels only.
    text = "\n".join(line for line in text.splitlines() if "{{" not in line)
    return [o for o in yaml.safe_load_all(text) if o and o["kind"] == "CustomResourceDefinition"]


def main(directory, linkerd=None):
    found = []
    for module, patterns in MODULES.items():
        source = download(module)
        for pattern in patterns:
            files = sorted(source.glob(pattern))
            assert files, f"{module} has no {pattern}"
            found += [o for file in files for o in definitions(file.read_text())]
    for file in sorted(Path(linkerd).glob("charts/linkerd-crds/templates/policy/*.yaml")) if linkerd else []:
        found += definitions(file.read_text())
    directory.mkdir(parents=True, exist_ok=True)
    for old in directory.glob("*.yaml"):
        old.unlink()
    for definition in found:
        # The status of a generated definition must not be applied.
        definition.pop("status", None)
        (directory / f"{definition['metadata']['name']}.yaml").write_text(yaml.safe_dump(definition))
    print(f"{len(found)} custom resource definitions in {directory}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:3])
