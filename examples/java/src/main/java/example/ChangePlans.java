package example;

import com.google.protobuf.Any;
import com.google.protobuf.InvalidProtocolBufferException;
import com.google.rpc.BadRequest;
import com.google.rpc.ErrorInfo;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.StatusRuntimeException;
import io.grpc.protobuf.StatusProto;
import java.util.UUID;
import java.util.concurrent.TimeUnit;
import thingspace.gateway.v1.Change;
import thingspace.gateway.v1.ChangeEsimPlanRequest;
import thingspace.gateway.v1.EsimDevice;
import thingspace.gateway.v1.GatewayServiceGrpc;
import thingspace.gateway.v1.Reason;

/**
 * Changes the service plans of 20 eSIM profiles and prints the state of the
 * change, or why it was refused. docs/clients.md describes how to run it.
 */
public final class ChangePlans {
  public static void main(String[] arguments) throws Exception {
    var target = arguments.length > 0 ? arguments[0] : "127.0.0.1:50051";
    var plan = arguments.length > 1 ? arguments[1] : "Example Plan";
    var channel = Grpc.newChannelBuilder(target, InsecureChannelCredentials.create()).build();

    var request =
        ChangeEsimPlanRequest.newBuilder()
            .setAccountName("0000123456-00001")
            .setIdempotencyKey(UUID.randomUUID().toString())
            .setServicePlan(plan);
    for (int i = 0; i < 20; i++) { // These identifiers are reserved for the sandbox.
      request.addDevices(
          EsimDevice.newBuilder()
              .setEid(String.format("99%030d", i))
              .setIccid(String.format("9994%016d", i))
              .setClientReference("row-" + i));
    }
    try {
      // The deadline is longer than the gateway waits for ThingSpace.
      var gateway =
          GatewayServiceGrpc.newBlockingStub(channel).withDeadlineAfter(90, TimeUnit.SECONDS);
      Change change = gateway.changeEsimPlan(request.build()).getChange();
      System.out.println("change " + change.getChangeId() + " is " + change.getState());
    } catch (StatusRuntimeException error) {
      describe(error);
      System.exit(1);
    } finally {
      channel.shutdown().awaitTermination(5, TimeUnit.SECONDS);
    }
  }

  /**
   * Prints the details of an error. An error without an ErrorInfo does not come
   * from the gateway, but from a proxy or from the gRPC library.
   */
  static void describe(StatusRuntimeException error) throws InvalidProtocolBufferException {
    System.err.println(error.getMessage());
    var info = ErrorInfo.getDefaultInstance();
    var badRequest = BadRequest.getDefaultInstance();
    for (Any detail : StatusProto.fromThrowable(error).getDetailsList()) {
      if (detail.is(ErrorInfo.class)) {
        info = detail.unpack(ErrorInfo.class);
      } else if (detail.is(BadRequest.class)) {
        badRequest = detail.unpack(BadRequest.class);
      }
    }
    switch (reason(info)) {
      case REASON_FIELD_INVALID ->
          badRequest
              .getFieldViolationsList()
              .forEach(
                  field ->
                      System.err.println(
                          "invalid field " + field.getField() + ": " + field.getDescription()));
      default -> System.err.println("reason: " + info.getReason());
    }
  }

  /** Returns the reason of an error, or REASON_UNSPECIFIED if this program does not know it. */
  static Reason reason(ErrorInfo info) {
    var value = Reason.getDescriptor().findValueByName("REASON_" + info.getReason());
    return value == null ? Reason.REASON_UNSPECIFIED : Reason.valueOf(value);
  }
}
