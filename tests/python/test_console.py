"""The console in a real browser: a live change, access, a restart of the gateway, and texts that look like markup.

With the environment variable CONSOLE_PICTURES, the tests also write the pictures of docs/console.md into this folder (scripts/console-pictures)."""

import contextlib
import json
import os
import re
import ssl
import time
import urllib.request
from pathlib import Path

import pytest
from browser import Observed, browser
from conformance import Trust
from conftest import Gateway
from fake_thingspace import CREDENTIALS, FakeThingSpace, callback, post
from playwright.sync_api import expect

ACCOUNT = "0000123456-00001"
SERVICE = "/thingspace.gateway.v1.GatewayService/"
MARKUP = "<img src=x onerror=alert(1)>"
PICTURES = os.environ.get("CONSOLE_PICTURES")
POLICY = f"""
[[caller]]
name = "watcher"
identities = ["jwt:watcher"]
[[caller.allow]]
permissions = ["watch", "list", "monitor"]
accounts = ["*"]

[[caller]]
name = "guest"
identities = ["jwt:guest"]

[[caller]]
name = "operator"
identities = ["jwt:operator", "subject:CN=operator,O=Test"]
[[caller.allow]]
permissions = ["change", "watch", "list", "operate"]
accounts = ["*"]
"""


@pytest.fixture(scope="module")
def chromium():
    with browser() as started:
        yield started


@pytest.fixture
def open_page(chromium):
    """Opens pages, each in a browser context of its own."""
    contexts = []

    def open_page(origin, **options):
        size = {"width": 1280, "height": 900}
        contexts.append(chromium.new_context(**{"viewport": size, "locale": "en-GB", "timezone_id": "UTC"} | options))
        return Observed(contexts[-1].new_page(), origin)

    yield open_page
    for context in contexts:
        context.close()


def start_console(start, **settings):
    return start(console__listen="127.0.0.1:0", **settings)


def change_json(key, numbers, **more):
    devices = [
        {"eid": f"8904903200000100000000000{n:07}", "iccid": f"8914800000080{n:07}", "clientReference": f"row-{n}"}
        for n in numbers
    ]
    return {"accountName": ACCOUNT, "idempotencyKey": key, "servicePlan": "M2M_5GB", "devices": devices} | more


def call(url, method, message, token=None, context=None):
    headers = {"content-type": "application/json"} | ({"authorization": f"Bearer {token}"} if token else {})
    request = urllib.request.Request(url + SERVICE + method, json.dumps(message).encode(), headers)
    with urllib.request.urlopen(request, timeout=30, context=context) as response:
        return json.load(response)


def picture(observed, name, top="header"):
    """Takes a picture that begins with this element."""
    if PICTURES:
        observed.page.locator(top).evaluate("(it) => window.scrollTo(0, it.offsetTop - 12)")
        observed.page.screenshot(path=Path(PICTURES) / f"console-{name}.png")


def progress(observed):
    """Returns the number of devices with a result, as the bar shows it."""
    bar = observed.page.locator("#change [role=progressbar]")
    return int(bar.get_attribute("aria-valuenow") or 0)


