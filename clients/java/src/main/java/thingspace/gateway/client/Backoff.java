package thingspace.gateway.client;

import java.time.Duration;
import java.util.concurrent.ThreadLocalRandom;
import java.util.function.DoubleSupplier;

/** Counts the failures of a call, and computes the delays between its attempts. */
final class Backoff {
  private static final double FIRST_SECONDS = 0.1;
  private static final double MAX_SECONDS = 10;

  private final DoubleSupplier random;
  private int failures;

  Backoff() {
    this(() -> ThreadLocalRandom.current().nextDouble());
  }

  /** {@code random} returns values from 0 to 1. */
  Backoff(DoubleSupplier random) {
    this.random = random;
  }

  /** Returns the delay after a failure: from 0.1 s to 10 s with jitter, unless the error names one. */
  Duration next(GatewayException error) {
    var ceiling = Math.min(MAX_SECONDS, FIRST_SECONDS * Math.pow(2, ++failures));
    var seconds = ceiling * (0.5 + 0.5 * random.getAsDouble());
    return error
        .getRetryAfter()
        .filter(Backoff::isPositive)
        .orElse(Duration.ofNanos((long) (seconds * 1e9)));
  }

  static boolean isPositive(Duration delay) {
    return !delay.isNegative() && !delay.isZero();
  }

  void reset() {
    failures = 0;
  }
}
