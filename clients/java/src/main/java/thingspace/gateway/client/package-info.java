/**
 * A client of thingspace-gateway.
 *
 * <p>{@link thingspace.gateway.client.GatewayClient} repeats failed calls and resumes broken streams
 * by the rules of the gateway. The package {@code thingspace.gateway.v1} contains the messages and
 * the stubs.
 */
package thingspace.gateway.client;