def test_a_change_of_1000_devices_finishes_live(start, open_page):
    gateway = start_console(start, sandbox__late_rate="0.5", sandbox__late_delay="3s")
    observed = open_page(f"http://{gateway.console}")
    observed.open()
    observed.wait("#changes .note", "No changes.")
    grpc = f"http://{gateway.address}"
    change = call(grpc, "ChangeEsimPlan", change_json("live", range(1000), clientReference="night shift"))["change"]

    row = observed.page.locator(f'tr[data-change="{change["changeId"]}"]')
    row.get_by_role("button").click()
    seen, live, has_picture = set(), observed.page.locator("#change-live"), False
    while live.inner_text() != "Complete":
        seen.add(progress(observed))
        if not has_picture and 400 < max(seen) < 900:
            picture(observed, "change")
            has_picture = True
    assert any(0 < count < 1000 for count in seen), seen
    assert progress(observed) == 1000
    expect(observed.page.locator("#received")).to_have_text("1,000")
    # The list follows.
    expect(row.locator("[role=progressbar]")).to_have_attribute("aria-valuenow", "1000")
    expect(row).to_contain_text("finished")
    expect(observed.page.locator("#devices tr").first).to_contain_text("succeeded")

    # The filters of the list.
    observed.page.select_option("#filter-state", "CHANGE_STATE_REJECTED")
    observed.wait("#changes .note", "No changes.")
    observed.page.select_option("#filter-state", "CHANGE_STATE_FINISHED")
    expect(row).to_be_visible()

    # The devices have pages and a filter.
    observed.page.get_by_role("button", name="Next page").first.click()
    expect(observed.page.locator("#devices tr").first).to_contain_text("row-50")
    observed.page.select_option("#filter-outcome", "DEVICE_OUTCOME_FAILED")
    observed.wait("#change .note", "No devices.")
    expect(observed.page.locator("#callbacks .legend")).to_contain_text("stored 1,000")
    expect(observed.page.locator("#recent tr")).to_have_count(50)
    expect(observed.page.locator("#callbacks svg .line")).to_have_count(1)
    picture(observed, "callbacks", top="#callbacks")
    # Without identities, the console is read-only.
    expect(observed.page.locator("#pause-form, #list-quarantine, #reset-lockout")).to_have_count(3)
    for hidden in ["#pause-form", "#list-quarantine", "#reset-lockout"]:
        expect(observed.page.locator(hidden)).to_be_hidden()

    # The keyboard is enough, and a narrow window needs no horizontal scrolling of the page.
    observed.page.keyboard.press("Tab")
    assert observed.page.evaluate("document.activeElement.tagName") != "BODY"
    observed.page.set_viewport_size({"width": 400, "height": 800})
    assert observed.page.evaluate("document.documentElement.scrollWidth") <= 400
    unlabelled = "[...document.querySelectorAll('input, select')].filter((it) => !it.labels?.length).map((it) => it.id)"
    assert observed.page.evaluate(f"() => {unlabelled}") == []
    observed.check()


class Secured(Trust):
    """A gateway with TLS, tokens, client certificates and the policy above."""

    def __init__(self, directory):
        directory.mkdir()
        super().__init__(directory, "mtls,jwt", POLICY)
        self.operator = self.clients.issue(subject=[("O", "Test"), ("CN", "operator")])
        self.context = ssl.create_default_context(cadata=self.servers.pem.decode())

    def token(self, name):
        return self.issuer.token(sub=name)


def log_in(observed, token):
    observed.page.fill("#token", token)
    observed.page.get_by_role("button", name="Continue").click()


