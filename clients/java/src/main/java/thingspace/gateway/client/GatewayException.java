package thingspace.gateway.client;

import com.google.protobuf.Any;
import com.google.protobuf.InvalidProtocolBufferException;
import com.google.rpc.BadRequest;
import com.google.rpc.ErrorInfo;
import com.google.rpc.RetryInfo;
import io.grpc.Status;
import io.grpc.protobuf.StatusProto;
import java.math.BigDecimal;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import thingspace.gateway.v1.Executed;
import thingspace.gateway.v1.FieldReason;
import thingspace.gateway.v1.Reason;
import thingspace.gateway.v1.Retry;

/**
 * The error of a call. Its cause is the exception of the gRPC library. Like that exception, it cannot
 * be serialized.
 *
 * <p>An error without an {@code ErrorInfo} of the gateway comes from a proxy or from the gRPC
 * library. Its reason, {@code retry} and {@code executed} are unspecified.
 */
public final class GatewayException extends RuntimeException {
  private static final long serialVersionUID = 1;
  private static final String DOMAIN = "thingspace.gateway";

  private final Status.Code code;
  private final String description;
  private final boolean cancelled;
  private final boolean outcomeUnknown;
  private final transient Details details;

  private GatewayException(
      Status status, Details details, boolean cancelled, boolean outcomeUnknown, Throwable cause) {
    super(message(status, details.info, outcomeUnknown), cause);
    this.code = status.getCode();
    this.description = status.getDescription() == null ? "" : status.getDescription();
    this.cancelled = cancelled;
    this.outcomeUnknown = outcomeUnknown;
    this.details = details;
  }

  /**
   * Reads the details of an error of the gRPC library. Use it for calls of the stubs.
   *
   * @param error a {@code StatusRuntimeException}, or another exception
   * @return the error
   */
  public static GatewayException of(Throwable error) {
    return error instanceof GatewayException known
        ? known
        : new GatewayException(Status.fromThrowable(error), Details.of(error), false, false, error);
  }

  /** The library found an error itself, such as a stream without events. */
  static GatewayException of(Status status) {
    return of(status.asRuntimeException());
  }

  /** The caller cancelled the call. */
  static GatewayException cancelled(boolean outcomeUnknown, Throwable cause) {
    var status = Status.CANCELLED.withDescription("the caller cancelled the call");
    return new GatewayException(status, Details.NONE, true, outcomeUnknown, cause);
  }

  /** The last error of a call whose time limit has passed. */
  GatewayException afterTimeLimit(Duration limit, boolean outcomeUnknown) {
    var text = "no success within %s s; last error: %s".formatted(seconds(limit), description);
    var status = code.toStatus().withDescription(text);
    return new GatewayException(status, details, false, outcomeUnknown, this);
  }

  /** The same error, for a call whose earlier attempts may have been executed. */
  GatewayException withOutcomeUnknown(boolean outcomeUnknown) {
    var status = code.toStatus().withDescription(description);
    return new GatewayException(status, details, cancelled, outcomeUnknown, getCause());
  }

  static String seconds(Duration duration) {
    return BigDecimal.valueOf(duration.toMillis(), 3).stripTrailingZeros().toPlainString();
  }

  private static String message(Status status, ErrorInfo info, boolean outcomeUnknown) {
    var text = new StringBuilder(status.getCode().name());
    if (!info.getReason().isEmpty()) {
      text.append(' ').append(info.getReason());
    }
    if (status.getDescription() != null) {
      text.append(": ").append(status.getDescription());
    }
    return text.append(outcomeUnknown ? " (the outcome of the change is unknown)" : "").toString();
  }

  /**
   * Returns the gRPC status code.
   *
   * @return the code
   */
  public Status.Code getCode() {
    return code;
  }

  /**
   * Returns the message of the gateway, without the code and the reason.
   *
   * @return the message, for people: its wording can change
   */
  public String getDescription() {
    return description;
  }

  /**
   * Returns the reason.
   *
   * @return the reason, or {@code REASON_UNSPECIFIED} if the error has none, or one that this version
   *     of the library does not know: see {@link #getReasonText}
   */
  public Reason getReason() {
    return value(Reason.values(), "REASON_" + details.info.getReason(), Reason.REASON_UNSPECIFIED);
  }

