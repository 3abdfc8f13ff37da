package thingspace.gateway.client;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertSame;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.google.protobuf.Any;
import com.google.protobuf.ByteString;
import com.google.rpc.BadRequest;
import com.google.rpc.ErrorInfo;
import com.google.rpc.RetryInfo;
import io.grpc.Metadata;
import io.grpc.Status;
import io.grpc.protobuf.StatusProto;
import java.time.Duration;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import org.junit.jupiter.api.Test;
import thingspace.gateway.v1.Executed;
import thingspace.gateway.v1.FieldReason;
import thingspace.gateway.v1.Reason;
import thingspace.gateway.v1.Retry;

class GatewayExceptionTest {
  @Test
  void hasTheDetailsOfTheGateway() {
    var fields =
        BadRequest.newBuilder()
            .addFieldViolations(
                BadRequest.FieldViolation.newBuilder()
                    .setField("devices[17].iccid")
                    .setReason("FORMAT")
                    .setDescription("must be 19 or 20 digits"))
            .addFieldViolations(
                BadRequest.FieldViolation.newBuilder().setField("plan").setReason("NOVEL"))
            .build();
    var retryInfo =
        RetryInfo.newBuilder()
            .setRetryDelay(
                com.google.protobuf.Duration.newBuilder().setSeconds(1).setNanos(500_000_000))
            .build();
    var metadata = Map.of("retry", "NEVER", "executed", "NO", "violations_total", "2");
    var cause =
        Errors.error(
            Status.Code.INVALID_ARGUMENT, "FIELD_INVALID", metadata, fields, retryInfo);

    var error = GatewayException.of(cause);

    assertEquals(Status.Code.INVALID_ARGUMENT, error.getCode());
    assertEquals(Reason.REASON_FIELD_INVALID, error.getReason());
    assertEquals("FIELD_INVALID", error.getReasonText());
    assertEquals(Retry.RETRY_NEVER, error.getRetry());
    assertEquals(Executed.EXECUTED_NO, error.getExecuted());
    assertEquals(Optional.of(Duration.ofMillis(1500)), error.getRetryAfter());
    assertEquals(metadata, error.getMetadata());
    assertEquals("a message", error.getDescription());
    assertEquals("INVALID_ARGUMENT FIELD_INVALID: a message", error.getMessage());
    assertEquals(
        List.of(
            new FieldViolation(
                "devices[17].iccid",
                FieldReason.FIELD_REASON_FORMAT,
                "FORMAT",
                "must be 19 or 20 digits"),
            new FieldViolation("plan", FieldReason.FIELD_REASON_UNSPECIFIED, "NOVEL", "")),
        error.getFieldViolations());
    assertFalse(error.isCancelled());
    assertFalse(error.isOutcomeUnknown());
    assertSame(cause, error.getCause());
    assertSame(error, GatewayException.of(error));
  }

  @Test
  void keepsTheTextOfAnUnknownReason() {
    var metadata = Map.of("retry", "PERHAPS", "executed", "PARTLY");
    var error = GatewayException.of(Errors.error(Status.Code.ABORTED, "NOVEL", metadata));
    assertEquals(Reason.REASON_UNSPECIFIED, error.getReason());
    assertEquals("NOVEL", error.getReasonText());
    assertEquals(Retry.RETRY_UNSPECIFIED, error.getRetry());
    assertEquals(Executed.EXECUTED_UNSPECIFIED, error.getExecuted());
  }

  @Test
  void hasNoDetailsIfTheGatewayDidNotSendTheError() {
    var plain = Status.UNAVAILABLE.withDescription("connection refused").asRuntimeException();
    assertHasNoDetails(GatewayException.of(plain), Status.Code.UNAVAILABLE);

    var key = Metadata.Key.of("grpc-status-details-bin", Metadata.BINARY_BYTE_MARSHALLER);
    var trailers = new Metadata();
    trailers.put(key, new byte[] {1, 2, 3});
    var damaged = Status.INTERNAL.asRuntimeException(trailers);
    assertHasNoDetails(GatewayException.of(damaged), Status.Code.INTERNAL);

    var info = ErrorInfo.newBuilder().setDomain("proxy.example").setReason("DEVICE_BUSY").build();
    var foreign =
        StatusProto.toStatusRuntimeException(
            com.google.rpc.Status.newBuilder().setCode(14).addDetails(Any.pack(info)).build());
    assertHasNoDetails(GatewayException.of(foreign), Status.Code.UNAVAILABLE);

    var invalid =
        Any.newBuilder()
            .setTypeUrl("type.googleapis.com/google.rpc.ErrorInfo")
            .setValue(ByteString.copyFromUtf8("\1\2"));
    var undecodable =
        StatusProto.toStatusRuntimeException(
            com.google.rpc.Status.newBuilder().setCode(14).addDetails(invalid).build());
    assertHasNoDetails(GatewayException.of(undecodable), Status.Code.UNAVAILABLE);

    assertHasNoDetails(GatewayException.of(new IllegalStateException()), Status.Code.UNKNOWN);
  }

  private static void assertHasNoDetails(GatewayException error, Status.Code code) {
    assertEquals(code, error.getCode());
    assertEquals(Reason.REASON_UNSPECIFIED, error.getReason());
    assertEquals("", error.getReasonText());
    assertEquals(Retry.RETRY_UNSPECIFIED, error.getRetry());
    assertEquals(Executed.EXECUTED_UNSPECIFIED, error.getExecuted());
    assertEquals(Optional.empty(), error.getRetryAfter());
    assertEquals(List.of(), error.getFieldViolations());
    assertEquals(Map.of(), error.getMetadata());
  }

  @Test
  void keepsTheDetailsOfTheLastErrorAfterTheTimeLimit() {
    var last =
        GatewayException.of(
            Errors.error(Status.Code.UNAVAILABLE, "NOT_SENT", Map.of("executed", "NO")));
    var error = last.afterTimeLimit(Duration.ofMillis(2500), true);
    assertEquals(Status.Code.UNAVAILABLE, error.getCode());
    assertEquals(Reason.REASON_NOT_SENT, error.getReason());
    assertEquals("no success within 2.5 s; last error: a message", error.getDescription());
    assertTrue(error.isOutcomeUnknown());
    assertSame(last, error.getCause());
  }
}
