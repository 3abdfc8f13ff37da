"""The chart: its rendered objects, its errors, and its pods."""

import functools
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import jsonschema
import pytest
import yaml
from authority import Authority
from kubelet import Cluster
from kubernetes_validate.utils import schema_contents
from postgres_server import PostgresServer
from referencing import Registry, Resource

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "helm" / "thingspace-gateway"
# API groups of Kubernetes itself.
KUBERNETES = ["v1", "apps", "policy", "batch", "autoscaling", "networking.k8s.io"]
# The oldest version that the chart supports, and newer ones.
VERSIONS = ["1.30", "1.34", "1.36"]
SECRETS = {
    "thingspace.app_key": "planted-app-key",
    "thingspace.app_secret": "planted-app-secret",
    "thingspace.uws_username": "planted-uws-user",
    "thingspace.uws_password": "planted-uws-password",
    "callbacks.path_secret": "planted-path-secret-0123456789",
    "callbacks.username": "planted-callback-user",
    "callbacks.password": "planted-callback-password",
}
CONTAINER_SECURITY = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
VALUES = {
    "default": {},
    "sandbox": {"sandbox": {"enabled": True, "config": {"callback_delay": "10ms", "failure_rate": 0.2}}},
    "full": {
        "fullnameOverride": "gw",
        "image": {"digest": "sha256:" + "0" * 64},
        "imagePullSecrets": [{"name": "registry"}],
        "config": {
            "grpc": {"max_connection_age": "10m", "max_stream_age": "5m", "max_message_bytes": 4194304},
            "callbacks": {"allow_cidrs": ["192.0.2.0/24"], "allow_mode": "enforce", "public_url": "https://callbacks.example.com:9001"},
            "auth": {"mode": ["mtls"]},
            "changes": {"max_devices_per_request": 100, "require_key": True},
            "telemetry": {"otlp_endpoint": "http://collector:4317", "log_filter": "info,thingspace_gateway=debug"},
        },
        "secrets": {
            "create": True,
            "values": SECRETS,
            "keys": {"callbacks.username": "callback-username", "callbacks.password": "callback-password"},
        },
        "grpc": {"tlsSecret": "grpc-tls", "clientCaSecret": "grpc-clients"},
        "callbacks": {"tlsSecret": "callbacks-tls"},
        "policy": '[[caller]]\nname = "fleet"\nidentities = ["mtls:fleet"]\n',
        "persistence": {"size": "20Gi", "storageClass": "123", "accessMode": "ReadWriteOnce"},
        "service": {"callbacks": {"type": "LoadBalancer", "externalTrafficPolicy": "Local"}},
        "listenAddress": "::",
        "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
        "podLabels": {"team": "fleet"},
        "tolerations": [{"key": "dedicated", "operator": "Exists"}],
        "extraEnv": [{"name": "OTEL_RESOURCE_ATTRIBUTES", "value": "team=fleet"}],
    },
    "everything": {
        "replicaCount": 2,
        "journal": {"engine": "postgres", "url": "postgresql://gateway@db:6432/gateway", "passwordKey": "pw"},
        "autoscaling": {"enabled": True, "behavior": {"scaleDown": {"stabilizationWindowSeconds": 600}}},
        "console": {"enabled": True},
        "commonLabels": {"team": "fleet"},
        "commonAnnotations": {"owner": "fleet"},
        "global": {"imagePullSecrets": ["registry"]},
        "openshift": True,
        "priorityClassName": "high",
        "runtimeClassName": "gvisor",
        "schedulerName": "other",
        "hostAliases": [{"ip": "192.0.2.1", "hostnames": ["thingspace.verizon.com"]}],
        "dnsPolicy": "ClusterFirst",
        "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 2}},
        "minReadySeconds": 5,
        "extraEnvFrom": [{"configMapRef": {"name": "environment"}}],
        "extraVolumes": [{"name": "extra", "emptyDir": {}}],
        "extraVolumeMounts": [{"name": "extra", "mountPath": "/extra"}],
        "extraContainers": [{"name": "side", "image": "side", "securityContext": CONTAINER_SECURITY}],
        "extraInitContainers": [{"name": "before", "image": "before", "securityContext": CONTAINER_SECURITY}],
        "extraObjects": [
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "{{ .Release.Name }}-extra", "labels": {"a": "b"}}}
        ],
        "service": {"grpc": {"trafficDistribution": "PreferSameZone"}, "ipFamilyPolicy": "PreferDualStack",
                    "ipFamilies": ["IPv6", "IPv4"]},
        "listenAddress": "::",
        "podMonitor": {"enabled": True},
        "prometheusRule": {"enabled": True, "disabled": ["ThingspaceGatewayDown"], "alertLabels": {"team": "fleet"}},
        "dashboard": {"enabled": True, "annotations": {"folder": "Fleet"}},
    },
    "maintenance": {"maintenance": {"enabled": True, "args": ["journal", "restore", "-"], "backupClaim": "backups"}},
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
JWT = {"auth": {"mode": ["jwt"], "jwt_issuer": "https://i.example", "jwt_audience": "a",
                "jwt_jwks_url": "https://i.example:8443/keys"}}
AUTHENTICATED = {"config": JWT, "policy": "[[caller]]"}
ISSUER = {"enabled": True, "issuer": {"name": "letsencrypt"}}
GATEWAY = {"create": True, "className": "envoy"}
HOST, GRPC_HOST = "callbacks.example.com", "grpc.example.com"


def exposed(callbacks, grpc="none", **expose):
    return AUTHENTICATED | {
        "expose": {"callbacks": {"type": callbacks, "host": HOST if callbacks != "none" else ""},
                   "grpc": {"type": grpc, "host": GRPC_HOST if grpc != "none" else ""}} | expose
    }


def with_auth(**settings):
    return AUTHENTICATED | {"config": {"auth": JWT["auth"] | settings}}


def without_auth(name):
    return AUTHENTICATED | {"config": {"auth": {key: value for key, value in JWT["auth"].items() if key != name}}}


def database(parameters, **journal):
    return {"journal": POSTGRES | {"url": f"postgresql://gateway@db/gateway{parameters}"} | journal}


def created(keys=None, existingSecret="", **values):
    """Values with a Secret of the chart, whose values these are in addition to the required ones."""
    required = {name: value for name, value in SECRETS.items() if name not in ("callbacks.username", "callbacks.password")}
    return {"secrets": {"create": True, "existingSecret": existingSecret, "values": required | values, "keys": keys or {}}}


def in_mesh(mesh, *modes, **expose):
    """Values with an exposed gRPC port in a mesh that admits one client."""
    return {"config": {"auth": JWT["auth"] | {"mode": list(modes)}}, "policy": "[[caller]]",
            "mesh": MESHES[mesh]["mesh"], "expose": {"grpc": {"type": "ingress", "host": GRPC_HOST}, "certificate": ISSUER} | expose}


EXPOSED = {
    "ingress": exposed("ingress", "ingress", certificate=ISSUER, ingress={"controller": "nginx", "className": "nginx"}),
    "routes": exposed("httpRoute", "grpcRoute", certificate=ISSUER, gateway=GATEWAY | {"envoyGateway": True}),
    "route of JSON": exposed("httpRoute", "httpRoute", gateway={"name": "shared", "namespace": "gateways", "sectionName": "https"}),
    "load balancers": exposed("loadBalancer", "loadBalancer", certificate=ISSUER),
    "routes with TLS": exposed(
        "httpRoute", "grpcRoute", certificate=ISSUER, gateway=GATEWAY | {"backendCaConfigMap": "gateway-ca"}
    ) | {"callbacks": {"tlsSecret": "callbacks-tls"}, "grpc": {"tlsSecret": "grpc-tls"}},
}
MESHES = {
    "istio": {"mesh": {"type": "istio", "clients": ["cluster.local/ns/fleet/sa/fleet"]}},
    "ambient": {"mesh": {"type": "ambient", "podCidrs": ["10.0.0.0/8"], "clients": ["cluster.local/ns/fleet/sa/fleet"]}},
    "linkerd": {"mesh": {"type": "linkerd"}},
}
for mesh in MESHES.values():
    mesh |= {"config": {"auth": {"mode": ["mesh"]}}, "policy": "[[caller]]", "journal": POSTGRES | {
        "url": "postgresql://gateway@db1:6432,db2/gateway"}}