def test_tls_identity_and_policy_decide_what_the_page_shows(start, open_page, tmp_path):
    secured = Secured(tmp_path / "trust")
    gateway = start_console(start, **secured.settings, journal__dir=tmp_path / "journal")
    origin = "https://localhost:{}".format(gateway.console.rpartition(":")[2])
    grpc = "https://localhost:{}".format(gateway.address.rpartition(":")[2])
    watcher, operator = secured.token("watcher"), secured.token("operator")
    call(grpc, "ChangeEsimPlan", change_json("one", range(3)), operator, secured.context)

    # Without a credential, the page asks for a token.
    observed = open_page(origin, ignore_https_errors=True)
    observed.open()
    observed.wait("#login-problem", "who you are")
    log_in(observed, "no-token")
    observed.wait("#login-problem", "token")

    # With `list`, `watch` and `monitor`, it shows everything, and no button that changes something.
    log_in(observed, watcher)
    observed.page.locator("tr[data-change] button").click()
    observed.wait("#change-live", "Complete")
    expect(observed.page.locator("#facts")).to_contain_text("You watcher")
    expect(observed.page.locator("#quarantine-counts")).to_contain_text("you need the permission “operate”")
    for name in ["Pause", "Resume", "Replay", "Replay all", "Drop", "List", "Reset the lock-out"]:
        expect(observed.page.get_by_role("button", name=name, exact=True).filter(visible=True)).to_have_count(0)
    for method in ["PauseChanges", "ResetLockout", "ListQuarantinedCallbacks", "SetLogFilter"]:
        assert observed.post(f"OperatorService/{method}", "{}", watcher) == 403
    assert observed.post("GatewayService/ChangeEsimPlan", "{}", operator) == 404
    storage = "[localStorage.length, sessionStorage.length, document.cookie.length]"
    assert observed.page.evaluate(f"() => {storage}") == [0, 0, 0]

    # A policy without the caller, while the page is open.
    secured.replace_policy(POLICY.replace("jwt:watcher", "jwt:renamed"))
    observed.wait("#login-problem", "policy")
    expect(observed.page.locator("#content")).to_be_hidden()
    # A caller without permissions.
    log_in(observed, secured.token("guest"))
    for panel, permission in [("changes", "list"), ("callbacks", "monitor"), ("thingspace", "monitor"), ("pauses", "monitor"), ("quarantine", "monitor")]:
        expect(observed.page.locator(f"#{panel} .note").first).to_contain_text(f"you need the permission “{permission}”")
    expect(observed.page.locator("tr[data-change]")).to_have_count(0)
    messages = [text for text in observed.messages if "404" not in text]
    observed.messages[:] = messages
    observed.check(refusals=True)

    # A client certificate needs no token. An operator pauses and resumes, by keyboard.
    certificate = {"origin": origin, "cert": secured.operator.certificate, "key": secured.operator.key}
    observed = open_page(origin, ignore_https_errors=True, client_certificates=[certificate])
    observed.open()
    expect(observed.page.locator("#facts")).to_contain_text("You operator")
    observed.page.fill("#pause-reason", MARKUP)
    observed.page.locator("#pause-reason").press("Enter")
    expect(observed.page.locator("dialog")).to_contain_text("Pause the changes of all accounts?")
    # The safe choice has the focus.
    expect(observed.page.get_by_role("button", name="Cancel")).to_be_focused()
    observed.page.keyboard.press("Tab")
    observed.page.keyboard.press("Enter")
    expect(observed.page.locator("#paused tr")).to_contain_text(MARKUP)
    expect(observed.page.locator("#paused tr")).to_contain_text("operator")
    observed.page.locator("#paused button").click()
    observed.page.keyboard.press("Escape")
    expect(observed.page.locator("#paused tr")).to_have_count(1)
    observed.page.locator("#paused button").click()
    observed.page.locator("dialog").get_by_role("button", name="Resume").click()
    observed.wait("#pauses .note", "Changes are not paused.")
    observed.check()


def test_a_killed_gateway_is_reported_and_the_watch_continues_without_duplicates(chromium, open_page, tmp_path):
    thingspace = FakeThingSpace()
    settings = {
        **CREDENTIALS,
        "thingspace__base_url": thingspace.base_url,
        "callbacks__listen": "127.0.0.1:0",
        "journal__dir": tmp_path / "journal",
    }
    gateway = Gateway(console__listen="127.0.0.1:0", **settings)
    try:
        console, grpc = gateway.console, gateway.address
        change = call(f"http://{grpc}", "ChangeEsimPlan", change_json("killed", range(20)))["change"]
        iccid = "8914800000080{:07}".format
        deliver = lambda numbers: [post(gateway, callback(change["requestIds"][0], iccid(n))) for n in numbers]
        observed = open_page(f"http://{console}")
        observed.open(f"/console/#{change['changeId']}")
        observed.wait("#change-live", "Live")
        assert deliver(range(10)) == [200] * 10
        expect(observed.page.locator("#received")).to_have_text("10")

        gateway.process.kill()
        gateway.process.wait()
        observed.wait("#banner", "No connection to the gateway")
        gateway = Gateway(console__listen=console, **settings)
        observed.wait_hidden("#banner")
        observed.wait("#change-live", "Live")
        expect(observed.page.locator("#received")).to_have_text("10")
        assert deliver(range(10, 20)) == [200] * 10
        observed.wait("#change-live", "Complete")
        expect(observed.page.locator("#received")).to_have_text("20")
        references = observed.page.locator("#results tr td:nth-child(2)").all_inner_texts()
        assert len(references) == len(set(references)) == 20
        observed.check(refusals=True)
    finally:
        assert gateway.stop() == 0


