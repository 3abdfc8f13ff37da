"""The common part of the scenarios: a release under load, and the promises that must hold after it."""

import socket
import time

from authority import Authority
from conftest import eventually
from load import ACCOUNT, Load, numbered_iccid
from release import Release, common_values, merged, profile_values
from test_chart import SECRETS


class Scenario:
    """A release of a profile of the chart, and a load on its services."""

    def __init__(self, plane, tools, namespace, state, client_package, print_figures):
        self.print_figures = print_figures
        self.release = Release(plane, tools, namespace, state)
        self.client_package = client_package
        self.load = Load(client_package, SECRETS["callbacks.path_secret"])
        self.figures = {}

    def start(self, name, replicas, settings=None, **more):
        """Installs the profile with further settings and values, and starts the load when this number of pods is ready."""
        self.replicas = replicas
        overrides = common_values(self.load.thingspace.base_url, self.load.issuer.key_set()) | more
        self.values = profile_values(name, merged(overrides, {"config": settings or {}}))
        self.release.helm("install", self.values)
        authority = Authority("tests")
        self.release.issue_certificates(authority)
        self.release.wait_until_ready(replicas)
        addresses = self.release.service("grpc"), self.release.service("callbacks")
        # The proxies know the pods shortly after the pods are ready.
        eventually(lambda: all(accepts(address) for address in addresses), "the services accept connections")
        ends_in_gateway = self.values["expose"]["callbacks"]["type"] == "loadBalancer"
        self.load.start(*addresses, authority if ends_in_gateway else None)

    def measure(self, name, disturb, settle=3):
        """Adds the figures of the time from a disturbance until all pods are ready again, and some seconds."""
        begin = time.monotonic()
        more = disturb() or {}
        self.release.wait_until_ready(self.replicas)
        time.sleep(settle)
        end = time.monotonic()
        self.figures[name] = self.load.disturbance(begin, end) | {"duration_s": round(end - begin, 1)} | more

    def finish(self, name, expected=None):
        """Ends the load, prints the figures, and fails if a promise was broken. `expected` returns the ICCIDs of devices whose
        results must arrive: by default those of acknowledged callbacks."""
        load = self.load
        expected = expected or (lambda: load.acknowledged)
        begin = time.monotonic()
        # Without a response and without callbacks, the outcome of a request is unknown, and so is that of its change.
        unknown = lambda: self.devices_of(self.changes_in_doubt())
        load.stop(lambda: expected() - unknown())
        last_result = max(watcher.last_result or begin for watcher in load.watches)
        required = expected() - unknown()
        self.figures["totals"] = load.totals() | {
            "changes_with_unknown_outcome": len(self.changes_in_doubt()),
            "last_result_after_the_end_of_the_load_s": round(max(0, last_result - begin), 1),
        }
        self.print_figures(name, self.figures)
        assert load.acknowledged, "no callback was acknowledged"
        for watcher in load.watches:
            assert watcher.error is None, watcher.error
            missing = (load.acknowledged | required) - watcher.results
            assert not missing, f"the results of {len(missing)} devices are in no event of a watch: {self.describe(missing)}"
            assert not [key for key, count in watcher.events.items() if count > 1], "a watch has a result twice"
        assert all(count == 1 for count in load.sent.values()), "a change was sent twice"
        assert not load.failed_changes, load.failed_changes[:3]
        self.unlisted, self.found = dict(load.accepted), set()
        lacking = lambda: required - self.listed()
        eventually(lambda: not lacking(), lambda: f"the lists of devices have all results; {len(lacking())} are missing")

    def describe(self, missing):
        """Describes devices whose results are missing: the states of the gateway, and the callbacks of ThingSpace."""
        v1, load, found = self.client_package.v1, self.load, []
        with load.connect() as client:
            for change_id, first in load.accepted.items():
                devices = {numbered_iccid(first + index) for index in range(load.devices)} & missing
                if devices:
                    change = client.get_change(v1.GetChangeRequest(change_id=change_id)).change
                    listed = client.list_devices(v1.ListDevicesRequest(change_id=change_id))
                    outcomes = {v1.DeviceOutcome.Name(device.outcome) for device in listed}
                    state, delivered = v1.ChangeState.Name(change.state), len(devices & load.acknowledged)
                    found.append(f"{len(devices)} of {change_id}, {state}, {outcomes}, {delivered} delivered")
        return found

    def changes_in_doubt(self):
        """The changes whose outcome is unknown."""
        v1 = self.client_package.v1
        with self.load.connect() as client:
            request = v1.ListChangesRequest(account_name=ACCOUNT, states=[v1.CHANGE_STATE_OUTCOME_UNKNOWN])
            return {change.change_id for change in client.list_changes(request)}

    def devices_of(self, changes):
        first = [self.load.accepted[change_id] for change_id in changes if change_id in self.load.accepted]
        return {numbered_iccid(n + index) for n in first for index in range(self.load.devices)}

    def listed(self):
        """The ICCIDs of devices with a result, as ListDevices has them."""
        v1 = self.client_package.v1
        with self.load.connect() as client:
            for change_id, first in list(self.unlisted.items()):
                devices = client.list_devices(v1.ListDevicesRequest(change_id=change_id, page_size=1000))
                done = [d.device_index for d in devices if d.outcome == v1.DEVICE_OUTCOME_SUCCEEDED]
                self.found |= {numbered_iccid(first + index) for index in done}
                if len(done) == self.load.devices:
                    del self.unlisted[change_id]
        return self.found

    def listed_again(self):
        """As `listed`, without what was listed before."""
        self.unlisted, self.found = dict(self.load.accepted), set()
        return self.listed()

    def close(self):
        self.load.close()


def accepts(address):
    host, port = address.split(":")
    try:
        socket.create_connection((host, int(port)), timeout=1).close()
        return True
    except OSError:
        return False


def node_of(pod):
    return pod["spec"].get("nodeName")
