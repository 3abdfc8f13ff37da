package example;

import java.util.UUID;
import thingspace.gateway.client.GatewayClient;
import thingspace.gateway.client.GatewayException;
import thingspace.gateway.v1.ChangeEsimPlanRequest;
import thingspace.gateway.v1.EsimDevice;
import thingspace.gateway.v1.Until;
import thingspace.gateway.v1.WatchRequestRequest;

/**
 * Changes the service plans of 20 eSIM profiles and prints the result of each.
 * clients/java/README.md describes how to run it.
 */
public final class ChangePlans {
  public static void main(String[] arguments) {
    var target = arguments.length > 0 ? arguments[0] : "127.0.0.1:50051";
    var plan = arguments.length > 1 ? arguments[1] : "Example Plan";
    var change =
        ChangeEsimPlanRequest.newBuilder()
            .setAccountName("0000123456-00001")
            // A program that can crash stores the key before the call.
            .setIdempotencyKey(UUID.randomUUID().toString())
            .setServicePlan(plan);
    for (int i = 0; i < 20; i++) { // These identifiers are reserved for the sandbox.
      change.addDevices(
          EsimDevice.newBuilder()
              .setEid("99%030d".formatted(i))
              .setIccid("9994%016d".formatted(i))
              .setClientReference("row-" + i));
    }
    var builder =
        GatewayClient.builder(target)
            .plaintext()
            .onRetry(attempt -> System.err.println("repeating the call: " + attempt.error()));
    try (var client = builder.build()) {
      changeAndWatch(client, change.build());
    } catch (GatewayException error) {
      System.err.println(error.getMessage());
      for (var field : error.getFieldViolations()) {
        System.err.println("invalid field " + field.field() + ": " + field.description());
      }
      System.exit(1);
    }
  }

  private static void changeAndWatch(GatewayClient client, ChangeEsimPlanRequest request) {
    var change = client.changeEsimPlan(request).getChange();
    System.out.println("change " + change.getChangeId() + " is " + change.getState());

    var watchRequest =
        WatchRequestRequest.newBuilder()
            .setChangeId(change.getChangeId())
            .setUntil(Until.UNTIL_FINISHED)
            .build();
    try (var watch = client.watch(watchRequest)) {
      for (var event : watch) {
        switch (event.getEventCase()) {
          case DEVICE_RESULT -> {
            var result = event.getDeviceResult();
            System.out.println(result.getClientReference() + " " + result.getOutcome());
          }
          case FINISHED -> {
            var done = event.getFinished().getChange();
            System.out.printf(
                "%s: %d succeeded, %d failed%n",
                done.getState(), done.getSucceededCount(), done.getFailedCount());
          }
          default -> {} // Also events that this version does not know.
        }
      }
    }
  }
}
