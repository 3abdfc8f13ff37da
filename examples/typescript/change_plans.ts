// This program changes the service plans of 20 eSIM profiles and prints the
// result of each. docs/clients.md describes how to run it.
import { randomUUID } from "node:crypto";
import { parseArgs } from "node:util";
import { ChangeState, Code, type FailedAttempt, GatewayError, Outcome, Until } from "@thingspace-gateway/client";
import { connect } from "@thingspace-gateway/client/node";

const { values } = parseArgs({
  options: {
    target: { type: "string", default: "127.0.0.1:50051" },
    plan: { type: "string", default: "Example Plan" },
    key: { type: "string", default: randomUUID() },
  },
});
const onRetry = ({ error }: FailedAttempt) =>
  console.error(`repeating the call: [${Code[error.code].toLowerCase()}] ${error.message}`);
const client = connect({ target: values.target, plaintext: true, onRetry });
try {
  const { change } = await client.changeEsimPlan({
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
  for await (const { event } of client.watch({ changeId: change!.changeId, until: Until.FINISHED })) {
    if (event.case === "deviceResult") {
      const { clientReference, outcome, fault } = event.value;
      console.log(clientReference, Outcome[outcome], fault?.code ?? "");
    } else if (event.case === "finished") {
      const { state, succeededCount, failedCount } = event.value.change!;
      console.log(ChangeState[state], succeededCount, "succeeded,", failedCount, "failed");
    }
  }
} catch (error) {
  if (!(error instanceof GatewayError)) throw error;
  console.error(`${error.reasonText}: ${error.message}`);
  for (const { field, description, reason } of error.fieldViolations)
    console.error(`invalid field ${field}: ${description} (${reason})`);
  if (error.outcomeUnknown) console.error(`ThingSpace may have executed the change. Repeat it with --key ${values.key}`);
  process.exitCode = 1;
}
