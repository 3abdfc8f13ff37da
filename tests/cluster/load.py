"""Load on a gateway: changes, watches, and callbacks as ThingSpace sends them, with a record of every attempt."""

import http.client
import itertools
import json
import queue
import random
import ssl
import threading
import time

from fake_thingspace import FakeThingSpace, callback
from network import MACHINE, SENDERS
from tokens import Issuer

ACCOUNT = "0000123456-00001"
# Seconds. ThingSpace sends a callback a second time if it has no response within the first time, or the second time after an
# error (see thingspace-facts, section 4).
CALLBACK_TIMEOUT, RETRY_AFTER = 4, 1.3
# The first port that callbacks are sent from.
FIRST_PORT = 2000
# Counts the connections of all tests. No source address and port are used twice: a new connection with those of an old one to a
# lost pod would go there, and those of a connection that has just been closed cannot be used.
sources = itertools.count()
# Seconds between two callbacks that are sent again.
REPEAT_INTERVAL = 0.05
# The host of callbacks, the issuer of tokens, and the caller, in the values of the profiles.
CALLBACK_HOST, ISSUER, CALLER = "callbacks.example.com", "https://login.example.com", "fleet-service"
# Maximum seconds of a change call with its repeated attempts.
CHANGE_TIMEOUT = 180


def numbered_iccid(number):
    """The ICCID of the device with this number."""
    return f"9994{number:016}"


