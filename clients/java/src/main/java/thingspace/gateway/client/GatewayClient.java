package thingspace.gateway.client;

import static java.util.Objects.requireNonNull;

import io.grpc.CallOptions;
import io.grpc.Channel;
import io.grpc.ChannelCredentials;
import io.grpc.CompositeChannelCredentials;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import io.grpc.MethodDescriptor;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.grpc.TlsChannelCredentials;
import io.grpc.stub.ClientCalls;
import java.io.ByteArrayInputStream;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.Optional;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.TimeUnit;
import java.util.function.Consumer;
import java.util.function.Supplier;
import thingspace.gateway.v1.Change;
import thingspace.gateway.v1.ChangeEsimPlanRequest;
import thingspace.gateway.v1.ChangeEsimPlanResponse;
import thingspace.gateway.v1.ChangeFiveGBiPlanRequest;
import thingspace.gateway.v1.ChangeFiveGBiPlanResponse;
import thingspace.gateway.v1.ChangeServicePlanRequest;
import thingspace.gateway.v1.ChangeServicePlanResponse;
import thingspace.gateway.v1.Device;
import thingspace.gateway.v1.DeviceResult;
import thingspace.gateway.v1.GatewayServiceGrpc;
import thingspace.gateway.v1.GetChangeRequest;
import thingspace.gateway.v1.GetChangeResponse;
import thingspace.gateway.v1.ListChangesRequest;
import thingspace.gateway.v1.ListChangesResponse;
import thingspace.gateway.v1.ListDeviceResultsRequest;
import thingspace.gateway.v1.ListDeviceResultsResponse;
import thingspace.gateway.v1.ListDevicesRequest;
import thingspace.gateway.v1.ListDevicesResponse;
import thingspace.gateway.v1.WatchAccountRequest;
import thingspace.gateway.v1.WatchAccountResponse;
import thingspace.gateway.v1.WatchRequestRequest;
import thingspace.gateway.v1.WatchRequestResponse;

/**
 * A connection to the gateway. Create one for each gateway, and share it between threads.
 *
 * <p>The methods block. They throw a {@link GatewayException} if the call fails for good. A call is
 * cancelled if its {@link io.grpc.Context} is cancelled, if its thread is interrupted, or if the
 * client is closed. A deadline of the context shortens the time limit of the call.
 *
 * <p>The library repeats calls itself. The retries of the gRPC library are off, and so is its service
 * config.
 */
public final class GatewayClient implements AutoCloseable {
  private final ManagedChannel channel;
  private final boolean tokenFunction;
  private final Duration attemptTimeout;
  private final Duration totalTimeout;
  private final Duration idleTimeout;
  private final Duration reopenTimeout;
  private final Consumer<FailedAttempt> onRetry;
  private final Set<CallScope> scopes = ConcurrentHashMap.newKeySet();
  private volatile boolean closed;

  private GatewayClient(Builder builder, ManagedChannel channel) {
    this.channel = channel;
    this.tokenFunction = builder.token != null && !builder.tokenFixed;
    this.attemptTimeout = builder.attemptTimeout;
    this.totalTimeout = builder.totalTimeout;
    this.idleTimeout = builder.idleTimeout;
    this.reopenTimeout = builder.reopenTimeout;
    this.onRetry = builder.onRetry;
  }

  /**
   * Starts to configure a client.
   *
   * @param target the address of the gateway: {@code host:port}, or a target of the gRPC library
   * @return the configuration
   */
  public static Builder builder(String target) {
    return new Builder(target);
  }

  /**
   * Returns the channel, with the token. Use it for your own stubs, such as {@code
   * OperatorServiceGrpc.newBlockingStub(client.channel())}. Calls of such stubs are not repeated.
   *
   * @return the channel
   */
  public Channel channel() {
    return channel;
  }

