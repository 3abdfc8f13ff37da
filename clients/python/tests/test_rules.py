"""Tests of the rules, without a server: python -m unittest discover tests"""

import time
import unittest

import grpc
from google.protobuf.duration_pb2 import Duration
from google.rpc import code_pb2, error_details_pb2, status_pb2

import thingspace_gateway as tg
from thingspace_gateway import v1


class RpcError(grpc.RpcError):
    def __init__(self, code, trailers):
        self._code, self._trailers = code, trailers

    def code(self):
        return self._code

    def details(self):
        return "the message"

    def trailing_metadata(self):
        return self._trailers


def rpc_error(*details, code=grpc.StatusCode.UNAVAILABLE):
    status = status_pb2.Status(code=code_pb2.UNAVAILABLE)
    for detail in details:
        status.details.add().Pack(detail)
    trailers = (("a", "b"), ("grpc-status-details-bin", status.SerializeToString())) if details else ()
    return RpcError(code, trailers)


def info(reason="NOT_SENT", domain="thingspace.gateway", **metadata):
    return error_details_pb2.ErrorInfo(reason=reason, domain=domain, metadata=metadata)


def error(*details):
    return tg.GatewayError.from_rpc_error(rpc_error(*details))


class Rule(unittest.TestCase):
    # executed, retry, validate_only: whether the call is repeated.
    TABLE = [
        ("NO", "NOW", False, True),
        ("NO", "LATER", False, True),
        ("NO", "NEVER", False, False),
        ("NO", "SOMETIMES", False, True),
        ("NO", None, False, True),
        ("UNKNOWN", "NOW", False, True),
        ("UNKNOWN", "LATER", False, True),
        ("UNKNOWN", "NEVER", False, True),
        ("PERHAPS", "NEVER", False, True),
        (None, "NEVER", False, True),
        (None, None, False, True),
        ("UNKNOWN", "NEVER", True, False),
        (None, "NEVER", True, False),
        ("UNKNOWN", "LATER", True, True),
        (None, None, True, True),
    ]

    def test_the_table(self):
        for executed, retry, validate_only, repeats in self.TABLE:
            metadata = {"executed": executed, "retry": retry}
            metadata = {name: value for name, value in metadata.items() if value}
            with self.subTest(metadata, validate_only=validate_only):
                failure = error(info(**metadata)) if metadata else error()
                self.assertEqual(tg.must_repeat_change(failure, validate_only), repeats)

    def test_an_error_that_another_service_sent_leaves_the_outcome_open(self):
        failure = error(info(domain="example.com", executed="NO", retry="NEVER"))
        self.assertTrue(tg.must_repeat_change(failure))
        self.assertEqual(failure.reason_text, "")


class Delays(unittest.TestCase):
    def test_they_double_from_a_tenth_of_a_second_to_ten_seconds(self):
        backoff, longest = tg.Backoff(), 0.1
        for _ in range(2000):
            self.assertTrue(longest / 2 <= backoff.next() <= longest)
            longest = min(longest * 2, 10)
        backoff.reset()
        self.assertLessEqual(backoff.next(), 0.1)

    def test_the_delay_of_the_error_is_used(self):
        self.assertEqual(tg.Backoff().next(17.5), 17.5)
        self.assertEqual(tg.Backoff().next(0), 0)


class Errors(unittest.TestCase):
    def test_all_details_are_read(self):
        request = error_details_pb2.BadRequest()
        request.field_violations.add(field="devices[1].iccid", reason="FORMAT", description="no digits")
        retry = error_details_pb2.RetryInfo(retry_delay=Duration(seconds=2, nanos=500_000_000))
        failure = error(info("FIELD_INVALID", retry="NEVER", executed="NO", change_id="7"), request, retry)
        self.assertEqual(failure.code, grpc.StatusCode.UNAVAILABLE)
        self.assertEqual((failure.reason, failure.reason_text), (v1.REASON_FIELD_INVALID, "FIELD_INVALID"))
        self.assertEqual((failure.retry, failure.executed), (v1.RETRY_NEVER, v1.EXECUTED_NO))
        self.assertEqual((failure.retry_after, failure.metadata["change_id"]), (2.5, "7"))
        violation = tg.FieldViolation("devices[1].iccid", "FORMAT", "no digits")
        self.assertEqual(failure.field_violations, (violation,))
        self.assertIsInstance(failure.__cause__, RpcError)
        self.assertIn("devices[1].iccid: no digits", str(failure))

    def test_an_unknown_reason_keeps_its_text(self):
        failure = error(info("FROM_THE_FUTURE"))
        self.assertEqual((failure.reason, failure.reason_text), (v1.REASON_UNSPECIFIED, "FROM_THE_FUTURE"))

    def test_details_that_cannot_be_parsed_are_ignored(self):
        broken = RpcError(grpc.StatusCode.UNKNOWN, (("grpc-status-details-bin", b"\xff\xff"),))
        failure = tg.GatewayError.from_rpc_error(broken)
        self.assertEqual((failure.reason_text, failure.retry_after), ("", None))
        self.assertTrue(tg.must_repeat_change(failure))


class Arguments(unittest.TestCase):
    def test_a_token_is_not_sent_over_plaintext_unless_that_is_allowed(self):
        with self.assertRaisesRegex(ValueError, "plaintext"):
            tg.connect("localhost:1", plaintext=True, token="t")
        tg.connect("localhost:1", plaintext=True, token="t", allow_token_over_plaintext=True).close()

    def test_a_change_needs_a_key(self):
        with tg.connect("localhost:1", plaintext=True) as client:
            with self.assertRaisesRegex(ValueError, "idempotency_key"):
                client.change_esim_plan(v1.ChangeEsimPlanRequest())

    def test_a_certificate_needs_its_key(self):
        with self.assertRaisesRegex(ValueError, "together"):
            tg.connect("localhost:1", certificate=b"PEM")


class Cancelling(unittest.TestCase):
    def test_it_ends_a_delay(self):
        cancellation = tg.Cancellation()
        cancellation.cancel()
        start = time.monotonic()
        with self.assertRaises(tg.Cancelled):
            cancellation.sleep(60)
        self.assertLess(time.monotonic() - start, 60)

    def test_a_call_whose_token_function_fails_is_not_sent_and_repeated(self):
        calls = []

        def token():
            calls.append(1)
            raise OSError("no file")

        with tg.connect("localhost:1", token=token) as client:
            request = v1.ChangeEsimPlanRequest(idempotency_key="k")
            with self.assertRaises(tg.GatewayError) as raised:
                client.change_esim_plan(request, total_timeout=2)
        self.assertEqual(raised.exception.code, grpc.StatusCode.UNAVAILABLE)
        self.assertFalse(raised.exception.outcome_unknown)
        self.assertGreater(len(calls), 1)


if __name__ == "__main__":
    unittest.main()
