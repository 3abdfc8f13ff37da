import { readFileSync } from "node:fs";
import { createGrpcTransport, Http2SessionManager } from "@connectrpc/connect-node";
import { type ClientOptions, GatewayClient } from "./client.js";
import { GatewayError } from "./errors.js";
import { bearerToken, type Token, tokenOverPlaintext } from "./token.js";

/** Options of `connect`. The options of calls are defaults for all calls of the client. */
export interface ConnectOptions extends ClientOptions {
  /** Host and port, such as `gateway.example.com:50051`. */
  target: string;
  /** True to connect without TLS. */
  plaintext?: boolean;
  /** The certificates of the trusted authorities, in PEM format. Default: those of Node.js. */
  ca?: string | Uint8Array;
  /** A file with the certificates of the trusted authorities, instead of `ca`. */
  caFile?: string;
  /** The client certificate, with intermediate certificates, in PEM format. */
  cert?: string | Uint8Array;
  /** A file with the client certificate, instead of `cert`. */
  certFile?: string;
  /** The private key of the client certificate, in PEM format. */
  key?: string | Uint8Array;
  /** A file with the private key, instead of `key`. */
  keyFile?: string;
  /** A bearer token, or a function that is called for each attempt. */
  token?: Token;
  /** True to send the token also without TLS. Every host on the way can then read and use it. */
  allowTokenOverPlaintext?: boolean;
  /**
   * The interval of keepalive pings on a connection with open calls in milliseconds. Default: 30 s. A connection breaks
   * if no answer arrives within the same time, or within 15 s if that is shorter.
   */
  keepaliveMs?: number;
}

/** A client with a connection of its own. */
export class NodeGatewayClient extends GatewayClient {
  readonly #connection: Http2SessionManager;

  /** Opens the connection with the first call. Reads the files at once. */
  constructor(options: ConnectOptions) {
    const { target, plaintext = false, token, allowTokenOverPlaintext = false, keepaliveMs = 30_000, ...defaults } = options;
    if (token !== undefined && plaintext && !allowTokenOverPlaintext) throw new GatewayError(tokenOverPlaintext());
    const connection = new Http2SessionManager(
      parseTarget(target, plaintext),
      { pingIntervalMs: keepaliveMs, pingTimeoutMs: Math.min(keepaliveMs, 15_000) },
      tlsOptions(options),
    );
    const transport = createGrpcTransport({
      baseUrl: connection.authority,
      sessionManager: connection,
      interceptors: token === undefined ? [] : [bearerToken(token, { allowTokenOverPlaintext })],
    });
    super(transport, defaults);
    this.#connection = connection;
  }

  /** Closes the connection, and cancels all open calls. An unused connection does not keep the process alive. */
  close(): void {
    this.#connection.abort();
  }
}

/** Returns a client of the gateway at `target`. It uses TLS unless `plaintext` is true. */
export function connect(options: ConnectOptions): NodeGatewayClient {
  return new NodeGatewayClient(options);
}

function parseTarget(target: string, plaintext: boolean): URL {
  const url = URL.parse(`${plaintext ? "http" : "https"}://${target}`);
  if (!url || url.host === "" || url.pathname !== "/" || url.username !== "" || url.search !== "" || url.hash !== "") {
    throw new TypeError(`target must be HOST:PORT, not ${JSON.stringify(target)}`);
  }
  return url;
}

function tlsOptions({ plaintext, ca, caFile, cert, certFile, key, keyFile }: ConnectOptions) {
  const read = (value?: string | Uint8Array, file?: string) => {
    const content = value ?? (file === undefined ? undefined : readFileSync(file));
    return typeof content === "string" || content === undefined ? content : Buffer.from(content);
  };
  const options = { ca: read(ca, caFile), cert: read(cert, certFile), key: read(key, keyFile) };
  if (plaintext && Object.values(options).some(Boolean)) throw new TypeError("plaintext excludes certificates and keys");
  if (!options.cert !== !options.key) throw new TypeError("a client certificate and its key are needed together");
  return Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined));
}