  /**
   * Returns the reason as the gateway sent it.
   *
   * @return the reason, such as {@code DEVICE_BUSY}. Empty if the gateway did not send the error
   */
  public String getReasonText() {
    return details.info.getReason();
  }

  /**
   * Returns whether the same call can succeed later.
   *
   * @return {@code RETRY_UNSPECIFIED} if the error does not say it
   */
  public Retry getRetry() {
    return value(Retry.values(), "RETRY_" + metadata("retry"), Retry.RETRY_UNSPECIFIED);
  }

  /**
   * Returns whether ThingSpace may have executed the change. If {@link #isOutcomeUnknown} is true, an
   * earlier attempt of the call may have been executed too.
   *
   * @return {@code EXECUTED_UNSPECIFIED} if the error does not say it
   */
  public Executed getExecuted() {
    return value(
        Executed.values(), "EXECUTED_" + metadata("executed"), Executed.EXECUTED_UNSPECIFIED);
  }

  /**
   * Returns the delay that the gateway asks for before the next attempt.
   *
   * @return the delay, empty if the error has none
   */
  public Optional<Duration> getRetryAfter() {
    return details.retryInfo.hasRetryDelay()
        ? Optional.of(GatewayClient.toDuration(details.retryInfo.getRetryDelay()))
        : Optional.empty();
  }

  /**
   * Returns the invalid fields of the request.
   *
   * @return the fields that the gateway listed. {@code violations_total} in {@link #getMetadata} is
   *     their number
   */
  public List<FieldViolation> getFieldViolations() {
    var violations = new ArrayList<FieldViolation>();
    for (var field : details.badRequest.getFieldViolationsList()) {
      var reason =
          value(
              FieldReason.values(),
              "FIELD_REASON_" + field.getReason(),
              FieldReason.FIELD_REASON_UNSPECIFIED);
      violations.add(
          new FieldViolation(field.getField(), reason, field.getReason(), field.getDescription()));
    }
    return List.copyOf(violations);
  }

  /**
   * Returns the metadata of the error, such as {@code change_id} and {@code thingspace_code}.
   *
   * @return the metadata. Empty if the gateway did not send the error
   */
  public Map<String, String> getMetadata() {
    return details.info.getMetadataMap();
  }

  /**
   * Returns whether the caller cancelled the call: through its context, by interrupting its thread,
   * or by closing the watch or the client. The code {@code CANCELLED} alone does not tell.
   *
   * @return true if the caller cancelled the call
   */
  public boolean isCancelled() {
    return cancelled;
  }

  /**
   * Returns whether ThingSpace may have executed the change, or may still execute it. If so, repeat
   * the call with the same idempotency key, or read the change by its key with {@code getChange}.
   *
   * @return true if the outcome of a change call is unknown. False for all other calls
   */
  public boolean isOutcomeUnknown() {
    return outcomeUnknown;
  }

  private String metadata(String key) {
    return details.info.getMetadataOrDefault(key, "");
  }

  private static <E extends Enum<E>> E value(E[] values, String name, E unknown) {
    for (var value : values) {
      if (value.name().equals(name)) {
        return value;
      }
    }
    return unknown;
  }

  /** The messages of google.rpc that an error carries. */
  private record Details(ErrorInfo info, BadRequest badRequest, RetryInfo retryInfo) {
    static final Details NONE =
        new Details(
            ErrorInfo.getDefaultInstance(),
            BadRequest.getDefaultInstance(),
            RetryInfo.getDefaultInstance());

    static Details of(Throwable error) {
      var details = NONE;
      try {
        var status = StatusProto.fromThrowable(error);
        if (status == null) {
          return NONE;
        }
        for (Any any : status.getDetailsList()) {
          if (any.is(ErrorInfo.class)) {
            var info = any.unpack(ErrorInfo.class);
            if (info.getDomain().equals(DOMAIN)) {
              details = new Details(info, details.badRequest, details.retryInfo);
            }
          } else if (any.is(BadRequest.class)) {
            details = new Details(details.info, any.unpack(BadRequest.class), details.retryInfo);
          } else if (any.is(RetryInfo.class)) {
            details = new Details(details.info, details.badRequest, any.unpack(RetryInfo.class));
          }
        }
        return details;
      } catch (InvalidProtocolBufferException | IllegalArgumentException malformed) {
        return NONE; // A proxy damaged the details.
      }
    }
  }
}
