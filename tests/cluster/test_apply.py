"""A real API server accepts every object of the chart, without a warning, and upgrades from the previous chart."""

import json

import pytest
import yaml
from charts import CASES, CHART, UPGRADES, previous_chart
from conftest import eventually

# Written by Kubernetes itself in every namespace.
BUILT_IN = {"configmap/kube-root-ca.crt", "serviceaccount/default"}
# Options of `kubectl apply`.
STRICT = ["--server-side", "--validate=strict", "--warnings-as-errors", "--filename", "-"]


@pytest.fixture
def helm(tools, namespace):
    """Runs helm in the namespace. Any warning is an error."""

    def run(*words, values=None):
        done = tools.helm(*words, "--namespace", namespace, values=values)
        assert "warn" not in done.stderr.lower(), done.stderr
        return done.stdout

    return run


@pytest.fixture(scope="session")
def kinds(tools):
    """The kinds of objects in a namespace."""
    names = tools.kubectl("api-resources", "--namespaced", "--verbs=list", "--output=name").stdout.split()
    return ",".join(name for name in names if not name.startswith(("events", "podmetrics")))


@pytest.fixture
def remaining(tools, namespace, kinds):
    """Returns the kinds and names of the objects in the namespace, with their unique ids."""

    def run():
        listed = json.loads(tools.kubectl("get", kinds, "--namespace", namespace, "--output=json").stdout)["items"]
        found = {f"{o['kind'].lower()}/{o['metadata']['name']}": o["metadata"]["uid"] for o in listed}
        return {name: uid for name, uid in found.items() if name not in BUILT_IN}

    return run


@pytest.fixture
def pods_are_created(tools, namespace):
    """Waits until the controllers have created the pods of every workload. Admission can refuse them."""

    def pods(selector):
        labels = ",".join(f"{key}={value}" for key, value in selector["matchLabels"].items())
        found = tools.kubectl("get", "pods", "--namespace", namespace, "--selector", labels, "--output=name")
        return len(found.stdout.split())

    def events():
        return tools.kubectl("get", "events", "--namespace", namespace).stdout

    def run():
        listed = tools.kubectl("get", "statefulsets,deployments", "--namespace", namespace, "--output=json").stdout
        for workload in json.loads(listed)["items"]:
            spec = workload["spec"]
            eventually(lambda: pods(spec["selector"]) >= spec["replicas"], events, timeout=30)

    return run


@pytest.mark.parametrize("apply", ["--server-side=true", "--server-side=false"])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_every_object_is_accepted_without_a_warning(helm, tools, namespace, remaining, pods_are_created, case, apply):
    arguments, values = case
    helm("install", "test", CHART, apply, *arguments, values=values)
    pods_are_created()
    # Each revision has a Job of its own.
    before = {name: uid for name, uid in remaining().items() if "-maintenance-" not in name}
    helm("upgrade", "test", CHART, apply, *arguments, values=values)
    kept = remaining()
    assert before.items() <= kept.items(), "an upgrade without a change replaced objects"
    helm("uninstall", "test", "--wait")
    eventually(lambda: kinds_of(remaining()) <= {"persistentvolumeclaim"}, remaining, timeout=30)


def kinds_of(names):
    return {name.partition("/")[0] for name in names}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_every_field_is_known_also_of_the_pods_of_helm_test(tools, namespace, case):
    arguments, values = case
    rendered = tools.helm("template", "test", CHART, "--namespace", namespace, *arguments, values=values).stdout
    pods = [o for o in yaml.safe_load_all(rendered) if o and o["kind"] == "Pod"]
    assert pods, "the objects have no pod of helm test"
    tools.kubectl("apply", "--namespace", namespace, *STRICT, stdin=rendered)


def test_violations_of_every_kind_are_noticed(tools, namespace):
    """The tests above can fail: the server evaluates Pod Security, unknown fields, and the rules of the Gateway API."""
    arguments = ("template", "test", CHART, "--namespace", namespace)
    objects = [o for o in yaml.safe_load_all(tools.helm(*arguments, values={}).stdout) if o]

    def refused(parts, sentence):
        text = yaml.safe_dump_all(parts)
        done = tools.kubectl("apply", "--namespace", namespace, *STRICT, "--dry-run=server", stdin=text, check=False)
        assert done.returncode != 0 and sentence in done.stderr, done.stderr

    (pod, *_) = [o for o in objects if o["kind"] == "Pod"]
    pod["spec"] |= {"hostNetwork": True, "serviceAccountName": "default"}
    refused([pod], 'violates PodSecurity "restricted:latest"')
    (workload,) = [o for o in objects if o["kind"] == "StatefulSet"]
    workload["spec"]["template"]["spec"]["hostNetwork"] = True
    refused([workload], 'would violate PodSecurity "restricted:latest"')
    (service, *_) = [o for o in objects if o["kind"] == "Service"]
    service["spec"]["selectors"] = {}
    refused([service], ".spec.selectors: field not declared in schema")
    route = {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": "route"},
        # A rule in CEL forbids two filters of this kind.
        "spec": {"rules": [{"filters": [{"type": "URLRewrite", "urlRewrite": {"hostname": "a.example.com"}}] * 2}]},
    }
    refused([route], "URLRewrite filter cannot be repeated")


@pytest.mark.parametrize("variant", UPGRADES.values(), ids=UPGRADES)
def test_a_release_of_the_previous_chart_is_upgraded_and_rolled_back(
    helm, remaining, pods_are_created, variant, tmp_path
):
    old, new = variant
    chart = previous_chart(tmp_path)
    helm("install", "test", chart, values=old)
    pods_are_created()
    before = remaining()
    helm("upgrade", "test", CHART, values=new)
    pods_are_created()
    after = remaining()
    replaced = {name for name in before.keys() & after.keys() if before[name] != after[name]}
    # The previous pod of a StatefulSet is replaced by one with the same name.
    assert kinds_of(replaced) <= {"pod"}, replaced
    claims = {name: uid for name, uid in before.items() if name.startswith("persistentvolumeclaim/")}
    assert claims.items() <= after.items(), "the upgrade removed a volume"

    helm("rollback", "test", "1")
    pods_are_created()
    rolled_back = remaining()
    assert claims.items() <= rolled_back.items()
    gone = {name for name in before if name not in rolled_back and not name.startswith(("pod/", "endpointslice/", "replicaset/"))}
    assert not gone, "the rollback did not restore these objects"
    helm("uninstall", "test", "--wait")
    eventually(lambda: kinds_of(remaining()) <= {"persistentvolumeclaim"}, remaining, timeout=30)
    assert claims.items() <= remaining().items(), "the uninstallation removed a volume"
