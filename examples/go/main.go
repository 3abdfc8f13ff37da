// This program changes the service plans of 20 eSIM profiles and prints the
// result of each. docs/clients.md describes how to run it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"os"
	"os/signal"
	"time"

	gateway "github.com/thingspace-gateway/thingspace-gateway/clients/go"
	"github.com/thingspace-gateway/thingspace-gateway/clients/go/gatewayv1"
)

func main() {
	target := flag.String("target", "127.0.0.1:50051", "address of the gateway")
	plan := flag.String("plan", "Example Plan", "service plan to change to")
	key := flag.String("key", fmt.Sprint("go-", time.Now().UnixNano()), "idempotency key")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, *target, *plan, *key); err != nil {
		log.Println(err)
		if e, ok := errors.AsType[*gateway.Error](err); ok {
			for _, violation := range e.FieldViolations {
				log.Printf("invalid field %s: %s (%s)", violation.Field, violation.Description, violation.ReasonText)
			}
		}
		os.Exit(1)
	}
}

func run(ctx context.Context, target, plan, key string) error {
	client, err := gateway.New(gateway.Config{
		Target:    target,
		Plaintext: true,
		OnRetry: func(failed gateway.FailedAttempt) {
			log.Printf("repeating the call in %v: %v", failed.Delay, failed.Err)
		},
	})
	if err != nil {
		return err
	}
	defer client.Close()

	request := &gatewayv1.ChangeEsimPlanRequest{
		AccountName: "0000123456-00001", IdempotencyKey: key, ServicePlan: plan,
	}
	for i := range 20 { // These identifiers are reserved for the sandbox.
		request.Devices = append(request.Devices, &gatewayv1.EsimDevice{
			Eid: fmt.Sprintf("99%030d", i), Iccid: fmt.Sprintf("9994%016d", i), ClientReference: fmt.Sprint("row-", i),
		})
	}
	response, err := client.ChangeEsimPlan(ctx, request)
	if err != nil {
		return err
	}

	for event, err := range client.Watch(ctx, &gatewayv1.WatchRequestRequest{
		ChangeId: response.Change.ChangeId, Until: gatewayv1.Until_UNTIL_FINISHED,
	}) {
		if err != nil {
			return err
		}
		switch event := event.Event.(type) {
		case *gatewayv1.WatchRequestResponse_DeviceResult:
			result := event.DeviceResult
			fmt.Println(result.ClientReference, result.Outcome, result.GetFault().GetCode())
		case *gatewayv1.WatchRequestResponse_Finished:
			change := event.Finished.Change
			fmt.Println(change.State, change.SucceededCount, "succeeded,", change.FailedCount, "failed")
		}
	}
	return nil
}
