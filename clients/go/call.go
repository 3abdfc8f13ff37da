package gateway

import (
	"context"
	"iter"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/thingspace-gateway/thingspace-gateway/clients/go/gatewayv1"
)

// ChangeEsimPlan changes the service plan of eSIM profiles.
//
// It repeats the call with the same idempotency key until the gateway has stored
// the change, or has returned an error that says that ThingSpace executed nothing
// and that a repeated call does not help. The deadline of the context limits the
// whole call; without one, [Config.TotalTimeout] does. [Error.OutcomeUnknown]
// is true if the change may have been executed when the call ended.
//
// The request must have an idempotency key, and must not be modified during the
// call. OK does not mean that ThingSpace executed the change: use [Client.Watch] to
// receive the results.
func (c *Client) ChangeEsimPlan(ctx context.Context, request *gatewayv1.ChangeEsimPlanRequest) (*gatewayv1.ChangeEsimPlanResponse, error) {
	return change(ctx, c, c.Gateway.ChangeEsimPlan, request)
}

// ChangeFiveGBiPlan changes the service plan of 5G Business Internet devices. It
// repeats the call like [Client.ChangeEsimPlan].
func (c *Client) ChangeFiveGBiPlan(ctx context.Context, request *gatewayv1.ChangeFiveGBiPlanRequest) (*gatewayv1.ChangeFiveGBiPlanResponse, error) {
	return change(ctx, c, c.Gateway.ChangeFiveGBiPlan, request)
}

// ChangeServicePlan changes the service plan of devices other than eSIM profiles
// and 5G Business Internet devices. It repeats the call like
// [Client.ChangeEsimPlan].
func (c *Client) ChangeServicePlan(ctx context.Context, request *gatewayv1.ChangeServicePlanRequest) (*gatewayv1.ChangeServicePlanResponse, error) {
	return change(ctx, c, c.Gateway.ChangeServicePlan, request)
}

// GetChange returns one change. It repeats the call like [Call].
func (c *Client) GetChange(ctx context.Context, request *gatewayv1.GetChangeRequest) (*gatewayv1.GetChangeResponse, error) {
	return Call(ctx, c, c.Gateway.GetChange, request)
}

// ListServicePlans lists the service plans of an account. It repeats the call like
// [Call].
func (c *Client) ListServicePlans(ctx context.Context, request *gatewayv1.ListServicePlansRequest) (*gatewayv1.ListServicePlansResponse, error) {
	return Call(ctx, c, c.Gateway.ListServicePlans, request)
}

// GetServerInfo returns the version of the gateway, and the properties of its
// journal. It repeats the call like [Call].
func (c *Client) GetServerInfo(ctx context.Context, request *gatewayv1.GetServerInfoRequest) (*gatewayv1.GetServerInfoResponse, error) {
	return Call(ctx, c, c.Gateway.GetServerInfo, request)
}

// ListChanges lists changes, newest first. It reads the pages as the loop needs
// them, and repeats failed calls like [Call]. An error ends the sequence.
func (c *Client) ListChanges(ctx context.Context, request *gatewayv1.ListChangesRequest) iter.Seq2[*gatewayv1.Change, error] {
	return list(request.GetPageToken(), func(token string) ([]*gatewayv1.Change, string, error) {
		request := proto.CloneOf(request)
		request.PageToken = token
		response, err := Call(ctx, c, c.Gateway.ListChanges, request)
		return response.GetChanges(), response.GetNextPageToken(), err
	})
}

// ListDevices lists the devices of a change with the outcome of each device. It
// reads pages like [Client.ListChanges].
func (c *Client) ListDevices(ctx context.Context, request *gatewayv1.ListDevicesRequest) iter.Seq2[*gatewayv1.Device, error] {
	return list(request.GetPageToken(), func(token string) ([]*gatewayv1.Device, string, error) {
		request := proto.CloneOf(request)
		request.PageToken = token
		response, err := Call(ctx, c, c.Gateway.ListDevices, request)
		return response.GetDevices(), response.GetNextPageToken(), err
	})
}

