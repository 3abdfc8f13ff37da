package gateway

import (
	"context"
	"errors"
	"io"
	"iter"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/thingspace-gateway/thingspace-gateway/clients/go/gatewayv1"
)

// Watch streams the events of one change or one request:
//
//	for event, err := range client.Watch(ctx, request) {
//		if err != nil {
//			return err
//		}
//		switch event := event.Event.(type) {
//		case *gatewayv1.WatchRequestResponse_DeviceResult:
//			...
//		}
//	}
//
// When the stream breaks, Watch opens it again and continues after the last event
// for which the loop body has returned. Each event is delivered once and in order.
// The `opened` of such a stream and `reconnect` are not delivered. The field Event
// is nil for an event that this version of the package does not know.
//
// The sequence ends without an error if the gateway ends the stream with OK, as
// WatchRequestRequest.Until says. Otherwise its last element is an [*Error]: the
// context has ended, the error says that a repeated call does not help, such as
// RESUME_TOKEN_EXPIRED, or [Config.ReopenTimeout] has passed. To continue in another
// process, store the resume token of each event after you have processed the event.
func (c *Client) Watch(ctx context.Context, request *gatewayv1.WatchRequestRequest) iter.Seq2[*gatewayv1.WatchRequestResponse, error] {
	return watch(ctx, c, methodName(request), request.GetResumeToken(),
		func(ctx context.Context, resumeToken string) (grpc.ServerStreamingClient[gatewayv1.WatchRequestResponse], error) {
			request := proto.CloneOf(request)
			request.ResumeToken = resumeToken
			return c.Gateway.WatchRequest(ctx, request)
		})
}

// WatchAccount streams the events of all changes of one account. It opens broken
// streams again like [Client.Watch]. The sequence does not end by itself, except
// with UNTIL_CAUGHT_UP.
func (c *Client) WatchAccount(ctx context.Context, request *gatewayv1.WatchAccountRequest) iter.Seq2[*gatewayv1.WatchAccountResponse, error] {
	return watch(ctx, c, methodName(request), request.GetResumeToken(),
		func(ctx context.Context, resumeToken string) (grpc.ServerStreamingClient[gatewayv1.WatchAccountResponse], error) {
			request := proto.CloneOf(request)
			request.ResumeToken = resumeToken
			return c.Gateway.WatchAccount(ctx, request)
		})
}

// streamEvent is an event of either watch. Event is the type to which it points.
type streamEvent[Event any] interface {
	*Event
	GetResumeToken() string
	GetOpened() *gatewayv1.Opened
	GetReconnect() *gatewayv1.Reconnect
}

type openFunc[Event any] func(ctx context.Context, resumeToken string) (grpc.ServerStreamingClient[Event], error)

func watch[Event any, E streamEvent[Event]](ctx context.Context, c *Client, method, resumeToken string, open openFunc[Event]) iter.Seq2[E, error] {
	return func(yield func(E, error) bool) {
		w := watcher[Event, E]{
			client:      c,
			open:        open,
			yield:       yield,
			resumeToken: resumeToken,
			attempts:    attempts{method: method, repeat: repeatRead},
			lastOpen:    time.Now(),
		}
		w.run(ctx)
	}
}

// watcher delivers the events of consecutive streams.
type watcher[Event any, E streamEvent[Event]] struct {
	client      *Client
	open        openFunc[Event]
	yield       func(E, error) bool
	resumeToken string // of the last event that the consumer has processed
	attempts    attempts
	opened      bool      // `opened` has been delivered
	finished    bool      // `finished` has been delivered, the last event
	lastOpen    time.Time // the last time at which a stream was open
}

var (
	errStopped = errors.New("the consumer has left its loop")
	errIdle    = status.Error(codes.Unavailable, "the gateway has sent no event within the idle timeout")
)

func (w *watcher[Event, E]) run(ctx context.Context) {
	for {
		start := time.Now()
		err := w.stream(ctx)
		if errors.Is(err, io.EOF) || errors.Is(err, errStopped) {
			return
		}
		failure := FromError(err)
		if err := ctx.Err(); err != nil {
			w.yield(nil, ended(err, failure))
			return
		}
		if time.Since(start) > healthyAfter {
			w.attempts.failures = 0
		}
		delay, again := w.attempts.failed(w.client, failure)
		limit := w.client.config.ReopenTimeout
		if !again || limit > 0 && time.Since(w.lastOpen)+delay > limit {
			w.yield(nil, failure)
			return
		}
		if err := w.attempts.wait(ctx, w.client, failure, delay, w.resumeToken); err != nil {
			w.yield(nil, ended(err, failure))
			return
		}
	}
}

// stream delivers the events of one stream. It returns io.EOF if the gateway has
// ended the stream with OK.
func (w *watcher[Event, E]) stream(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	idleTimeout := w.client.config.IdleTimeout
	idle := time.AfterFunc(idleTimeout, func() { cancel(errIdle) })
	defer idle.Stop()

	var retryAfter time.Duration
	wasOpen := false
	stream, err := w.open(ctx, w.resumeToken)
	for err == nil {
		// The time that the consumer takes for an event does not count as idle.
		idle.Reset(idleTimeout)
		var event E
		event, err = stream.Recv()
		idle.Stop()
		if err != nil {
			break
		}
		wasOpen = true
		if reconnect := event.GetReconnect(); reconnect != nil {
			retryAfter = reconnect.GetRetryAfter().AsDuration()
		} else {
			err = w.deliver(event)
		}
	}
	if wasOpen {
		w.lastOpen = time.Now()
	}
	if errors.Is(err, io.EOF) || errors.Is(err, errStopped) {
		return err
	}
	if w.finished { // A new stream would deliver `finished` again.
		return io.EOF
	}
	if errors.Is(context.Cause(ctx), errIdle) {
		err = errIdle
	}
	e := FromError(err)
	if retryAfter > 0 {
		e.RetryAfter = retryAfter
	}
	return e
}

// deliver hands an event to the consumer. When it returns nil, the consumer has
// processed the event.
func (w *watcher[Event, E]) deliver(event E) error {
	if event.GetOpened() != nil {
		if w.opened {
			return nil
		}
		w.opened = true
	} else {
		w.attempts.failures = 0
		w.attempts.unauthorized = false
	}
	if !w.yield(event, nil) {
		return errStopped
	}
	if token := event.GetResumeToken(); token != "" {
		w.resumeToken = token
	}
	if last, ok := any(event).(interface{ GetFinished() *gatewayv1.Finished }); ok {
		w.finished = last.GetFinished() != nil
	}
	return nil
}