  /**
   * Changes the service plan of eSIM profiles. Repeats the call with the same idempotency key until
   * it returns OK or an error with {@code executed} = NO and {@code retry} = NEVER.
   *
   * @param request the request. Its {@code idempotency_key} is required
   * @return the response. OK does not mean that ThingSpace executed the change: watch it
   * @throws GatewayException if the call fails. See {@link GatewayException#isOutcomeUnknown}
   * @throws IllegalArgumentException if the request has no idempotency key
   */
  public ChangeEsimPlanResponse changeEsimPlan(ChangeEsimPlanRequest request) {
    return change(
        GatewayServiceGrpc.getChangeEsimPlanMethod(),
        request,
        request.getIdempotencyKey(),
        request.getValidateOnly());
  }

  /**
   * Changes the service plan of 5G Business Internet devices. Repeats the call as {@link
   * #changeEsimPlan} does.
   *
   * @param request the request. Its {@code idempotency_key} is required
   * @return the response. OK does not mean that ThingSpace executed the change: watch it
   * @throws GatewayException if the call fails. See {@link GatewayException#isOutcomeUnknown}
   * @throws IllegalArgumentException if the request has no idempotency key
   */
  public ChangeFiveGBiPlanResponse changeFiveGBiPlan(ChangeFiveGBiPlanRequest request) {
    return change(
        GatewayServiceGrpc.getChangeFiveGBiPlanMethod(),
        request,
        request.getIdempotencyKey(),
        request.getValidateOnly());
  }

  /**
   * Changes the service plan of other devices. Repeats the call as {@link #changeEsimPlan} does.
   *
   * @param request the request. Its {@code idempotency_key} is required
   * @return the response. OK does not mean that ThingSpace executed the change: watch it
   * @throws GatewayException if the call fails. See {@link GatewayException#isOutcomeUnknown}
   * @throws IllegalArgumentException if the request has no idempotency key
   */
  public ChangeServicePlanResponse changeServicePlan(ChangeServicePlanRequest request) {
    return change(
        GatewayServiceGrpc.getChangeServicePlanMethod(),
        request,
        request.getIdempotencyKey(),
        request.getValidateOnly());
  }

  /**
   * Watches one change or one request of ThingSpace. Close the watch after use.
   *
   * @param request the request. With a {@code resume_token}, the watch starts after that event
   * @return the events
   */
  public Watch<WatchRequestResponse> watch(WatchRequestRequest request) {
    return new Watch<>(
        this,
        new Watch.Protocol<>(
            GatewayServiceGrpc.getWatchRequestMethod(),
            token -> request.toBuilder().setResumeToken(token).build(),
            WatchRequestResponse::getResumeToken,
            WatchRequestResponse::hasOpened,
            WatchRequestResponse::hasFinished,
            e -> e.hasReconnect() ? Optional.of(e.getReconnect()) : Optional.empty()),
        request.getResumeToken());
  }

  /**
   * Watches all changes of an account. Close the watch after use.
   *
   * @param request the request. With a {@code resume_token}, the watch starts after that event
   * @return the events. They end only with {@code UNTIL_CAUGHT_UP}
   */
  public Watch<WatchAccountResponse> watchAccount(WatchAccountRequest request) {
    return new Watch<>(
        this,
        new Watch.Protocol<>(
            GatewayServiceGrpc.getWatchAccountMethod(),
            token -> request.toBuilder().setResumeToken(token).build(),
            WatchAccountResponse::getResumeToken,
            WatchAccountResponse::hasOpened,
            event -> false,
            e -> e.hasReconnect() ? Optional.of(e.getReconnect()) : Optional.empty()),
        request.getResumeToken());
  }

  /**
   * Returns one change. Repeats the call as {@link #call} does.
   *
   * @param request the request
   * @return the change
   * @throws GatewayException if the call fails
   */
  public Change getChange(GetChangeRequest request) {
    GetChangeResponse response = call(GatewayServiceGrpc.getGetChangeMethod(), request);
    return response.getChange();
  }

  /**
   * Lists changes, newest first. Repeats each call as {@link #call} does.
   *
   * @param request the request for the first page
   * @return the changes. Each iterator starts at the first page, and calls the gateway for each page
   */
  public Iterable<Change> listChanges(ListChangesRequest request) {
    return () ->
        new Pages<>(
            token ->
                call(
                    GatewayServiceGrpc.getListChangesMethod(),
                    request.toBuilder().setPageToken(token).build()),
            ListChangesResponse::getChangesList,
            ListChangesResponse::getNextPageToken,
            request.getPageToken());
  }