// ListDeviceResults lists all results of a change or a request, oldest first. It
// reads pages like [Client.ListChanges].
func (c *Client) ListDeviceResults(ctx context.Context, request *gatewayv1.ListDeviceResultsRequest) iter.Seq2[*gatewayv1.DeviceResult, error] {
	return list(request.GetPageToken(), func(token string) ([]*gatewayv1.DeviceResult, string, error) {
		request := proto.CloneOf(request)
		request.PageToken = token
		response, err := Call(ctx, c, c.Gateway.ListDeviceResults, request)
		return response.GetDeviceResults(), response.GetNextPageToken(), err
	})
}

// Call calls a method of a stub that only reads, and repeats the call until it
// succeeds or its error says that a repeated call does not help:
//
//	response, err := gateway.Call(ctx, client, client.Operator.GetStatus, request)
//
// The deadline of the context limits the whole call; without one,
// [Config.TotalTimeout] does. Do not use it for change calls, which have methods of
// their own.
func Call[Request proto.Message, Response any](
	ctx context.Context,
	c *Client,
	method func(context.Context, Request, ...grpc.CallOption) (Response, error),
	request Request,
) (Response, error) {
	return call(ctx, c, method, request, false)
}

type changeRequest interface {
	proto.Message
	GetIdempotencyKey() string
	GetValidateOnly() bool
}

func change[Request changeRequest, Response any](
	ctx context.Context,
	c *Client,
	method func(context.Context, Request, ...grpc.CallOption) (Response, error),
	request Request,
) (Response, error) {
	if request.GetIdempotencyKey() == "" {
		var none Response
		return none, &Error{
			Code:     codes.InvalidArgument,
			Retry:    gatewayv1.Retry_RETRY_NEVER,
			Executed: gatewayv1.Executed_EXECUTED_NO,
			Message:  "the request has no idempotency key, without which it cannot be repeated: set IdempotencyKey",
		}
	}
	return call(ctx, c, method, request, !request.GetValidateOnly())
}

// call repeats a call until it succeeds, its error ends it, or the context ends.
// changes says whether ThingSpace may execute the call.
func call[Request proto.Message, Response any](
	ctx context.Context,
	c *Client,
	method func(context.Context, Request, ...grpc.CallOption) (Response, error),
	request Request,
	changes bool,
) (Response, error) {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.config.TotalTimeout)
		defer cancel()
	}
	attempts := attempts{method: methodName(request), repeat: repeatRead}
	if changes {
		attempts.repeat = repeatChange
	}
	attempt := func() (Response, error) {
		ctx, cancel := context.WithTimeout(ctx, c.config.AttemptTimeout)
		defer cancel()
		return method(ctx, request)
	}
	var none Response
	if err := ctx.Err(); err != nil {
		return none, ended(err, nil)
	}
	outcomeUnknown := false
	for {
		response, err := attempt()
		if err == nil {
			return response, nil
		}
		failure := FromError(err)
		if changes {
			outcomeUnknown = mayHaveExecuted(outcomeUnknown, failure)
			failure.OutcomeUnknown = outcomeUnknown
		}
		if err := ctx.Err(); err != nil {
			return none, ended(err, failure)
		}
		delay, again := attempts.failed(c, failure)
		if !again {
			return none, failure
		}
		if err := attempts.wait(ctx, c, failure, delay, ""); err != nil {
			return none, ended(err, failure)
		}
	}
}

// list returns the items of all pages.
func list[Item any](token string, page func(token string) ([]Item, string, error)) iter.Seq2[Item, error] {
	return func(yield func(Item, error) bool) {
		for token := token; ; {
			items, next, err := page(token)
			if err != nil {
				var none Item
				yield(none, err)
				return
			}
			for _, item := range items {
				if !yield(item, nil) {
					return
				}
			}
			if token = next; token == "" {
				return
			}
		}
	}
}

// methodName returns the name of the method that has this request.
func methodName(request proto.Message) string {
	return strings.TrimSuffix(string(request.ProtoReflect().Descriptor().Name()), "Request")
}
