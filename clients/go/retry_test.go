package gateway

import (
	"context"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/thingspace-gateway/thingspace-gateway/clients/go/gatewayv1"
)

const (
	no      = gatewayv1.Executed_EXECUTED_NO
	unknown = gatewayv1.Executed_EXECUTED_UNKNOWN
	now     = gatewayv1.Retry_RETRY_NOW
	later   = gatewayv1.Retry_RETRY_LATER
	never   = gatewayv1.Retry_RETRY_NEVER
)

func TestRule(t *testing.T) {
	for _, test := range []struct {
		name         string
		err          Error
		repeatChange bool
		repeatRead   bool
	}{
		{"executed NO, retry NOW", Error{Executed: no, Retry: now}, true, true},
		{"executed NO, retry LATER", Error{Executed: no, Retry: later}, true, true},
		{"executed NO, retry NEVER", Error{Executed: no, Retry: never}, false, false},
		{"executed NO, retry not known", Error{Executed: no}, true, true},
		{"executed UNKNOWN, retry NOW", Error{Executed: unknown, Retry: now}, true, true},
		{"executed UNKNOWN, retry LATER", Error{Executed: unknown, Retry: later}, true, true},
		{"executed UNKNOWN, retry NEVER", Error{Executed: unknown, Retry: never}, true, false},
		{"executed not known, retry NEVER", Error{Retry: never}, true, false},
		{"not sent by the gateway: INTERNAL", Error{Code: codes.Internal}, true, true},
		{"not sent by the gateway: INVALID_ARGUMENT", Error{Code: codes.InvalidArgument}, true, true},
		{"not sent by the gateway: DEADLINE_EXCEEDED", Error{Code: codes.DeadlineExceeded}, true, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := repeatChange(&test.err); got != test.repeatChange {
				t.Errorf("repeatChange = %v", got)
			}
			if got := repeatRead(&test.err); got != test.repeatRead {
				t.Errorf("repeatRead = %v", got)
			}
		})
	}
}

func TestOutcome(t *testing.T) {
	for _, test := range []struct {
		name   string
		before bool
		err    Error
		want   bool
	}{
		{"executed NO includes earlier attempts", true, Error{Executed: no}, false},
		{"executed UNKNOWN", false, Error{Executed: unknown}, true},
		{"not sent by the gateway", false, Error{Code: codes.Unavailable}, true},
		{"UNAUTHENTICATED is not executed", false, Error{Code: codes.Unauthenticated, Executed: unknown}, false},
		{"UNAUTHENTICATED after an open attempt", true, Error{Code: codes.Unauthenticated, Executed: unknown}, true},
		{"PERMISSION_DENIED is not executed", false, Error{Reason: gatewayv1.Reason_REASON_PERMISSION_DENIED, Executed: unknown}, false},
		{"PERMISSION_DENIED after an open attempt", true, Error{Reason: gatewayv1.Reason_REASON_PERMISSION_DENIED, Executed: unknown}, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := mayHaveExecuted(test.before, &test.err); got != test.want {
				t.Errorf("got %v", got)
			}
		})
	}
}

func TestBackoffGrowsWithinItsBounds(t *testing.T) {
	for failures := range 100 {
		longest := min(200*time.Millisecond<<min(failures, 10), 10*time.Second)
		for range 100 {
			if delay := backoff(failures); delay < longest/2 || delay > longest {
				t.Fatalf("%v after %d failures, want %v to %v", delay, failures, longest/2, longest)
			}
		}
	}
}

func TestDelays(t *testing.T) {
	client := &Client{config: Config{TokenFunc: func(context.Context) (string, error) { return "", nil }}}
	attempts := attempts{repeat: repeatChange}
	for _, step := range []struct {
		err           Error
		again         bool
		atLeast, most time.Duration
	}{
		{Error{Code: codes.Unavailable}, true, 100 * time.Millisecond, 200 * time.Millisecond},
		{Error{Code: codes.Unavailable}, true, 200 * time.Millisecond, 400 * time.Millisecond},
		{Error{Code: codes.Unavailable, RetryAfter: time.Minute}, true, time.Minute, time.Minute},
		{Error{Code: codes.Unauthenticated, RetryAfter: time.Minute}, true, 0, 0},
		{Error{Code: codes.Unavailable}, true, 800 * time.Millisecond, 1600 * time.Millisecond},
		{Error{Code: codes.Unauthenticated}, true, 0, 0},
		{Error{Code: codes.Unauthenticated}, false, 0, 0},
	} {
		delay, again := attempts.failed(client, &step.err)
		if again != step.again || delay < step.atLeast || delay > step.most {
			t.Errorf("%v: got %v, %v", step.err.Code, delay, again)
		}
	}
	client.config.TokenFunc = nil
	attempts.unauthorized = false
	if _, again := attempts.failed(client, &Error{Code: codes.Unauthenticated}); again {
		t.Error("UNAUTHENTICATED is repeated without a token function")
	}
}
