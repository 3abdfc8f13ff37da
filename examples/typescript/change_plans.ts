// This program changes the service plans of 20 eSIM profiles and prints the
// result of each. docs/clients.md describes how to run it.
import { randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";
import { create } from "@bufbuild/protobuf";
import { durationMs } from "@bufbuild/protobuf/wkt";
import { type Client, ConnectError, createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { BadRequestSchema, ErrorInfoSchema, RetryInfoSchema } from "./gen/google/rpc/error_details_pb.js";
import { type Change, ChangeState } from "./gen/thingspace/gateway/v1/change_pb.js";
import { Outcome } from "./gen/thingspace/gateway/v1/device_pb.js";
import { Reason } from "./gen/thingspace/gateway/v1/error_pb.js";
import {
  type ChangeEsimPlanRequest,
  ChangeEsimPlanRequestSchema,
  GatewayService,
} from "./gen/thingspace/gateway/v1/gateway_service_pb.js";
import { Until, WatchRequestRequestSchema } from "./gen/thingspace/gateway/v1/watch_pb.js";

type Gateway = Client<typeof GatewayService>;

// Repeats the call until the change is stored. The gateway makes one change for
// each key, so repeating the call is safe.
async function changePlans(gateway: Gateway, request: ChangeEsimPlanRequest): Promise<Change> {
  return retry(async () => {
    // The deadline is longer than the gateway waits for ThingSpace.
    const response = await gateway.changeEsimPlan(request, { timeoutMs: 90_000 });
    return response.change!;
  });
}

// Prints every result once, also if the stream breaks.
async function watch(gateway: Gateway, changeId: string): Promise<void> {
  const request = create(WatchRequestRequestSchema, { changeId, until: Until.FINISHED });
  await retry(async () => {
    for await (const { event, resumeToken } of gateway.watchRequest(request)) {
      if (event.case === "deviceResult") {
        const { clientReference, outcome, fault } = event.value;
        console.log(clientReference, Outcome[outcome], fault?.code ?? "");
      } else if (event.case === "reconnect") {
        await sleep(event.value.retryAfter ? durationMs(event.value.retryAfter) : 0);
      } else if (event.case === "finished") {
        const change = event.value.change!;
        console.log(ChangeState[change.state], change.succeededCount, "succeeded,", change.failedCount, "failed");
      }
      // The event is processed. A new stream continues after it.
      request.resumeToken = resumeToken;
    }
  });
}

// Repeats a call until it succeeds, unless the error is final. connect-node reports a killed server as CANCELED: if you
// cancel calls with an AbortSignal, test `signal.aborted` and not the code.
async function retry<T>(call: () => Promise<T>): Promise<T> {
  for (let failures = 0; ; failures++) {
    const start = Date.now();
    try {
      return await call();
    } catch (reason) {
      const error = ConnectError.from(reason);
      if (isFinal(error)) throw error;
      if (Date.now() - start > 60_000) failures = 0; // The stream worked for a while.
      const named = error.findDetails(RetryInfoSchema)[0]?.retryDelay;
      // 0.1 s to 12.8 s, with jitter
      const backoff = (0.5 + Math.random() / 2) * 100 * 2 ** Math.min(failures, 7);
      console.error("repeating the call:", error.message);
      await sleep(named ? durationMs(named) : backoff);
    }
  }
}

// An error without an ErrorInfo does not come from the gateway, but from a proxy
// or from the gRPC library.
function errorInfo(error: ConnectError) {
  return error.findDetails(ErrorInfoSchema)[0];
}

// Returns true if the call must not be repeated. A change call whose outcome is unknown is
// repeated in any case. Other calls have no "executed".
function isFinal(error: ConnectError): boolean {
  const metadata = errorInfo(error)?.metadata;
  return metadata?.["retry"] === "NEVER" && metadata["executed"] !== "UNKNOWN";
}

function describe(error: ConnectError): void {
  console.error(error.message);
  const info = errorInfo(error);
  switch (Reason[info?.reason as keyof typeof Reason]) {
    case Reason.FIELD_INVALID:
      for (const { field, description, reason } of error.findDetails(BadRequestSchema)[0]?.fieldViolations ?? [])
        console.error(`invalid field ${field}: ${description} (${reason})`);
      break;
    case Reason.IDEMPOTENCY_KEY_REUSED:
      console.error("the key belongs to the change", info?.metadata["change_id"]);
      break;
    case Reason.THINGSPACE_REFUSED:
      console.error("ThingSpace refused the change:", info?.metadata["thingspace_code"]);
      break;
    default: // Also a reason that a later version of the gateway added.
      console.error("reason:", info?.reason, "retry:", info?.metadata["retry"]);
  }
}

const { values } = parseArgs({
  options: {
    target: { type: "string", default: "127.0.0.1:50051" },
    plan: { type: "string", default: "Example Plan" },
    key: { type: "string", default: randomUUID() },
  },
});
const transport = createGrpcTransport({
  baseUrl: `http://${values.target}`,
  pingIntervalMs: 30_000, // Detects a connection that is lost without an error.
});
const gateway = createClient(GatewayService, transport);
const request = create(ChangeEsimPlanRequestSchema, {
  accountName: "0000123456-00001",
  idempotencyKey: values.key,
  servicePlan: values.plan,
  // These identifiers are reserved for the sandbox.
  devices: Array.from({ length: 20 }, (_, i) => ({
    eid: "99" + `${i}`.padStart(30, "0"),
    iccid: "9994" + `${i}`.padStart(16, "0"),
    clientReference: `row-${i}`,
  })),
});
try {
  const change = await changePlans(gateway, request);
  await watch(gateway, change.changeId);
} catch (error) {
  describe(ConnectError.from(error));
  process.exitCode = 1;
}
