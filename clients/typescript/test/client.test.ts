import assert from "node:assert/strict";
import { test } from "node:test";
import { create } from "@bufbuild/protobuf";
import { Code, ConnectError, createRouterTransport, type Interceptor, type ServiceImpl } from "@connectrpc/connect";
import { bearerToken, GatewayClient, type GatewayError, GatewayService, WatchRequestResponseSchema } from "../dist/index.js";
import { connect } from "../dist/node.js";

function client(gateway: Partial<ServiceImpl<typeof GatewayService>>, interceptors: Interceptor[] = []) {
  const transport = createRouterTransport((router) => router.service(GatewayService, gateway), { transport: { interceptors } });
  return new GatewayClient(transport);
}

test("a change without a key is refused before any call", async () => {
  const gateway = client({ changeEsimPlan: () => assert.fail() });
  await assert.rejects(gateway.changeEsimPlan({}), { code: Code.InvalidArgument, outcomeUnknown: false });
});

test("a request that cannot be encoded is refused before any call", async () => {
  const gateway = client({});
  const five = 5 as unknown as string;
  await assert.rejects(gateway.changeEsimPlan({ idempotencyKey: "k", servicePlan: five }), /expected string/);
  await assert.rejects(gateway.getChange({ changeId: five }), /expected string/);
  assert.throws(() => gateway.watch({ changeId: five }), /expected string/);
  const devices = [{ eid: five }];
  await assert.rejects(gateway.changeEsimPlan({ idempotencyKey: "k", devices }), /expected string/);
});

test("every attempt sends the request as it was when the call began", async () => {
  const seen: string[] = [];
  const gateway = client({
    changeServicePlan({ servicePlan }) {
      seen.push(servicePlan);
      if (seen.length === 1) throw new ConnectError("lost", Code.Unavailable);
      return { change: { changeId: "c" } };
    },
  });
  const request = { idempotencyKey: "k", servicePlan: "first" };
  const { change } = await gateway.changeServicePlan(request, { onRetry: () => (request.servicePlan = "second") });
  assert.equal(change?.changeId, "c");
  assert.deepEqual(seen, ["first", "first"]);
});

test("a stream resumes after the last processed event", async () => {
  const tokens: string[] = [];
  const gateway = client({
    async *watchRequest({ resumeToken }) {
      tokens.push(resumeToken);
      const event = (token: string, value: object) => create(WatchRequestResponseSchema, { resumeToken: token, event: value as never });
      yield event("0", { case: "opened", value: {} });
      if (tokens.length === 1) {
        yield event("1", { case: "bookmark", value: {} });
        yield event("2", { case: "reconnect", value: { retryAfter: { seconds: 0n } } });
        throw new ConnectError("lost", Code.Unavailable);
      }
      yield event("3", { case: "finished", value: {} });
    },
  });
  const seen: (string | undefined)[] = [];
  for await (const { event } of gateway.watch({ changeId: "c" })) seen.push(event.case);
  assert.deepEqual(seen, ["opened", "bookmark", "finished"]);
  assert.deepEqual(tokens, ["", "1"]);
});

test("a watch gives up when its stream cannot be opened within the limit", async () => {
  const gateway = client({
    async *watchRequest() {
      throw new ConnectError("lost", Code.Unavailable);
    },
  });
  const events = gateway.watch({ changeId: "c" }, { reopenTimeoutMs: 300 });
  await assert.rejects(events.next(), { code: Code.Unavailable, message: /could not be opened within 0.3 s/ });
});

test("leaving the loop cancels the stream", { timeout: 60_000 }, async () => {
  const { promise: cancelled, resolve: cancel } = Promise.withResolvers<unknown>();
  const gateway = client({
    async *watchRequest(_request, { signal }) {
      signal.addEventListener("abort", cancel);
      yield { event: { case: "opened", value: {} } };
      await cancelled;
    },
  });
  for await (const _ of gateway.watch({ changeId: "c" })) break;
  await cancelled;
});

test("lists continue until the last page, and repeat a page that fails", async () => {
  let failed = false;
  const gateway = client({
    listDevices({ pageToken }) {
      if (pageToken === "b" && !failed) {
        failed = true;
        throw new ConnectError("lost", Code.Unavailable);
      }
      if (pageToken === "") return { devices: [{ deviceIndex: 0 }], nextPageToken: "a" };
      if (pageToken === "a") return { devices: [], nextPageToken: "b" };
      return { devices: [{ deviceIndex: 1 }] };
    },
  });
  const found: number[] = [];
  for await (const { deviceIndex } of gateway.listDevices({ changeId: "c" })) found.push(deviceIndex);
  assert.deepEqual(found, [0, 1]);
});

test("the token function is called for each attempt, and by the stub", async () => {
  const seen: (string | null)[] = [];
  let tokens = 0;
  const gateway = client(
    {
      getServerInfo(_request, { requestHeader }) {
        seen.push(requestHeader.get("authorization"));
        if (seen.length === 1) throw new ConnectError("expired", Code.Unauthenticated);
        return {};
      },
    },
    [bearerToken(() => `token-${++tokens}`)],
  );
  await gateway.call((options) => gateway.gateway.getServerInfo({}, options));
  await gateway.gateway.getServerInfo({});
  assert.deepEqual(seen, ["Bearer token-1", "Bearer token-2", "Bearer token-3"]);
});

test("a token function that does not return does not outlast the deadline", async () => {
  const gateway = client({}, [bearerToken(() => new Promise(() => {}))]);
  const call = gateway.call((options) => gateway.gateway.getServerInfo({}, options), { attemptTimeoutMs: 50, totalTimeoutMs: 60 });
  await assert.rejects(call, { code: Code.DeadlineExceeded });
});

test("a token is not sent over plaintext", async () => {
  const refused = (error: GatewayError) => error.code === Code.InvalidArgument && error.message.includes("plaintext");
  assert.throws(() => connect({ target: "localhost:1", plaintext: true, token: "secret" }), refused);
  const transport = createRouterTransport(({ service }) => service(GatewayService, {}), {
    transport: { baseUrl: "http://localhost", interceptors: [bearerToken("secret")] },
  } as object);
  const gateway = new GatewayClient(transport);
  await assert.rejects(gateway.call((options) => gateway.gateway.getServerInfo({}, options)), refused);
});

test("connect refuses options that contradict each other", () => {
  assert.throws(() => connect({ target: "https://localhost:1" }), TypeError);
  assert.throws(() => connect({ target: "localhost:1/path" }), TypeError);
  assert.throws(() => connect({ target: "localhost:1", plaintext: true, ca: "PEM" }), TypeError);
  assert.throws(() => connect({ target: "localhost:1", cert: "PEM" }), TypeError);
  connect({ target: "[::1]:50051", plaintext: true }).close();
});