PROFILES = {path.stem.removeprefix("values-"): yaml.safe_load(path.read_text()) for path in CHART.glob("values-*.yaml")}
VALUES |= EXPOSED | MESHES | PROFILES


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


@functools.cache
def definitions(version):
    return Resource.from_contents(schema_contents(f"kubernetes-json-schema/v{version}.0-local-strict/_definitions.json", version))


@functools.cache
def validator(version, api, kind):
    """Returns the validator of kubernetes-validate for a kind. Its own function reads all schemas for each object."""
    group = re.sub(r"^([^./]*)(?:\.[^/]*)?/", r"\1-", api)
    schema = schema_contents(f"kubernetes-json-schema/v{version}.0-local-strict/{kind.lower()}-{group}.json", version)
    registry = definitions(version) @ (Resource.from_contents(schema) @ Registry())
    return jsonschema.Draft202012Validator(schema, registry=registry)


@pytest.mark.parametrize("values", VALUES.values(), ids=VALUES)
def test_lint_finds_nothing_and_every_object_is_valid_on_every_kubernetes(values):
    lint = helm("lint", "--strict", CHART, values=values)
    assert lint.returncode == 0, lint.stdout + lint.stderr
    for version in VERSIONS:
        # The schemas of other APIs belong to the products that define them: scripts/test-cluster applies these objects.
        checked = [o for o in objects(values, "--kube-version", version) if o["apiVersion"].split("/")[0] in KUBERNETES]
        assert len(checked) >= 7
        for one in checked:
            validator(version, one["apiVersion"], one["kind"]).validate(one)


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
        ({"secrets": {"keys": {"callbacks.path_secret": ""}}}, "so every host that reaches the listener could deliver"),
        ({"secrets": {"keys": {"callbacks.username": "u"}}}, "callbacks.username and callbacks.password belong together"),
        ({"sandbox": {"enabled": True}, "config": {"thingspace": {"base_url": "http://x"}}}, "because the sandbox replaces ThingSpace"),
        ({"sandbox": {"enabled": True}, "callbacks": {"tlsSecret": "t"}}, "the sandbox delivers over plain http"),
        ({"sandbox": {"enabled": True}, "grpc": {"tlsSecret": "t"}}, "helm test calls the gRPC port in plaintext"),
        ({"grpc": {"clientCaSecret": "c"}}, "grpc.clientCaSecret: only with grpc.tlsSecret"),
        ({"terminationGracePeriodSeconds": 20}, "25 s together: the pod would be killed in its shutdown"),
        ({"service": {"callbacks": {"externalTrafficPolicy": "Local"}}}, "only with service.callbacks.type"),
        ({"config": {"shutdown": {"grace": "1m"}}, "terminationGracePeriodSeconds": 30}, "60 s together"),
        ({"preStopSleepSeconds": 10, "terminationGracePeriodSeconds": 35}, "35 s together"),
        ({"persistence": {"type": "disk"}}, "must be one of 'claim', 'emptyDir'"),
        ({"persistence": {"type": "emptyDir"}}, "emptyDir only with sandbox.enabled"),
        ({"persistence": {"existingClaim": "c"}, "sandbox": {"enabled": True}}, "which use no claim"),
        ({"maintenance": {"enabled": True}, "sandbox": {"enabled": True}}, "maintenance.enabled: not together"),
        ({"autoscaling": {"enabled": True}}, "autoscaling.enabled: only with journal.engine postgres"),
        ({"autoscaling": {"enabled": True}, "journal": POSTGRES | {"spool": {"enabled": True}}}, "use journal.spool.type"),
        ({"autoscaling": {"enabled": True, "minReplicas": 9}, "journal": POSTGRES}, "more than autoscaling.maxReplicas"),
        ({"autoscaling": {"enabled": True}, "journal": POSTGRES, "resources": {"requests": {"cpu": None}}}, "resources.requests.cpu"),
        ({"podDisruptionBudget": {"maxUnavailable": 0}}, "podDisruptionBudget"),
        ({"config": JWT}, "policy: not set"),
        ({"policy": "x"}, "policy: only with a config.auth.mode other than none"),
        (AUTHENTICATED | {"policyConfigMap": "p"}, "policyConfigMap: not together with policy"),
        (AUTHENTICATED | {"config": {"auth": {"mode": ["mtls"]}}}, "grpc.clientCaSecret: not set"),
        (AUTHENTICATED | {"config": {"auth": {"mode": ["mesh"]}}}, "mesh needs mesh.type"),
        (MESHES["ambient"] | {"mesh": {"type": "ambient"}}, "mesh.podCidrs: not set"),
        ({"service": {"grpc": {"type": "NodePort"}}}, "service.grpc.type: NodePort needs authentication"),
        (AUTHENTICATED | {"service": {"grpc": {"type": "LoadBalancer"}}}, "LoadBalancer needs TLS"),
        (exposed("none", "ingress") | {"config": {}, "policy": ""}, "expose.grpc.type: ingress needs authentication"),
        ({"sandbox": {"enabled": True}} | exposed("ingress") | {"config": {}, "policy": ""}, "which has no authentication"),
        ({"callbacks": {"publicUrl": "https://x"}}, "is now config.callbacks.public_url"),
        ({"expose": {"callbacks": {"type": "ingress"}}}, "expose.callbacks.host: not set"),
        (exposed("ingress"), "expose.callbacks.tlsSecret: not set; ingress needs a certificate"),
        (exposed("loadBalancer"), "expose.callbacks.tlsSecret: not set; loadBalancer needs a certificate"),
        (exposed("none", "loadBalancer"), "expose.grpc.type: loadBalancer needs TLS"),
        (exposed("httpRoute"), "expose.gateway.name: not set"),
        (exposed("httpRoute", gateway={"create": True}, certificate=ISSUER), "expose.gateway.className: not set"),
        (exposed("ingress", certificate=ISSUER) | {"callbacks": {"tlsSecret": "t"}}, "whose proxy terminates TLS"),
        (exposed("ingress", certificate={"enabled": True}), "expose.certificate.issuer.name: not set"),
        ({"expose": {"callbacks": {"type": "ingress", "host": HOST, "tlsSecret": "t"}, "certificate": ISSUER}}, "which names the Secret"),
        (exposed("httpRoute", certificate=ISSUER, gateway=GATEWAY | {"backendCaConfigMap": "ca"}), "only with a route to a port with TLS"),
        (exposed("httpRoute", gateway={"name": "g", "sectionName": "s"}, certificate=ISSUER), "nothing uses the certificate"),
        (exposed("httpRoute", gateway={"name": "g"}), "expose.gateway.sectionName: not set"),
        (exposed("ingress", certificate=ISSUER) | {"service": {"callbacks": {"type": "NodePort"}}}, "callers could bypass the proxy"),
        ({"service": {"ipFamilies": ["IPv6"]}}, "0.0.0.0 has no IPv6"),
        ({"expose": {"callbacks": {"type": "ingress", "host": HOST, "tlsSecret": "t", "port": 8443}}}, "does not call port 8443"),
        ({"expose": {"callbacks": {"type": "ingress", "host": HOST, "tlsSecret": "t", "sourceRanges": ["192.0.2.0/24"]}}}, "sourceRanges: only with type loadBalancer"),
        ({"expose": {"callbacks": {"type": "loadBalancer", "host": HOST, "tlsSecret": "t"}}, "config": {"callbacks": {"trusted_hops": 1}}}, "trusted_hops: must be 0"),
        ({"expose": {"callbacks": {"type": "ingress", "host": HOST, "tlsSecret": "t"}}, "config": {"callbacks": {"public_url": "https://other"}}}, "is not the address of expose.callbacks"),
        ({"expose": {"callbacks": {"type": "loadBalancer", "host": HOST, "tlsSecret": "t"}}, "config": {"callbacks": {"allow_cidrs": ["192.0.2.0/24"]}}, "service": {"callbacks": {"externalTrafficPolicy": "Cluster"}}}, "hides the source address"),
        (MESHES["istio"] | {"grpc": {"tlsSecret": "t"}}, "clients could forge their identity"),
        (MESHES["linkerd"] | {"service": {"grpc": {"appProtocol": "tcp"}}}, "hides the calls from the proxy"),
        (MESHES["ambient"] | {"console": {"enabled": True}}, "the console is not behind the waypoint"),
        (exposed("none", "loadBalancer", certificate=ISSUER) | {"mesh": {"type": "linkerd"}}, "admits only clients in the mesh"),
        (exposed("none", "ingress", certificate=ISSUER) | MESHES["istio"], "the identity of the proxy"),
        (MESHES["istio"] | {"mesh": {"type": "istio", "clients": ["spiffe://cluster.local/ns/a/sa/b"]}}, "not an identity of istio"),
        (MESHES["linkerd"] | {"mesh": {"type": "linkerd", "clients": ["cluster.local/ns/a/sa/b"]}}, "not an identity of linkerd"),
        (exposed("ingress", "ingress", certificate=ISSUER) | {"expose": {"callbacks": {"type": "ingress", "host": HOST, "tlsSecret": "t"}, "grpc": {"type": "ingress", "host": HOST, "tlsSecret": "t"}}}, "use two hosts"),
        (exposed("httpRoute", gateway=GATEWAY | {"namespace": "infra"}, certificate=ISSUER), "expose.gateway.namespace: not together"),
        (exposed("ingress", gateway=GATEWAY, certificate=ISSUER), "no route uses the Gateway"),
        ({"fullnameOverride": "1gateway"}, "must begin with a letter"),
        ({"commonLabels": {"app.kubernetes.io/name": "x"}}, "is set by the chart, which selects the pods by it"),
        ({"serviceMonitor": {"enabled": True}, "podMonitor": {"enabled": True}}, "would scrape each pod twice"),
        ({"config": {"shutdown": {"grace": "1 minute"}}}, 'config.shutdown.grace: "1 minute" must be numbers with the units'),
        ({"journal": POSTGRES | {"url": "postgresql://gateway@db/gateway?password=pw"}}, "journal.url: contains a password"),
        ({"mesh": {"podCidrs": ["10.0.0.300/8"]}}, "does not match pattern"),
        ({"expose": {"callbacks": {"sourceRanges": ["203.0.113.7"]}}}, "does not match pattern"),
        ({"resources": {"limits": {"memory": "512MB"}}}, "does not match pattern"),
        ({"podLabels": None}, "missing property 'podLabels'"),
        (exposed("none", "grpcRoute", gateway=GATEWAY, certificate=ISSUER) | {"config": {"auth": {"mode": ["mtls"]}}, "grpc": {"clientCaSecret": "c", "tlsSecret": "t"}}, "grpc.tlsSecret: not together"),
        (exposed("none", "grpcRoute", gateway=GATEWAY | {"backendCaConfigMap": "ca"}, certificate=ISSUER) | {"config": {"auth": {"mode": ["mtls"]}}, "grpc": {"clientCaSecret": "c", "tlsSecret": "t"}}, "so client certificates do not reach"),
        # Settings with which the gateway does not start.
        ({"config": {"auth": None}}, "config.auth.mode: not set, and the gateway does not start"),
        ({"config": {"auth": {"mode": ["none", "jwt"]}}}, "config.auth.mode: none not together with jwt"),
        (without_auth("jwt_issuer"), "config.auth.jwt_issuer: not set; config.auth.mode jwt needs the issuer"),
        (without_auth("jwt_audience"), "config.auth.jwt_audience: not set"),
        (without_auth("jwt_jwks_url"), "config.auth.jwt_jwks_url: not set; config.auth.mode jwt needs the keys"),
        (with_auth(jwt_issuer=""), "'/config/auth/jwt_issuer': minLength"),
        (with_auth(jwt_jwks_url="http://i.example/keys"), "config.auth.jwt_jwks_url: http://i.example/keys is not https"),
        (with_auth(jwt_jwks_file="/keys"), "config.auth.jwt_jwks_url: not together with config.auth.jwt_jwks_file"),
        (with_auth() | {"policy": "not toml ["}, "policy: not valid TOML"),
        (with_auth() | {"policy": " \n"}, "policy: not set"),
        ({"config": {"callbacks": {"register": "replace"}}}, "config.callbacks.public_url: not set; config.callbacks.register replace"),
        ({"config": {"callbacks": {"register": "replace", "public_url": f"https://{HOST}"}}}, "config.thingspace.accounts: not set"),
        ({"config": {"callbacks": {"public_url": "foo"}}}, "'/config/callbacks/public_url': 'foo' does not match"),
        ({"config": {"thingspace": {"accounts": ["a b"]}}}, "'/config/thingspace/accounts/0': 'a b' does not match"),
        ({"config": {"journal": {"retention": "400"}}}, "'/config/journal/retention': '400' does not match"),
        ({"config": {"callbacks": {"allow_cidrs": ["foo"]}}}, "'/config/callbacks/allow_cidrs/0': 'foo' does not match"),
        ({"config": {"grpc": {"max_message_bytes": 16777216.5}}}, "'/config/grpc/max_message_bytes': got number, want integer"),
        ({"config": {"grpc": {"max_message_bytes": 67108864}}}, "config.limits.message_bytes: 33554432 is less than config.grpc.max_message_bytes"),
        ({"config": {"limits": {"devices": 9999}}}, "config.limits.devices: 9999 is less than config.changes.max_devices_per_request, 10000"),
        ({"config": {"grpc": {"max_stream_age": "30m"}}}, "config.grpc.max_connection_age: 30m is not more than config.grpc.max_stream_age, 30m"),
        ({"config": {"journal": {"retention": "1d"}}}, "config.journal.retention: 1d is less than config.changes.close_after, 7d"),
        ({"config": {"audit": {"file": "/audit.log"}}}, "config.audit.file: has no effect with config.audit.output none"),
        ({"listenAddress": "127.0.0.1"}, "'/listenAddress': value must be one of '0.0.0.0', '::'"),
        (MESHES["ambient"] | {"mesh": {"type": "ambient", "podCidrs": ["0.0.0.0/0"]}}, "mesh.podCidrs: 0.0.0.0/0 contains all addresses"),
        (MESHES["istio"] | {"config": {"auth": {"mode": "mesh", "mesh_trusted_cidrs": ["::/0"]}}}, "config.auth.mesh_trusted_cidrs: ::/0 contains all"),
        # A spool that is larger than its volume.
        ({"journal": POSTGRES | {"spool": {"enabled": True, "type": "emptyDir", "size": "1Gi"}}}, "journal.spool.size: 1Gi is too small"),
        ({"journal": POSTGRES | {"spool": {"enabled": True}}, "config": {"journal": {"spool_max_bytes": 4294967296}}}, "set at least 4112Mi"),
        # The URL of the database.
        (database("", caSecret="ca"), "journal.caSecret: has no effect, because journal.url does not name its file"),
        (database("?sslrootcert=/etc/thingspace-gateway/postgres/ca.crt"), "journal.caSecret: not set; journal.url names"),
        (database("?sslmode=prefer"), "journal.url: sslmode=prefer is not accepted"),
        ({"journal": POSTGRES | {"url": "postgresql://gateway@db:99999/gateway"}}, "journal.url: 99999 is no port"),
        # Certificates, proxies and ports of the callbacks.
        (exposed("loadBalancer", certificate=ISSUER) | {"callbacks": {"tlsSecret": "t"}}, "callbacks.tlsSecret: not together with expose.certificate.enabled"),
        ({"expose": {"callbacks": {"type": "loadBalancer", "host": HOST, "tlsSecret": "a"}}, "callbacks": {"tlsSecret": "b"}}, "callbacks.tlsSecret: not together with expose.callbacks.tlsSecret"),
        (exposed("none", "loadBalancer", certificate=ISSUER) | {"grpc": {"tlsSecret": "t"}}, "grpc.tlsSecret: not together with expose.certificate.enabled"),
        (exposed("ingress", certificate=ISSUER) | {"config": JWT | {"callbacks": {"trusted_hops": 0}}}, "config.callbacks.trusted_hops: must be at least 1"),
        ({"config": {"callbacks": {"public_url": "https://callbacks.example.com:8443"}}}, "config.callbacks.public_url: ThingSpace does not call port 8443"),
        ({"service": {"callbacks": {"type": "LoadBalancer", "port": 8443}}}, "service.callbacks.port: ThingSpace does not call port 8443"),
        ({"service": {"callbacks": {"type": "NodePort"}}}, "config.callbacks.public_url: not set; ThingSpace does not call the node port"),
        # Secrets that the chart creates.
        (created(**{"callbacks.username": "u"}), "secrets.values: callbacks.username has no key in secrets.keys"),
        (created(**{"callbacks.path_secret": "short"}), "secrets.values: callbacks.path_secret must have 16 to 128"),
        (created(keys={"callbacks.username": "u", "callbacks.password": "p"}, **{"callbacks.username": "u" * 41, "callbacks.password": "p"}), "callbacks.username has more than 40 characters"),
        (created(existingSecret="other"), "secrets.existingSecret: not together with secrets.create"),
        ({"secrets": {"values": {"thingspace.app_key": "k"}}}, "secrets.values: only with secrets.create"),
        # Sandboxes and meshes.
        (MESHES["istio"] | {"sandbox": {"enabled": True}, "journal": {}}, "mesh.type: istio not together with sandbox.enabled"),
        ({"sandbox": {"enabled": True}, "service": {"callbacks": {"type": "NodePort"}}}, "service.callbacks.type: only ClusterIP with sandbox.enabled"),
        (in_mesh("ambient", "mesh", "jwt"), "its proxy connects to the pods, and only the waypoint may"),
        (in_mesh("ambient", "jwt"), "expose.proxyNamespace: not set; mesh.clients must contain the identity of the proxy"),
        (in_mesh("ambient", "jwt", proxyNamespace="proxies"), "mesh.clients: no identity in the namespace proxies"),
        (MESHES["ambient"] | {"podLabels": {"istio.io/dataplane-mode": "none"}}, "podLabels: istio.io/dataplane-mode is set by mesh.type ambient"),
        (MESHES["linkerd"] | {"podAnnotations": {"linkerd.io/inject": "disabled"}}, "podAnnotations: linkerd.io/inject is set by mesh.type linkerd"),
        # Parts of pods that bypass the checks.
        ({"extraEnv": [{"name": "TSGW_CALLBACKS__TRUSTED_HOPS", "value": "1"}]}, "extraEnv: TSGW_CALLBACKS__TRUSTED_HOPS is a setting of the gateway"),
        ({"extraEnv": [{"name": "POD_NAME", "value": "x"}]}, "extraEnv: POD_NAME is set by the chart"),
        ({"maintenance": {"enabled": True, "args": ["journal", "backup", "-"]}}, "maintenance.args: - would write the journal"),
        ({"maintenance": {"enabled": True, "args": ["journal", "export", "-"]}}, "maintenance.args: - would write the journal"),
        ({"maintenance": {"enabled": True, "args": ["journal", "backup", "/backup/file"]}}, "maintenance.backupClaim: not set"),
        # Labels that Kubernetes refuses.
        ({"nameOverride": "foo bar"}, "'/nameOverride': 'foo bar' does not match"),
        ({"commonLabels": {"team": "fleet/east"}}, "'/commonLabels/team': 'fleet/east' does not match"),
        # Values without an effect.
        ({"mesh": {"clients": ["cluster.local/ns/a/sa/b"]}}, "mesh.clients: has no effect with mesh.type none"),
        ({"expose": {"callbacks": {"host": HOST}}}, "expose.callbacks.host: has no effect with expose.callbacks.type none"),
        ({"expose": {"callbacks": {"type": "httpRoute", "host": HOST, "tlsSecret": "t"}, "gateway": {"name": "g", "sectionName": "s"}}}, "has no effect with an existing Gateway"),
        ({"expose": {"callbacks": {"type": "loadBalancer", "host": HOST, "tlsSecret": "t", "annotations": {"a": "b"}}}}, "expose.callbacks.annotations: has no effect"),
        ({"expose": {"gateway": {"className": "envoy"}}}, "expose.gateway.className: has no effect"),
        (exposed("httpRoute", gateway={"name": "g", "sectionName": "s", "className": "c"}), "expose.gateway: className and annotations have no effect"),
        ({"expose": {"gateway": {"envoyGateway": True}}}, "expose.gateway.envoyGateway: has no effect"),
        ({"expose": {"ingress": {"controller": "nginx"}}}, "expose.ingress.controller: has no effect"),
        ({"expose": {"proxyNamespace": "proxies"}}, "expose.proxyNamespace: has no effect"),
        (exposed("httpRoute", certificate=ISSUER, gateway=GATEWAY | {"envoyGateway": True}), "expose.gateway.envoyGateway: has no effect"),
        (exposed("httpRoute", certificate=ISSUER, gateway=GATEWAY | {"sectionName": "s"}), "expose.gateway.sectionName: has no effect"),
        ({"service": {"callbacks": {"nodePort": 30000}}}, "service.callbacks.nodePort: has no effect"),
        ({"service": {"loadBalancerClass": "c"}}, "service.loadBalancerClass: has no effect"),
        ({"prometheusRule": {"disabled": ["Unknown"]}}, "prometheusRule.disabled: Unknown is no alert of the chart"),
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
    (found,) = [o for o in objects(values) if o["kind"] == "ConfigMap" and "gateway.toml" in o.get("data", {})]
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
    assert "changes here are not real" in notes(VALUES["sandbox"])
    assert "ReadWriteOnce:" not in notes(VALUES["postgres"])
    assert "tokens are sent unencrypted" in notes(AUTHENTICATED)
    assert "attach --stdin" in notes(VALUES["maintenance"])
    assert "volume claims of the spools" in notes(VALUES["postgres-spool"])
    spooling = VALUES["postgres-spool"]["journal"] | {"spool": {"enabled": True, "type": "emptyDir"}}
    assert "callbacks in the spool are lost" in notes({"journal": spooling})


