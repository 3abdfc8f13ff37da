package thingspace.gateway.client;

import io.grpc.MethodDescriptor;
import io.grpc.Status;
import java.time.Duration;
import java.util.Iterator;
import java.util.NoSuchElementException;
import java.util.Optional;
import java.util.function.Function;
import thingspace.gateway.v1.Reconnect;

/**
 * The events of a change or of an account. It opens the stream again if it breaks, and delivers each
 * event once and in order.
 *
 * <pre>{@code
 * try (var watch = client.watch(request)) {
 *   for (var event : watch) {
 *     ...
 *   }
 * }
 * }</pre>
 *
 * <p>The iterator ends when the gateway ends the stream with OK. It throws a {@link GatewayException}
 * if the error says {@code retry} = NEVER, if the credential is refused, or if the watch is
 * cancelled. An event counts as processed when the consumer asks for the next one. After a failure,
 * a new stream continues after the last processed event.
 *
 * <p>The iterator delivers every event except {@code reconnect}, and {@code opened} of a resumed
 * stream. It also delivers events that this version of the library does not know: ignore them, but
 * store their tokens if you store tokens.
 *
 * <p>The iterator is used by one thread. {@link #close} may be called by any thread.
 *
 * @param <E> the type of the events
 */
public final class Watch<E> implements Iterable<E>, AutoCloseable {
  private static final Duration STABLE = Duration.ofMinutes(1);

  /** The messages of a kind of watch. */
  record Protocol<Q, E>(
      MethodDescriptor<Q, E> method,
      Function<String, Q> request,
      Function<E, String> token,
      Function<E, Boolean> opened,
      Function<E, Boolean> finished,
      Function<E, Optional<Reconnect>> reconnect) {}

  private final CallScope scope;
  private final Iterator<E> events;

  <Q> Watch(GatewayClient client, Protocol<Q, E> protocol, String resumeToken) {
    this.scope = client.newScope();
    this.events = new Events<>(client, scope, protocol, resumeToken);
  }

  /**
   * Returns the iterator of the events. There is only one: each call returns the same.
   *
   * @return the iterator
   */
  @Override
  public Iterator<E> iterator() {
    return events;
  }

  /** Cancels the watch. An iterator that waits for an event in another thread throws an error. */
  @Override
  public void close() {
    scope.close();
  }

  private static final class Events<Q, E> implements Iterator<E> {
    private final GatewayClient client;
    private final CallScope scope;
    private final Protocol<Q, E> protocol;
    private final Backoff backoff = new Backoff();

    private EventStream<Q, E> stream;
    private E next; // Received, but not delivered yet.
    private String deliveredToken;
    private boolean opened; // The first `opened` was delivered.
    private boolean finished; // The last event was delivered.
    private boolean ended;
    private GatewayException failure;
    private int failedAttempts;
    private Duration reconnectDelay;
    private boolean wasUnauthenticated;
    private long lastOpening;
    private Long brokenSince; // Null while a stream delivers events.

    Events(GatewayClient client, CallScope scope, Protocol<Q, E> protocol, String resumeToken) {
      this.client = client;
      this.scope = scope;
      this.protocol = protocol;
      this.deliveredToken = resumeToken;
    }

    @Override
    public boolean hasNext() {
      while (next == null && !ended) {
        if (failure != null) {
          throw failure;
        }
        try {
          advance();
        } catch (GatewayException error) {
          failure = error;
          scope.close();
          throw error;
        }
      }
      return next != null;
    }

    @Override
    public E next() {
      if (!hasNext()) {
        throw new NoSuchElementException();
      }
      var event = next;
      next = null;
      var token = protocol.token.apply(event);
      deliveredToken = token.isEmpty() ? deliveredToken : token;
      return event;
    }

    /** Receives one event or the end of the stream. All delivered events are processed here. */
    private void advance() {
      if (scope.isCancelled()) {
        throw GatewayException.cancelled(false, null);
      }
      EventStream.Item<E> item;
      try {
        if (stream == null) {
          lastOpening = System.nanoTime();
          var request = protocol.request.apply(deliveredToken);
          stream =
              scope.run(() -> new EventStream<>(client.channel(), protocol.method, request));
        }
        item = stream.poll(client.idleTimeout());
      } catch (InterruptedException error) {
        scope.interrupt();
        throw GatewayException.cancelled(false, error);
      }
      if (item == null) {
        stream.cancel();
        // The connection may be broken. The next stream uses a new one.
        client.useNewConnection();
        var text = "no event for " + GatewayException.seconds(client.idleTimeout()) + " s";
        recover(GatewayException.of(Status.UNAVAILABLE.withDescription(text)));
      } else if (item.event() != null) {
        receive(item.event());
      } else if (item.end().isOk()) {
        ended = true;
        scope.close();
      } else {
        recover(GatewayException.of(item.end().asRuntimeException(item.trailers())));
      }
    }

    private void receive(E event) {
      brokenSince = null;
      wasUnauthenticated = false;
      var reconnect = protocol.reconnect.apply(event);
      if (reconnect.isPresent()) {
        reconnectDelay = GatewayClient.toDuration(reconnect.get().getRetryAfter());
      } else if (!protocol.opened.apply(event)) {
        finished = protocol.finished.apply(event);
        backoff.reset();
        next = event;
      } else if (!opened) {
        opened = true;
        next = event;
      }
    }

    /** Waits before the stream is opened again, or throws the error. */
    private void recover(GatewayException error) {
      stream = null;
      if (finished) { // A new stream would deliver the last event again.
        ended = true;
        scope.close();
        return;
      }
      if (scope.isCancelled()) {
        throw GatewayException.cancelled(false, error);
      }
      if (scope.isExpired()) {
        throw error;
      }
      var freshToken = client.hasTokenFunction() && !wasUnauthenticated;
      var decision = RetryRule.READ.decide(error, freshToken);
      if (decision == RetryRule.Decision.FAIL) {
        throw error;
      }
      wasUnauthenticated = error.getCode() == Status.Code.UNAUTHENTICATED;
      var now = System.nanoTime();
      if (now - lastOpening > STABLE.toNanos()) {
        backoff.reset();
      }
      var delay = backoff.next(error);
      if (decision == RetryRule.Decision.REPEAT_NOW) {
        delay = Duration.ZERO;
      } else if (reconnectDelay != null && Backoff.isPositive(reconnectDelay)) {
        delay = reconnectDelay;
      }
      reconnectDelay = null;
      brokenSince = brokenSince == null ? now : brokenSince;
      var limit = client.reopenTimeout();
      if (limit != null && delay.compareTo(limit.minusNanos(now - brokenSince)) >= 0) {
        throw error.afterTimeLimit(limit, false);
      }
      client.beforeRetry(new FailedAttempt(++failedAttempts, error, delay, deliveredToken));
      scope.sleep(delay);
    }
  }
}
