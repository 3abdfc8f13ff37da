// Package gateway is the client of thingspace-gateway, a gRPC gateway to
// Verizon's ThingSpace.
//
// A [Client] adds to the generated stubs of package gatewayv1 what every program
// needs:
//
//   - [Client.ChangeEsimPlan], [Client.ChangeFiveGBiPlan] and
//     [Client.ChangeServicePlan] repeat a call with the same idempotency key until
//     its outcome is known.
//   - [Client.Watch] and [Client.WatchAccount] are iterators that open a broken
//     stream again and deliver each event once.
//   - [Client.GetChange] and other calls that only read are repeated until they
//     succeed. [Client.ListDevices] and other lists are iterators over all pages.
//   - Every error is an [*Error] with the details that the gateway sent.
//
// # Repeated calls
//
// Only this package repeats calls. The client disables retry policies and service
// configs of grpc-go, which does not repeat messages above 256 KiB (about 1,000
// devices with addresses) anyway. Calls of the stubs [Client.Gateway] and
// [Client.Operator] are not repeated, unless they are made with [Call].
//
// The delay between two attempts is the one that the error contains. Otherwise it
// grows from 0.1 s to 10 s, with jitter. After UNAUTHENTICATED, the client repeats
// the attempt once and at once with a new token if [Config.TokenFunc] is set.
// If that attempt is UNAUTHENTICATED too, the call ends.
//
// Contexts end calls: a context that is cancelled or whose deadline passes ends
// the call at once with an [*Error] that wraps the error of the context.
package gateway
