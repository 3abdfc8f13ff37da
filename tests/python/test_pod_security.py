"""The chart's pods keep to the restricted Pod Security Standard, by the code of Kubernetes' admission."""

import copy
import os
import subprocess

import pytest
import yaml
from test_chart import VALUES, objects

CASES = {name: (values,) for name, values in VALUES.items()}


def evaluate(parts):
    """Returns the exit code of the evaluator and what it printed."""
    program = os.environ.get("POD_SECURITY")
    assert program, "POD_SECURITY must name the program of tests/pod_security; scripts/test sets it"
    done = subprocess.run([program], input=yaml.safe_dump_all(parts), capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_the_pods_of_the_chart_are_restricted(case):
    code, output = evaluate(objects(*case))
    assert code == 0 and " 0 violations" in output, output


def privilege_escalation(pod):
    pod["containers"][0]["securityContext"]["allowPrivilegeEscalation"] = True


def host_path(pod):
    pod.setdefault("volumes", []).append({"name": "host", "hostPath": {"path": "/"}})


def host_network(pod):
    pod["hostNetwork"] = True


def no_seccomp_profile(pod):
    del pod["securityContext"]["seccompProfile"]


def root(pod):
    pod["securityContext"]["runAsUser"] = 0


def misspelled_field(pod):
    pod["securityContexts"] = pod.pop("securityContext")


@pytest.mark.parametrize(
    "violation, sentence",
    [
        (privilege_escalation, "allowPrivilegeEscalation != false"),
        (host_path, "restricted volume types"),
        (host_network, "host namespaces"),
        (no_seccomp_profile, "seccompProfile"),
        (root, "runAsUser=0"),
        (misspelled_field, 'unknown field "securityContexts"'),
    ],
)
def test_a_violation_is_found_in_each_pod(violation, sentence):
    parts = objects(VALUES["sandbox"])
    templates = [number for number, part in enumerate(parts) if part["kind"] in ("StatefulSet", "Deployment", "Pod")]
    assert len(templates) >= 3
    for number in templates:
        changed = copy.deepcopy(parts)
        pod = changed[number]["spec"]
        violation(pod if changed[number]["kind"] == "Pod" else pod["template"]["spec"])
        code, output = evaluate(changed)
        name = f"{changed[number]['kind']}/{changed[number]['metadata']['name']}: "
        assert code == 1 and sentence in output and name in output, output


def test_jobs_of_any_kind_are_evaluated_and_objects_without_a_pod_are_an_error():
    (pod, *_) = [part for part in objects(VALUES["sandbox"]) if part["kind"] == "Pod"]
    template = {"metadata": {"labels": {"a": "b"}}, "spec": pod["spec"]}
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "j"}, "spec": {"template": template}}
    spec = {"schedule": "@daily", "jobTemplate": {"spec": {"template": template}}}
    cron = {"apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "c"}, "spec": spec}
    assert evaluate([job, cron]) == (0, "2 pods, 0 violations\n")
    host_network(template["spec"])
    code, output = evaluate([job, cron])
    assert code == 1 and "Job/j: " in output and "CronJob/c: " in output, output
    code, output = evaluate([part for part in objects({}) if part["kind"] == "Service"])
    assert code == 1 and "no pod found" in output
