package gateway

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/thingspace-gateway/thingspace-gateway/clients/go/gatewayv1"
)

// errorDomain is the domain of every ErrorInfo that the gateway sends.
const errorDomain = "thingspace.gateway"

// Error is the error of a call. Use [errors.As] to get it from an error of this
// package, and [FromError] for an error of the stubs.
//
// An error that the gateway did not send, but a proxy or grpc-go, has only a code
// and a message.
type Error struct {
	// Code is the gRPC status code.
	Code codes.Code
	// Reason is the cause. It is REASON_UNSPECIFIED if this version of the package
	// does not know ReasonText, or if the gateway did not send the error.
	Reason gatewayv1.Reason
	// ReasonText is the reason as the gateway sent it, such as `DEVICE_BUSY`.
	ReasonText string
	// Retry says whether the same call can succeed later.
	Retry gatewayv1.Retry
	// Executed says whether ThingSpace may have executed the content of a change
	// call. It is EXECUTED_UNSPECIFIED for other calls, and if the gateway did not
	// send the error.
	Executed gatewayv1.Executed
	// RetryAfter is the delay before the next attempt. It is 0 if the error
	// contains none.
	RetryAfter time.Duration
	// FieldViolations lists the invalid fields of the request.
	FieldViolations []FieldViolation
	// Metadata contains all metadata of the error, such as `change_id`.
	Metadata map[string]string
	// Message describes the error for people.
	Message string
	// OutcomeUnknown is true if a change call ended and ThingSpace may have executed
	// the change. To find out, repeat the call with the same key, or call GetChange
	// with the key.
	OutcomeUnknown bool

	causes []error
}

// FieldViolation describes an invalid field of a request.
type FieldViolation struct {
	// Field is the path of the field, such as `devices[17].iccid`.
	Field string
	// Reason is FIELD_REASON_UNSPECIFIED if this version of the package does not
	// know ReasonText.
	Reason gatewayv1.FieldReason
	// ReasonText is the reason as the gateway sent it, such as `FORMAT`.
	ReasonText string
	// Description describes the violation for people.
	Description string
}

// FromError returns the details of an error of the stubs. It returns nil if err is
// nil, and err itself if it is or wraps an [*Error].
func FromError(err error) *Error {
	if err == nil {
		return nil
	}
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	st, ok := status.FromError(err)
	if !ok {
		st = status.FromContextError(err)
	}
	e := &Error{Code: st.Code(), Message: st.Message(), causes: []error{err}}
	details := st.Details()
	for _, detail := range details {
		if info, ok := detail.(*errdetails.ErrorInfo); ok && info.GetDomain() == errorDomain {
			e.ReasonText = info.GetReason()
			e.Reason = gatewayv1.Reason(gatewayv1.Reason_value["REASON_"+info.GetReason()])
			e.Metadata = info.GetMetadata()
			e.Retry = gatewayv1.Retry(gatewayv1.Retry_value["RETRY_"+e.Metadata["retry"]])
			e.Executed = gatewayv1.Executed(gatewayv1.Executed_value["EXECUTED_"+e.Metadata["executed"]])
		}
	}
	for _, detail := range details {
		switch detail := detail.(type) {
		case *errdetails.RetryInfo:
			e.RetryAfter = max(0, detail.GetRetryDelay().AsDuration())
		case *errdetails.BadRequest:
			for _, violation := range detail.GetFieldViolations() {
				e.FieldViolations = append(e.FieldViolations, FieldViolation{
					Field:       violation.GetField(),
					Reason:      gatewayv1.FieldReason(gatewayv1.FieldReason_value["FIELD_REASON_"+violation.GetReason()]),
					ReasonText:  violation.GetReason(),
					Description: violation.GetDescription(),
				})
			}
		}
	}
	return e
}

// ended returns the error of a call that its context ends. cause is the error of the
// context. last is the error of the last attempt, or nil if there was none. If the
// deadline has passed, the result has the code and the details of last.
func ended(cause error, last *Error) *Error {
	e := &Error{Code: codes.Canceled, Message: "the call was cancelled", causes: []error{cause}}
	if errors.Is(cause, context.DeadlineExceeded) {
		e.Code, e.Message = codes.DeadlineExceeded, "the time limit passed"
	}
	if last == nil {
		return e
	}
	if e.Code == codes.DeadlineExceeded {
		message := e.Message
		*e = *last
		e.Message = message + "; last error: " + last.Message
	}
	e.OutcomeUnknown = last.OutcomeUnknown
	e.causes = []error{cause, last}
	return e
}

// Error returns the code, the reason and the message.
func (e *Error) Error() string {
	if e.ReasonText == "" {
		return fmt.Sprintf("%v: %s", e.Code, e.Message)
	}
	return fmt.Sprintf("%v (%s): %s", e.Code, e.ReasonText, e.Message)
}

// Unwrap returns the error of grpc-go, or the error of the context and the
// [*Error] of the last attempt.
func (e *Error) Unwrap() []error { return e.causes }

// GRPCStatus returns the status of the error, for package status of grpc-go.
func (e *Error) GRPCStatus() *status.Status {
	for _, cause := range e.causes {
		if st, ok := status.FromError(cause); ok && st.Code() == e.Code {
			return st
		}
	}
	return status.New(e.Code, e.Message)
}
