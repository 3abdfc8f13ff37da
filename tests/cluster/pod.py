"""A pod of a node: its network, its volumes, its containers, and the status that the control plane acts on."""

import base64
import json
import os
import signal
import threading
import time
from pathlib import Path

import network
import streams
from api import STRATEGIC, ApiError, condition, timestamp
from container import Container, expand
from probes import Probes

# Seconds. A kubelet looks for ended containers once a second.
RELIST = 1.0
# Seconds before the second, third, … restart of a container, as in a kubelet.
BACK_OFF = [0, 10, 20, 40, 80, 160, 300]
# Grace in seconds of a pod that was removed from the API without notice.
ABANDONED_GRACE = 2


class Pod:
    def __init__(self, api, config, pod, address):
        self.api, self.config, self.pod, self.address = api, config, pod, address
        metadata = pod["metadata"]
        self.name, self.uid = metadata["name"], metadata["uid"]
        self.path = f"/api/v1/namespaces/{metadata['namespace']}/pods/{self.name}"
        self.directory = Path(config.directory) / self.uid
        # The name of an interface has at most 15 characters.
        self.namespace, self.interface = f"pod-{self.uid}", f"veth{self.uid[:8]}"
        self.spec = pod["spec"]
        self.slots = {}
        self.changed = threading.Event()
        self.deleted_at = self.grace = None
        self.removed = False
        self.reported, self.transitions = None, {}
        self.started_at = timestamp()
        threading.Thread(target=self._run, daemon=True).start()

    def update(self, pod):
        self.pod = pod
        if "deletionTimestamp" in pod["metadata"]:
            grace = pod["metadata"].get("deletionGracePeriodSeconds", 30)
            if self.deleted_at is None:
                self.deleted_at, self.grace = time.monotonic(), grace
            else:
                self.grace = min(self.grace, grace)
            self.changed.set()

    def abandon(self):
        """The API has no such pod any more."""
        self.removed = True
        if self.deleted_at is None:
            self.deleted_at, self.grace = time.monotonic(), ABANDONED_GRACE
        self.grace = min(self.grace, time.monotonic() - self.deleted_at + ABANDONED_GRACE)
        self.changed.set()

    # --- Life ---

    def _run(self):
        try:
            network.make_pod(self.namespace, self.interface, self.address, f"{self.config.pod_prefix}.1")
            volumes = self._retry(self._make_volumes)
            if volumes is not None and self._run_init_containers(volumes):
                self._run_containers(volumes)
            self._terminate()
        except Exception as error:
            print(f"pod {self.name}: {error!r}", flush=True)
            raise

    def _retry(self, action):
        """Repeats an action until its objects exist, as a kubelet does for volumes."""
        while self.deleted_at is None:
            try:
                return action()
            except (ApiError, KeyError) as error:
                print(f"pod {self.name} waits: {error!r}", flush=True)
                self.changed.wait(1)
        return None

    def _run_init_containers(self, volumes):
        for spec in self.spec.get("initContainers", []):
            slot = self.slots[spec["name"]] = Slot(self, spec, volumes)
            slot.start()
            sidecar = spec.get("restartPolicy") == "Always"
            while not (slot.probes.started if sidecar else slot.done()):
                self._step()
                if self.deleted_at is not None:
                    return False
            if not sidecar and slot.container.code != 0:
                return True
        return True

    def _run_containers(self, volumes):
        for spec in self.spec["containers"]:
            self.slots[spec["name"]] = Slot(self, spec, volumes)
            self.slots[spec["name"]].start()
        while self.deleted_at is None and not self._finished():
            self._step()

    def _step(self):
        self.changed.wait(RELIST)
        self.changed.clear()
        if self.deleted_at is None:
            for slot in self.slots.values():
                slot.restart_if_due()
        self._report()

    def _finished(self):
        return all(slot.done() for slot in self._main())

    def _main(self):
        names = [spec["name"] for spec in self.spec["containers"]]
        return [slot for name, slot in self.slots.items() if name in names]

    def _terminate(self):
        """Stops the containers as a kubelet does: preStop and SIGTERM, and SIGKILL when the grace period has passed.
        Sidecars stop last."""
        if self.deleted_at is None:
            self.deleted_at, self.grace = time.monotonic(), self.spec.get("terminationGracePeriodSeconds", 30)
            finished = True
        else:
            finished = False
        main = self._main()
        for group in (main, [slot for slot in self.slots.values() if slot not in main]):
            stops = [threading.Thread(target=slot.stop, daemon=True) for slot in group]
            for stop in stops:
                stop.start()
            while any(stop.is_alive() for stop in stops):
                self.changed.wait(0.05)
                self.changed.clear()
                self._report()
        self._report(ended=True)
        network.remove_pod(self.namespace, self.interface)
        if finished:
            # A finished pod stays until it is deleted.
            self.deleted_at = None
            while "deletionTimestamp" not in self.pod["metadata"] and not self.removed:
                self.changed.wait(1)
                self.changed.clear()
        if not self.removed:
            try:
                self.api.delete(self.path, gracePeriodSeconds=0, preconditions={"uid": self.uid})
            except ApiError as error:
                if error.status not in (404, 409):
                    raise

    def remaining(self):
        """Seconds until SIGKILL."""
        return self.deleted_at + self.grace - time.monotonic()

    # --- Volumes ---

    def _make_volumes(self):
        return {volume["name"]: self._make_volume(volume) for volume in self.spec.get("volumes", [])}

    def _group(self):
        return self.spec.get("securityContext", {}).get("fsGroup")

    def _make_volume(self, volume):
        if "persistentVolumeClaim" in volume:
            claim = self._object("persistentvolumeclaims", volume["persistentVolumeClaim"]["claimName"])
            directory = Path(self.config.volumes) / claim["spec"]["volumeName"]
            self._own(directory)
            return directory
        directory = self.directory / "volumes" / volume["name"]
        directory.mkdir(parents=True, exist_ok=True)
        if "emptyDir" in volume:
            self._own(directory)
            return directory
        sources = volume["projected"]["sources"] if "projected" in volume else [self._as_source(volume)]
        mode = next((v["defaultMode"] for v in volume.values() if isinstance(v, dict) and "defaultMode" in v), 0o644)
        for source in sources:
            for path, content in self._files(source).items():
                file = directory / path
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(content)
                file.chmod(mode)
                if self._group() is not None:
                    os.chown(file, 0, self._group())
        return directory

    def _own(self, directory):
        """Gives a volume to the pod's group, or to all users if it has none."""
        if self._group() is not None:
            os.chown(directory, 0, self._group())
            directory.chmod(0o2770)
        else:
            directory.chmod(0o777)

    @staticmethod
    def _as_source(volume):
        if "secret" in volume:
            return {"secret": volume["secret"] | {"name": volume["secret"]["secretName"]}}
        return {kind: volume[kind] for kind in ("configMap", "downwardAPI") if kind in volume}

    def _files(self, source):
        ((kind, reference),) = source.items()
        if kind == "downwardAPI":
            return {item["path"]: self._field(item["fieldRef"]["fieldPath"]).encode() for item in reference["items"]}
        try:
            found = self._object({"configMap": "configmaps", "secret": "secrets"}[kind], reference["name"])
        except ApiError as error:
            if error.status == 404 and reference.get("optional"):
                return {}
            raise
        data = self._data(found)
        if "items" in reference:
            return {
                item["path"]: data[item["key"]]
                for item in reference["items"] if item["key"] in data or not reference.get("optional")
            }
        return data

    def _object(self, resource, name):
        return self.api.get(f"/api/v1/namespaces/{self.pod['metadata']['namespace']}/{resource}/{name}")

    @staticmethod
    def _data(found):
        if found["kind"] == "Secret":
            return {key: base64.b64decode(value) for key, value in found.get("data", {}).items()}
        return {key: value.encode() for key, value in found.get("data", {}).items()}

    # --- Environment ---

    def _field(self, path):
        fields = {
            "metadata.name": self.name,
            "metadata.namespace": self.pod["metadata"]["namespace"],
            "metadata.uid": self.uid,
            "spec.nodeName": self.config.name,
            "status.podIP": self.address,
            "status.hostIP": self.config.address,
        }
        return fields[path]

    def environment(self, spec):
        image = json.loads((Path(self.config.image).parent / "config.json").read_text())
        environment = dict(image.get("ENV", {}))
        for source in spec.get("envFrom", []):
            kind, resource = ("secretRef", "secrets") if "secretRef" in source else ("configMapRef", "configmaps")
            data = self._data(self._object(resource, source[kind]["name"]))
            environment |= {source.get("prefix", "") + key: value.decode() for key, value in data.items()}
        for variable in spec.get("env", []):
            source = variable.get("valueFrom", {})
            if "fieldRef" in source:
                value = self._field(source["fieldRef"]["fieldPath"])
            elif "secretKeyRef" in source or "configMapKeyRef" in source:
                kind, resource = ("secretKeyRef", "secrets") if "secretKeyRef" in source else ("configMapKeyRef", "configmaps")
                data = self._data(self._object(resource, source[kind]["name"]))
                value = data[source[kind]["key"]].decode()
            elif "resourceFieldRef" in source:
                continue
            else:
                value = expand(variable.get("value", ""), environment)
            environment[variable["name"]] = value
        return environment

    def words(self, spec, environment):
        image = json.loads((Path(self.config.image).parent / "config.json").read_text())
        command = spec.get("command") or image["ENTRYPOINT"]
        arguments = spec["args"] if "args" in spec else [] if "command" in spec else image.get("CMD", [])
        return [expand(word, environment) for word in [*command, *arguments]]

    def user(self, spec):
        image = json.loads((Path(self.config.image).parent / "config.json").read_text())["USER"].split(":")
        contexts = [self.spec.get("securityContext", {}), spec.get("securityContext", {})]
        both = contexts[0] | contexts[1]
        user, group = both.get("runAsUser", int(image[0])), both.get("runAsGroup", int(image[-1]))
        assert user != 0 or not both.get("runAsNonRoot"), "the pod must not run as root"
        return user, group

    def hosts(self):
        """A file with the names that the cluster's DNS would resolve: the services of the pod's namespace."""
        namespace = self.pod["metadata"]["namespace"]
        lines = ["127.0.0.1 localhost", f"{self.address} {self.name}"]
        for service in self.api.items(f"/api/v1/namespaces/{namespace}/services"):
            name, address = service["metadata"]["name"], service["spec"].get("clusterIP")
            if address and address != "None":
                names = [name, f"{name}.{namespace}", f"{name}.{namespace}.svc", f"{name}.{namespace}.svc.cluster.local"]
                lines.append(" ".join([address, *names]))
        file = self.directory / "hosts"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("\n".join(lines) + "\n")
        return file

    # --- Status ---

    def _condition(self, kind, status):
        """Keeps the time of the last transition of a condition."""
        if self.transitions.get(kind, {}).get("status") != str(bool(status)):
            self.transitions[kind] = condition(kind, status, "" if status else "ContainersNotReady")
        return self.transitions[kind]

    def _report(self, ended=False):
        main = self._main()
        is_complete = bool(main) and len(main) == len(self.spec["containers"])
        ready = is_complete and all(slot.ready() for slot in self.slots.values() if slot.counts())
        codes = [slot.container.code if slot.container else None for slot in main]
        if ended or self._ended_by_itself(codes):
            phase = "Succeeded" if codes and all(code == 0 for code in codes) else "Failed"
        else:
            phase = "Running" if main and any(codes is not None for codes in main) else "Pending"
        init = [spec["name"] for spec in self.spec.get("initContainers", [])]
        status = {
            "phase": phase,
            "hostIP": self.config.address,
            "podIP": self.address,
            "podIPs": [{"ip": self.address}],
            "startTime": self.started_at,
            "conditions": [
                self._condition("PodReadyToStartContainers", not ended),
                self._condition("Initialized", bool(main)),
                self._condition("ContainersReady", ready and not ended),
                self._condition("Ready", ready and not ended),
            ],
            "containerStatuses": [slot.status() for slot in main],
        }
        if init:
            status["initContainerStatuses"] = [slot.status() for name, slot in self.slots.items() if name in init]
        if status == self.reported or self.removed:
            return
        # A kubelet writes the identity of the pod, so that a pod with the same name is not changed.
        body = {"metadata": {"uid": self.uid}, "status": status}
        try:
            self.api.patch(f"{self.path}/status", body, STRATEGIC)
            self.reported = status
        except ApiError as error:
            if error.status not in (404, 409):
                raise
        except OSError:
            pass

    def _ended_by_itself(self, codes):
        return bool(codes) and self.spec.get("restartPolicy", "Always") != "Always" and self._finished()


