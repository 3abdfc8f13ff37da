package gateway

import (
	"context"
	"errors"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"

	"github.com/thingspace-gateway/thingspace-gateway/clients/go/gatewayv1"
)

func TestNewRefusesUnsafeOrContradictoryConfigs(t *testing.T) {
	token := func(context.Context) (string, error) { return "token", nil }
	for _, test := range []struct {
		name   string
		config Config
		want   string // empty: the config is valid
	}{
		{"a token over plaintext", Config{Plaintext: true, Token: "token"}, "AllowTokenOverPlaintext"},
		{"a token function over plaintext", Config{Plaintext: true, TokenFunc: token}, "AllowTokenOverPlaintext"},
		{"an allowed token over plaintext", Config{Plaintext: true, Token: "token", AllowTokenOverPlaintext: true}, ""},
		{"a token over TLS", Config{TokenFunc: token}, ""},
		{"two tokens", Config{Token: "token", TokenFunc: token}, "only one"},
		{"plaintext with a CA", Config{Plaintext: true, CAFile: "ca.crt"}, "Plaintext"},
		{"a CA file that does not exist", Config{CAFile: "does-not-exist"}, "does-not-exist"},
		{"a CA file without certificates", Config{CAFile: "go.mod"}, "contains no certificate"},
		{"a certificate without its key", Config{CertFile: "go.mod"}, "CertFile and KeyFile"},
	} {
		t.Run(test.name, func(t *testing.T) {
			test.config.Target = "127.0.0.1:1"
			client, err := New(test.config)
			if test.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				client.Close()
			} else if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestAChangeWithoutAKeyIsNotCalled(t *testing.T) {
	client := &Client{} // A call would panic.
	client.Gateway = gatewayv1.NewGatewayServiceClient(nil)
	_, err := client.ChangeEsimPlan(t.Context(), &gatewayv1.ChangeEsimPlanRequest{AccountName: "a"})
	e, ok := errors.AsType[*Error](err)
	if !ok || e.Code != codes.InvalidArgument || e.OutcomeUnknown {
		t.Errorf("got %v", err)
	}
}
