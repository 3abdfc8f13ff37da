"""A headless Chromium. Records the requests, messages and errors of its pages."""

import contextlib
import os
import re
from urllib.parse import urlsplit

from playwright.sync_api import sync_playwright

CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
# The browser runs as root in CI, has no GPU, and is to make no requests of its own.
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
# The browser logs each response that is an error.
REFUSED = re.compile(r"Failed to load resource: (the server responded with a status of 40[13]|net::ERR_)")


class Observed:
    """A page. Records its requests, its messages in the console, and its errors."""

    def __init__(self, page, origin):
        self.page, self.origin = page, origin
        self.requests, self.messages, self.errors = [], [], []
        page.on("request", lambda request: self.requests.append(request.url))
        page.on("console", lambda message: self.messages.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: self.errors.append(str(error)))

    def open(self, path="/"):
        self.page.goto(self.origin + path)

    def text(self, selector):
        return self.page.locator(selector).inner_text()

    def wait(self, selector, text=None):
        self.page.locator(selector, has_text=text).first.wait_for()

    def wait_hidden(self, selector):
        self.page.locator(selector).first.wait_for(state="hidden")

    def post(self, method, message, token=None):
        """Makes a call from the page, as a forged click would. Returns the status of the response."""
        headers = {"content-type": "application/json"} | ({"authorization": f"Bearer {token}"} if token else {})
        script = """async ([path, body, headers]) =>
            (await fetch(path, { method: "POST", headers, body })).status"""
        return self.page.evaluate(script, [f"/thingspace.gateway.v1.{method}", message, headers])

    def check(self, refusals=False):
        """Fails if the page has called another host, broken its policy, or logged anything. With `refusals`, responses
        with an error and broken connections are expected."""
        messages = [text for text in self.messages if not (refusals and REFUSED.search(text))]
        assert messages == []
        assert self.errors == []
        foreign = [url for url in self.requests if "{0.scheme}://{0.netloc}".format(urlsplit(url)) != self.origin]
        assert foreign == []


@contextlib.contextmanager
def browser(*flags):
    """A browser with these further flags."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=[*FLAGS, *flags])
        try:
            yield browser
        finally:
            browser.close()
