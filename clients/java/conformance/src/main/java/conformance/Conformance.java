package conformance;

import com.google.gson.Gson;
import com.google.gson.GsonBuilder;
import com.google.gson.JsonObject;
import com.google.gson.JsonParser;
import io.grpc.Context;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.concurrent.CountDownLatch;
import java.util.function.Consumer;
import java.util.stream.StreamSupport;
import thingspace.gateway.client.FailedAttempt;
import thingspace.gateway.client.GatewayClient;
import thingspace.gateway.client.GatewayException;
import thingspace.gateway.client.Watch;
import thingspace.gateway.v1.Change;
import thingspace.gateway.v1.ChangeEsimPlanRequest;
import thingspace.gateway.v1.Device;
import thingspace.gateway.v1.DeviceResult;
import thingspace.gateway.v1.EsimDevice;
import thingspace.gateway.v1.ListDevicesRequest;
import thingspace.gateway.v1.Until;
import thingspace.gateway.v1.WatchAccountRequest;
import thingspace.gateway.v1.WatchAccountResponse;
import thingspace.gateway.v1.WatchRequestRequest;
import thingspace.gateway.v1.WatchRequestResponse;

/** The conformance program. tests/python/test_conformance.py runs it. */
public final class Conformance {
  private static final Gson GSON = new GsonBuilder().serializeNulls().disableHtmlEscaping().create();

  private final JsonObject arguments;
  private int results;

  private Conformance(JsonObject arguments) {
    this.arguments = arguments;
  }

  /** Runs the program in a context that SIGINT and SIGTERM cancel. */
  public static void main(String[] arguments) {
    var program = new Conformance(JsonParser.parseString(arguments[0]).getAsJsonObject());
    var context = Context.current().withCancellation();
    var finished = new CountDownLatch(1);
    Runtime.getRuntime()
        .addShutdownHook(
            new Thread(
                () -> {
                  context.cancel(null);
                  try {
                    finished.await();
                  } catch (InterruptedException error) {
                    throw new IllegalStateException(error);
                  }
                  Runtime.getRuntime().halt(0);
                }));
    try {
      context.run(program::run);
    } finally {
      finished.countDown();
    }
  }

  private void run() {
    try (var client = connect()) {
      switch (text("do")) {
        case "change" -> change(client);
        case "watch" -> watch(client);
        case "watch_account" -> watchAccount(client);
        case "list" -> list(client);
        default -> throw new IllegalArgumentException(text("do"));
      }
    } catch (GatewayException error) {
      print(error.isCancelled() ? Map.of("end", "cancelled") : Map.of("error", describe(error)));
    } catch (IllegalArgumentException error) {
      print(Map.of("error", describe(error)));
    }
  }

  private GatewayClient connect() {
    var builder = GatewayClient.builder(text("target")).onRetry(this::printRetry);
    if (has("ca_file")) {
      builder.caFile(path("ca_file"));
    } else {
      builder.plaintext();
    }
    if (has("cert_file")) {
      builder.clientCertificate(path("cert_file"), path("key_file"));
    }
    if (has("token_file")) {
      builder.token(() -> read(path("token_file")));
    }
    set("keepalive", builder::keepalive);
    set("attempt_timeout", builder::attemptTimeout);
    set("total_timeout", builder::totalTimeout);
    set("idle_timeout", builder::idleTimeout);
    return builder.build();
  }

  private void change(GatewayClient client) {
    var request =
        ChangeEsimPlanRequest.newBuilder()
            .setAccountName(text("account"))
            .setIdempotencyKey(text("key"))
            .setServicePlan(text("plan"))
            .setValidateOnly(has("validate_only") && arguments.get("validate_only").getAsBoolean());
    var first = number("first");
    for (var i = first; i < first + number("devices"); i++) {
      request.addDevices(
          EsimDevice.newBuilder()
              .setEid("99%030d".formatted(i))
              .setIccid("9994%016d".formatted(i))
              .setClientReference("row-" + i));
    }
    var change = client.changeEsimPlan(request.build()).getChange();
    var line = new LinkedHashMap<String, Object>();
    line.put("change_id", change.getChangeId());
    line.put("state", name(change.getState(), "CHANGE_STATE_"));
    line.put("device_count", change.getDeviceCount());
    print(line);
  }

  private void watch(GatewayClient client) {
    var request =
        WatchRequestRequest.newBuilder()
            .setChangeId(text("change_id"))
            .setAccountName(text("account"))
            .setIdempotencyKey(text("key"))
            .setResumeToken(text("resume_token"))
            .setUntil(until());
    try (Watch<WatchRequestResponse> watch = client.watch(request.build())) {
      for (var event : watch) {
        var line = line(event.getEventCase().name(), event.getResumeToken());
        switch (event.getEventCase()) {
          case OPENED -> addChange(line, event.getOpened().getChange());
          case DEVICE_RESULT -> addResult(line, event.getDeviceResult());
          case STATE_CHANGED -> addChange(line, event.getStateChanged().getChange());
          case FINISHED -> addChange(line, event.getFinished().getChange());
          default -> {}
        }
        printEvent(line, event.hasDeviceResult());
      }
    }
    print(Map.of("end", "ok"));
  }

