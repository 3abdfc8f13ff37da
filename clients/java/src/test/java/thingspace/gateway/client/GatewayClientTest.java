package thingspace.gateway.client;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.grpc.Context;
import io.grpc.Grpc;
import io.grpc.InsecureServerCredentials;
import io.grpc.Metadata;
import io.grpc.Server;
import io.grpc.ServerCall;
import io.grpc.ServerCallHandler;
import io.grpc.ServerInterceptor;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.grpc.stub.StreamObserver;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.Executors;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.function.BiConsumer;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import thingspace.gateway.v1.Bookmark;
import thingspace.gateway.v1.Change;
import thingspace.gateway.v1.ChangeEsimPlanRequest;
import thingspace.gateway.v1.ChangeEsimPlanResponse;
import thingspace.gateway.v1.Device;
import thingspace.gateway.v1.GatewayServiceGrpc;
import thingspace.gateway.v1.ListDevicesRequest;
import thingspace.gateway.v1.ListDevicesResponse;
import thingspace.gateway.v1.Opened;
import thingspace.gateway.v1.Reconnect;
import thingspace.gateway.v1.WatchRequestRequest;
import thingspace.gateway.v1.WatchRequestResponse;

@Timeout(600)
class GatewayClientTest {
  private static final ChangeEsimPlanRequest CHANGE =
      ChangeEsimPlanRequest.newBuilder().setIdempotencyKey("the-key").build();

  private final List<String> calls = new CopyOnWriteArrayList<>();
  private final List<String> tokens = new CopyOnWriteArrayList<>();
  private final List<FailedAttempt> failures = new CopyOnWriteArrayList<>();
  private BiConsumer<Integer, StreamObserver<ChangeEsimPlanResponse>> onChange;
  private BiConsumer<Integer, StreamObserver<WatchRequestResponse>> onWatch;
  private Server server;

  /** Plays the gateway. */
  private final class Service extends GatewayServiceGrpc.GatewayServiceImplBase {
    @Override
    public void changeEsimPlan(
        ChangeEsimPlanRequest request, StreamObserver<ChangeEsimPlanResponse> observer) {
      calls.add(request.getIdempotencyKey());
      onChange.accept(calls.size(), observer);
    }

    @Override
    public void watchRequest(
        WatchRequestRequest request, StreamObserver<WatchRequestResponse> observer) {
      calls.add(request.getResumeToken());
      onWatch.accept(calls.size(), observer);
    }

    @Override
    public void listDevices(
        ListDevicesRequest request, StreamObserver<ListDevicesResponse> observer) {
      calls.add(request.getPageToken());
      var response = ListDevicesResponse.newBuilder();
      switch (request.getPageToken()) {
        case "" -> response.addDevices(device("a")).setNextPageToken("2");
        case "2" -> response.setNextPageToken("3"); // An empty page in the middle.
        default -> response.addDevices(device("b")).addDevices(device("c"));
      }
      observer.onNext(response.build());
      observer.onCompleted();
    }
  }

  private static Device device(String reference) {
    return Device.newBuilder().setClientReference(reference).build();
  }

  private final class TokenRecorder implements ServerInterceptor {
    @Override
    public <Q, R> ServerCall.Listener<Q> interceptCall(
        ServerCall<Q, R> call, Metadata headers, ServerCallHandler<Q, R> next) {
      var key = Metadata.Key.of("authorization", Metadata.ASCII_STRING_MARSHALLER);
      tokens.add(String.valueOf(headers.get(key)));
      return next.startCall(call, headers);
    }
  }

  @BeforeEach
  void start() throws Exception {
    server =
        Grpc.newServerBuilderForPort(0, InsecureServerCredentials.create())
            .addService(new Service())
            .intercept(new TokenRecorder())
            .build()
            .start();
  }

  @AfterEach
  void stop() throws Exception {
    server.shutdownNow().awaitTermination();
  }

  private GatewayClient.Builder builder() {
    return GatewayClient.builder("localhost:" + server.getPort())
        .plaintext()
        .onRetry(failures::add);
  }

  private static void succeed(StreamObserver<ChangeEsimPlanResponse> observer) {
    var change = Change.newBuilder().setChangeId("the-change");
    observer.onNext(ChangeEsimPlanResponse.newBuilder().setChange(change).build());
    observer.onCompleted();
  }

  private static WatchRequestResponse bookmark(String token) {
    return WatchRequestResponse.newBuilder()
        .setResumeToken(token)
        .setBookmark(Bookmark.getDefaultInstance())
        .build();
  }

  private static WatchRequestResponse opened(String token) {
    return WatchRequestResponse.newBuilder()
        .setResumeToken(token)
        .setOpened(Opened.getDefaultInstance())
        .build();
  }

  private static StatusRuntimeException unauthenticated() {
    return Errors.error(
        Status.Code.UNAUTHENTICATED,
        "UNAUTHENTICATED",
        Map.of("retry", "LATER", "executed", "UNKNOWN"));
  }

  private static List<String> tokensOf(Watch<WatchRequestResponse> watch) {
    var tokens = new ArrayList<String>();
    watch.forEach(event -> tokens.add(event.getResumeToken()));
    return tokens;
  }