  /**
   * Lists the devices of a change with their outcomes. Repeats each call as {@link #call} does.
   *
   * @param request the request for the first page
   * @return the devices. Each iterator starts at the first page, and calls the gateway for each page
   */
  public Iterable<Device> listDevices(ListDevicesRequest request) {
    return () ->
        new Pages<>(
            token ->
                call(
                    GatewayServiceGrpc.getListDevicesMethod(),
                    request.toBuilder().setPageToken(token).build()),
            ListDevicesResponse::getDevicesList,
            ListDevicesResponse::getNextPageToken,
            request.getPageToken());
  }

  /**
   * Lists the results of a change or a request. Repeats each call as {@link #call} does.
   *
   * @param request the request for the first page
   * @return the results. Each iterator starts at the first page, and calls the gateway for each page
   */
  public Iterable<DeviceResult> listDeviceResults(ListDeviceResultsRequest request) {
    return () ->
        new Pages<>(
            token ->
                call(
                    GatewayServiceGrpc.getListDeviceResultsMethod(),
                    request.toBuilder().setPageToken(token).build()),
            ListDeviceResultsResponse::getDeviceResultsList,
            ListDeviceResultsResponse::getNextPageToken,
            request.getPageToken());
  }

  /**
   * Calls a method that changes nothing. Repeats the call unless the error says {@code retry} =
   * NEVER.
   *
   * @param <Q> the type of the request
   * @param <R> the type of the response
   * @param method the method, such as {@code GatewayServiceGrpc.getGetServerInfoMethod()}
   * @param request the request
   * @return the response
   * @throws GatewayException if the call fails
   */
  public <Q, R> R call(MethodDescriptor<Q, R> method, Q request) {
    return repeat(RetryRule.READ, method, request);
  }

  /** Cancels all calls and watches, and closes the connection. */
  @Override
  public void close() {
    closed = true;
    scopes.forEach(CallScope::close);
    channel.shutdownNow();
    try {
      channel.awaitTermination(5, TimeUnit.SECONDS);
    } catch (InterruptedException error) {
      Thread.currentThread().interrupt();
    }
  }

  private <Q, R> R change(
      MethodDescriptor<Q, R> method, Q request, String key, boolean validateOnly) {
    if (key.isEmpty()) {
      throw new IllegalArgumentException(
          "idempotency_key is empty: a change without a key cannot be repeated");
    }
    return repeat(validateOnly ? RetryRule.READ : RetryRule.CHANGE, method, request);
  }

  /** The loop of all calls except streams. */
  private <Q, R> R repeat(RetryRule rule, MethodDescriptor<Q, R> method, Q request) {
    try (var scope = newScope()) {
      var limit = scope.limit(totalTimeout);
      var start = System.nanoTime();
      var backoff = new Backoff();
      var outcomeUnknown = false;
      var wasUnauthenticated = false;
      GatewayException error = null;
      for (int number = 1; ; number++) {
        if (scope.isCancelled()) {
          throw GatewayException.cancelled(outcomeUnknown, error);
        }
        try {
          var left = limit.minusNanos(System.nanoTime() - start);
          var timeout = left.compareTo(attemptTimeout) < 0 ? left : attemptTimeout;
          var options =
              CallOptions.DEFAULT.withDeadlineAfter(timeout.toNanos(), TimeUnit.NANOSECONDS);
          return scope.run(() -> ClientCalls.blockingUnaryCall(channel, method, options, request));
        } catch (StatusRuntimeException cause) {
          error = GatewayException.of(cause);
        }
        outcomeUnknown = rule.outcomeUnknown(error, outcomeUnknown);
        if (scope.isCancelled()) {
          throw GatewayException.cancelled(outcomeUnknown, error);
        }
        var decision = rule.decide(error, tokenFunction && !wasUnauthenticated);
        if (decision == RetryRule.Decision.FAIL) {
          throw error.withOutcomeUnknown(outcomeUnknown);
        }
        wasUnauthenticated = error.getCode() == Status.Code.UNAUTHENTICATED;
        var delay = backoff.next(error);
        if (decision == RetryRule.Decision.REPEAT_NOW) {
          delay = Duration.ZERO;
        }
        var left = limit.minusNanos(System.nanoTime() - start);
        if (delay.compareTo(left) >= 0) {
          throw error.afterTimeLimit(limit, outcomeUnknown);
        }
        beforeRetry(new FailedAttempt(number, error, delay, ""));
        scope.sleep(delay);
      }
    }
  }

