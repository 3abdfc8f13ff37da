// The conformance program. tests/python/test_conformance.py runs it. It uses only the installed package.
import { existsSync, readFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import {
  ChangeState,
  Code,
  Executed,
  type FailedAttempt,
  GatewayError,
  Outcome,
  Retry,
  Until,
  type WatchAccountResponse,
  type WatchRequestResponse,
} from "@thingspace-gateway/client";
import { connect, type NodeGatewayClient } from "@thingspace-gateway/client/node";

interface Arguments {
  target: string;
  do: "change" | "watch" | "watch_account" | "list";
  ca_file?: string;
  cert_file?: string;
  key_file?: string;
  token_file?: string;
  allow_token_over_plaintext?: boolean;
  keepalive?: number;
  account: string;
  key: string;
  plan: string;
  first?: number;
  devices: number;
  validate_only?: boolean;
  attempt_timeout?: number;
  total_timeout?: number;
  change_id?: string;
  resume_token?: string;
  until?: "SETTLED" | "FINISHED" | "CAUGHT_UP";
  idle_timeout?: number;
  reopen_timeout?: number;
  pause_at?: number;
  pause_file?: string;
  page_size?: number;
}

const show = (line: unknown) => process.stdout.write(`${JSON.stringify(line)}\n`);
const ms = (seconds: number | undefined) => (seconds === undefined ? undefined : seconds * 1000);
const codeName = (code: Code) =>
  code === Code.Canceled ? "CANCELLED" : Code[code].replace(/(?<=.)[A-Z]/g, (letter) => `_${letter}`).toUpperCase();

function open(args: Arguments): NodeGatewayClient {
  const { target, token_file: tokenFile, ca_file: caFile, cert_file: certFile, key_file: keyFile } = args;
  return connect({
    target,
    plaintext: caFile === undefined,
    ...(caFile && { caFile }),
    ...(certFile && { certFile }),
    ...(keyFile && { keyFile }),
    ...(tokenFile && { token: () => readFileSync(tokenFile, "utf8").trim() }),
    ...(args.allow_token_over_plaintext && { allowTokenOverPlaintext: true }),
    ...(args.keepalive && { keepaliveMs: args.keepalive * 1000 }),
  });
}

async function change(client: NodeGatewayClient, args: Arguments, signal: AbortSignal): Promise<void> {
  const first = args.first ?? 0;
  const response = await client.changeEsimPlan(
    {
      accountName: args.account,
      idempotencyKey: args.key,
      servicePlan: args.plan,
      validateOnly: args.validate_only ?? false,
      devices: Array.from({ length: args.devices }, (_, i) => ({
        eid: `99${String(first + i).padStart(30, "0")}`,
        iccid: `9994${String(first + i).padStart(16, "0")}`,
        clientReference: `row-${first + i}`,
      })),
    },
    {
      signal,
      attemptTimeoutMs: ms(args.attempt_timeout),
      totalTimeoutMs: ms(args.total_timeout),
      onRetry: ({ number, error }) =>
        show({ attempt: number, code: codeName(error.code), reason: error.reasonText || null }),
    },
  );
  const { changeId, state, deviceCount } = response.change!;
  show({ change_id: changeId, state: ChangeState[state], device_count: deviceCount });
}

async function watch(client: NodeGatewayClient, args: Arguments, signal: AbortSignal): Promise<void> {
  const resumeToken = args.resume_token ?? "";
  const until = Until[args.until ?? "UNSPECIFIED"];
  const options = {
    signal,
    idleTimeoutMs: ms(args.idle_timeout),
    reopenTimeoutMs: ms(args.reopen_timeout),
    onRetry: ({ error, resumeToken }: FailedAttempt) =>
      show({ retry: { code: codeName(error.code), reason: error.reasonText || null, resume_token: resumeToken } }),
  };
  const events: AsyncIterable<WatchRequestResponse | WatchAccountResponse> =
    args.do === "watch_account"
      ? client.watchAccount({ accountName: args.account, resumeToken, until }, options)
      : client.watch(
          {
            changeId: args.change_id ?? "",
            accountName: args.account ?? "",
            idempotencyKey: args.key ?? "",
            resumeToken,
            until,
          },
          options,
        );
  let results = 0;
  for await (const { event, resumeToken } of events) {
    const name = (event.case ?? "unknown").replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
    const line: Record<string, unknown> = { event: name, resume_token: resumeToken };
    if (event.case === "deviceResult") {
      results++;
      line["row"] = event.value.clientReference;
      line["outcome"] = Outcome[event.value.outcome];
      line["change_id"] = event.value.changeId;
    } else if (event.case !== undefined && "change" in event.value && event.value.change) {
      const { state, succeededCount, failedCount, changeId } = event.value.change;
      Object.assign(line, { state: ChangeState[state], succeeded: succeededCount, failed: failedCount, change_id: changeId });
    }
    show(line);
    if (event.case === "deviceResult" && results === args.pause_at) {
      while (!existsSync(args.pause_file!)) await sleep(50);
    }
  }
  show({ end: "ok" });
}

async function list(client: NodeGatewayClient, args: Arguments, signal: AbortSignal): Promise<void> {
  const rows: string[] = [];
  const request = { changeId: args.change_id ?? "", pageSize: args.page_size ?? 0 };
  for await (const device of client.listDevices(request, { signal })) rows.push(device.clientReference);
  show({ rows });
}

function errorOf(error: GatewayError) {
  return {
    code: codeName(error.code),
    reason: error.reasonText || null,
    retry: error.retry === Retry.UNSPECIFIED ? null : Retry[error.retry],
    executed: error.executed === Executed.UNSPECIFIED ? null : Executed[error.executed],
    outcome_unknown: error.outcomeUnknown,
    retry_after: error.retryAfterMs === undefined ? null : error.retryAfterMs / 1000,
    field_violations: error.fieldViolations,
    message: error.message,
  };
}

const args: Arguments = JSON.parse(process.argv[2]!);
const cancellation = new AbortController();
for (const name of ["SIGINT", "SIGTERM"]) process.on(name, () => cancellation.abort());
try {
  const client = open(args);
  const actions = { change, watch, watch_account: watch, list };
  await actions[args.do](client, args, cancellation.signal);
  client.close();
} catch (error) {
  if (cancellation.signal.aborted) show({ end: "cancelled" });
  else if (error instanceof GatewayError) show({ error: errorOf(error) });
  else throw error;
}