  @Test
  void repeatsAChangeWhoseOutcomeIsOpen() {
    onChange =
        (call, observer) -> {
          switch (call) {
            case 1 ->
                observer.onError(
                    Errors.error(
                        Status.Code.INTERNAL,
                        "INTERNAL",
                        Map.of("retry", "NEVER", "executed", "UNKNOWN")));
            case 2 -> observer.onError(Status.CANCELLED.asRuntimeException());
            default -> succeed(observer);
          }
        };
    try (var client = builder().build()) {
      assertEquals("the-change", client.changeEsimPlan(CHANGE).getChange().getChangeId());
    }
    assertEquals(List.of("the-key", "the-key", "the-key"), calls);
    assertEquals(List.of(1, 2), failures.stream().map(FailedAttempt::number).toList());
  }

  @Test
  void refusesAChangeWithoutAKey() {
    var change = ChangeEsimPlanRequest.getDefaultInstance();
    try (var client = builder().build()) {
      assertThrows(IllegalArgumentException.class, () -> client.changeEsimPlan(change));
    }
    assertEquals(List.of(), calls);
  }

  @Test
  void endsAChangeAtTheTimeLimit() {
    onChange = (call, observer) -> {}; // The gateway does not answer.
    try (var client =
        builder()
            .attemptTimeout(Duration.ofMillis(200))
            .totalTimeout(Duration.ofSeconds(10))
            .build()) {
      var error = assertThrows(GatewayException.class, () -> client.changeEsimPlan(CHANGE));
      assertEquals(Status.Code.DEADLINE_EXCEEDED, error.getCode());
      assertTrue(error.isOutcomeUnknown());
      assertTrue(error.getCause() instanceof GatewayException, error::toString);
    }
    assertTrue(failures.size() >= 2, failures::toString);
  }

  @Test
  void endsAChangeAtTheDeadlineOfTheContext() throws Exception {
    onChange = (call, observer) -> {};
    var executor = Executors.newSingleThreadScheduledExecutor();
    try (var client = builder().build();
        var context =
            Context.current().withDeadlineAfter(300, TimeUnit.MILLISECONDS, executor)) {
      var error =
          assertThrows(
              GatewayException.class, () -> context.call(() -> client.changeEsimPlan(CHANGE)));
      assertEquals(Status.Code.DEADLINE_EXCEEDED, error.getCode());
      assertFalse(error.isCancelled());
      assertTrue(error.isOutcomeUnknown());
    } finally {
      executor.shutdownNow();
    }
  }

  @Test
  void cancelsAChangeWithItsContextItsThreadOrItsClient() throws Exception {
    for (var way : List.of("context", "thread", "client")) {
      calls.clear();
      onChange = (call, observer) -> {};
      var context = Context.current().withCancellation();
      var failure = new CompletableFuture<GatewayException>();
      try (var client = builder().build()) {
        Runnable change =
            () ->
                failure.complete(
                    assertThrows(
                        GatewayException.class, () -> client.changeEsimPlan(CHANGE)));
        var thread = new Thread(context.wrap(change));
        thread.start();
        while (calls.isEmpty()) {
          Thread.sleep(5);
        }
        switch (way) {
          case "context" -> context.cancel(null);
          case "thread" -> thread.interrupt();
          default -> client.close();
        }
        var error = failure.get(300, TimeUnit.SECONDS);
        assertTrue(error.isCancelled(), way);
        assertTrue(error.isOutcomeUnknown(), way);
        assertEquals(Status.Code.CANCELLED, error.getCode(), way);
      } finally {
        context.cancel(null);
      }
    }
    assertEquals(List.of(), failures);
  }

  @Test
  void callsTheTokenFunctionForEachAttemptAndRepeatsARefusedTokenOnce() {
    onChange = (call, observer) -> observer.onError(unauthenticated());
    var count = new AtomicInteger();
    try (var client =
        builder()
            .token(() -> "token-" + count.incrementAndGet())
            .allowTokenOverPlaintext()
            .build()) {
      var error = assertThrows(GatewayException.class, () -> client.changeEsimPlan(CHANGE));
      assertEquals(Status.Code.UNAUTHENTICATED, error.getCode());
      assertFalse(error.isOutcomeUnknown());
    }
    assertEquals(List.of("Bearer token-1", "Bearer token-2"), tokens);
    assertEquals(Duration.ZERO, failures.get(0).delay());
  }

  @Test
  void doesNotRepeatARefusedTokenThatCannotChange() {
    onChange = (call, observer) -> observer.onError(unauthenticated());
    try (var client = builder().token("the-token").allowTokenOverPlaintext().build()) {
      assertThrows(GatewayException.class, () -> client.changeEsimPlan(CHANGE));
    }
    assertEquals(List.of("Bearer the-token"), tokens);
  }

