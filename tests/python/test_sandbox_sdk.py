"""Checks the sandbox with the SDK that is generated from Verizon's API descriptions.

The models of the SDK parse all responses. The SDK has a call for the service plan change, and a model for
the body of the eSIM change."""

import base64
import json
import os
import queue
import signal
import subprocess
import threading
import time

import pytest
import requests
from verizon.api_helper import APIHelper
from verizon.configuration import Configuration, Environment
from verizon.exceptions.connectivity_management_result_exception import (
    ConnectivityManagementResultException,
)
from verizon.exceptions.oauth_provider_exception import OauthProviderException
from verizon.http.auth.thingspace_oauth import ThingspaceOauthCredentials
from verizon.http.auth.vz_m2m_token import VZM2mTokenCredentials
from verizon.models.account_device_list import AccountDeviceList
from verizon.models.account_device_list_request import AccountDeviceListRequest
from verizon.models.device_id import DeviceId
from verizon.models.gio_device_id import GIODeviceId
from verizon.models.gio_device_list import GIODeviceList
from verizon.models.gio_profile_request import GIOProfileRequest
from verizon.models.log_in_request import LogInRequest
from verizon.models.register_callback_request import RegisterCallbackRequest
from verizon.models.service_plan_update_request import ServicePlanUpdateRequest
from verizon.verizon_client import VerizonClient

from conftest import TIMEOUT, binary

ACCOUNT = "0000123456-00001"
KEY, SECRET, USER, PASSWORD = "sdk-key", "sdk-secret", "sdk-user", "sdk-password"


