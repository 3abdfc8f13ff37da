import { clone, create, type DescMessage, type MessageInitShape, type MessageShape } from "@bufbuild/protobuf";
import { type Client, Code, createClient, type Transport } from "@connectrpc/connect";
import { GatewayError, notSent } from "./errors.js";
import type { Change } from "./gen/thingspace/gateway/v1/change_pb.js";
import type { Device, DeviceResult } from "./gen/thingspace/gateway/v1/device_pb.js";
import {
  type ChangeEsimPlanRequestSchema,
  type ChangeEsimPlanResponse,
  type ChangeFiveGBiPlanRequestSchema,
  type ChangeFiveGBiPlanResponse,
  type ChangeServicePlanRequestSchema,
  type ChangeServicePlanResponse,
  GatewayService,
  type GetChangeRequestSchema,
  type GetChangeResponse,
  type GetServerInfoResponse,
  type ListChangesRequestSchema,
  type ListDeviceResultsRequestSchema,
  type ListDevicesRequestSchema,
  type ListServicePlansRequestSchema,
  type ListServicePlansResponse,
} from "./gen/thingspace/gateway/v1/gateway_service_pb.js";
import { OperatorService } from "./gen/thingspace/gateway/v1/operator_service_pb.js";
import type {
  WatchAccountRequestSchema,
  WatchAccountResponse,
  WatchRequestRequestSchema,
  WatchRequestResponse,
} from "./gen/thingspace/gateway/v1/watch_pb.js";
import { type AttemptOptions, repeat, type RetryOptions } from "./retry.js";
import { watchEvents, type WatchOptions } from "./watch.js";

/** Defaults for the options of all calls of a client. */
export type ClientOptions = Omit<RetryOptions & WatchOptions, "signal">;

/** A message of this type, or an object with some of its fields. */
type Init<S extends DescMessage> = MessageInitShape<S>;

/**
 * A client of the gateway: calls that are repeated until their outcome is certain, and streams that resume.
 *
 * In Node.js, `connect` of `@thingspace-gateway/client/node` returns one. In browsers, pass a transport of
 * `@connectrpc/connect-web`. Transports must not repeat calls by themselves.
 */
export class GatewayClient {
  /** The stub of `GatewayService`. It repeats nothing. */
  readonly gateway: Client<typeof GatewayService>;
  /** The stub of `OperatorService`. It repeats nothing. */
  readonly operator: Client<typeof OperatorService>;

  constructor(
    transport: Transport,
    private readonly defaults: ClientOptions = {},
  ) {
    this.gateway = createClient(GatewayService, transport);
    this.operator = createClient(OperatorService, transport);
  }

  /**
   * Changes the service plan of eSIM profiles.
   *
   * Like the other changes, the call is repeated with the same idempotency key until it succeeds, or an error says that
   * ThingSpace executed nothing and that repeating the call does not help. After `totalTimeoutMs` it throws the last
   * error; `GatewayError.outcomeUnknown` says whether ThingSpace may have executed the change.
   */
  changeEsimPlan(
    request: Init<typeof ChangeEsimPlanRequestSchema>,
    options?: RetryOptions,
  ): Promise<ChangeEsimPlanResponse> {
    return this.#change(GatewayService.method.changeEsimPlan.input, request, this.gateway.changeEsimPlan, options);
  }

  /** Changes the service plan of 5G Business Internet devices. The call is repeated like `changeEsimPlan`. */
  changeFiveGBiPlan(
    request: Init<typeof ChangeFiveGBiPlanRequestSchema>,
    options?: RetryOptions,
  ): Promise<ChangeFiveGBiPlanResponse> {
    return this.#change(GatewayService.method.changeFiveGBiPlan.input, request, this.gateway.changeFiveGBiPlan, options);
  }

  /** Changes the service plan of other devices. The call is repeated like `changeEsimPlan`. */
  changeServicePlan(
    request: Init<typeof ChangeServicePlanRequestSchema>,
    options?: RetryOptions,
  ): Promise<ChangeServicePlanResponse> {
    return this.#change(GatewayService.method.changeServicePlan.input, request, this.gateway.changeServicePlan, options);
  }

  /**
   * Watches one change or one request: each event once and in order, also if the stream breaks.
   *
   * An event counts as processed when the program asks for the next one. To continue in another process, store the
   * `resumeToken` of the last processed event. The first event is `opened`. The library handles `reconnect` and the
   * `opened` of resumed streams itself, and delivers all other events, also those of a kind that it does not know.
   * Leaving the loop cancels the call.
   */
  watch(
    request: Init<typeof WatchRequestRequestSchema>,
    options?: WatchOptions,
  ): AsyncGenerator<WatchRequestResponse, void, undefined> {
    const message = copy(GatewayService.method.watchRequest.input, request);
    return watchEvents(
      (resumeToken, attempt) => this.gateway.watchRequest({ ...message, resumeToken }, attempt),
      message.resumeToken,
      { ...this.defaults, ...options },
    );
  }