  @Test
  void repeatsACallWhoseTokenFunctionFails() {
    onChange = (call, observer) -> succeed(observer);
    var count = new AtomicInteger();
    try (var client =
        builder()
            .token(
                () -> {
                  if (count.incrementAndGet() == 1) {
                    throw new IllegalStateException("no network");
                  }
                  return "the-token";
                })
            .allowTokenOverPlaintext()
            .build()) {
      client.changeEsimPlan(CHANGE);
    }
    assertEquals(List.of("Bearer the-token"), tokens);
    assertEquals(Status.Code.UNAVAILABLE, failures.get(0).error().getCode());
  }

  @Test
  void refusesATokenOverPlaintext() {
    var builder = builder().token("the-token");
    assertThrows(IllegalArgumentException.class, builder::build);
  }

  @Test
  void resumesABrokenWatchAfterTheLastProcessedEvent() {
    onWatch =
        (call, observer) -> {
          switch (call) {
            case 1 -> {
              observer.onNext(opened("o"));
              observer.onNext(bookmark("1"));
              observer.onNext(bookmark("2"));
              observer.onError(Status.INTERNAL.asRuntimeException());
            }
            case 2 -> {
              observer.onNext(opened("2"));
              observer.onNext(WatchRequestResponse.newBuilder().setResumeToken("unknown").build());
              var delay = com.google.protobuf.Duration.newBuilder().setNanos(1_000_000);
              observer.onNext(
                  WatchRequestResponse.newBuilder()
                      .setResumeToken("ignored")
                      .setReconnect(Reconnect.newBuilder().setRetryAfter(delay))
                      .build());
              observer.onError(Status.UNAVAILABLE.asRuntimeException());
            }
            default -> {
              observer.onNext(opened("unknown"));
              observer.onNext(bookmark("3"));
              observer.onCompleted();
            }
          }
        };
    var request = WatchRequestRequest.newBuilder().setResumeToken("stored").build();
    try (var client = builder().build();
        var watch = client.watch(request)) {
      assertEquals(List.of("o", "1", "2", "unknown", "3"), tokensOf(watch));
      assertFalse(watch.iterator().hasNext());
    }
    assertEquals(List.of("stored", "2", "unknown"), calls);
    assertEquals(Duration.ofMillis(1), failures.get(1).delay());
    assertEquals("unknown", failures.get(1).resumeToken());
  }

  @Test
  void endsAWatchThatCannotBeResumed() {
    onWatch =
        (call, observer) ->
            observer.onError(
                Errors.error(
                    Status.Code.OUT_OF_RANGE, "RESUME_TOKEN_EXPIRED", Map.of("retry", "NEVER")));
    try (var client = builder().build();
        var watch = client.watch(WatchRequestRequest.getDefaultInstance())) {
      var events = watch.iterator();
      var error = assertThrows(GatewayException.class, events::hasNext);
      assertEquals("RESUME_TOKEN_EXPIRED", error.getReasonText());
      assertThrows(GatewayException.class, events::next);
    }
    assertEquals(1, calls.size());
  }

  @Test
  void opensAStreamAgainThatSendsNoEvents() {
    onWatch =
        (call, observer) -> {
          observer.onNext(opened("o"));
          if (call >= 2) {
            observer.onNext(bookmark("1"));
            observer.onCompleted();
          }
        };
    try (var client = builder().idleTimeout(Duration.ofSeconds(2)).build();
        var watch = client.watch(WatchRequestRequest.getDefaultInstance())) {
      assertEquals(List.of("o", "1"), tokensOf(watch));
    }
    assertEquals("no event for 2 s", failures.get(0).error().getDescription());
  }

  @Test
  void endsAWatchWhoseStreamCannotBeOpenedInTime() {
    onWatch = (call, observer) -> observer.onError(Status.UNAVAILABLE.asRuntimeException());
    try (var client = builder().reopenTimeout(Duration.ofSeconds(4)).build();
        var watch = client.watch(WatchRequestRequest.getDefaultInstance())) {
      var error = assertThrows(GatewayException.class, () -> tokensOf(watch));
      assertEquals(Status.Code.UNAVAILABLE, error.getCode());
    }
    assertTrue(calls.size() > 1, calls::toString);
  }

  @Test
  void endsAWatchThatAnotherThreadCloses() throws Exception {
    onWatch = (call, observer) -> observer.onNext(opened("o"));
    try (var client = builder().build();
        var watch = client.watch(WatchRequestRequest.getDefaultInstance())) {
      var events = watch.iterator();
      events.next();
      CompletableFuture.runAsync(watch::close);
      assertTrue(assertThrows(GatewayException.class, events::next).isCancelled());
    }
    assertEquals(List.of(), failures);
  }

  @Test
  void listsTheDevicesOfAllPages() {
    try (var client = builder().build()) {
      var devices = client.listDevices(ListDevicesRequest.getDefaultInstance());
      for (int i = 0; i < 2; i++) { // Each iterator starts at the first page.
        var references = new ArrayList<String>();
        devices.forEach(device -> references.add(device.getClientReference()));
        assertEquals(List.of("a", "b", "c"), references);
      }
    }
    assertEquals(List.of("", "2", "3", "", "2", "3"), calls);
  }

  @Test
  void failsAfterItIsClosed() {
    var client = builder().build();
    client.close();
    assertThrows(IllegalStateException.class, () -> client.changeEsimPlan(CHANGE));
  }
}
