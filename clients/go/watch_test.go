package gateway

import (
	"context"
	"errors"
	"io"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/thingspace-gateway/thingspace-gateway/clients/go/gatewayv1"
)

type event = gatewayv1.WatchRequestResponse

var (
	opened   = &event{ResumeToken: "o", Event: &gatewayv1.WatchRequestResponse_Opened{Opened: &gatewayv1.Opened{}}}
	first    = &event{ResumeToken: "1", Event: &gatewayv1.WatchRequestResponse_Bookmark{}}
	second   = &event{ResumeToken: "2"} // of an unknown kind
	finished = &event{ResumeToken: "f", Event: &gatewayv1.WatchRequestResponse_Finished{Finished: &gatewayv1.Finished{}}}
	broken   = status.Error(codes.Internal, "the stream is broken")
)

// fakeGateway plays one script for each stream. A script consists of events and
// ends with an error, or the stream stays silent.
type fakeGateway struct {
	gatewayv1.GatewayServiceClient
	scripts [][]any
	tokens  []string // of the requests
}

func (g *fakeGateway) WatchRequest(ctx context.Context, request *gatewayv1.WatchRequestRequest, _ ...grpc.CallOption) (grpc.ServerStreamingClient[event], error) {
	g.tokens = append(g.tokens, request.ResumeToken)
	script := g.scripts[len(g.tokens)-1]
	return &fakeStream{ctx: ctx, script: script}, nil
}

type fakeStream struct {
	grpc.ClientStream
	ctx    context.Context
	script []any
}

func (s *fakeStream) Recv() (*event, error) {
	if len(s.script) == 0 {
		<-s.ctx.Done()
		return nil, status.FromContextError(s.ctx.Err()).Err()
	}
	next := s.script[0]
	s.script = s.script[1:]
	if err, ok := next.(error); ok {
		return nil, err
	}
	return next.(*event), nil
}

func TestWatch(t *testing.T) {
	for _, test := range []struct {
		name      string
		scripts   [][]any
		delivered string // the tokens of the events
		tokens    []string
		err       codes.Code
	}{
		{"a broken stream continues after the last event", [][]any{{opened, first, broken}, {opened, second, io.EOF}}, "o12", []string{"", "1"}, codes.OK},
		{"a stream that breaks before its first event", [][]any{{broken}, {opened, io.EOF}}, "o", []string{"", ""}, codes.OK},
		{"a silent stream is opened again", [][]any{{opened, first}, {opened, second, io.EOF}}, "o12", []string{"", "1"}, codes.OK},
		{"finished is delivered once if its stream breaks", [][]any{{opened, finished, broken}}, "of", []string{""}, codes.OK},
		{"ReopenTimeout ends a watch", [][]any{{opened, broken}, {broken}, {broken}, {broken}, {broken}, {broken}, {broken}}, "o", nil, codes.Internal},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				fake := &fakeGateway{scripts: test.scripts}
				client := &Client{Gateway: fake, config: Config{IdleTimeout: time.Minute, ReopenTimeout: 3 * time.Second}}
				delivered := ""
				var last error
				for event, err := range client.Watch(t.Context(), &gatewayv1.WatchRequestRequest{}) {
					delivered += event.GetResumeToken()
					last = err
				}
				if delivered != test.delivered || status.Code(last) != test.err {
					t.Errorf("got %q, %v", delivered, last)
				}
				if test.tokens != nil && !slices.Equal(fake.tokens, test.tokens) {
					t.Errorf("the requests have the tokens %q", fake.tokens)
				}
			})
		})
	}
}

func TestAWatchEndsWithItsLoopAndItsContext(t *testing.T) {
	fake := &fakeGateway{scripts: [][]any{{first}, {first}}}
	client := &Client{Gateway: fake, config: Config{IdleTimeout: time.Minute}}
	for range client.Watch(t.Context(), &gatewayv1.WatchRequestRequest{}) {
		break
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var last error
	for _, err := range client.Watch(ctx, &gatewayv1.WatchRequestRequest{}) {
		last = err
		cancel()
	}
	if !errors.Is(last, context.Canceled) || len(fake.tokens) != 2 {
		t.Errorf("got %v after %d streams", last, len(fake.tokens))
	}
}
