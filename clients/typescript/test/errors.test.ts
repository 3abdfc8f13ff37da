import assert from "node:assert/strict";
import { test } from "node:test";
import { create, toBinary } from "@bufbuild/protobuf";
import { Code, ConnectError } from "@connectrpc/connect";
import { GatewayError } from "../dist/errors.js";
import { BadRequestSchema, ErrorInfoSchema } from "../dist/gen/google/rpc/error_details_pb.js";
import { Executed, Reason, Retry } from "../dist/gen/thingspace/gateway/v1/error_pb.js";
import { gatewayError } from "./support.ts";

test("the details of an error of the gateway are read", () => {
  const cause = gatewayError(Code.FailedPrecondition, "DEVICE_BUSY", { retry: "LATER", executed: "NO", change_id: "c" }, 1_500);
  const error = GatewayError.from(cause);
  assert.equal(error.code, Code.FailedPrecondition);
  assert.equal(error.reason, Reason.DEVICE_BUSY);
  assert.equal(error.reasonText, "DEVICE_BUSY");
  assert.equal(error.retry, Retry.LATER);
  assert.equal(error.executed, Executed.NO);
  assert.equal(error.retryAfterMs, 1_500);
  assert.equal(error.metadata["change_id"], "c");
  assert.deepEqual(error.fieldViolations, []);
  assert.equal(error.message, "the gateway says DEVICE_BUSY");
  assert.equal(error.outcomeUnknown, false);
  assert.equal(error.cause, cause);
  assert.equal(GatewayError.from(error), error);
});

test("details from the wire are read", () => {
  const cause = new ConnectError("3 fields are invalid", Code.InvalidArgument);
  const info = create(ErrorInfoSchema, { domain: "thingspace.gateway", reason: "FIELD_INVALID" });
  const invalid = create(BadRequestSchema, {
    fieldViolations: [{ field: "devices[17].iccid", reason: "FORMAT", description: "must be 19 or 20 digits" }],
  });
  cause.details = [
    { type: ErrorInfoSchema.typeName, value: toBinary(ErrorInfoSchema, info) },
    { type: BadRequestSchema.typeName, value: toBinary(BadRequestSchema, invalid) },
  ];
  const error = GatewayError.from(cause);
  assert.equal(error.reason, Reason.FIELD_INVALID);
  assert.deepEqual(error.fieldViolations, [
    { field: "devices[17].iccid", reason: "FORMAT", description: "must be 19 or 20 digits" },
  ]);
});

test("unknown names become UNSPECIFIED, and the text of the reason stays", () => {
  for (const name of ["NEW", "0", "1", "toString", "__proto__"]) {
    const error = GatewayError.from(gatewayError(Code.Internal, name, { retry: name, executed: name }));
    assert.equal(error.reason, Reason.UNSPECIFIED);
    assert.equal(error.reasonText, name);
    assert.equal(error.retry, Retry.UNSPECIFIED);
    assert.equal(error.executed, Executed.UNSPECIFIED);
  }
});

test("an error without an ErrorInfo of the gateway has no reason", () => {
  const foreign = gatewayError(Code.Unavailable, "DEVICE_BUSY", { retry: "NEVER", executed: "NO" }, undefined, "proxy.example");
  for (const cause of [foreign, new ConnectError("reset", Code.Unavailable), new Error("lost"), "lost"]) {
    const error = GatewayError.from(cause);
    assert.equal(error.reasonText, "");
    assert.equal(error.retry, Retry.UNSPECIFIED);
    assert.equal(error.executed, Executed.UNSPECIFIED);
    assert.equal(error.retryAfterMs, undefined);
  }
});