  /** Watches all changes of one account. The stream resumes like `watch`. It never ends by itself, unless `until` is set. */
  watchAccount(
    request: Init<typeof WatchAccountRequestSchema>,
    options?: WatchOptions,
  ): AsyncGenerator<WatchAccountResponse, void, undefined> {
    const message = copy(GatewayService.method.watchAccount.input, request);
    return watchEvents(
      (resumeToken, attempt) => this.gateway.watchAccount({ ...message, resumeToken }, attempt),
      message.resumeToken,
      { ...this.defaults, ...options },
    );
  }

  /** Returns one change. */
  async getChange(request: Init<typeof GetChangeRequestSchema>, options?: RetryOptions): Promise<GetChangeResponse> {
    const message = copy(GatewayService.method.getChange.input, request);
    return this.call((attempt) => this.gateway.getChange(message, attempt), options);
  }

  /** Lists the service plans of an account. Each call makes a lookup at ThingSpace. */
  async listServicePlans(
    request: Init<typeof ListServicePlansRequestSchema>,
    options?: RetryOptions,
  ): Promise<ListServicePlansResponse> {
    const message = copy(GatewayService.method.listServicePlans.input, request);
    return this.call((attempt) => this.gateway.listServicePlans(message, attempt), options);
  }

  /** Returns the version of the gateway, and the properties of its journal. */
  getServerInfo(options?: RetryOptions): Promise<GetServerInfoResponse> {
    return this.call((attempt) => this.gateway.getServerInfo({}, attempt), options);
  }

  /** Lists changes, newest first, of all pages. */
  listChanges(request: Init<typeof ListChangesRequestSchema>, options?: RetryOptions): AsyncGenerator<Change, void, undefined> {
    const message = copy(GatewayService.method.listChanges.input, request);
    return this.#pages(
      message.pageToken,
      (pageToken, attempt) => this.gateway.listChanges({ ...message, pageToken }, attempt),
      (page) => page.changes,
      options,
    );
  }

  /** Lists the devices of one change with their outcomes, of all pages. */
  listDevices(request: Init<typeof ListDevicesRequestSchema>, options?: RetryOptions): AsyncGenerator<Device, void, undefined> {
    const message = copy(GatewayService.method.listDevices.input, request);
    return this.#pages(
      message.pageToken,
      (pageToken, attempt) => this.gateway.listDevices({ ...message, pageToken }, attempt),
      (page) => page.devices,
      options,
    );
  }

  /** Lists all results of one change or one request, oldest first, of all pages. */
  listDeviceResults(
    request: Init<typeof ListDeviceResultsRequestSchema>,
    options?: RetryOptions,
  ): AsyncGenerator<DeviceResult, void, undefined> {
    const message = copy(GatewayService.method.listDeviceResults.input, request);
    return this.#pages(
      message.pageToken,
      (pageToken, attempt) => this.gateway.listDeviceResults({ ...message, pageToken }, attempt),
      (page) => page.deviceResults,
      options,
    );
  }

  /**
   * Repeats a unary call that changes nothing, as `retry` of its errors says:
   *
   *     const status = await client.call((options) => client.operator.getStatus({}, options));
   */
  call<T>(attempt: (options: AttemptOptions) => Promise<T>, options?: RetryOptions): Promise<T> {
    return repeat(attempt, false, { ...this.defaults, ...options });
  }

  async #change<S extends ChangeRequestSchema, R>(
    schema: S,
    request: MessageInitShape<S>,
    method: (request: MessageShape<S>, options: AttemptOptions) => Promise<R>,
    options?: RetryOptions,
  ): Promise<R> {
    // Every attempt must have the same content, so later modifications of the request have no effect.
    const message = copy(schema, request);
    if (message.idempotencyKey === "") {
      throw new GatewayError(
        notSent("idempotencyKey is empty: a change without a key cannot be repeated", Code.InvalidArgument, "NEVER"),
      );
    }
    return repeat((attempt) => method(message, attempt), !message.validateOnly, { ...this.defaults, ...options });
  }

  async *#pages<P extends { nextPageToken: string }, T>(
    pageToken: string,
    list: (pageToken: string, attempt: AttemptOptions) => Promise<P>,
    items: (page: P) => T[],
    options?: RetryOptions,
  ): AsyncGenerator<T, void, undefined> {
    do {
      const token = pageToken;
      const page = await this.call((attempt) => list(token, attempt), options);
      yield* items(page);
      pageToken = page.nextPageToken;
    } while (pageToken !== "");
  }
}

type ChangeRequestSchema =
  | typeof ChangeEsimPlanRequestSchema
  | typeof ChangeFiveGBiPlanRequestSchema
  | typeof ChangeServicePlanRequestSchema;

/** Copies a request. `clone` throws an error if a field has a value of another type: repeating the call would not help. */
function copy<S extends DescMessage>(schema: S, request: MessageInitShape<S>): MessageShape<S> {
  return clone(schema, create(schema, request));
}