def test_the_notes_of_an_exposed_grpc_port_name_its_record_its_certificate_and_what_it_lacks():
    balanced = notes(EXPOSED["load balancers"])
    assert f"The certificate is for {GRPC_HOST}" in balanced
    assert f"DNS record for {GRPC_HOST} that points to the service test-thingspace-gateway-grpc" in balanced
    assert "certificate in grpc-tls must contain this name" in notes(EXPOSED["routes with TLS"])
    ingress = notes(exposed("none", "ingress", certificate=ISSUER))
    assert "Set mesh.type, or use expose.grpc.type loadBalancer" in ingress and "expose.ingress.controller is not set" in ingress
    assert "expose.ingress.controller is not set" not in notes(EXPOSED["ingress"])
    routes = notes(EXPOSED["routes"])
    assert "grpc.tlsSecret and expose.gateway.backendCaConfigMap, or mesh.type" in routes
    assert f"DNS record for {GRPC_HOST} that points to the Gateway" in routes
    mesh = in_mesh("ambient", "jwt", proxyNamespace="fleet")
    assert "the proxy of expose.grpc must be in the mesh" in notes(mesh)
    audit = {"journal": POSTGRES, "config": {"audit": {"output": "file"}}}
    assert "the audit log is in an emptyDir" in notes(audit)


