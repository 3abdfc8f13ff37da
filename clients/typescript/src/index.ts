export { Code, ConnectError } from "@connectrpc/connect";
export { GatewayClient, type ClientOptions } from "./client.js";
export { GatewayError, type FieldViolation } from "./errors.js";
export * from "./gen/thingspace/gateway/v1/change_pb.js";
export * from "./gen/thingspace/gateway/v1/device_pb.js";
export * from "./gen/thingspace/gateway/v1/error_pb.js";
export * from "./gen/thingspace/gateway/v1/gateway_service_pb.js";
export * from "./gen/thingspace/gateway/v1/operator_service_pb.js";
export * from "./gen/thingspace/gateway/v1/watch_pb.js";
export {
  type AttemptOptions,
  type CommonOptions,
  type FailedAttempt,
  mustRepeat,
  type RetryOptions,
} from "./retry.js";
export { bearerToken, type Token } from "./token.js";
export type { WatchOptions } from "./watch.js";
