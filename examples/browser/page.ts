// This page changes the service plans of eSIM profiles and shows the result of each. README.md describes how to run it.
import { createConnectTransport, createGrpcWebTransport } from "@connectrpc/connect-web";
import { bearerToken, ChangeState, GatewayClient, GatewayError, Outcome, Until } from "@thingspace-gateway/client";

const form = document.querySelector("form")!;
const status = document.querySelector("output")!;
const results = document.querySelector("ol")!;

function createClient(url: string, protocol: string, token: string): GatewayClient {
  const createTransport = protocol === "grpc-web" ? createGrpcWebTransport : createConnectTransport;
  const isLocal = ["localhost", "127.0.0.1"].includes(new URL(url).hostname);
  const interceptors = token === "" ? [] : [bearerToken(token, { allowTokenOverPlaintext: isLocal })];
  return new GatewayClient(createTransport({ baseUrl: url, interceptors }));
}

async function changePlans(fields: Record<string, string>): Promise<void> {
  const client = createClient(fields["url"]!, fields["protocol"]!, fields["token"]!);
  status.value = "Changing";
  const { change } = await client.changeEsimPlan({
    accountName: fields["account"]!,
    idempotencyKey: crypto.randomUUID(), // A page that can be closed must store the key before the call.
    servicePlan: "Example Plan",
    // These identifiers are reserved for the sandbox.
    devices: Array.from({ length: Number(fields["devices"]) }, (_, i) => ({
      eid: "99" + `${i}`.padStart(30, "0"),
      iccid: "9994" + `${i}`.padStart(16, "0"),
      clientReference: `row-${i}`,
    })),
  });
  for await (const { event } of client.watch({ changeId: change!.changeId, until: Until.FINISHED })) {
    if (event.case === "opened") {
      status.value = "Watching";
    } else if (event.case === "deviceResult") {
      const item = document.createElement("li");
      item.textContent = `${event.value.clientReference} ${Outcome[event.value.outcome]}`;
      results.append(item);
    } else if (event.case === "finished") {
      const { state, succeededCount, failedCount } = event.value.change!;
      status.value = `${ChangeState[state]}: ${succeededCount} succeeded, ${failedCount} failed`;
    }
  }
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  results.replaceChildren();
  const fields = Object.fromEntries([...new FormData(form)].map(([name, value]) => [name, `${value}`]));
  changePlans(fields).catch((error: unknown) => {
    const { reasonText, message, fieldViolations } = GatewayError.from(error);
    const violations = fieldViolations.map(({ field, description }) => `${field} ${description}`);
    status.value = [`Failed: ${reasonText} ${message}`, ...violations].join("; ");
  });
});