class Slot:
    """A container of a pod and its restarts."""

    def __init__(self, pod, spec, volumes):
        self.pod, self.spec, self.volumes = pod, spec, volumes
        self.restarts, self.container, self.probes, self.last = 0, None, None, None
        self.ended_at = None
        self.stopping = False

    def start(self):
        self.ended_at = None
        pod, spec = self.pod, self.spec
        environment = pod.environment(spec)
        user, group = pod.user(spec)
        mounts = [(pod.hosts(), "/etc/hosts", True)]
        mounts += [
            (self.volumes[mount["name"]] / mount.get("subPath", ""), mount["mountPath"], mount.get("readOnly", False))
            for mount in spec.get("volumeMounts", [])
        ]
        # Parents before the volumes that are mounted below them.
        mounts.sort(key=lambda mount: mount[1])
        fs_group = pod.spec.get("securityContext", {}).get("fsGroup")
        self.container = Container(
            pod.words(spec, environment), environment, user, group if fs_group is None else fs_group, mounts,
            pod.config.image, pod.namespace, pod.directory / f"{spec['name']}-{self.restarts}", spec.get("stdin", False),
        )
        streams.publish(pod.config.streams, pod.pod["metadata"], spec["name"], self.container.directory)
        self.started_at = timestamp()
        self.probes = Probes(spec, self.container, pod.address, pod.changed.set, self._unhealthy)
        threading.Thread(target=self._wait, args=(self.container,), daemon=True).start()

    def _wait(self, container):
        container.process.wait()
        if self.stopping:
            self.pod.changed.set()

    def _unhealthy(self, reason):
        print(f"pod {self.pod.name}, container {self.spec['name']}: {reason}", flush=True)
        self.container.send(signal.SIGTERM)
        deadline = time.monotonic() + self.pod.spec.get("terminationGracePeriodSeconds", 30)
        while self.container.running() and time.monotonic() < deadline:
            time.sleep(0.1)
        self.container.kill()

    def policy(self):
        return self.spec.get("restartPolicy", self.pod.spec.get("restartPolicy", "Always"))

    def restart_if_due(self):
        if self.container is None or self.container.running() or self.done():
            return
        now = time.monotonic()
        if self.ended_at is None:
            self.ended_at = now
        if now - self.ended_at >= BACK_OFF[min(self.restarts, len(BACK_OFF) - 1)]:
            self.last = self._terminated()
            self.restarts += 1
            self.start()

    def done(self):
        """The container has ended and is not restarted."""
        if self.container is None or self.container.running():
            return False
        policy = self.policy()
        if self.spec.get("restartPolicy") != "Always" and self.spec in self.pod.spec.get("initContainers", []):
            return self.container.code == 0 or policy == "Never"
        return policy == "Never" or policy == "OnFailure" and self.container.code == 0

    def counts(self):
        """The container is one whose readiness counts: no init container, except a sidecar."""
        return self.spec in self.pod.spec["containers"] or self.spec.get("restartPolicy") == "Always"

    def ready(self):
        return self.container is not None and self.container.running() and self.probes.started and self.probes.ready

    def stop(self):
        self.stopping = True
        if self.container is None or not self.container.running():
            return
        self.probes.stopping = True
        sleep = self.spec.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
        self._wait_for_end(min(sleep, max(0, self.pod.remaining())))
        self.container.send(signal.SIGTERM)
        while self.container.running() and self.pod.remaining() > 0:
            time.sleep(0.02)
        self.container.kill()

    def _wait_for_end(self, seconds):
        deadline = time.monotonic() + seconds
        while self.container.running() and time.monotonic() < deadline:
            time.sleep(0.02)

    def _terminated(self):
        code = self.container.code
        return {"terminated": {"exitCode": code, "reason": "Completed" if code == 0 else "Error"}}

    def status(self):
        running = self.container is not None and self.container.running()
        if running:
            state = {"running": {"startedAt": self.started_at}}
        elif self.container is None:
            state = {"waiting": {"reason": "PodInitializing"}}
        elif self.done() or self.stopping:
            state = self._terminated()
        else:
            state = {"waiting": {"reason": "CrashLoopBackOff"}} if self.restarts else self._terminated()
        return {
            "name": self.spec["name"],
            "image": self.spec["image"],
            "imageID": self.spec["image"],
            "containerID": f"process://{self.pod.uid}/{self.spec['name']}-{self.restarts}",
            "restartCount": self.restarts,
            "started": running and self.probes.started,
            "ready": self.ready(),
            "state": state,
            "lastState": self.last or {},
        }