class Load:
    """Sends changes at a constant rate. A fake ThingSpace accepts them and sends a callback for each device, whose rate does
    not depend on the responses."""

    def __init__(self, client_package, path_secret, changes_per_second=4, devices=10):
        """`client_package` is the package of the Python client."""
        self.issuer, self.trusted = Issuer(), None
        self.package, self.grpc_address, self.callback_address = client_package, None, None
        self.path = f"/accounts/{ACCOUNT}/callbacks/DeviceProfileService/{path_secret}"
        self.interval, self.devices = 1 / changes_per_second, devices
        self.thingspace = FakeThingSpace(self._accept, MACHINE)
        self._serve_request_status()
        # Devices of each request.
        self.requests, self.lookups = {}, 0
        self.lock = threading.Lock()
        # (begin, end, succeeded) of each attempt, by time.monotonic.
        self.attempts = []
        # Devices by ICCID: what ThingSpace knows, and what it has delivered.
        self.sent, self.done, self.acknowledged, self.given_up = {}, set(), set(), set()
        self.accepted, self.failed_changes, self.change_retries = {}, [], []
        self.watches = [Watcher(self) for _ in range(2)]
        # ICCIDs whose callback is neither delivered nor given up, and the delivered callbacks.
        self.undelivered, self.repeatable = set(), []
        self.due = queue.PriorityQueue()
        self.stopping, self.changes_done, self.number = threading.Event(), threading.Event(), 0
        self.threads = []

    def _accept(self, body):
        """ThingSpace's response to a change. It lists no devices."""
        if "devices" not in body:
            return 200, {"hasMoreData": False, "devices": []}
        request_id = f"{random.getrandbits(128):032x}"
        now = time.monotonic()
        with self.lock:
            self.requests[request_id] = body["devices"]
            for device in body["devices"]:
                iccid = iccid_of(device)
                self.undelivered.add(iccid)
                self.sent[iccid] = self.sent.get(iccid, 0) + 1
                self.due.put((now + random.uniform(0.2, 2), 1, request_id, iccid))
        return 200, {"requestId": request_id}

    def _serve_request_status(self):
        """Serves the lookup of a request, by which the gateway finds results that it has missed."""
        load, server = self, self.thingspace.server

        class Handler(server.RequestHandlerClass):
            def do_GET(self):
                request_id = self.path.rstrip("/").split("/")[-2]
                devices = load.requests.get(request_id)
                each = [{"ids": device["deviceIds"], "status": load.status(device)} for device in devices or []]
                body = json.dumps({"requestId": request_id, "status": "Success", "subRequests": each}).encode()
                self.send_response(200 if devices else 400)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)
                load.lookups += 1

        server.RequestHandlerClass = Handler

    def status(self, device):
        """A device is done when its callback is sent, whether or not it arrives."""
        return "Success" if iccid_of(device) in self.done else "Pending"

    # --- Callbacks ---

    def _deliver_all(self):
        """Starts each attempt at its time, independently of earlier attempts."""
        while not (self.changes_done.is_set() and not self.undelivered):
            try:
                when, number, request_id, iccid = self.due.get(timeout=0.1)
            except queue.Empty:
                continue
            wait = when - time.monotonic()
            if wait > 0.05:
                self.due.put((when, number, request_id, iccid))
                time.sleep(0.01)
                continue
            time.sleep(max(0, wait))
            threading.Thread(target=self._deliver, args=(number, request_id, iccid), daemon=True).start()

    def _deliver(self, number, request_id, iccid):
        self.done.add(iccid)
        error = self._post(number, request_id, iccid)
        with self.lock:
            if error is None:
                self.acknowledged.add(iccid)
                self.repeatable.append((request_id, iccid))
            elif number == 1:
                self.due.put((time.monotonic() + RETRY_AFTER, 2, request_id, iccid))
                return
            else:
                self.given_up.add(iccid)
            self.undelivered.discard(iccid)

    def _repeat_callbacks(self):
        """Sends delivered callbacks again at a constant rate, so that the attempts do not depend on the changes. Their results
        must not be delivered twice."""
        while not self.changes_done.wait(REPEAT_INTERVAL):
            if self.repeatable:
                request_id, iccid = random.choice(self.repeatable)
                threading.Thread(target=self._post, args=(2, request_id, iccid), daemon=True).start()

    def _post(self, number, request_id, iccid):
        """Sends a callback once. Returns the error, or None."""
        body = json.dumps(callback(request_id, iccid, callbackCount=number))
        begin, error = time.monotonic(), None
        try:
            number = next(sources)
            source = SENDERS[number % len(SENDERS)], FIRST_PORT + number // len(SENDERS)
            connection = CallbackConnection(self.callback_address, self.trusted, source)
            headers = {"content-type": "application/json", "host": CALLBACK_HOST}
            if not self.trusted:
                headers |= {"x-forwarded-for": "203.0.113.7", "x-forwarded-proto": "https"}
            connection.request("POST", self.path, body, headers)
            status = connection.getresponse().status
            connection.close()
            if status != 200:
                error = f"status {status}"
        except (OSError, http.client.HTTPException) as caught:
            error = type(caught).__name__
        with self.lock:
            self.attempts.append((begin, time.monotonic(), error))
        return error

    # --- Changes ---

    def connect(self):
        """Returns a client of the gateway, with tokens of the caller that the policies of the profiles allow."""
        token = lambda: self.issuer.token(iss=ISSUER, sub=CALLER)
        return self.package.connect(self.grpc_address, plaintext=True, token=token, allow_token_over_plaintext=True)

    def _send_changes(self):
        with self.connect() as client:
            next_call = time.monotonic()
            while not self.stopping.is_set():
                self.number += 1
                threading.Thread(target=self._change, args=(client, self.number), daemon=True).start()
                next_call += self.interval
                time.sleep(max(0, next_call - time.monotonic()))
            self._wait_for_changes()
        self.changes_done.set()

    def _wait_for_changes(self):
        deadline = time.monotonic() + CHANGE_TIMEOUT
        while len(self.accepted) + len(self.failed_changes) < self.number and time.monotonic() < deadline:
            time.sleep(0.1)

    def _change(self, client, number):
        v1 = self.package.v1
        first = number * self.devices
        devices = [
            v1.EsimDevice(eid=f"99{n:030}", iccid=numbered_iccid(n)) for n in range(first, first + self.devices)
        ]
        request = v1.ChangeEsimPlanRequest(
            account_name=ACCOUNT, service_plan="Example Plan", idempotency_key=f"change-{number}", devices=devices
        )
        try:
            response = client.change_esim_plan(request, on_retry=self._record_change_retry, total_timeout=CHANGE_TIMEOUT)
            self.accepted[response.change.change_id] = first
        except self.package.GatewayError as error:
            self.failed_changes.append(str(error))

    def _record_change_retry(self, attempt):
        self.change_retries.append(f"{attempt.error}")

    # --- Control ---

    def start(self, grpc_address, callback_address, authority=None):
        """Starts the load on these addresses, `host:port`. Callbacks are sent over TLS if they end in a gateway with a
        certificate of `authority`, and else as the proxy of the profile sends them."""
        self.grpc_address, self.callback_address = grpc_address, callback_address
        if authority:
            self.trusted = ssl.create_default_context(cadata=authority.pem.decode())
        for target in (self._deliver_all, self._send_changes, self._repeat_callbacks, *(watcher.run for watcher in self.watches)):
            self.threads.append(threading.Thread(target=target, daemon=True))
            self.threads[-1].start()

    def stop(self, expected=None):
        """Ends the load, and waits until each watch has the results of the devices that `expected` returns: by default those
        of acknowledged callbacks."""
        expected = expected or (lambda: self.acknowledged)
        self.stopping.set()
        for thread in self.threads[:3]:
            thread.join(CHANGE_TIMEOUT + 60)
            assert not thread.is_alive()
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and any(set(expected()) - watcher.results for watcher in self.watches):
            time.sleep(0.5)
        for watcher in self.watches:
            watcher.stop()

    def close(self):
        self.stopping.set()
        self.changes_done.set()
        self.thingspace.server.shutdown()

    # --- Figures ---

    def disturbance(self, begin, end):
        """Figures of the attempts between two times: failed attempts, the longest time in which none succeeded although some
        were made, and the longest time from a failed attempt to the last one that follows it within a second."""
        with self.lock:
            attempts = sorted(a for a in self.attempts if begin <= a[0] < end)
        failed = [a for a in attempts if a[2] is not None]
        errors = {}
        for attempt in failed:
            errors[attempt[2]] = errors.get(attempt[2], 0) + 1
        return {
            "attempts": len(attempts),
            "failed_attempts": len(failed),
            "errors": errors,
            "longest_refusal_s": round(longest_outage(attempts), 2),
            "longest_run_with_failures_s": round(longest_cluster([a[0] for a in failed], 1), 2),
            "slowest_success_s": round(max((a[1] - a[0] for a in attempts if a[2] is None), default=0), 2),
        }

    def totals(self):
        return {
            "changes": self.number,
            "changes_failed": len(self.failed_changes),
            "change_attempts_repeated": len(self.change_retries),
            "devices_sent": len(self.sent),
            "devices_sent_twice": sum(count > 1 for count in self.sent.values()),
            "callbacks_acknowledged": len(self.acknowledged),
            "callbacks_given_up_by_thingspace": len(self.given_up),
            "watches_resumed": [len(watcher.retries) for watcher in self.watches],
            "lookups_of_requests": self.lookups,
            "longest_watch_gap_s": max(round(watcher.longest_gap, 2) for watcher in self.watches),
        }