class Sandbox:
    """Runs `sandbox` on a free port with fixed credentials."""

    def __init__(self):
        environment = {k: v for k, v in os.environ.items() if not k.startswith("TSGW_")} | {
            "TSGW_SANDBOX__APP_KEY": KEY,
            "TSGW_SANDBOX__APP_SECRET": SECRET,
            "TSGW_SANDBOX__UWS_USERNAME": USER,
            "TSGW_SANDBOX__UWS_PASSWORD": PASSWORD,
        }
        self.process = subprocess.Popen(
            [binary(), "sandbox", "--sandbox.listen=127.0.0.1:0", "--telemetry.log_format=json"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        self._lines = queue.Queue()
        threading.Thread(target=self._read_log, daemon=True).start()
        try:
            self.base_url = f"http://{self._address()}/api"
        except BaseException:
            self.process.kill()
            raise

    def _read_log(self):
        for line in self.process.stderr:
            self._lines.put(line)
        self._lines.put(None)

    def _address(self):
        deadline = time.monotonic() + TIMEOUT
        while True:
            line = self._lines.get(timeout=max(0, deadline - time.monotonic()))
            assert line is not None, "the sandbox did not start"
            event = json.loads(line) if line.startswith("{") else {}
            if event.get("message", "").startswith("the sandbox is at"):
                return event["address"]

    def ledger(self):
        return requests.get(f"{self.base_url}/sandbox/ledger", timeout=TIMEOUT).json()

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(timeout=TIMEOUT)
        finally:
            self.process.kill()


@pytest.fixture
def sandbox(monkeypatch):
    """Starts a sandbox, and points the SDK's production environment at it."""
    sandbox = Sandbox()
    paths = {"THINGSPACE": "", "OAUTH_SERVER": "/ts/v1", "M2M": "/m2m"}
    servers = Configuration.environments[Environment.PRODUCTION]
    urls = {server: sandbox.base_url + paths.get(server.name, "/nowhere") for server in servers}
    monkeypatch.setitem(Configuration.environments, Environment.PRODUCTION, urls)
    yield sandbox
    assert sandbox.stop() == 0


def client_of(session=None, secret=SECRET):
    return VerizonClient(
        timeout=TIMEOUT,
        thingspace_oauth_credentials=ThingspaceOauthCredentials(KEY, secret),
        vz_m2m_token_credentials=VZM2mTokenCredentials(session or "not yet"),
    )


def log_in(password=PASSWORD):
    login = LogInRequest(username=USER, password=password)
    client = client_of()
    response = client.session_management.start_connectivity_management_session(body=login)
    return response.body.session_token


@pytest.fixture
def client(sandbox):
    """The SDK with a token and a session."""
    return client_of(log_in())


def change_plan(sandbox, client, *iccids):
    """Makes an eSIM plan change with a body of the SDK's model."""
    devices = [
        GIODeviceList(
            device_ids=[
                GIODeviceId(kind="eid", id=f"890490320000010000000000{number:08}"),
                GIODeviceId(kind="iccid", id=iccid),
            ]
        )
        for number, iccid in enumerate(iccids)
    ]
    body = GIOProfileRequest(devices=devices, account_name=ACCOUNT, service_plan="a new plan")
    response = requests.post(
        f"{sandbox.base_url}/m2m/v1/devices/profile/actions/serviceplan",
        data=APIHelper.json_serialize(body),
        headers={
            "Authorization": f"Bearer {token(client).access_token}",
            "VZ-M2M-Token": client.config.vz_m2m_token_credentials.vz_m2m_token,
            "Content-Type": "application/json",
        },
        timeout=TIMEOUT,
    )
    assert response.status_code == 200, response.text
    return response.json()["requestId"]


def token(client):
    basic = base64.b64encode(f"{KEY}:{SECRET}".encode()).decode()
    response = client.oauth_authorization.request_token_thingspace_oauth(f"Basic {basic}")
    return response.body


def eventually(condition):
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < deadline, "timed out"


def test_a_token_is_the_same_one_for_its_hour(client):
    first, second = token(client), token(client)
    assert first.access_token == second.access_token
    assert first.token_type == "Bearer"
    assert 3500 < second.expires_in <= first.expires_in <= 3600


def test_wrong_credentials_are_refused_in_the_format_of_the_sdk(sandbox):
    basic = base64.b64encode(f"{KEY}:wrong".encode()).decode()
    with pytest.raises(OauthProviderException) as refused:
        client_of().oauth_authorization.request_token_thingspace_oauth(f"Basic {basic}")
    assert refused.value.error == "invalid_client"
    with pytest.raises(ConnectivityManagementResultException) as refused:
        log_in("wrong")
    assert refused.value.error_code.startswith("UnifiedWebService.INPUT_INVALID.")
    assert sandbox.ledger()["log_ins_refused"] == 1


def test_a_session_ends_with_its_log_out(client):
    session = client.config.vz_m2m_token_credentials.vz_m2m_token
    ended = client.session_management.end_connectivity_management_session().body
    assert ended.session_token == session
    with pytest.raises(ConnectivityManagementResultException) as refused:
        client.service_plans.list_account_service_plans(ACCOUNT)
    assert refused.value.error_code == "UnifiedWebService.INPUT_INVALID.SessionToken.Invalid"


def test_listeners_are_registered_listed_and_deregistered(client):
    callbacks = client.connectivity_callbacks
    # The response is empty, as observed. The SDK returns no list for it.
    assert not callbacks.list_registered_callbacks(ACCOUNT).body
    for name in ["CarrierService", "DeviceProfileService", "CarrierService"]:
        listener = RegisterCallbackRequest(
            name=name, url="http://127.0.0.1:9001/x", username="hook", password="word"
        )
        done = callbacks.register_callback(ACCOUNT, listener).body
        assert (done.account_name, done.service_name) == (ACCOUNT, name)
    listed = callbacks.list_registered_callbacks(ACCOUNT).body
    assert [one.service_name for one in listed] == ["CarrierService", "DeviceProfileService"]
    assert {(one.username, one.password) for one in listed} == {("hook", "word")}
    done = callbacks.deregister_callback(ACCOUNT, "CarrierService").body
    assert (done.account_name, done.service_name) == (ACCOUNT, "CarrierService")
    left = callbacks.list_registered_callbacks(ACCOUNT).body
    assert [one.service_name for one in left] == ["DeviceProfileService"]
    elsewhere = RegisterCallbackRequest(name="CarrierService", url="http://hook.example:8080/x")
    with pytest.raises(ConnectivityManagementResultException):
        callbacks.register_callback(ACCOUNT, elsewhere)


def test_plans_have_names_and_codes_of_their_own(client):
    plans = client.service_plans.list_account_service_plans(ACCOUNT).body
    assert plans and all(plan.name and plan.code and plan.name != plan.code for plan in plans)
    assert all(plan.carrier_service_plan_code.isdigit() for plan in plans)
    # The SDK omits members that are 0 or empty.
    assert [getattr(plan, "size_kb", 0) for plan in plans] == [0, 0, 0, 1_048_576]


def test_a_request_status_lists_each_device(sandbox, client):
    # The second device has the prefix of the scenario `lost_and_failed`.
    request = change_plan(sandbox, client, "89148000000800139708", "99949320000000000001")
    eventually(lambda: sandbox.ledger()["devices_pending"] == 0)
    with pytest.raises(ConnectivityManagementResultException) as refused:
        client.account_requests.get_current_asynchronous_request_status(ACCOUNT, request)
    assert refused.value.error_code.startswith("UnifiedWebService.")
    status = client.device_actions.get_asynchronous_request_status(ACCOUNT, request)
    assert (status.body.request_id, status.body.status) == (request, "Failed")
    # ThingSpace's page has `subRequests`, but the SDK has `subrequests`, so the test parses the text.
    each = json.loads(status.text)["subRequests"]
    assert [one["status"] for one in each] == ["Success", "Failed"]


def test_a_device_is_on_the_plan_that_it_was_changed_to(sandbox, client):
    iccid = "89148000000800139708"
    request = AccountDeviceListRequest(device_id=DeviceId(id=iccid, kind="iccid"))

    def plan():
        found = client.device_management.list_devices_information(request).body
        assert found.has_more_data is False
        (device,) = found.devices
        assert {(one.kind, one.id) for one in device.device_ids} >= {("iccid", iccid)}
        return device.carrier_informations[0].service_plan

    assert plan() == "Sandbox Initial Plan"
    change_plan(sandbox, client, iccid)
    eventually(lambda: sandbox.ledger()["devices_pending"] == 0)
    assert plan() == "a new plan"


def test_a_service_plan_change_can_name_its_account(sandbox, client):
    meid = DeviceId(id="A100003685E561", kind="meid")
    devices = [AccountDeviceList(device_ids=[meid])]
    for plan, account in [("WITHOUT", APIHelper.SKIP), ("WITH", ACCOUNT)]:
        request = ServicePlanUpdateRequest(
            service_plan=plan, devices=devices, account_name=account
        )
        response = client.device_management.change_devices_service_plan(request).body
        eventually(lambda: sandbox.ledger()["devices_pending"] == 0)
        change = sandbox.ledger()["changes"][-1]
        assert (change["request_id"], change["kind"]) == (response.request_id, "service_plan")
        listed = client.device_management.list_devices_information(
            AccountDeviceListRequest(device_id=meid)
        ).body
        assert listed.devices[0].carrier_informations[0].service_plan == plan
