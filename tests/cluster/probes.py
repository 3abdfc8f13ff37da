"""The probes of a container, with the timing of a kubelet."""

import http.client
import socket
import threading
import time

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc


class Probes:
    """Runs the startup, readiness and liveness probes of a container, which begin one after the other as in Kubernetes.

    Calls `changed` after each change, and `unhealthy` with a reason when the container is to be killed."""

    def __init__(self, spec, container, address, changed, unhealthy):
        self.spec, self.container, self.address = spec, container, address
        self.changed, self.unhealthy = changed, unhealthy
        self.started = "startupProbe" not in spec
        self.ready = self.started and "readinessProbe" not in spec
        self.stopping = False
        threading.Thread(target=self._run_startup, daemon=True).start()

    def _run_startup(self):
        if "startupProbe" in self.spec:
            self._run("startupProbe", self._set_started, lambda: self.unhealthy("startup probe failed"))
            if not self._active():
                return
        if "livenessProbe" in self.spec:
            failed = lambda: None if self.stopping else self.unhealthy("liveness probe failed")
            threading.Thread(target=self._run, args=("livenessProbe", lambda: False, failed), daemon=True).start()
        if "readinessProbe" in self.spec:
            self._run("readinessProbe", lambda: self._set_ready(True), lambda: self._set_ready(False))

    def _active(self):
        return self.container.running()

    def _set_started(self):
        self.started = True
        self.ready = "readinessProbe" not in self.spec
        self.changed()
        return True

    def _set_ready(self, ready):
        if self.ready != ready:
            self.ready = ready
            self.changed()
        return False

    def _run(self, name, succeeded, failed):
        """Probes until the container ends, or until `succeeded` returns True."""
        probe = self.spec[name]
        time.sleep(probe.get("initialDelaySeconds", 0))
        successes = failures = 0
        while self._active():
            began = time.monotonic()
            if self._check(probe):
                successes, failures = successes + 1, 0
                if successes == probe.get("successThreshold", 1) and succeeded():
                    return
            elif self._active():
                successes, failures = 0, failures + 1
                if failures == probe.get("failureThreshold", 3):
                    failed()
            time.sleep(max(0, began + probe.get("periodSeconds", 10) - time.monotonic()))

    def _port(self, port):
        ports = {p.get("name"): p["containerPort"] for p in self.spec.get("ports", [])}
        return ports.get(port, port)

    def _check(self, probe):
        timeout = probe.get("timeoutSeconds", 1)
        try:
            if "httpGet" in probe:
                connection = http.client.HTTPConnection(self.address, self._port(probe["httpGet"]["port"]), timeout=timeout)
                connection.request("GET", probe["httpGet"].get("path", "/"))
                status = connection.getresponse().status
                connection.close()
                return 200 <= status < 400
            if "tcpSocket" in probe:
                socket.create_connection((self.address, self._port(probe["tcpSocket"]["port"])), timeout).close()
                return True
            if "exec" in probe:
                return self.container.execute(probe["exec"]["command"], timeout) == 0
            with grpc.insecure_channel(f"{self.address}:{probe['grpc']['port']}") as channel:
                request = health_pb2.HealthCheckRequest(service=probe["grpc"].get("service", ""))
                status = health_pb2_grpc.HealthStub(channel).Check(request, timeout=timeout).status
                return status == health_pb2.HealthCheckResponse.SERVING
        except Exception:
            return False
