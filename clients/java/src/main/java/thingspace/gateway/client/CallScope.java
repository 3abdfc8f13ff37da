package thingspace.gateway.client;

import io.grpc.Context;
import java.time.Duration;
import java.util.Set;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import java.util.function.Supplier;

/** The context of all attempts of one call. It ends with the caller's context, or with the client. */
final class CallScope implements AutoCloseable {
  private final Context.CancellableContext context = Context.current().withCancellation();
  private final CountDownLatch ended = new CountDownLatch(1);
  private final Set<CallScope> registry;
  private volatile boolean interrupted;

  CallScope(Set<CallScope> registry) {
    this.registry = registry;
    registry.add(this);
    context.addListener(context -> ended.countDown(), Runnable::run);
  }

  /** Runs an action whose gRPC calls are cancelled with this scope. */
  <T> T run(Supplier<T> action) {
    var previous = context.attach();
    try {
      return action.get();
    } finally {
      context.detach(previous);
    }
  }

  /** Waits. Returns early if the call is cancelled. */
  void sleep(Duration delay) {
    try {
      ended.await(delay.toNanos(), TimeUnit.NANOSECONDS);
    } catch (InterruptedException error) {
      interrupt();
    }
  }

  /** The thread of the caller was interrupted, which cancels the call. */
  void interrupt() {
    interrupted = true;
    Thread.currentThread().interrupt();
  }

  /** Returns true if the caller cancelled the call. A deadline that passes does not count. */
  boolean isCancelled() {
    return interrupted
        || Thread.currentThread().isInterrupted()
        || (context.isCancelled() && !(context.cancellationCause() instanceof TimeoutException));
  }

  /** Returns true if the deadline of the caller's context has passed. */
  boolean isExpired() {
    return context.getDeadline() != null && context.getDeadline().isExpired();
  }

  /** Returns a time limit, or the time until the deadline of the caller's context if it is shorter. */
  Duration limit(Duration limit) {
    var deadline = context.getDeadline();
    if (deadline == null) {
      return limit;
    }
    var left = Duration.ofNanos(Math.max(0, deadline.timeRemaining(TimeUnit.NANOSECONDS)));
    return left.compareTo(limit) < 0 ? left : limit;
  }

  /** Cancels the call. */
  @Override
  public void close() {
    registry.remove(this);
    context.cancel(null);
  }
}