  CallScope newScope() {
    var scope = new CallScope(scopes);
    if (closed) {
      scope.close();
      throw new IllegalStateException("the client is closed");
    }
    return scope;
  }

  /** Reports a failed attempt, and connects again without the delay of the gRPC library. */
  void beforeRetry(FailedAttempt attempt) {
    onRetry.accept(attempt);
    channel.resetConnectBackoff();
  }

  /** Lets the next call open a new connection. Calls in progress keep theirs. */
  void useNewConnection() {
    channel.enterIdle();
  }

  boolean hasTokenFunction() {
    return tokenFunction;
  }

  Duration idleTimeout() {
    return idleTimeout;
  }

  Duration reopenTimeout() {
    return reopenTimeout;
  }

  static Duration toDuration(com.google.protobuf.Duration duration) {
    return Duration.ofSeconds(duration.getSeconds(), duration.getNanos());
  }

  /** The configuration of a client. By default, the client uses TLS and the system's certificates. */
  public static final class Builder {
    private final String target;
    private boolean plaintext;
    private byte[] caCertificates;
    private byte[] certificate;
    private byte[] key;
    private Supplier<String> token;
    private boolean tokenFixed;
    private boolean allowTokenOverPlaintext;
    private Duration keepalive = Duration.ofSeconds(30);
    private Duration attemptTimeout = Duration.ofSeconds(90);
    private Duration totalTimeout = Duration.ofMinutes(10);
    private Duration idleTimeout = Duration.ofSeconds(90);
    private Duration reopenTimeout;
    private Consumer<FailedAttempt> onRetry = attempt -> {};

    private Builder(String target) {
      this.target = requireNonNull(target);
    }

    /**
     * Turns TLS off.
     *
     * @return this
     */
    public Builder plaintext() {
      plaintext = true;
      return this;
    }

    /**
     * Sets the certificate authorities of the gateway, instead of those of the system.
     *
     * @param pem a PEM file
     * @return this
     * @throws UncheckedIOException if the file cannot be read
     */
    public Builder caFile(Path pem) {
      return caCertificates(read(pem));
    }

    /**
     * Sets the certificate authorities of the gateway, instead of those of the system.
     *
     * @param pem certificates in PEM format
     * @return this
     */
    public Builder caCertificates(byte[] pem) {
      caCertificates = pem.clone();
      return this;
    }

    /**
     * Sets the certificate of the client.
     *
     * @param certificatePem a PEM file with the certificate and its intermediate certificates
     * @param keyPem a PEM file with the private key, in PKCS #8 format and not encrypted
     * @return this
     * @throws UncheckedIOException if a file cannot be read
     */
    public Builder clientCertificate(Path certificatePem, Path keyPem) {
      return clientCertificate(read(certificatePem), read(keyPem));
    }

    /**
     * Sets the certificate of the client.
     *
     * @param certificatePem the certificate and its intermediate certificates in PEM format
     * @param keyPem the private key in PEM format (PKCS #8), not encrypted
     * @return this
     */
    public Builder clientCertificate(byte[] certificatePem, byte[] keyPem) {
      certificate = certificatePem.clone();
      key = keyPem.clone();
      return this;
    }

    /**
     * Sets a bearer token that does not change.
     *
     * @param token the token
     * @return this
     */
    public Builder token(String token) {
      requireNonNull(token);
      this.token = () -> token;
      tokenFixed = true;
      return this;
    }

    /**
     * Sets a function that returns the bearer token. It is called for each attempt and each stream, by
     * several threads. If it throws, the attempt is not sent: it fails with UNAVAILABLE, and is
     * repeated.
     *
     * @param token the function
     * @return this
     */
    public Builder token(Supplier<String> token) {
      this.token = requireNonNull(token);
      tokenFixed = false;
      return this;
    }

