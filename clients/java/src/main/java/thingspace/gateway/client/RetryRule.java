package thingspace.gateway.client;

import io.grpc.Status;
import thingspace.gateway.v1.Executed;
import thingspace.gateway.v1.Reason;
import thingspace.gateway.v1.Retry;

/** Decides whether a failed attempt is repeated. */
enum RetryRule {
  /** A change call: OK, or {@code executed} = NO, otherwise repeat. */
  CHANGE,
  /** Every other call, also a change call with {@code validate_only}, and every stream. */
  READ;

  /** What follows a failed attempt. */
  enum Decision {
    /** Repeat the call after a delay. */
    REPEAT,
    /** Repeat the call with a fresh token, without a delay. */
    REPEAT_NOW,
    /** Throw the error. */
    FAIL
  }

  /**
   * Decides what follows a failed attempt.
   *
   * @param freshToken true if there is a token function, and the attempt before did not fail with
   *     UNAUTHENTICATED too
   */
  Decision decide(GatewayException error, boolean freshToken) {
    if (error.getCode() == Status.Code.UNAUTHENTICATED) {
      return freshToken ? Decision.REPEAT_NOW : Decision.FAIL;
    }
    if (error.getReason() == Reason.REASON_PERMISSION_DENIED) {
      // Only an operator can change it.
      return Decision.FAIL;
    }
    var open = this == CHANGE && error.getExecuted() != Executed.EXECUTED_NO;
    return error.getRetry() == Retry.RETRY_NEVER && !open ? Decision.FAIL : Decision.REPEAT;
  }

  /**
   * Returns whether the outcome of the change is unknown after this attempt.
   *
   * @param before whether it was unknown before the attempt
   */
  boolean outcomeUnknown(GatewayException error, boolean before) {
    if (this == READ || error.getExecuted() == Executed.EXECUTED_NO) {
      return false;
    }
    // The gateway has executed nothing in this attempt.
    var refused =
        error.getCode() == Status.Code.UNAUTHENTICATED
            || error.getReason() == Reason.REASON_PERMISSION_DENIED;
    return before || !refused;
  }
}
