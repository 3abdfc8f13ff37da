"""The chart: its rendered objects, its errors, and its pods."""

import json
import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml
from kubelet import Cluster
from postgres_server import PostgresServer

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "helm" / "thingspace-gateway"
# The supported versions of Kubernetes, and an older one.
VERSIONS = ["1.31", "1.34", "1.36"]
SECRETS = {
    "thingspace.app_key": "planted-app-key",
    "thingspace.app_secret": "planted-app-secret",
    "thingspace.uws_username": "planted-uws-user",
    "thingspace.uws_password": "planted-uws-password",
    "callbacks.path_secret": "planted-path-secret-0123456789",
    "callbacks.username": "planted-callback-user",
    "callbacks.password": "planted-callback-password",
}
VALUES = {
    "default": {},
    "sandbox": {"sandbox": {"enabled": True, "config": {"callback_delay": "10ms", "failure_rate": 0.2}}},
    "full": {
        "fullnameOverride": "gw",
        "image": {"digest": "sha256:" + "0" * 64},
        "imagePullSecrets": [{"name": "registry"}],
        "config": {
            "grpc": {"max_connection_age": "10m", "max_stream_age": "5m", "max_message_bytes": 4194304},
            "callbacks": {"allow_cidrs": ["192.0.2.0/24"], "allow_mode": "enforce", "trusted_hops": 1},
            "changes": {"max_devices_per_request": 100, "require_key": True},
            "telemetry": {"otlp_endpoint": "http://collector:4317", "log_filter": "info,thingspace_gateway=debug"},
        },
        "secrets": {
            "create": True,
            "values": SECRETS,
            "keys": {"callbacks.username": "callback-username", "callbacks.password": "callback-password"},
        },
        "grpc": {"tlsSecret": "grpc-tls", "clientCaSecret": "grpc-clients"},
        "callbacks": {"publicUrl": "https://callbacks.example.com:9001", "tlsSecret": "callbacks-tls"},
        "persistence": {"size": "20Gi", "storageClass": "123", "accessMode": "ReadWriteOnce"},
        "service": {"callbacks": {"type": "LoadBalancer", "externalTrafficPolicy": "Local"}},
        "listenAddress": "::",
        "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
        "podLabels": {"team": "fleet"},
        "tolerations": [{"key": "dedicated", "operator": "Exists"}],
        "extraEnv": [{"name": "OTEL_RESOURCE_ATTRIBUTES", "value": "team=fleet"}],
    },
    "postgres": {"replicaCount": 3, "journal": {"engine": "postgres"}},
    "postgres-spool": {
        "replicaCount": 2,
        "journal": {
            "engine": "postgres",
            "url": "postgresql://gateway@db1,db2/gateway?sslrootcert=/etc/thingspace-gateway/postgres/ca.crt",
            "existingSecret": "database",
            "passwordKey": "password",
            "caSecret": "database-ca",
            "spool": {"enabled": True, "size": "3Gi", "storageClass": "fast"},
        },
        "config": {"journal": {"max_connections": 4}},
        "podDisruptionBudget": {"maxUnavailable": "50%"},
        "topologySpreadConstraints": [
            {"maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "DoNotSchedule"}
        ],
    },
}
POSTGRES = {"engine": "postgres"}


def helm(*arguments, values=None):
    path = os.environ.get("HELM")
    assert path, "HELM must name the helm binary; scripts/test sets it"
    return subprocess.run(
        [path, *arguments, *(["--values", "-"] if values is not None else [])],
        input=json.dumps(values) if values is not None else None,
        capture_output=True,
        text=True,
        timeout=60,
    )


def rendered(values, *arguments):
    done = helm("template", "test", CHART, *arguments, values=values)
    assert done.returncode == 0, done.stderr
    return done.stdout


def objects(values, *arguments):
    return [o for o in yaml.safe_load_all(rendered(values, *arguments)) if o]


@pytest.mark.parametrize("values", VALUES.values(), ids=VALUES)
def test_lint_finds_nothing_and_every_object_is_valid_on_every_kubernetes(values, tmp_path):
    lint = helm("lint", "--strict", CHART, values=values)
    assert lint.returncode == 0, lint.stdout + lint.stderr
    validate = Path(os.environ["VIRTUAL_ENV"] if "VIRTUAL_ENV" in os.environ else sys_prefix())
    for version in VERSIONS:
        file = tmp_path / f"{version}.yaml"
        text = rendered(values, "--kube-version", version)
        # Kubernetes has no schema for ServiceMonitor, which belongs to the Prometheus operator.
        parts = [part for part in re.split(r"(?m)^---$", text) if "kind: ServiceMonitor" not in part]
        file.write_text("---".join(parts))
        done = subprocess.run(
            [validate / "bin" / "kubernetes-validate", "-k", version, "--strict", file],
            capture_output=True, text=True, timeout=120,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        checked = [o for o in yaml.safe_load_all(file.read_text()) if o]
        assert len(re.findall("passed", done.stdout + done.stderr)) == len(checked) >= 7


def sys_prefix():
    import sys

    return sys.prefix


@pytest.mark.parametrize(
    "values, sentence",
    [
        ({"replicaCount": 2}, "replicaCount: only 1 is possible with journal.engine sqlite"),
        ({"replicaCount": 0, "journal": POSTGRES}, "replicaCount"),
        ({"journal": {"engine": "mysql"}}, "must be one of 'sqlite', 'postgres'"),
        ({"journal": {"url": "postgresql://gateway@db/gateway"}}, "need journal.engine postgres"),
        ({"journal": {"spool": {"enabled": True}}}, "need journal.engine postgres"),
        ({"journal": POSTGRES | {"urlKey": ""}}, "journal.url: not set, and neither is journal.urlKey"),
        ({"journal": POSTGRES | {"url": "postgresql://gateway:pw@db/gateway"}}, "journal.url: contains a password"),
        ({"journal": POSTGRES | {"url": "mysql://db/gateway"}}, "does not match pattern"),
        ({"journal": POSTGRES, "sandbox": {"enabled": True}}, "journal.existingSecret: not set"),
        ({"journal": POSTGRES, "persistence": {"existingClaim": "old"}}, "only with journal.engine sqlite"),
        ({"config": {"journal": {"engine": "postgres"}}}, "additional properties 'engine' not allowed"),
        ({"replcas": 1}, "additional properties 'replcas' not allowed"),
        ({"config": {"grpc": {"listn": ":1"}}}, "additional properties 'listn' not allowed"),
        ({"config": {"grpc": {"listen": ":1"}}}, "additional properties 'listen' not allowed"),
        ({"config": {"thingspace": {"app_key": "x"}}}, "additional properties 'app_key' not allowed"),
        ({"secrets": {"existingSecret": ""}}, "secrets.existingSecret: not set; name a Secret with the keys app-key,"),
        ({"secrets": {"create": True}}, "secrets.values: callbacks.path_secret is missing"),
        ({"secrets": {"keys": {"thingspace.app_key": ""}}}, "thingspace.app_key has no key, and the gateway does not start"),
        ({"secrets": {"keys": {"callbacks.path_secret": ""}}}, "so anybody could write results"),
        ({"secrets": {"keys": {"callbacks.username": "u"}}}, "callbacks.username and callbacks.password belong together"),
        ({"sandbox": {"enabled": True}, "config": {"thingspace": {"base_url": "http://x"}}}, "its own ThingSpace"),
        ({"sandbox": {"enabled": True}, "callbacks": {"tlsSecret": "t"}}, "the sandbox delivers over plain http"),
        ({"sandbox": {"enabled": True}, "grpc": {"tlsSecret": "t"}}, "helm test calls the gRPC port in plaintext"),
        ({"grpc": {"clientCaSecret": "c"}}, "grpc.clientCaSecret: only with grpc.tlsSecret"),
        ({"terminationGracePeriodSeconds": 20}, "does not cover config.shutdown.grace, 25s"),
        ({"service": {"callbacks": {"externalTrafficPolicy": "Local"}}}, "only with service.callbacks.type"),
        ({"persistence": {"type": "disk"}}, "must be one of 'claim', 'emptyDir'"),
    ],
)
def test_invalid_values_are_rejected_with_a_helpful_message(values, sentence):
    done = helm("template", "test", CHART, values=values)
    assert done.returncode != 0 and sentence in done.stderr, done.stderr


def test_the_pod_keeps_to_the_restricted_standard_and_holds_no_secret_in_its_spec():
    (workload,) = [o for o in objects(VALUES["full"]) if o["kind"] == "StatefulSet"]
    spec = workload["spec"]["template"]["spec"]
    assert spec["enableServiceLinks"] is False and spec["automountServiceAccountToken"] is False
    pods = [spec, *[o["spec"] for o in objects(VALUES["full"]) if o["kind"] == "Pod"]]
    pods += [o["spec"]["template"]["spec"] for o in objects(VALUES["sandbox"]) if o["kind"] == "Deployment"]
    assert len(pods) == 4
    for pod in pods:
        assert pod["securityContext"]["runAsNonRoot"]
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in pod["containers"] + pod.get("initContainers", []):
            security = container["securityContext"]
            assert security["capabilities"] == {"drop": ["ALL"]}
            assert security["readOnlyRootFilesystem"] and not security["allowPrivilegeEscalation"]
    names = [variable["name"] for variable in spec["containers"][0]["env"]]
    assert len(names) == len(set(names)), "the API server rejects duplicate names"
    (claim,) = workload["spec"]["volumeClaimTemplates"]
    assert claim["spec"]["accessModes"] == ["ReadWriteOnce"]
    text = "\n".join(yaml.dump(o) for o in objects(VALUES["full"]) if o["kind"] != "Secret")
    assert not [secret for secret in SECRETS.values() if secret in text]
    (default,) = [o for o in objects({}) if o["kind"] == "StatefulSet"]
    assert default["spec"]["volumeClaimTemplates"][0]["spec"]["accessModes"] == ["ReadWriteOncePod"]


def workload(values):
    (found,) = [o for o in objects(values) if o["metadata"]["labels"].get("app.kubernetes.io/component") == "gateway"
                and o["kind"] in ("StatefulSet", "Deployment")]
    return found


def settings_of(values):
    (found,) = [o for o in objects(values) if o["kind"] == "ConfigMap" and "gateway.toml" in o["data"]]
    return tomllib.loads(found["data"]["gateway.toml"])


def test_replicas_with_postgresql_need_no_volume_and_are_spread():
    values = VALUES["postgres"]
    found = workload(values)
    assert found["kind"] == "Deployment" and found["spec"]["replicas"] == 3
    assert found["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
    spec = found["spec"]["template"]["spec"]
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    assert volumes["journal"] == {"name": "journal", "emptyDir": {}} and "spool" not in volumes
    constraints = spec["topologySpreadConstraints"]
    assert [c["topologyKey"] for c in constraints] == ["topology.kubernetes.io/zone", "kubernetes.io/hostname"]
    (budget,) = [o for o in objects(values) if o["kind"] == "PodDisruptionBudget"]
    assert budget["spec"]["maxUnavailable"] == 1
    selectors = [found["spec"]["selector"], budget["spec"]["selector"], *[c["labelSelector"] for c in constraints]]
    labels = found["spec"]["template"]["metadata"]["labels"].items()
    assert all(selector["matchLabels"].items() <= labels for selector in selectors)
    assert len({json.dumps(selector, sort_keys=True) for selector in selectors}) == 1
    journal = settings_of(values)["journal"]
    assert journal["engine"] == "postgres"
    assert journal["url_file"] == "/etc/thingspace-gateway/secrets/journal.url"


def test_one_replica_with_sqlite_has_no_disruption_budget_and_no_engine_in_its_settings():
    assert workload({})["kind"] == "StatefulSet"
    assert not [o for o in objects({}) if o["kind"] == "PodDisruptionBudget"]
    assert "topologySpreadConstraints" not in workload({})["spec"]["template"]["spec"]
    assert settings_of({})["journal"] == {"dir": "/var/lib/thingspace-gateway/journal"}


def test_a_spool_has_a_volume_of_its_own():
    values = VALUES["postgres-spool"]
    found = workload(values)
    assert found["kind"] == "StatefulSet"
    (claim,) = found["spec"]["volumeClaimTemplates"]
    assert claim["metadata"]["name"] == "spool" and claim["spec"]["storageClassName"] == "fast"
    assert claim["spec"]["resources"]["requests"]["storage"] == "3Gi"
    spec = found["spec"]["template"]["spec"]
    (mount,) = [m for m in spec["containers"][0]["volumeMounts"] if m["name"] == "spool"]
    journal = settings_of(values)["journal"]
    assert journal["spool_dir"].startswith(mount["mountPath"] + "/")
    assert journal["url"] == values["journal"]["url"] and "url_file" not in journal
    assert journal["password_file"] == "/etc/thingspace-gateway/secrets/journal.password"
    (settings,) = [v["projected"]["sources"] for v in spec["volumes"] if v["name"] == "settings"]
    mounted = {s["secret"]["name"]: s["secret"]["items"] for s in settings if "secret" in s}
    assert mounted["database"] == [{"key": "password", "path": "secrets/journal.password"}]
    assert mounted["database-ca"] == [{"key": "ca.crt", "path": "postgres/ca.crt"}]
    (constraint,) = spec["topologySpreadConstraints"]
    assert constraint["whenUnsatisfiable"] == "DoNotSchedule" and constraint["labelSelector"]["matchLabels"]

    journal = values["journal"] | {"spool": {"enabled": True, "type": "emptyDir", "size": "3Gi"}}
    found = workload(values | {"journal": journal})
    assert found["kind"] == "Deployment" and "volumeClaimTemplates" not in found["spec"]
    (spool,) = [v for v in found["spec"]["template"]["spec"]["volumes"] if v["name"] == "spool"]
    assert spool["emptyDir"] == {"sizeLimit": "3Gi"}


def notes(values):
    done = helm("install", "test", CHART, "--dry-run=client", values=values)
    assert done.returncode == 0, done.stderr
    return done.stdout.partition("NOTES:")[2]


def test_the_notes_contain_the_callback_url_and_warnings():
    output = notes({})
    assert "http://YOUR-NAME:9001/callbacks/CarrierService/PATH-SECRET" in output
    for warning in ["auth.mode is none", "callbacks.password are not used", "plain http"]:
        assert warning in output
    output = notes(VALUES["full"])
    assert "https://callbacks.example.com:9001/callbacks/DeviceProfileService/PATH-SECRET" in output
    assert "key callback-path-secret" in output and "plain http" not in output
    assert not [secret for secret in SECRETS.values() if secret in output]
    odd = notes({"callbacks": {"publicUrl": "https://callbacks.example.com:8443"}})
    assert "ThingSpace does not call port 8443" in odd
    lossy = notes({"persistence": {"type": "emptyDir"}})
    assert "lost with the pod" in lossy
    assert "changes here are not real" in notes(VALUES["sandbox"])
    assert "ReadWriteOnce:" not in notes(VALUES["postgres"])
    spooling = VALUES["postgres-spool"]["journal"] | {"spool": {"enabled": True, "type": "emptyDir"}}
    assert "callbacks in the spool are lost" in notes({"journal": spooling})


def test_a_policy_is_mounted_and_a_new_one_restarts_no_pod():
    policy = '[[caller]]\nname = "a"\nidentities = ["jwt:a"]\n'
    before = objects({"policy": policy})
    (found,) = [o for o in before if o["kind"] == "ConfigMap" and "policy.toml" in o["data"]]
    assert found["data"]["policy.toml"] == policy
    (settings,) = [o for o in before if o["kind"] == "ConfigMap" and "gateway.toml" in o["data"]]
    path = tomllib.loads(settings["data"]["gateway.toml"])["auth"]["policy_file"]
    workload = lambda parts: next(o for o in parts if o["kind"] == "StatefulSet")
    (volume,) = [v for v in workload(before)["spec"]["template"]["spec"]["volumes"] if v["name"] == "settings"]
    sources = [s["configMap"] for s in volume["projected"]["sources"] if "configMap" in s]
    (item,) = [i for s in sources if s["name"] == found["metadata"]["name"] for i in s["items"]]
    assert path == f"/etc/thingspace-gateway/{item['path']}"
    assert workload(before) == workload(objects({"policy": policy.replace("jwt:a", "jwt:b")}))


def test_the_values_schema_knows_every_setting_as_the_binary_does():
    schema = subprocess.run(
        [os.environ["TSGW_BINARY"], "config", "schema"], check=True, capture_output=True, text=True
    ).stdout
    done = subprocess.run([ROOT / "scripts/chart-schema", "--check"], input=schema, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_every_value_is_described_in_the_charts_readme():
    def paths(values, prefix=""):
        for name, value in values.items():
            path = f"{prefix}{name.replace('.', chr(92) + '.') if prefix else name}"
            if isinstance(value, dict) and value and not path.startswith(("config", "secrets.keys", "resources")):
                yield from paths(value, f"{path}.")
            else:
                yield path

    readme = (CHART / "README.md").read_text()
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    missing = [path for path in paths(values) if f"`{path}`" not in readme]
    assert not missing


@pytest.fixture
def cluster(tmp_path):
    image = os.environ.get("TSGW_IMAGE")
    assert image, "TSGW_IMAGE must name the image's root directory; scripts/test sets it"
    assert os.geteuid() == 0, "starting a pod's processes needs root: namespaces, mounts, other users"
    started = []

    def start(values):
        started.append(Cluster(image, objects(values), tmp_path / str(len(started))))
        started[-1].directory.mkdir()
        return started[-1]

    yield start
    for cluster in started:
        cluster.close()


def spec(cluster, kind, name):
    found = cluster.get(kind, name)
    return found["spec"] if kind == "Pod" else found["spec"]["template"]["spec"]


def parse_demo_report(output):
    return json.loads(output.splitlines()[-1])["changes"]


def test_the_rendered_pods_serve_a_change_as_helm_test_makes_it(cluster):
    cluster = cluster(VALUES["sandbox"])
    name = "test-thingspace-gateway"
    sandbox = cluster.run(spec(cluster, "Deployment", f"{name}-sandbox"), "sandbox")
    sandbox.wait_for("readinessProbe")
    gateway = cluster.run(spec(cluster, "StatefulSet", name), "gateway", pod=f"{name}-0")
    for probe in ["startupProbe", "readinessProbe", "livenessProbe"]:
        gateway.wait_for(probe)

    test = spec(cluster, "Pod", f"{name}-test-change")
    code, output = cluster.run(test, "change").wait()
    assert code == 0, output + gateway.log.read_text() + sandbox.log.read_text()
    changes = parse_demo_report(output)
    assert [(c["devices"], c["missing"], c["succeeded"] + c["failed"]) for c in changes] == [(3, 0, 3)] * 3
    health = spec(cluster, "Pod", f"{name}-test-health")
    code, output = cluster.run(health, "health").wait()
    assert (code, output.strip()) == (0, "SERVING")

    # The journal is on the pod's volume, and the next pod continues with it.
    assert gateway.stop() == 0, gateway.log.read_text()
    again = cluster.run(spec(cluster, "StatefulSet", name), "gateway", pod=f"{name}-0")
    again.wait_for("readinessProbe")
    metrics = cluster.in_network("curl", "--silent", "http://127.0.0.1:9090/metrics")
    text = subprocess.run(metrics, check=True, capture_output=True, text=True).stdout
    assert 'thingspace_gateway_changes{thingspace_gateway_state="FINISHED"} 3' in text
    assert again.stop() == 0


def test_by_default_helm_test_makes_its_change_on_a_sandbox_of_its_own(cluster):
    values = {"secrets": {"create": True, "values": SECRETS, "keys": {"callbacks.username": "u", "callbacks.password": "p"}}}
    cluster = cluster(values)
    name = "test-thingspace-gateway"
    test = spec(cluster, "Pod", f"{name}-test-change")
    health = spec(cluster, "Pod", f"{name}-test-health")
    sidecar = cluster.run(test, "sandbox")
    sidecar.wait_for("startupProbe")
    code, output = cluster.run(test, "change").wait()
    assert code == 0 and len(parse_demo_report(output)) == 3, output
    assert sidecar.stop() == 0
    code, output = cluster.run(health, "health").wait()
    assert code == 1, "the gateway of the release does not run yet: " + output

    # With the settings for Verizon it starts, and sends nothing before the first change.
    gateway = cluster.run(spec(cluster, "StatefulSet", name), "gateway")
    for probe in ["startupProbe", "readinessProbe", "livenessProbe"]:
        gateway.wait_for(probe)
    code, output = cluster.run(health, "health").wait()
    assert code == 0, output
    assert gateway.stop() == 0
    assert not [secret for secret in SECRETS.values() if secret in gateway.log.read_text()]


def test_two_replicas_share_a_postgresql_database(cluster):
    journal = {"engine": "postgres", "url": "postgresql://gateway@127.0.0.1/gateway"}
    values = {"sandbox": VALUES["sandbox"]["sandbox"], "replicaCount": 2, "journal": journal}
    cluster = cluster(values)
    name = "test-thingspace-gateway"
    server = PostgresServer(prefix=cluster.in_network())
    try:
        server.psql("CREATE ROLE gateway LOGIN")
        server.psql("CREATE DATABASE gateway OWNER gateway")
        sandbox = cluster.run(spec(cluster, "Deployment", f"{name}-sandbox"), "sandbox")
        sandbox.wait_for("readinessProbe")
        replicas = []
        for number, address in enumerate(["127.0.0.1", "127.0.0.2"]):
            ports = {"GRPC": 50051, "CALLBACKS": 9001, "ADMIN": 9090}
            environment = {f"TSGW_{group}__LISTEN": f"{address}:{port}" for group, port in ports.items()}
            replica = cluster.run(
                spec(cluster, "Deployment", name), "gateway", f"{name}-{number}",
                address=address, environment=environment,
            )
            replica.wait_for("readinessProbe")
            replicas.append(replica)

        # The change goes through one replica, its callbacks to the other.
        test = spec(cluster, "Pod", f"{name}-test-change")
        test["containers"][0]["args"][-1] = "127.0.0.2:50051"
        code, output = cluster.run(test, "change").wait()
        assert code == 0, output + replicas[1].log.read_text()
        assert [c["missing"] for c in parse_demo_report(output)] == [0] * 3
        for replica in replicas:
            metrics = cluster.in_network("curl", "--silent", f"http://{replica.address}:9090/metrics")
            text = subprocess.run(metrics, check=True, capture_output=True, text=True).stdout
            assert 'thingspace_gateway_changes{thingspace_gateway_state="FINISHED"} 3' in text
            assert replica.stop() == 0, replica.log.read_text()
    finally:
        server.stop()
