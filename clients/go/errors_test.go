package gateway

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/thingspace-gateway/thingspace-gateway/clients/go/gatewayv1"
)

func statusError(t *testing.T, code codes.Code, details ...protoadapt.MessageV1) error {
	t.Helper()
	st, err := status.New(code, "the message").WithDetails(details...)
	if err != nil {
		t.Fatal(err)
	}
	return st.Err()
}

func info(reason string, metadata map[string]string) *errdetails.ErrorInfo {
	return &errdetails.ErrorInfo{Domain: "thingspace.gateway", Reason: reason, Metadata: metadata}
}

func TestFromError(t *testing.T) {
	metadata := map[string]string{"retry": "NEVER", "executed": "NO", "change_id": "the-change"}
	unknownMetadata := map[string]string{"retry": "PERHAPS", "executed": "PARTLY"}
	for _, test := range []struct {
		name string
		err  error
		want Error
	}{
		{
			"all details",
			statusError(t, codes.InvalidArgument,
				&errdetails.BadRequest{FieldViolations: []*errdetails.BadRequest_FieldViolation{
					{Field: "devices[0].eid", Reason: "FORMAT", Description: "must be 32 digits"},
					{Field: "color", Reason: "TOO_BLUE", Description: "must be red"},
				}},
				&errdetails.RetryInfo{RetryDelay: durationpb.New(1500 * time.Millisecond)},
				info("FIELD_INVALID", metadata)),
			Error{
				Code: codes.InvalidArgument, Reason: gatewayv1.Reason_REASON_FIELD_INVALID, ReasonText: "FIELD_INVALID",
				Retry: never, Executed: no, RetryAfter: 1500 * time.Millisecond, Metadata: metadata,
				FieldViolations: []FieldViolation{
					{"devices[0].eid", gatewayv1.FieldReason_FIELD_REASON_FORMAT, "FORMAT", "must be 32 digits"},
					{"color", gatewayv1.FieldReason_FIELD_REASON_UNSPECIFIED, "TOO_BLUE", "must be red"},
				},
			},
		},
		{
			"unknown values",
			statusError(t, codes.Aborted, info("NEW_REASON", unknownMetadata)),
			Error{Code: codes.Aborted, ReasonText: "NEW_REASON", Metadata: unknownMetadata},
		},
		{
			"an ErrorInfo of another domain",
			statusError(t, codes.Unavailable, &errdetails.ErrorInfo{Domain: "proxy.example", Reason: "FIELD_INVALID", Metadata: metadata}),
			Error{Code: codes.Unavailable},
		},
		{"no details", status.Error(codes.Internal, "the message"), Error{Code: codes.Internal}},
		{"no status", errors.New("the message"), Error{Code: codes.Unknown}},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := FromError(test.err)
			if !errors.Is(got, test.err) {
				t.Error("the error does not wrap its cause")
			}
			test.want.Message, test.want.causes = "the message", got.causes
			if !reflect.DeepEqual(*got, test.want) {
				t.Errorf("got  %+v\nwant %+v", *got, test.want)
			}
		})
	}
}

func TestFromErrorReturnsAWrappedError(t *testing.T) {
	if FromError(nil) != nil {
		t.Error("an error for nil")
	}
	want := &Error{Code: codes.NotFound}
	if got := FromError(fmt.Errorf("wrapped: %w", want)); got != want {
		t.Errorf("got %v", got)
	}
}

func TestStatusOfAnError(t *testing.T) {
	err := FromError(statusError(t, codes.NotFound, info("CHANGE_NOT_FOUND", nil)))
	if got := status.Convert(err); got.Code() != codes.NotFound || len(got.Details()) != 1 {
		t.Errorf("got %v", got)
	}
}

func TestErrorOfAnEndedContext(t *testing.T) {
	last := FromError(statusError(t, codes.FailedPrecondition, info("DEVICE_BUSY", nil)))
	last.OutcomeUnknown = true

	for _, test := range []struct {
		name           string
		cause          error
		last           *Error
		code           codes.Code
		reason         string
		outcomeUnknown bool
	}{
		{"cancelled before the first attempt", context.Canceled, nil, codes.Canceled, "", false},
		{"cancelled", context.Canceled, last, codes.Canceled, "", true},
		{"expired before the first attempt", context.DeadlineExceeded, nil, codes.DeadlineExceeded, "", false},
		{"expired", context.DeadlineExceeded, last, codes.FailedPrecondition, "DEVICE_BUSY", true},
	} {
		t.Run(test.name, func(t *testing.T) {
			err := ended(test.cause, test.last)
			if err.Code != test.code || err.ReasonText != test.reason || err.OutcomeUnknown != test.outcomeUnknown {
				t.Errorf("got %+v", err)
			}
			if !errors.Is(err, test.cause) || test.last != nil && !errors.Is(err, test.last) {
				t.Error("the error does not wrap its causes")
			}
			if status.Code(err) != test.code {
				t.Errorf("the status is %v", status.Code(err))
			}
		})
	}
}