def test_a_secret_of_the_chart_never_has_the_name_of_the_users_secret():
    for values in ({"sandbox": {"enabled": True}}, created()):
        done = helm("template", "thingspace-gateway", CHART, values=values)
        (secret,) = [o for o in yaml.safe_load_all(done.stdout) if o and o["kind"] == "Secret"]
        default = yaml.safe_load((CHART / "values.yaml").read_text())["secrets"]["existingSecret"]
        assert secret["metadata"]["name"].startswith("thingspace-gateway-") and default == "thingspace-gateway"
        (gateway,) = [o for o in yaml.safe_load_all(done.stdout) if o and o["kind"] == "StatefulSet"]
        (volume,) = [v for v in gateway["spec"]["template"]["spec"]["volumes"] if v["name"] == "settings"]
        assert secret["metadata"]["name"] in [s["secret"]["name"] for s in volume["projected"]["sources"] if "secret" in s]


def test_a_policy_is_mounted_and_a_new_one_restarts_no_pod():
    policy = '[[caller]]\nname = "a"\nidentities = ["jwt:a"]\n'
    before = objects({"config": JWT, "policy": policy})
    (found,) = [o for o in before if o["kind"] == "ConfigMap" and "policy.toml" in o.get("data", {})]
    assert found["data"]["policy.toml"] == policy
    (settings,) = [o for o in before if o["kind"] == "ConfigMap" and "gateway.toml" in o.get("data", {})]
    path = tomllib.loads(settings["data"]["gateway.toml"])["auth"]["policy_file"]
    workload = lambda parts: next(o for o in parts if o["kind"] == "StatefulSet")
    (volume,) = [v for v in workload(before)["spec"]["template"]["spec"]["volumes"] if v["name"] == "settings"]
    sources = [s["configMap"] for s in volume["projected"]["sources"] if "configMap" in s]
    (item,) = [i for s in sources if s["name"] == found["metadata"]["name"] for i in s["items"]]
    assert path == f"/etc/thingspace-gateway/{item['path']}"
    assert workload(before) == workload(objects({"config": JWT, "policy": policy.replace("jwt:a", "jwt:b")}))


