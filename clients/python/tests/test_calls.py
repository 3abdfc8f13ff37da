"""Tests of calls, against a server in the same process."""

import threading
import time
import unittest
from concurrent.futures import ThreadPoolExecutor

import grpc

import thingspace_gateway as tg
from thingspace_gateway import v1


class Server:
    """Handles WatchRequest and ListDevices. `ended` is set when a stream has ended."""

    def __init__(self, watch=None, list_devices=None):
        self.tokens, self.ended = [], threading.Event()

        def handle_watch(request, context):
            self.tokens.append(request.resume_token)
            context.add_callback(self.ended.set)
            yield from watch(len(self.tokens), context)

        handlers = {
            "WatchRequest": grpc.unary_stream_rpc_method_handler(
                handle_watch,
                v1.WatchRequestRequest.FromString,
                v1.WatchRequestResponse.SerializeToString,
            ),
            "ListDevices": grpc.unary_unary_rpc_method_handler(
                list_devices,
                v1.ListDevicesRequest.FromString,
                v1.ListDevicesResponse.SerializeToString,
            ),
        }
        self._server = grpc.server(ThreadPoolExecutor(4))
        service = "thingspace.gateway.v1.GatewayService"
        self._server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(service, handlers)])
        self.target = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"

    def __enter__(self):
        self._server.start()
        return self

    def __exit__(self, *_):
        self._server.stop(None).wait()


def bookmarks(stream, context):
    """An endless stream whose tokens are 0, 1, 2 and so on."""
    for number in range(1_000_000):
        yield v1.WatchRequestResponse(resume_token=str(number), bookmark={})
        time.sleep(0.01)


class Watches(unittest.TestCase):
    def test_leaving_the_loop_ends_the_stream(self):
        def take_three(client):
            for event in client.watch(v1.WatchRequestRequest(change_id="c")):
                if event.resume_token == "2":
                    return

        with Server(bookmarks) as server, tg.connect(server.target, plaintext=True) as client:
            take_three(client)
            self.assertTrue(server.ended.wait(10))

    def test_close_ends_the_stream(self):
        with Server(bookmarks) as server, tg.connect(server.target, plaintext=True) as client:
            with client.watch(v1.WatchRequestRequest(change_id="c")) as watch:
                next(watch)
            self.assertTrue(server.ended.wait(10))
            self.assertEqual(list(watch), [])

    def test_an_event_is_processed_when_the_next_one_is_read(self):
        with Server(bookmarks) as server, tg.connect(server.target, plaintext=True) as client:
            with client.watch(v1.WatchRequestRequest(change_id="c", resume_token="start")) as watch:
                seen = [(watch.resume_token, next(watch).resume_token) for _ in range(3)]
        self.assertEqual(seen, [("start", "0"), ("start", "1"), ("0", "2")])

    def test_cancel_ends_a_stream_that_is_silent(self):
        def silent(stream, context):
            while context.is_active():
                time.sleep(0.01)
            yield from ()

        with Server(silent) as server, tg.connect(server.target, plaintext=True) as client:
            watch = client.watch(v1.WatchRequestRequest(change_id="c"))
            threading.Timer(0.2, watch.cancel).start()
            with self.assertRaises(tg.Cancelled):
                next(watch)

    def test_a_watch_gives_up_after_its_reopen_timeout(self):
        def refuse(stream, context):
            context.abort(grpc.StatusCode.UNAVAILABLE, "not now")
            yield

        attempts = []
        with Server(refuse) as server, tg.connect(server.target, plaintext=True) as client:
            request = v1.WatchRequestRequest(change_id="c")
            with self.assertRaises(tg.GatewayError) as raised:
                list(client.watch(request, reopen_timeout=3, on_retry=attempts.append))
        self.assertEqual(raised.exception.code, grpc.StatusCode.UNAVAILABLE)
        self.assertGreaterEqual(len(attempts), 2)
        self.assertEqual([attempt.number for attempt in attempts], list(range(1, len(attempts) + 1)))

    def test_the_time_in_which_the_program_processes_an_event_does_not_count(self):
        def two(stream, context):
            yield v1.WatchRequestResponse(resume_token="a", bookmark={})
            yield v1.WatchRequestResponse(resume_token="b", bookmark={})

        with Server(two) as server, tg.connect(server.target, plaintext=True) as client:
            request = v1.WatchRequestRequest(change_id="c")
            for _ in client.watch(request, idle_timeout=2):
                time.sleep(2.5)
        self.assertEqual(server.tokens, [""])


class Lists(unittest.TestCase):
    def test_pages_are_followed_and_a_failed_page_is_repeated(self):
        requests = []

        def list_devices(request, context):
            requests.append(request.page_token)
            if len(requests) == 2:
                context.abort(grpc.StatusCode.UNAVAILABLE, "not now")
            more = "" if request.page_token else "second"
            return v1.ListDevicesResponse(devices=[{"device_index": len(requests)}], next_page_token=more)

        with Server(list_devices=list_devices) as server:
            with tg.connect(server.target, plaintext=True) as client:
                devices = list(client.list_devices(v1.ListDevicesRequest(change_id="c")))
        self.assertEqual([device.device_index for device in devices], [1, 3])
        self.assertEqual(requests, ["", "second", "second"])


if __name__ == "__main__":
    unittest.main()
