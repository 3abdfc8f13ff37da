// This program changes the service plans of 20 eSIM profiles and prints the
// result of each. docs/clients.md describes how to run it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"

	gatewayv1 "github.com/thingspace-gateway/thingspace-gateway/examples/go/gen/thingspace/gateway/v1"
)

func main() {
	target := flag.String("target", "127.0.0.1:50051", "address of the gateway")
	plan := flag.String("plan", "Example Plan", "service plan to change to")
	key := flag.String("key", fmt.Sprint("go-", time.Now().UnixNano()), "idempotency key")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()

	connection, err := grpc.NewClient(*target,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		// Keepalive detects a connection that is lost without an error.
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 30 * time.Second}))
	exitIf(err)
	gateway := gatewayv1.NewGatewayServiceClient(connection)

	request := &gatewayv1.ChangeEsimPlanRequest{
		AccountName: "0000123456-00001", IdempotencyKey: *key, ServicePlan: *plan,
	}
	for i := range 20 { // These identifiers are reserved for the sandbox.
		request.Devices = append(request.Devices, &gatewayv1.EsimDevice{
			Eid: fmt.Sprintf("99%030d", i), Iccid: fmt.Sprintf("9994%016d", i), ClientReference: fmt.Sprint("row-", i),
		})
	}
	change, err := changePlans(ctx, gateway, request)
	exitIf(err)
	exitIf(watch(ctx, gateway, change.ChangeId))
}

// changePlans repeats the call until the change is stored. The gateway makes
// one change for each key, so repeating the call is safe.
func changePlans(ctx context.Context, gateway gatewayv1.GatewayServiceClient, request *gatewayv1.ChangeEsimPlanRequest) (*gatewayv1.Change, error) {
	var response *gatewayv1.ChangeEsimPlanResponse
	err := retry(ctx, func() (err error) {
		// The deadline is longer than the gateway waits for ThingSpace.
		ctx, cancel := context.WithTimeout(ctx, 90*time.Second)
		defer cancel()
		response, err = gateway.ChangeEsimPlan(ctx, request)
		return err
	})
	return response.GetChange(), err
}

// watch prints every result once, also if the stream breaks.
func watch(ctx context.Context, gateway gatewayv1.GatewayServiceClient, changeID string) error {
	request := &gatewayv1.WatchRequestRequest{ChangeId: changeID, Until: gatewayv1.Until_UNTIL_FINISHED}
	return retry(ctx, func() error {
		stream, err := gateway.WatchRequest(ctx, request)
		if err != nil {
			return err
		}
		for {
			message, err := stream.Recv()
			if errors.Is(err, io.EOF) {
				return nil
			}
			if err != nil {
				return err
			}
			switch event := message.Event.(type) {
			case *gatewayv1.WatchRequestResponse_DeviceResult:
				result := event.DeviceResult
				fmt.Println(result.ClientReference, result.Outcome, result.GetFault().GetCode())
			case *gatewayv1.WatchRequestResponse_Reconnect:
				sleep(ctx, event.Reconnect.RetryAfter.AsDuration())
			case *gatewayv1.WatchRequestResponse_Finished:
				change := event.Finished.Change
				fmt.Println(change.State, change.SucceededCount, "succeeded,", change.FailedCount, "failed")
			}
			// The event is processed. A new stream continues after it.
			request.ResumeToken = message.ResumeToken
		}
	})
}
