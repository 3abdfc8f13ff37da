// Calls of the gateway: JSON over POST, and streams as JSON lines.

const PACKAGE = "/thingspace.gateway.v1.";
/** Maximum time of a call that is no stream, in milliseconds. */
const TIMEOUT = 15_000;

// Only in memory: a token in the storage of the browser would outlive the page.
let token = "";

export function setToken(text) {
  token = text.trim();
}

export function hasToken() {
  return token !== "";
}

/** An error of a call. `code` is one of the Connect protocol, or "offline". */
export class CallError extends Error {
  constructor(code, message, retry) {
    super(message);
    this.code = code;
    this.retry = retry;
  }
}

async function send(method, message, signal) {
  const headers = { "content-type": "application/json" };
  if (token) headers.authorization = `Bearer ${token}`;
  try {
    return await fetch(PACKAGE + method, {
      method: "POST",
      headers,
      body: JSON.stringify(message),
      signal,
      cache: "no-store",
      credentials: "same-origin",
      redirect: "error",
    });
  } catch (error) {
    if (signal?.aborted && signal.reason?.name !== "TimeoutError") throw error;
    throw new CallError("offline", "no connection to the gateway");
  }
}

function errorOf(status, body) {
  const info = (body?.details ?? []).find((detail) => detail.type === "google.rpc.ErrorInfo");
  const message = body?.message || `the gateway answered with the status ${status}`;
  return new CallError(body?.code ?? "unknown", message, info?.debug?.metadata?.retry);
}

async function parse(response) {
  const text = await response.text();
  try {
    return JSON.parse(text);
  } catch {
    return { message: text.trim() };
  }
}

/** Makes a call. Returns the response as an object without fields that have their default value. */
export async function call(method, message = {}) {
  const response = await send(method, message, AbortSignal.timeout(TIMEOUT));
  let body;
  try {
    body = await parse(response);
  } catch {
    throw new CallError("offline", "the connection to the gateway has broken");
  }
  if (!response.ok) throw errorOf(response.status, body);
  return body;
}

/** Reads a stream, and passes each message to `receive`. Returns after its end; throws if it ends with an error. */
export async function stream(method, message, signal, receive) {
  const response = await send(method, message, signal);
  if (!response.ok) throw errorOf(response.status, await parse(response));
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    let chunk;
    try {
      chunk = await reader.read();
    } catch (error) {
      if (signal.aborted) throw error;
      throw new CallError("offline", "the connection to the gateway has broken");
    }
    if (chunk.done) break;
    const lines = (rest + chunk.value).split("\n");
    // The last line is not complete yet.
    rest = lines.pop();
    for (const line of lines) {
      const parsed = JSON.parse(line);
      if (parsed.error) throw errorOf(response.status, parsed.error);
      receive(parsed);
    }
  }
}