  private void watchAccount(GatewayClient client) {
    var request =
        WatchAccountRequest.newBuilder()
            .setAccountName(text("account"))
            .setResumeToken(text("resume_token"))
            .setUntil(until());
    try (Watch<WatchAccountResponse> watch = client.watchAccount(request.build())) {
      for (var event : watch) {
        var line = line(event.getEventCase().name(), event.getResumeToken());
        switch (event.getEventCase()) {
          case DEVICE_RESULT -> addResult(line, event.getDeviceResult());
          case STATE_CHANGED -> addChange(line, event.getStateChanged().getChange());
          default -> {}
        }
        printEvent(line, event.hasDeviceResult());
      }
    }
    print(Map.of("end", "ok"));
  }

  private void list(GatewayClient client) {
    var request =
        ListDevicesRequest.newBuilder()
            .setChangeId(text("change_id"))
            .setPageSize(number("page_size"))
            .build();
    var devices = client.listDevices(request).spliterator();
    var rows = StreamSupport.stream(devices, false).map(Device::getClientReference).toList();
    print(Map.of("rows", rows));
  }

  private static Map<String, Object> line(String event, String token) {
    var line = new LinkedHashMap<String, Object>();
    line.put("event", event.equals("EVENT_NOT_SET") ? "unknown" : event.toLowerCase());
    line.put("resume_token", token);
    return line;
  }

  private static void addResult(Map<String, Object> line, DeviceResult result) {
    line.put("row", result.getClientReference());
    line.put("outcome", name(result.getOutcome(), "OUTCOME_"));
    line.put("change_id", result.getChangeId());
  }

  private static void addChange(Map<String, Object> line, Change change) {
    line.put("state", name(change.getState(), "CHANGE_STATE_"));
    line.put("change_id", change.getChangeId());
    line.put("succeeded", change.getSucceededCount());
    line.put("failed", change.getFailedCount());
  }

  private void printEvent(Map<String, Object> line, boolean isResult) {
    print(line);
    if (isResult && ++results == number("pause_at")) {
      while (!Files.exists(path("pause_file"))) {
        try {
          Thread.sleep(20);
        } catch (InterruptedException error) {
          throw new IllegalStateException(error);
        }
      }
    }
  }

  private void printRetry(FailedAttempt attempt) {
    var line = new LinkedHashMap<String, Object>();
    line.put("code", attempt.error().getCode().name());
    line.put("reason", orNull(attempt.error().getReasonText()));
    if (text("do").startsWith("watch")) {
      line.put("resume_token", attempt.resumeToken());
      print(Map.of("retry", line));
    } else {
      line.put("attempt", attempt.number());
      print(line);
    }
  }

  private static Map<String, Object> describe(GatewayException error) {
    var violations = new ArrayList<Map<String, String>>();
    for (var violation : error.getFieldViolations()) {
      violations.add(
          Map.of(
              "field", violation.field(),
              "reason", violation.reasonText(),
              "description", violation.description()));
    }
    var delay = error.getRetryAfter().map(found -> found.toMillis() / 1000.0);
    var fields = new LinkedHashMap<String, Object>();
    fields.put("code", error.getCode().name());
    fields.put("reason", orNull(error.getReasonText()));
    fields.put("retry", name(error.getRetry(), "RETRY_"));
    fields.put("executed", name(error.getExecuted(), "EXECUTED_"));
    fields.put("outcome_unknown", error.isOutcomeUnknown());
    fields.put("retry_after", delay.orElse(null));
    fields.put("field_violations", violations);
    fields.put("message", error.getDescription());
    return fields;
  }

  /** Describes a call or a configuration that the library refuses. */
  private static Map<String, Object> describe(IllegalArgumentException error) {
    var fields = new LinkedHashMap<String, Object>();
    for (var name : new String[] {"code", "reason", "retry", "executed", "retry_after"}) {
      fields.put(name, null);
    }
    fields.put("outcome_unknown", false);
    fields.put("field_violations", new String[0]);
    fields.put("message", error.getMessage());
    return fields;
  }

  private static void print(Object line) {
    System.out.println(GSON.toJson(line));
    System.out.flush();
  }

  private static String name(Enum<?> value, String prefix) {
    var name = value.name();
    return name.endsWith("_UNSPECIFIED") || name.equals("UNRECOGNIZED")
        ? null
        : name.substring(prefix.length());
  }

  private static String orNull(String text) {
    return text.isEmpty() ? null : text;
  }

  private Until until() {
    return has("until") ? Until.valueOf("UNTIL_" + text("until")) : Until.UNTIL_UNSPECIFIED;
  }

  private void set(String key, Consumer<Duration> option) {
    if (has(key)) {
      option.accept(Duration.ofMillis((long) (arguments.get(key).getAsDouble() * 1000)));
    }
  }

  private boolean has(String key) {
    return arguments.has(key) && !arguments.get(key).isJsonNull();
  }

  private String text(String key) {
    return has(key) ? arguments.get(key).getAsString() : "";
  }

  private int number(String key) {
    return has(key) ? arguments.get(key).getAsInt() : 0;
  }

  private Path path(String key) {
    return Path.of(text(key));
  }

  private static String read(Path file) {
    try {
      return Files.readString(file);
    } catch (IOException error) {
      throw new UncheckedIOException(error);
    }
  }
}
