"""The page of examples/browser in a real browser, over Connect and gRPC-Web. scripts/clients builds the page."""

import base64
import functools
import hashlib
import http.server
import threading

import pytest
from browser import Observed, browser
from conformance import ACCOUNT, POLICY, ConformanceEnv, Trust
from conftest import ROOT
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

PAGE = ROOT / "examples/browser"
OTHER_ACCOUNT = "0000999999-00001"

every_protocol = pytest.mark.parametrize("protocol", ["connect", "grpc-web"])


class Site:
    """A web server with the page of the example."""

    def __init__(self):
        assert (PAGE / "dist/page.js").exists(), "run scripts/clients typescript"
        handler = functools.partial(QuietHandler, directory=PAGE)
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.origin = f"http://localhost:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self):
        self._server.shutdown()
        self._server.server_close()


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


class Page(Observed):
    """The page of the example."""

    def fill(self, **fields):
        """Opens the page, and fills in the form."""
        self.open()
        protocol = fields.pop("protocol")
        self.page.select_option("[name=protocol]", protocol)
        for name, value in fields.items():
            self.page.fill(f"[name={name}]", str(value))

    def change_plans(self, **fields):
        self.fill(**fields)
        self.page.click("button")

    def rows(self):
        """Returns the rows of the shown results, all of which are a success."""
        items = [item.split() for item in self.page.locator("li").all_inner_texts()]
        assert {outcome for _, outcome in items} <= {"SUCCEEDED"}
        return [int(row.removeprefix("row-")) for row, _ in items]

    def has_only_failed_requests(self):
        """True if the messages of the browser are about responses with an error and broken connections."""
        return all("Failed to load resource: " in text for text in self.messages)

    def wait_for_rows(self, count):
        self.page.wait_for_function("count => document.querySelectorAll('li').length >= count", arg=count)


@pytest.fixture
def site():
    site = Site()
    yield site
    site.close()


@pytest.fixture
def env(tmp_path, site):
    env = ConformanceEnv(tmp_path)
    env.settings["grpc__allowed_origins"] = site.origin
    yield env
    env.close()


@pytest.fixture
def page(site):
    with browser() as chromium:
        yield Page(chromium.new_page(), site.origin)


@pytest.fixture
def trust(tmp_path, env):
    """A gateway with TLS, whose caller `fleet` may use one account."""
    trust = Trust(tmp_path, "jwt", POLICY.replace('accounts = ["*"]', f'accounts = ["{ACCOUNT}"]'))
    env.settings |= trust.settings
    env.start_gateway()
    trust.url = f"https://{env.target.replace('127.0.0.1', 'localhost')}"
    return trust


@pytest.fixture
def trusting_page(trust, site):
    """A page in a browser that trusts the key of the gateway's certificate, and no other."""
    key = x509.load_pem_x509_certificate(trust.server.certificate).public_key()
    digest = hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).digest()
    flag = f"--ignore-certificate-errors-spki-list={base64.b64encode(digest).decode()}"
    with browser(flag) as chromium:
        yield Page(chromium.new_page(), site.origin)


@every_protocol
def test_a_page_changes_plans_and_watches_the_results(env, page, protocol):
    env.start_gateway()
    page.change_plans(url=f"http://{env.target}", protocol=protocol, devices=100)
    page.wait("output", "Watching")
    env.send_results(range(60))
    page.wait_for_rows(60)
    env.send_results(range(60, 100))
    page.wait("output", "FINISHED: 100 succeeded, 0 failed")
    assert page.rows() == list(range(100))
    assert page.messages == [] and page.errors == []
    assert len(env.thingspace.changes()) == 1


@every_protocol
def test_a_page_sees_each_result_once_across_a_killed_gateway(env, page, protocol):
    env.start_gateway()
    page.change_plans(url=f"http://{env.target}", protocol=protocol, devices=100)
    page.wait("output", "Watching")
    env.send_results(range(60))
    page.wait_for_rows(60)
    env.kill_gateway()
    env.start_gateway()
    env.send_results(range(60, 100))
    page.wait("output", "FINISHED: 100 succeeded, 0 failed")
    assert page.rows() == list(range(100))
    assert page.errors == [] and page.has_only_failed_requests()


@every_protocol
def test_a_page_of_another_origin_changes_nothing(env, page, protocol):
    env.settings["grpc__allowed_origins"] = "https://another.test.example"
    env.start_gateway()
    with page.page.expect_event("requestfailed") as refused:
        page.change_plans(url=f"http://{env.target}", protocol=protocol)
    assert refused.value.url.endswith("/ChangeEsimPlan")
    assert env.thingspace.requests == []
    assert any("CORS" in text for text in page.messages)


@every_protocol
def test_a_page_obeys_tls_identity_and_policy(env, trust, trusting_page, protocol):
    page, token = trusting_page, trust.issuer.token(sub="fleet")
    page.change_plans(url=trust.url, protocol=protocol)
    page.wait("output", "Failed: UNAUTHENTICATED")
    page.change_plans(url=trust.url, protocol=protocol, token=trust.issuer.token(sub="another"))
    page.wait("output", "Failed: PERMISSION_DENIED")
    page.change_plans(url=trust.url, protocol=protocol, token=token, account=OTHER_ACCOUNT)
    page.wait("output", "Failed: PERMISSION_DENIED")
    page.change_plans(url=trust.url, protocol=protocol, token=token, account="wrong account")
    page.wait("output", "account_name ")
    assert env.thingspace.changes() == []

    page.change_plans(url=trust.url, protocol=protocol, token=token)
    page.wait("output", "Watching")
    env.send_results(range(10))
    page.wait_for_rows(10)
    trust.replace_policy(POLICY.replace("jwt:fleet", "jwt:another-fleet"))
    page.wait("output", "Failed: PERMISSION_DENIED")
    env.send_results(range(10, 20))
    assert page.rows() == list(range(10))
    assert page.errors == [] and page.has_only_failed_requests()


def test_a_browser_refuses_a_certificate_of_an_unknown_authority(env, trust, page):
    with page.page.expect_event("requestfailed") as failed:
        page.change_plans(url=trust.url, protocol="connect", token=trust.issuer.token(sub="fleet"))
    assert "CERT_AUTHORITY_INVALID" in failed.value.failure
    assert env.thingspace.requests == []
