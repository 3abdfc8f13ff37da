package main

import (
	"context"
	"log"
	"math/rand/v2"
	"os"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/status"

	gatewayv1 "github.com/thingspace-gateway/thingspace-gateway/examples/go/gen/thingspace/gateway/v1"
)

// retry repeats a call until it succeeds, unless this program has cancelled it
// or the error is final.
func retry(ctx context.Context, call func() error) error {
	for failures := 0; ; failures++ {
		start := time.Now()
		err := call()
		details := detailsOf(err)
		if err == nil || ctx.Err() != nil || details.isFinal() {
			return err
		}
		if time.Since(start) > time.Minute {
			failures = 0 // The stream worked for a while.
		}
		delay := details.delay
		if delay == 0 { // 0.1 s to 12.8 s, with jitter
			delay = time.Duration((0.5 + rand.Float64()/2) * float64(100*time.Millisecond<<min(failures, 7)))
		}
		log.Printf("repeating the call in %v: %v", delay, err)
		sleep(ctx, delay)
	}
}

func sleep(ctx context.Context, delay time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(delay):
	}
}

// errorDetails has the details of an error. An error without an ErrorInfo does
// not come from the gateway, but from a proxy or from the gRPC library.
type errorDetails struct {
	info   *errdetails.ErrorInfo
	fields []*errdetails.BadRequest_FieldViolation
	delay  time.Duration // 0 if the error contains no delay
}

// isFinal reports whether the call must not be repeated. A change call whose
// outcome is unknown is repeated in any case. Other calls have no "executed".
func (details errorDetails) isFinal() bool {
	metadata := details.info.GetMetadata()
	return metadata["retry"] == "NEVER" && metadata["executed"] != "UNKNOWN"
}

func detailsOf(err error) errorDetails {
	var details errorDetails
	for _, detail := range status.Convert(err).Details() {
		switch detail := detail.(type) {
		case *errdetails.ErrorInfo:
			details.info = detail
		case *errdetails.BadRequest:
			details.fields = detail.FieldViolations
		case *errdetails.RetryInfo:
			details.delay = detail.RetryDelay.AsDuration()
		}
	}
	return details
}

// exitIf ends the program with a description of an error.
func exitIf(err error) {
	if err == nil {
		return
	}
	log.Println(err)
	details := detailsOf(err)
	// An unknown reason is 0, REASON_UNSPECIFIED.
	switch gatewayv1.Reason(gatewayv1.Reason_value["REASON_"+details.info.GetReason()]) {
	case gatewayv1.Reason_REASON_FIELD_INVALID:
		for _, field := range details.fields {
			log.Printf("invalid field %s: %s (%s)", field.Field, field.Description, field.Reason)
		}
	case gatewayv1.Reason_REASON_IDEMPOTENCY_KEY_REUSED:
		log.Println("the key belongs to the change", details.info.Metadata["change_id"])
	case gatewayv1.Reason_REASON_THINGSPACE_REFUSED:
		log.Println("ThingSpace refused the change:", details.info.Metadata["thingspace_code"])
	default:
		log.Println("reason:", details.info.GetReason(), "retry:", details.info.GetMetadata()["retry"])
	}
	os.Exit(1)
}