    /**
     * Allows the client to send the token without TLS. Everyone on the network path can read it.
     *
     * @return this
     */
    public Builder allowTokenOverPlaintext() {
      allowTokenOverPlaintext = true;
      return this;
    }

    /**
     * Sets the interval of keepalive pings during calls: 30 s by default. The gRPC library increases
     * it to at least 10 s. An answer must arrive within 10 s.
     *
     * @param interval the interval
     * @return this
     */
    public Builder keepalive(Duration interval) {
      keepalive = positive(interval);
      return this;
    }

    /**
     * Sets the deadline of each attempt of a call: 90 s by default. It must be longer than {@code
     * thingspace.request_timeout} of the gateway. It does not apply to watches.
     *
     * @param timeout the time
     * @return this
     */
    public Builder attemptTimeout(Duration timeout) {
      attemptTimeout = positive(timeout);
      return this;
    }

    /**
     * Sets the time limit of a call with all its attempts: 10 minutes by default. It does not apply to
     * watches.
     *
     * @param timeout the time
     * @return this
     */
    public Builder totalTimeout(Duration timeout) {
      totalTimeout = positive(timeout);
      return this;
    }

    /**
     * Sets the time without an event after which a stream counts as broken: 90 s by default. The
     * gateway sends an event at least every 30 s by default, at most 60 s apart (its setting
     * grpc.bookmark_interval).
     *
     * @param timeout the time
     * @return this
     */
    public Builder idleTimeout(Duration timeout) {
      idleTimeout = positive(timeout);
      return this;
    }

    /**
     * Sets the time after which a watch fails if its stream cannot be opened again. By default, there
     * is no limit.
     *
     * @param timeout the time
     * @return this
     */
    public Builder reopenTimeout(Duration timeout) {
      reopenTimeout = positive(timeout);
      return this;
    }

    /**
     * Sets a function that is called before each repetition, by the thread of the call. Use it for
     * logs and metrics.
     *
     * @param observer the function
     * @return this
     */
    public Builder onRetry(Consumer<FailedAttempt> observer) {
      onRetry = requireNonNull(observer);
      return this;
    }

    /**
     * Creates the client. It connects with the first call.
     *
     * @return the client
     * @throws IllegalArgumentException if the configuration would send a token over plaintext, or has
     *     both {@link #plaintext} and certificates
     */
    public GatewayClient build() {
      var credentials = plaintext ? insecure() : tls();
      if (token != null) {
        credentials = CompositeChannelCredentials.create(credentials, new BearerToken(token));
      }
      var channel =
          Grpc.newChannelBuilder(target, credentials)
              .keepAliveTime(keepalive.toNanos(), TimeUnit.NANOSECONDS)
              .keepAliveTimeout(10, TimeUnit.SECONDS)
              .disableRetry()
              .disableServiceConfigLookUp()
              .build();
      return new GatewayClient(this, channel);
    }

    private ChannelCredentials insecure() {
      if (caCertificates != null || certificate != null) {
        throw new IllegalArgumentException("plaintext does not use certificates");
      }
      if (token != null && !allowTokenOverPlaintext) {
        throw new IllegalArgumentException(
            "a token is not sent over plaintext: use TLS or allowTokenOverPlaintext");
      }
      return InsecureChannelCredentials.create();
    }

    private ChannelCredentials tls() {
      var tls = TlsChannelCredentials.newBuilder();
      try {
        if (caCertificates != null) {
          tls.trustManager(new ByteArrayInputStream(caCertificates));
        }
        if (certificate != null) {
          tls.keyManager(new ByteArrayInputStream(certificate), new ByteArrayInputStream(key));
        }
      } catch (IOException error) {
        throw new UncheckedIOException(error);
      }
      return tls.build();
    }

    private static byte[] read(Path file) {
      try {
        return Files.readAllBytes(file);
      } catch (IOException error) {
        throw new UncheckedIOException(error);
      }
    }

    private static Duration positive(Duration duration) {
      if (!Backoff.isPositive(duration)) {
        throw new IllegalArgumentException("the duration must be positive: " + duration);
      }
      return duration;
    }
  }
}
