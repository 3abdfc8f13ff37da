package gateway

import (
	"context"
	"math/rand/v2"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/thingspace-gateway/thingspace-gateway/clients/go/gatewayv1"
)

const (
	minDelay = 100 * time.Millisecond
	maxDelay = 10 * time.Second
	// A stream that works for this long resets the backoff.
	healthyAfter = time.Minute
)

// FailedAttempt describes an attempt that the client repeats.
type FailedAttempt struct {
	// Method is the name of the method, such as `ChangeEsimPlan`.
	Method string
	// Number is the number of failed attempts of the call or watch, starting at 1.
	Number int
	// Err is the error of the attempt.
	Err *Error
	// Delay is the delay before the next attempt.
	Delay time.Duration
	// ResumeToken is the token with which a stream is opened again.
	ResumeToken string
}

// repeatChange is the rule for change calls. Only an error that says that nothing
// was executed and that a repeated call does not help ends the call. Every other
// error, also of a proxy or of grpc-go, leaves the outcome open.
func repeatChange(e *Error) bool {
	return e.Executed != gatewayv1.Executed_EXECUTED_NO || repeatRead(e)
}

// repeatRead is the rule for all other calls, for streams, and for change calls
// with validate_only.
func repeatRead(e *Error) bool {
	return e.Retry != gatewayv1.Retry_RETRY_NEVER
}

// mayHaveExecuted reports whether ThingSpace may have executed the change after
// this attempt failed. before is the value after the attempts before it.
func mayHaveExecuted(before bool, e *Error) bool {
	switch {
	case e.Executed == gatewayv1.Executed_EXECUTED_NO:
		return false // This includes earlier attempts with the key.
	case e.Code == codes.Unauthenticated, e.Reason == gatewayv1.Reason_REASON_PERMISSION_DENIED:
		return before // The gateway has executed nothing in this attempt.
	default:
		return true
	}
}

// backoff returns the delay after a number of consecutive failures, starting at 0.
func backoff(failures int) time.Duration {
	limit := min(2*minDelay<<min(failures, 16), maxDelay)
	return limit/2 + rand.N(limit/2+1)
}

// attempts is the state of a call between its attempts.
type attempts struct {
	method string
	repeat func(*Error) bool // the rule

	count        int  // attempts that failed
	failures     int  // consecutive failures, for the backoff
	unauthorized bool // the last attempt was UNAUTHENTICATED
}

// failed registers a failed attempt. It returns the delay before the next one, or
// false if the error ends the call.
func (a *attempts) failed(c *Client, e *Error) (time.Duration, bool) {
	a.count++
	if e.Code == codes.Unauthenticated {
		again := c.config.TokenFunc != nil && !a.unauthorized
		a.unauthorized = true
		return 0, again
	}
	a.unauthorized = false
	// Only an operator can change a missing permission.
	if e.Reason == gatewayv1.Reason_REASON_PERMISSION_DENIED || !a.repeat(e) {
		return 0, false
	}
	delay := e.RetryAfter
	if delay == 0 {
		delay = backoff(a.failures)
	}
	a.failures++
	return delay, true
}

// wait reports the failed attempt, and waits until the next one. It returns the
// error of the context if that ends the call, at once if the deadline is earlier.
func (a *attempts) wait(ctx context.Context, c *Client, e *Error, delay time.Duration, resumeToken string) error {
	if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) <= delay {
		return context.DeadlineExceeded
	}
	if c.config.OnRetry != nil {
		c.config.OnRetry(FailedAttempt{Method: a.method, Number: a.count, Err: e, Delay: delay, ResumeToken: resumeToken})
	}
	timer := time.NewTimer(delay)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