def test_the_values_the_schema_and_the_readme_are_up_to_date():
    schema = subprocess.run(
        [os.environ["TSGW_BINARY"], "config", "schema"], check=True, capture_output=True, text=True
    ).stdout
    done = subprocess.run([sys.executable, ROOT / "scripts/chart", "--check"], input=schema, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def of_kind(parts, kind):
    return {o["metadata"]["name"].removeprefix("test-thingspace-gateway").lstrip("-"): o for o in parts if o["kind"] == kind}


@pytest.mark.parametrize("values", EXPOSED.values(), ids=EXPOSED)
def test_address_certificate_route_and_network_policy_of_an_exposed_port_agree(values):
    parts, expose = objects(values), values["expose"]
    callbacks, services = settings_of(values)["callbacks"], of_kind(parts, "Service")
    kind = expose["callbacks"]["type"]
    port = 9001 if kind == "loadBalancer" else 443
    assert callbacks["public_url"] == f"https://{HOST}" + (f":{port}" if port != 443 else "")
    assert callbacks.get("trusted_hops", 0) == (0 if kind == "loadBalancer" else 1)

    certificates = {o["spec"]["secretName"]: o["spec"]["dnsNames"] for o in of_kind(parts, "Certificate").values()}
    secrets = set()
    for listener in [x for o in of_kind(parts, "Gateway").values() for x in o["spec"]["listeners"]]:
        (reference,) = listener["tls"]["certificateRefs"]
        assert certificates[reference["name"]] == [listener["hostname"]] and listener["port"] == 443
        secrets.add(reference["name"])
    for ingress in of_kind(parts, "Ingress").values():
        (tls,), (rule,) = ingress["spec"]["tls"], ingress["spec"]["rules"]
        assert certificates[tls["secretName"]] == tls["hosts"] == [rule["host"]]
        secrets.add(tls["secretName"])
    (volume,) = [v for v in workload(values)["spec"]["template"]["spec"]["volumes"] if v["name"] == "settings"]
    mounted = {s["secret"]["name"] for s in volume["projected"]["sources"] if "secret" in s}
    assert secrets | (mounted & certificates.keys()) == certificates.keys(), "each certificate is used"
    assert (kind == "loadBalancer" or "callbacks" in values) == ("tls_cert_file" in callbacks)

    # Each route leads to an existing port of a service.
    targets = {(ref["name"], ref["port"]) for name in ("HTTPRoute", "GRPCRoute") for route in of_kind(parts, name).values()
               for rule in route["spec"]["rules"] for ref in rule["backendRefs"]}
    targets |= {(path["backend"]["service"]["name"], path["backend"]["service"]["port"]["number"])
                for ingress in of_kind(parts, "Ingress").values() for path in ingress["spec"]["rules"][0]["http"]["paths"]}
    existing = {(s["metadata"]["name"], p["port"]) for s in services.values() for p in s["spec"]["ports"]}
    assert targets <= existing and (targets or kind == "loadBalancer")
    if kind == "loadBalancer":
        assert services["callbacks"]["spec"]["ports"][0]["port"] == port
        assert {services[name]["spec"]["type"] for name in ("callbacks", "grpc")} == {"LoadBalancer"}

    # The proxies or the load balancer can reach the ports.
    (policy,) = of_kind(parts, "NetworkPolicy").values()
    sources = {rule["ports"][0]["port"]: rule.get("from") for rule in policy["spec"]["ingress"]}
    for name in ("callbacks", "grpc"):
        assert sources[name] is None if kind == "loadBalancer" else {"namespaceSelector": {}} in sources[name]
    egress = {port["port"] for rule in policy["spec"]["egress"] for port in rule["ports"]}
    assert egress == {53, 5353, 443, 8443}, "DNS, ThingSpace, and the keys of the token issuer"


def test_a_load_balancer_admits_only_its_source_ranges_and_keeps_the_source_address():
    values = exposed("loadBalancer", certificate=ISSUER)
    values["expose"]["callbacks"] |= {"sourceRanges": ["192.0.2.0/24"], "port": 443}
    values["config"] = JWT | {"callbacks": {"allow_cidrs": ["192.0.2.0/24"], "allow_mode": "enforce"}}
    service = of_kind(objects(values), "Service")["callbacks"]["spec"]
    assert service["loadBalancerSourceRanges"] == ["192.0.2.0/24"] and service["externalTrafficPolicy"] == "Local"
    assert service["ports"][0]["port"] == 443 and settings_of(values)["callbacks"]["public_url"] == f"https://{HOST}"


def test_streams_have_no_time_out_in_the_proxies_of_an_exposed_grpc_port():
    ingress = of_kind(objects(EXPOSED["ingress"]), "Ingress")["grpc"]["metadata"]["annotations"]
    assert ingress["nginx.ingress.kubernetes.io/backend-protocol"] == "GRPC"
    assert int(ingress["nginx.ingress.kubernetes.io/proxy-read-timeout"]) > 25 * 60, "a watch ends after 25 minutes"
    assert ingress["nginx.ingress.kubernetes.io/proxy-body-size"] == "16777216"
    route = of_kind(objects(EXPOSED["route of JSON"]), "HTTPRoute")["grpc"]["spec"]
    assert route["rules"][0]["timeouts"]["request"] == "0s"
    assert route["parentRefs"][0]["name"] == "shared" and route["parentRefs"][0]["namespace"] == "gateways"
    policy = of_kind(objects(EXPOSED["routes"]), "BackendTrafficPolicy")["grpc"]["spec"]
    assert policy["timeout"]["http"]["requestTimeout"] == policy["timeout"]["http"]["maxStreamDuration"] == "0s"


@pytest.mark.parametrize("mesh", MESHES)
def test_a_mesh_gets_its_policies_and_leaves_callbacks_probes_and_the_database_alone(mesh):
    values, parts = MESHES[mesh], objects(MESHES[mesh])
    metadata = workload(values)["spec"]["template"]["metadata"]
    annotations, auth = metadata["annotations"], settings_of(values)["auth"]
    assert auth["mesh_header"] == ("l5d-client-id" if mesh == "linkerd" else "x-forwarded-client-cert")
    if mesh == "ambient":
        assert metadata["labels"]["istio.io/dataplane-mode"] == "ambient" and auth["mesh_trusted_cidrs"] == ["10.0.0.0/8"]
        ztunnel = of_kind(parts, "AuthorizationPolicy")[""]["spec"]["rules"]
        assert ztunnel[0]["from"][0]["source"]["principals"] == ["cluster.local/ns/default/sa/test-thingspace-gateway-waypoint"]
        service = of_kind(parts, "Service")["grpc"]["metadata"]
        assert service["labels"]["istio.io/use-waypoint"] in of_kind(parts, "Gateway")["waypoint"]["metadata"]["name"]
    else:
        prefix = {"istio": "traffic.sidecar.istio.io/exclude{}Ports", "linkerd": "config.linkerd.io/skip-{}-ports"}[mesh]
        inbound, outbound = [prefix.format(x if mesh == "istio" else x.lower()) for x in ("Inbound", "Outbound")]
        assert annotations[inbound] == "9001,9090" and annotations[outbound] == "6432,5432"
    if mesh != "linkerd":
        (service,) = of_kind(parts, "VirtualService").values()
        changes, other = service["spec"]["http"]
        paths = [match["uri"]["exact"] for match in changes["match"]]
        methods = re.findall(r"rpc (Change\w+)", (ROOT / "proto/thingspace/gateway/v1/gateway_service.proto").read_text())
        assert paths == [f"/thingspace.gateway.v1.GatewayService/{name}" for name in methods]
        assert changes["retries"] == {"attempts": 0} and "timeout" not in changes | other
    # Pods that the mesh must not hold up.
    for pod in of_kind(parts, "Pod").values():
        assert {"istio": "false", "ambient": "none", "linkerd": "disabled"}[mesh] in (
            pod["metadata"]["labels"] | pod["metadata"]["annotations"]).values()


def peer(component):
    labels = {"app.kubernetes.io/name": "thingspace-gateway", "app.kubernetes.io/instance": "test"}
    return {"podSelector": {"matchLabels": labels | {"app.kubernetes.io/component": component}}}


def test_the_network_policy_admits_the_pods_of_helm_test_and_the_sandbox():
    others = [{"namespaceSelector": {"matchLabels": {"team": "other"}}}]
    values = VALUES["sandbox"] | {"networkPolicy": {port: {"from": others} for port in ("grpc", "callbacks", "admin")}}
    parts = objects(values)
    (policy,) = of_kind(parts, "NetworkPolicy").values()
    rules = {rule["ports"][0]["port"]: rule["from"] for rule in policy["spec"]["ingress"]}
    assert rules == {"grpc": [*others, peer("test")], "callbacks": [*others, peer("sandbox")], "admin": [*others, peer("test")]}
    pods = list(of_kind(parts, "Pod").values()) + [of_kind(parts, "Deployment")["sandbox"]["spec"]["template"]]
    for pod, component in zip(pods, ["test", "test", "sandbox"], strict=True):
        assert peer(component)["podSelector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()


def test_the_network_policy_of_maintenance_opens_the_connections_of_the_gateway_and_admits_none():
    parts = objects({"maintenance": {"enabled": True}, "journal": POSTGRES})
    policies, (job,) = of_kind(parts, "NetworkPolicy"), of_kind(parts, "Job").values()
    spec = policies["maintenance"]["spec"]
    assert spec["podSelector"]["matchLabels"].items() <= job["spec"]["template"]["metadata"]["labels"].items()
    assert spec["policyTypes"] == ["Ingress", "Egress"] and "ingress" not in spec
    assert spec["egress"] == policies[""]["spec"]["egress"]


def test_the_network_policy_admits_the_namespace_to_grpc_and_opens_only_needed_ports():
    (policy,) = of_kind(objects(VALUES["postgres-spool"] | {"config": {"telemetry": {"otlp_endpoint": "http://c:4317"}}}),
                        "NetworkPolicy").values()
    rules = {rule["ports"][0]["port"]: rule.get("from") for rule in policy["spec"]["ingress"]}
    assert rules == {"grpc": [{"podSelector": {}}], "callbacks": None, "admin": [{"namespaceSelector": {}}, peer("test")]}
    ports = {port["port"] for rule in policy["spec"]["egress"] for port in rule["ports"]}
    assert ports == {53, 5353, 443, 4317, 5432}
    labels = workload(VALUES["postgres-spool"])["spec"]["template"]["metadata"]["labels"].items()
    assert policy["spec"]["podSelector"]["matchLabels"].items() <= labels
    assert not of_kind(objects({"networkPolicy": {"enabled": False}}), "NetworkPolicy")
    closed = {"networkPolicy": {"grpc": {"from": []}, "admin": {"from": []}}}
    (policy,) = of_kind(objects(closed), "NetworkPolicy").values()
    rules = {rule["ports"][0]["port"]: rule.get("from") for rule in policy["spec"]["ingress"]}
    assert rules == {"callbacks": None, "admin": [peer("test")]}, "an empty list admits no other source"
    (policy,) = of_kind(objects(MESHES["ambient"]), "NetworkPolicy").values()
    (admin,) = [rule["from"] for rule in policy["spec"]["ingress"] if rule["ports"] == [{"port": "admin"}]]
    assert {"ipBlock": {"cidr": "169.254.7.127/32"}} in admin, "the kubelet's probes in ambient mode"


def test_names_and_labels_are_valid_for_every_name_of_a_release():
    for release, values in [("g" * 53, VALUES["sandbox"]), ("g" * 53, VALUES["maintenance"]), ("a.b", {}), ("true", {}),
                            ("gw", {"nameOverride": "42"})]:
        done = helm("template", release, CHART, values=values)
        assert done.returncode == 0, done.stderr
        for one in [o for o in yaml.safe_load_all(done.stdout) if o]:
            name, kind = one["metadata"]["name"], one["kind"]
            # A StatefulSet's pods have its name and a hash in a label.
            assert len(name) <= (52 if kind == "StatefulSet" else 63) and re.fullmatch(r"[a-z]([a-z0-9-]*[a-z0-9])?", name), name
            assert all(isinstance(value, str) for value in one["metadata"]["labels"].values())


def test_an_upgrade_from_the_first_chart_changes_no_immutable_field():
    # Kubernetes refuses changes of these fields. The values are those of chart 0.1.0.
    selector = {"app.kubernetes.io/name": "thingspace-gateway", "app.kubernetes.io/instance": "test"}
    spec = workload({})["spec"]
    assert spec["selector"] == {"matchLabels": selector | {"app.kubernetes.io/component": "gateway"}}
    assert spec["serviceName"] == "test-thingspace-gateway-headless" and spec["podManagementPolicy"] == "Parallel"
    claim = {"metadata": {"name": "journal", "labels": selector},
             "spec": {"accessModes": ["ReadWriteOncePod"], "resources": {"requests": {"storage": "8Gi"}}}}
    assert spec["volumeClaimTemplates"] == [claim]
    assert workload({})["metadata"]["name"] == "test-thingspace-gateway"
    assert workload(VALUES["postgres"])["spec"]["selector"] == spec["selector"]


def test_a_trial_with_a_sandbox_has_neither_the_name_nor_the_volume_of_the_release():
    trial = workload(VALUES["sandbox"])
    assert trial["metadata"]["name"] == "test-thingspace-gateway-trial" and "volumeClaimTemplates" not in trial["spec"]
    assert {"name": "journal", "emptyDir": {}} in trial["spec"]["template"]["spec"]["volumes"]


def test_maintenance_stops_the_gateway_and_runs_the_command_on_its_volume():
    parts = objects(VALUES["maintenance"])
    assert workload(VALUES["maintenance"])["spec"]["replicas"] == 0
    (job,) = of_kind(parts, "Job").values()
    pod, gateway = job["spec"]["template"]["spec"], workload({})["spec"]["template"]["spec"]
    (container,), (usual,) = pod["containers"], gateway["containers"]
    assert container["args"] == ["journal", "restore", "-"] and container["stdin"] and container["stdinOnce"]
    assert container["image"] == usual["image"] and container["env"] == usual["env"]
    volumes = {v["name"]: v for v in pod["volumes"]}
    assert volumes["journal"]["persistentVolumeClaim"] == {"claimName": "journal-test-thingspace-gateway-0"}
    assert volumes["backup"]["persistentVolumeClaim"] == {"claimName": "backups"}
    assert volumes["settings"] == next(v for v in gateway["volumes"] if v["name"] == "settings")
    assert job["spec"]["backoffLimit"] == 0 and pod["restartPolicy"] == "Never"
    # Only a command that reads a file waits for one.
    for arguments, reads in ((["journal", "import", "-"], True), (["journal", "backup", "/backup/file"], False), (["journal", "check"], False)):
        values = {"maintenance": {"enabled": True, "args": arguments, "backupClaim": "backups"}}
        (job,) = of_kind(objects(values), "Job").values()
        assert ("stdin" in job["spec"]["template"]["spec"]["containers"][0]) == ("attach" in notes(values)) == reads


@pytest.mark.parametrize(
    "values, image",
    [
        ({}, "ghcr.io/thingspace-gateway/thingspace-gateway:0.1.0"),
        ({"global": {"imageRegistry": "registry.example:5000"}}, "registry.example:5000/thingspace-gateway/thingspace-gateway:0.1.0"),
        ({"global": {"imageRegistry": "a.example"}, "image": {"registry": "b.example"}}, "b.example/thingspace-gateway/thingspace-gateway:0.1.0"),
        ({"image": {"repository": "team/gateway", "tag": "1"}, "global": {"imageRegistry": "a.example"}}, "a.example/team/gateway:1"),
        ({"image": {"repository": "localhost/gateway", "digest": "sha256:" + "0" * 64}}, "localhost/gateway@sha256:" + "0" * 64),
    ],
)
def test_the_registry_of_all_images_is_one_value(values, image):
    specs = [o["spec"].get("template", o)["spec"] for o in objects(values | {"sandbox": {"enabled": True}})
             if o["kind"] in ("StatefulSet", "Deployment", "Pod")]
    containers = [c for s in specs for c in s["containers"] + s.get("initContainers", [])]
    assert len(specs) == 4 and {c["image"] for c in containers} == {image}


def test_openshift_assigns_the_ids_of_user_and_groups():
    detected = objects({}, "--api-versions", "security.openshift.io/v1")
    for parts in (detected, objects({"openshift": True})):
        for pod in [o["spec"] for o in parts if o["kind"] == "Pod"] + [of_kind(parts, "StatefulSet")[""]["spec"]["template"]["spec"]]:
            assert pod["securityContext"].keys() == {"runAsNonRoot", "seccompProfile", "fsGroupChangePolicy"}
    ids = {"openshift": True, "containerSecurityContext": {"runAsUser": 1000, "runAsGroup": 1000}}
    (container,) = workload(ids)["spec"]["template"]["spec"]["containers"]
    assert not container["securityContext"].keys() & {"runAsUser", "runAsGroup"}
    kept = {"podSecurityContext": {"runAsUser": None, "supplementalGroups": [5]}}
    security = workload(kept)["spec"]["template"]["spec"]["securityContext"]
    assert "runAsUser" not in security and security["supplementalGroups"] == [5] and security["runAsGroup"] == 65532


def test_all_probes_use_http_and_can_be_changed():
    values = {"startupProbe": {"failureThreshold": 900}, "livenessProbe": {"enabled": False}, "readinessProbe": {"path": "/livez"}}
    (container,) = workload(values)["spec"]["template"]["spec"]["containers"]
    assert container["startupProbe"] == {"httpGet": {"path": "/livez", "port": "admin"}, "failureThreshold": 900,
                                         "periodSeconds": 2, "timeoutSeconds": 2}
    assert "livenessProbe" not in container and container["readinessProbe"]["httpGet"]["path"] == "/livez"
    text = rendered({})
    assert text.count("httpGet:") == 3 and "grpc:\n" not in re.sub(r"#.*", "", text)


def test_annotations_of_pods_replace_those_of_the_chart_except_the_checksum_of_the_settings():
    checksum = workload({})["spec"]["template"]["metadata"]["annotations"]["checksum/settings"]
    values = {"podAnnotations": {"checksum/settings": "x", "kubectl.kubernetes.io/default-container": "side"}}
    annotations = workload(values)["spec"]["template"]["metadata"]["annotations"]
    assert annotations == {"checksum/settings": checksum, "kubectl.kubernetes.io/default-container": "side"}
    assert rendered(values).count("checksum/settings:") == 1


def test_the_grace_period_covers_the_sleep_and_the_drain():
    def period(values):
        return workload(values)["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]

    assert period({}) == 30 and period(VALUES["postgres"]) == 35
    assert period({"config": {"shutdown": {"grace": "2m"}}}) == 125
    assert period({"config": {"shutdown": {"grace": "500ms"}}, "preStopSleepSeconds": 3}) == 9
    assert period({"terminationGracePeriodSeconds": 90}) == 90
    (container,) = workload(VALUES["postgres"])["spec"]["template"]["spec"]["containers"]
    assert container["lifecycle"] == {"preStop": {"sleep": {"seconds": 5}}}


def test_monitoring_objects_select_the_pods_and_the_job_of_the_alerts():
    values = VALUES["everything"]
    parts = objects(values)
    (monitor,) = of_kind(parts, "PodMonitor").values()
    assert monitor["spec"]["selector"]["matchLabels"].items() <= workload(values)["spec"]["template"]["metadata"]["labels"].items()
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    assert endpoint["relabelings"] == [{"targetLabel": "job", "replacement": "thingspace-gateway"}]
    (rule,) = of_kind(parts, "PrometheusRule").values()
    shipped = yaml.safe_load((CHART / "monitoring/alerts.yaml").read_text())["groups"]
    rules = {r["alert"]: r for group in rule["spec"]["groups"] for r in group["rules"]}
    assert rules.keys() == {r["alert"] for group in shipped for r in group["rules"]} - {"ThingspaceGatewayDown"}
    assert all(r["labels"]["team"] == "fleet" and r["labels"]["severity"] for r in rules.values())
    assert all(rules[r["alert"]]["expr"] == r["expr"] for group in shipped for r in group["rules"] if r["alert"] in rules)
    (dashboard,) = [o for o in of_kind(parts, "ConfigMap").values() if o["metadata"]["labels"].get("grafana_dashboard")]
    (text,) = dashboard["data"].values()
    assert json.loads(text) == json.loads((CHART / "monitoring/dashboard.json").read_text())


@pytest.mark.parametrize("name", ["serviceMonitor", "podMonitor"])
def test_relabelings_of_an_endpoint_keep_that_of_the_job(name):
    own = {"targetLabel": "cluster", "replacement": "east"}
    parts = objects({name: {"enabled": True, "endpoint": {"relabelings": [own], "scrapeTimeout": "9s"}}})
    (monitor,) = of_kind(parts, name[0].upper() + name[1:]).values()
    (endpoint,) = monitor["spec"].get("endpoints") or monitor["spec"]["podMetricsEndpoints"]
    assert endpoint["relabelings"] == [own, {"targetLabel": "job", "replacement": "thingspace-gateway"}]
    assert endpoint["scrapeTimeout"] == "9s" and endpoint["path"] == "/metrics"


def test_labels_annotations_and_extra_parts_are_on_every_object_and_pod():
    values = VALUES["everything"]
    parts = objects(values)
    own = [o for o in parts if o["metadata"]["name"] != "test-extra"]
    assert len(own) == len(parts) - 1
    for one in own:
        assert one["metadata"]["labels"]["team"] == "fleet" and one["metadata"]["annotations"]["owner"] == "fleet", one
    spec = workload(values)["spec"]
    assert "replicas" not in spec, "the autoscaler sets it"
    pod = spec["template"]["spec"]
    assert [c["name"] for c in pod["containers"]] == ["gateway", "side"] and pod["initContainers"][0]["name"] == "before"
    assert pod["imagePullSecrets"] == [{"name": "registry"}] and pod["dnsConfig"]["options"] == [{"name": "ndots", "value": "2"}]
    assert pod["runtimeClassName"] == "gvisor" and pod["schedulerName"] == "other"
    assert settings_of(values)["console"]["listen"] == "[::]:8080"


def leaves(values, path=()):
    """The paths of all values that are not groups of others."""
    for name, value in values.items():
        if isinstance(value, dict) and value and name not in COPIED:
            yield from leaves(value, (*path, name))
        else:
            yield (*path, name)


# Values that the chart copies as a whole, or that are settings of the gateway.
COPIED = {"config", "keys", "labels", "annotations", "resources", "podSecurityContext", "containerSecurityContext", "dnsConfig",
          "nodeSelector", "issuer", "startupProbe", "readinessProbe", "livenessProbe"}
# Other values, for those of a certain form.
OTHERS = {
    "journal.url": "postgresql://other@db/gateway",
    "image.digest": "sha256:" + "1" * 64,
    "config": {"grpc": {"max_connection_age": "1h"}},
    "secrets.values": SECRETS | {"thingspace.app_key": "other"},
    "secrets.keys": {"thingspace.app_key": "other"},
    "expose.callbacks.host": "other.example.com",
    "expose.callbacks.sourceRanges": ["198.51.100.0/24"],
    "expose.grpc.host": "other.example.com",
    "expose.grpc.sourceRanges": ["198.51.100.0/24"],
    "expose.ingress.controller": "traefik",
    "expose.certificate.issuer": {"name": "other"},
    "mesh.podCidrs": ["198.51.100.0/24"],
    "policy": '[[caller]]\nname = "other"\nidentities = ["jwt:other"]\n',
    "startupProbe": {"periodSeconds": 7},
    "readinessProbe": {"periodSeconds": 7},
    "livenessProbe": {"periodSeconds": 7},
    "podDisruptionBudget.maxUnavailable": 2,
    "topologySpreadConstraints": VALUES["postgres-spool"]["topologySpreadConstraints"],
    "extraEnv": [{"name": "OTHER", "value": "other"}],
    "extraObjects": [{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "other"}}],
    "sandbox.config": {"callback_delay": "20ms"},
}


def other_value(schema, value):
    """A valid value that is not this one."""
    if "enum" in schema:
        return next(other for other in schema["enum"] if other not in (value, ""))
    kinds = schema["type"] if isinstance(schema.get("type"), list) else [schema.get("type")]
    match kinds[-1]:
        case "boolean":
            return not value
        case "integer":
            return (value or 0) + 1
        case "array":
            return [other_value(schema.get("items", {}), None)]
        case "object":
            return {"other": "value"}
    return "7Gi" if re.fullmatch(r"[0-9]+[KMGT]i", str(value)) else "other"


def test_every_value_changes_what_the_chart_creates():
    schema = json.loads((CHART / "values.schema.json").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    # Those with the most objects are first.
    bases = sorted(VALUES.values(), key=lambda base: -len(json.dumps(base)))
    template = functools.cache(lambda text: helm("template", "test", CHART, values=json.loads(text)))

    def has_effect(path):
        part, value = schema, values
        for name in path:
            part, value = part["properties"][name], value[name]
        other = OTHERS.get(".".join(path), other_value(part, value))
        # First those that have another value of the group.
        for base in sorted(bases, key=lambda base: path[0] not in base):
            changed = json.loads(json.dumps(base))
            group = changed
            for name in path[:-1]:
                group = group.setdefault(name, {})
            group[path[-1]] = other
            before, after = template(json.dumps(base)), template(json.dumps(changed))
            # A template can also refuse the value.
            if after.stdout != before.stdout and (after.returncode == 0 or "execution error" in after.stderr):
                return True
        return False

    without = [".".join(path) for path in leaves(values) if not has_effect(path)]
    assert not without, " ".join(without)


@pytest.mark.parametrize("values", [*PROFILES.values(), *MESHES.values(), EXPOSED["load balancers"]], ids=[*PROFILES, *MESHES, "exposed"])
def test_the_gateway_accepts_the_rendered_settings(values, tmp_path):
    policy = PROFILES["one-node"]["policy"]
    parts = objects(values | ({"policy": policy} if "policy" in values else {}))
    issued, inside = Authority("test").issue(dns=HOST), "/etc/thingspace-gateway"
    files = {"policy.toml": policy.encode(), "journal.url": b"postgresql://gateway@db/gateway",
             "tls.crt": issued.certificate, "tls.key": issued.key}
    (text,) = [o["data"]["gateway.toml"] for o in parts if o["kind"] == "ConfigMap" and "gateway.toml" in o.get("data", {})]
    for path in re.findall(rf'"({inside}/[^"]+)"', text):
        file = tmp_path / path.removeprefix(f"{inside}/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(files.get(file.name, b"planted-secret-0123456789"))
    (tmp_path / "gateway.toml").write_text(text.replace(inside, str(tmp_path)).replace("/var/lib", f"{tmp_path}/lib"))
    environment = {"TSGW_AUTH__MESH_TRUSTED_CIDRS": "192.0.2.1"} if values.get("mesh", {}).get("type") == "linkerd" else {}
    done = subprocess.run([os.environ["TSGW_BINARY"], "config", "check", "--config", tmp_path / "gateway.toml"],
                          env=os.environ | environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_checks_know_the_defaults_of_the_settings():
    text = (CHART / "templates/_checks_settings.tpl").read_text()
    defaults = dict(re.findall(r'^  "([a-z_.]+)" "?([0-9a-z]+)"?', text, re.MULTILINE))
    documented = dict(re.findall(r"^\| `([a-z_.]+)` \| `([^`]*)` \|", (ROOT / "docs/settings.md").read_text(), re.MULTILINE))
    assert len(defaults) == 10 and defaults == {name: documented[name] for name in defaults}


def test_the_command_of_the_readme_that_checks_settings_reads_the_settings():
    (script,) = re.findall(r"\| sed --quiet '([^']+)'", (CHART / "README.md").read_text())
    values = PROFILES["one-node"]
    text = rendered(values, "--show-only", "templates/configmap.yaml")
    done = subprocess.run(["sed", "--quiet", script], input=text, capture_output=True, text=True, check=True)
    assert tomllib.loads(done.stdout) == settings_of(values)


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
    gateway = cluster.run(spec(cluster, "StatefulSet", f"{name}-trial"), "gateway", pod=f"{name}-trial-0")
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

    # The journal is on the pod's volume, and the next container of the pod continues with it.
    assert gateway.stop() == 0, gateway.log.read_text()
    again = cluster.run(spec(cluster, "StatefulSet", f"{name}-trial"), "gateway", pod=f"{name}-trial-0")
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
                spec(cluster, "Deployment", f"{name}-trial"), "gateway", f"{name}-{number}",
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