def iccid_of(device):
    (iccid,) = [i["id"] for i in device["deviceIds"] if i["kind"].lower() == "iccid"]
    return iccid


def longest_outage(attempts):
    """The longest time from a failed attempt to the next successful one, if no attempt between succeeded."""
    longest, since = 0, None
    for begin, _, error in attempts:
        if error is None:
            longest = max(longest, begin - since if since is not None else 0)
            since = None
        elif since is None:
            since = begin
    if since is not None:
        longest = max(longest, attempts[-1][0] - since)
    return longest


def longest_cluster(times, gap):
    longest, first, last = 0, None, None
    for moment in times:
        if last is None or moment - last > gap:
            first = moment
        last = moment
        longest = max(longest, last - first)
    return longest


class CallbackConnection(http.client.HTTPConnection):
    """A connection for one callback, over TLS if there are trusted certificates."""

    def __init__(self, address, trusted, source):
        super().__init__(address, timeout=CALLBACK_TIMEOUT, source_address=source)
        self.trusted = trusted

    def connect(self):
        super().connect()
        if self.trusted:
            self.sock = self.trusted.wrap_socket(self.sock, server_hostname=CALLBACK_HOST)


class Watcher:
    """Watches the account. `results` has the ICCIDs of devices with a result, and `events` the number of results of each and of
    each source: a callback or a lookup."""

    def __init__(self, load):
        package = load.package
        self.load, self.results, self.events, self.retries = load, set(), {}, []
        self.token = ""
        self.error, self.longest_gap, self.last_result = None, 0.0, None
        self.cancellation = package.Cancellation()

    def run(self):
        package, v1 = self.load.package, self.load.package.v1
        try:
            with self.load.connect() as client:
                request = v1.WatchAccountRequest(account_name=ACCOUNT)
                options = {"on_retry": self.retries.append, "cancellation": self.cancellation}
                for event in client.watch_account(request, **options):
                    self.token = event.resume_token or self.token
                    if event.WhichOneof("event") == "device_result":
                        self._record(event.device_result)
        except package.Cancelled:
            pass
        except Exception as error:
            self.error = error

    def _record(self, result):
        now = time.monotonic()
        if self.last_result is not None:
            self.longest_gap = max(self.longest_gap, now - self.last_result)
        self.last_result = now
        for identifier in result.device_ids:
            if identifier.kind.lower() == "iccid":
                key = identifier.id, result.source
                self.events[key] = self.events.get(key, 0) + 1
                self.results.add(identifier.id)

    def stop(self):
        self.cancellation.cancel()
