package thingspace.gateway.client;

import java.time.Duration;

/**
 * A failed attempt that the library repeats. {@link GatewayClient.Builder#onRetry} receives it.
 *
 * @param number the number of failed attempts of the call or watch, starting at 1
 * @param error the error of the attempt
 * @param delay the delay before the next attempt
 * @param resumeToken the token with which a watch opens its stream again. Empty for other calls, and
 *     if no event has been processed
 */
public record FailedAttempt(
    int number, GatewayException error, Duration delay, String resumeToken) {}
