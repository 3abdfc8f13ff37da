package thingspace.gateway.client;

import static java.util.Objects.requireNonNull;

import io.grpc.CallCredentials;
import io.grpc.Metadata;
import io.grpc.Status;
import java.util.concurrent.Executor;
import java.util.function.Supplier;

/** Adds the token to each attempt of a call. */
final class BearerToken extends CallCredentials {
  private static final Metadata.Key<String> AUTHORIZATION =
      Metadata.Key.of("authorization", Metadata.ASCII_STRING_MARSHALLER);

  private final Supplier<String> token;

  BearerToken(Supplier<String> token) {
    this.token = token;
  }

  @Override
  public void applyRequestMetadata(
      RequestInfo request, Executor executor, MetadataApplier applier) {
    executor.execute(
        () -> {
          var headers = new Metadata();
          try {
            headers.put(AUTHORIZATION, "Bearer " + requireNonNull(token.get(), "no token").strip());
          } catch (RuntimeException error) {
            var status = Status.UNAVAILABLE.withDescription("the token function failed: " + error);
            applier.fail(status.withCause(error));
            return;
          }
          applier.apply(headers);
        });
  }
}
