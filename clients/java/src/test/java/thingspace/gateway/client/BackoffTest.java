package thingspace.gateway.client;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.google.rpc.RetryInfo;
import io.grpc.Status;
import java.time.Duration;
import java.util.Map;
import org.junit.jupiter.api.Test;

class BackoffTest {
  private static final GatewayException PLAIN = GatewayException.of(Status.UNAVAILABLE);

  @Test
  void growsFromATenthOfASecondToTenSeconds() {
    var shortest = new Backoff(() -> 0);
    var longest = new Backoff(() -> 1);
    for (var milliseconds : new int[] {100, 200, 400, 800, 1600, 3200, 5000, 5000}) {
      assertEquals(milliseconds, shortest.next(PLAIN).toMillis());
    }
    for (var milliseconds : new int[] {200, 400, 800, 1600, 3200, 6400, 10000, 10000}) {
      assertEquals(milliseconds, longest.next(PLAIN).toMillis());
    }
  }

  @Test
  void staysWithinItsBoundsAfterManyFailures() {
    var backoff = new Backoff();
    for (int i = 0; i < 5000; i++) {
      var delay = backoff.next(PLAIN);
      assertTrue(delay.compareTo(Duration.ofMillis(100)) >= 0, delay::toString);
      assertTrue(delay.compareTo(Duration.ofSeconds(10)) <= 0, delay::toString);
    }
  }

  @Test
  void startsAgainAfterAReset() {
    var backoff = new Backoff(() -> 1);
    backoff.next(PLAIN);
    backoff.next(PLAIN);
    backoff.reset();
    assertEquals(Duration.ofMillis(200), backoff.next(PLAIN));
  }

  @Test
  void usesTheDelayOfTheError() {
    var retryInfo =
        RetryInfo.newBuilder()
            .setRetryDelay(com.google.protobuf.Duration.newBuilder().setSeconds(42))
            .build();
    var error = Errors.error(Status.Code.UNAVAILABLE, "THROTTLED", Map.of(), retryInfo);
    assertEquals(Duration.ofSeconds(42), new Backoff().next(GatewayException.of(error)));
  }
}