def test_texts_that_look_like_markup_are_shown_as_text(start, open_page, tmp_path):
    secured = Secured(tmp_path / "trust")
    gateway = start_console(
        start,
        **secured.settings,
        **CREDENTIALS,
        thingspace__base_url=FakeThingSpace().base_url,
        callbacks__listen="127.0.0.1:0",
        journal__dir=tmp_path / "journal",
    )
    origin = "https://localhost:{}".format(gateway.console.rpartition(":")[2])
    grpc = "https://localhost:{}".format(gateway.address.rpartition(":")[2])
    token = secured.token("operator")
    # ThingSpace permits no `<` in the name of a plan.
    plan = MARKUP.replace("<", "&lt;")
    message = change_json("markup", range(1), clientReference=MARKUP, servicePlan=plan)
    message["devices"][0]["clientReference"] = MARKUP
    change = call(grpc, "ChangeEsimPlan", message, token, secured.context)["change"]
    failed = {"status": "FAILED", "deviceResponse": None, "faultResponse": {"faultcode": "X", "faultstring": MARKUP}}
    assert post(gateway, callback(change["requestIds"][0], "8914800000080" + "0" * 7, **failed)) == 200
    assert post_text(gateway, f"{MARKUP}<script>alert(1)</script>") == 200

    observed = open_page(origin, ignore_https_errors=True)
    observed.page.on("dialog", lambda dialog: observed.errors.append("a dialog"))
    observed.open(f"/console/#{change['changeId']}")
    log_in(observed, token)
    observed.wait("#change-live", "Complete")
    expect(observed.page.locator("tr[data-change]")).to_contain_text(MARKUP)
    expect(observed.page.locator("tr[data-change]")).to_contain_text(plan)
    expect(observed.page.locator("#results")).to_contain_text(MARKUP)
    expect(observed.page.locator("#devices")).to_contain_text(MARKUP)
    observed.page.locator("#list-quarantine").click()
    observed.page.get_by_role("button", name=re.compile("View callback")).click()
    expect(observed.page.locator("dialog pre")).to_contain_text("<script>alert(1)</script>")
    observed.page.get_by_role("button", name="Close").last.click()
    picture(observed, "operator", top="#callbacks")
    # A callback that cannot be used is dropped after a confirmation.
    observed.page.get_by_role("button", name=re.compile("Replay callback")).click()
    expect(observed.page.locator("#quarantine .note").filter(visible=True)).not_to_be_empty()
    observed.page.get_by_role("button", name=re.compile("Drop callback")).click()
    observed.page.locator("dialog").get_by_role("button", name="Drop").click()
    observed.wait("#quarantine .note", "No callbacks in the quarantine.")
    for made_of_text in ["img", "script:not([src])", "b.evil"]:
        expect(observed.page.locator(made_of_text)).to_have_count(0)
    # The replay of an unusable callback is refused, and a first request has no token.
    messages = [text for text in observed.messages if "status of 400" not in text]
    observed.messages[:] = messages
    observed.check(refusals=True)


def post_text(gateway, text, secret="planted-path-secret-1234"):
    url = f"http://{gateway.callbacks}/accounts/{ACCOUNT}/callbacks/CarrierService/{secret}"
    request = urllib.request.Request(url, text.encode(), {"content-type": "application/json"})
    with contextlib.closing(urllib.request.urlopen(request, timeout=10)) as response:
        return response.status
