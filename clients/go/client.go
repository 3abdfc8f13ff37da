package gateway

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"google.golang.org/grpc"
	grpcbackoff "google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	"github.com/thingspace-gateway/thingspace-gateway/clients/go/gatewayv1"
)

// version is the version of the module, for the user agent.
const version = "0.1.0"

// Config configures a [Client]. Only Target is required.
type Config struct {
	// Target is the address of the gateway, such as `gateway.example.com:50051`, in
	// one of the forms that grpc-go accepts.
	Target string

	// Plaintext disables TLS. By default, the client uses TLS with the authorities
	// of the system.
	Plaintext bool
	// CAFile names a PEM file with the authorities that sign the certificate of the
	// gateway, instead of the authorities of the system.
	CAFile string
	// CertFile and KeyFile name PEM files with the certificate of the client and its
	// key. The client reads them for each connection, so they can be renewed.
	CertFile, KeyFile string
	// TLS is the TLS configuration to which CAFile, CertFile and KeyFile are added,
	// for example with RootCAs that are not in a file.
	TLS *tls.Config

	// Token is a bearer token that the client sends with each call.
	Token string
	// TokenFunc returns the bearer token. The client calls it for each attempt and
	// each stream, possibly from several goroutines, so it should cache the token
	// until the token expires. White space around the token is removed. An error fails
	// the attempt, which is then repeated.
	TokenFunc func(context.Context) (string, error)
	// AllowTokenOverPlaintext permits a token without TLS. Use it only if something
	// else protects the connection, such as the sidecar of a mesh.
	AllowTokenOverPlaintext bool

	// AttemptTimeout is the time limit of each attempt of a call. It should be longer
	// than `thingspace.request_timeout` of the gateway. Default: 90 s.
	AttemptTimeout time.Duration
	// TotalTimeout is the time limit of a call with all its attempts if the context
	// has no deadline. Default: 10 min.
	TotalTimeout time.Duration
	// ReopenTimeout is the time after which a watch ends with the last error if its
	// stream cannot be opened. Default: no limit.
	ReopenTimeout time.Duration
	// IdleTimeout is the time without an event after which a stream counts as
	// broken. It must be longer than `grpc.bookmark_interval` of the gateway, which is
	// 30 s by default and at most 60 s. Default: 90 s.
	IdleTimeout time.Duration
	// Keepalive is the interval of HTTP/2 pings during calls. A connection counts as
	// broken if a ping is not answered within 20 s. grpc-go raises intervals below
	// 10 s to 10 s. Default: 30 s.
	Keepalive time.Duration

	// OnRetry is called before the client waits for the next attempt of a call or a
	// stream. It must not block.
	OnRetry func(FailedAttempt)
	// DialOptions are further options for grpc-go, such as interceptors.
	DialOptions []grpc.DialOption
}

// Client is a connection to a gateway. It is safe for concurrent use.
type Client struct {
	// Gateway is the stub of GatewayService. Its calls are not repeated.
	Gateway gatewayv1.GatewayServiceClient
	// Operator is the stub of OperatorService. Its calls are not repeated.
	Operator gatewayv1.OperatorServiceClient

	config     Config
	connection *grpc.ClientConn
}

// New returns a client. It connects when the first call needs the connection.
// Close the client when it is no longer needed.
func New(config Config) (*Client, error) {
	setDefault(&config.AttemptTimeout, 90*time.Second)
	setDefault(&config.TotalTimeout, 10*time.Minute)
	setDefault(&config.IdleTimeout, 90*time.Second)
	setDefault(&config.Keepalive, 30*time.Second)
	transport, err := config.transport()
	if err != nil {
		return nil, err
	}
	options := []grpc.DialOption{
		grpc.WithTransportCredentials(transport),
		grpc.WithUserAgent("thingspace-gateway-client/" + version),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: config.Keepalive}),
		// The loops of this package decide about repeated calls.
		grpc.WithDisableRetry(),
		grpc.WithDisableServiceConfig(),
		// By default, grpc-go waits up to two minutes before it connects again.
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           grpcbackoff.Config{BaseDelay: minDelay, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 3 * time.Second},
			MinConnectTimeout: 10 * time.Second,
		}),
	}
	if config.Token != "" && config.TokenFunc != nil {
		return nil, errors.New("gateway: Config has both Token and TokenFunc: set only one")
	}
	if config.Token != "" || config.TokenFunc != nil {
		if config.Plaintext && !config.AllowTokenOverPlaintext {
			return nil, errors.New("gateway: a token must not be sent without TLS: remove Plaintext, or set AllowTokenOverPlaintext")
		}
		options = append(options, grpc.WithPerRPCCredentials(bearer{&config}))
	}
	connection, err := grpc.NewClient(config.Target, append(options, config.DialOptions...)...)
	if err != nil {
		return nil, fmt.Errorf("gateway: %w", err)
	}
	return &Client{
		Gateway:    gatewayv1.NewGatewayServiceClient(connection),
		Operator:   gatewayv1.NewOperatorServiceClient(connection),
		config:     config,
		connection: connection,
	}, nil
}

// Close closes the connection. Calls in progress fail.
func (c *Client) Close() error { return c.connection.Close() }

func setDefault(value *time.Duration, to time.Duration) {
	if *value == 0 {
		*value = to
	}
}

// transport returns the transport credentials.
func (config *Config) transport() (credentials.TransportCredentials, error) {
	if config.Plaintext {
		if config.CAFile != "" || config.CertFile != "" || config.KeyFile != "" || config.TLS != nil {
			return nil, errors.New("gateway: Config has Plaintext and options of TLS: remove Plaintext to use TLS")
		}
		return insecure.NewCredentials(), nil
	}
	result := &tls.Config{}
	if config.TLS != nil {
		result = config.TLS.Clone()
	}
	if config.CAFile != "" {
		pem, err := os.ReadFile(config.CAFile)
		if err != nil {
			return nil, fmt.Errorf("gateway: CAFile: %w", err)
		}
		result.RootCAs = x509.NewCertPool()
		if !result.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("gateway: CAFile: %s contains no certificate in PEM format", config.CAFile)
		}
	}
	if config.CertFile != "" || config.KeyFile != "" {
		load := func() (*tls.Certificate, error) {
			pair, err := tls.LoadX509KeyPair(config.CertFile, config.KeyFile)
			if err != nil {
				return nil, fmt.Errorf("gateway: CertFile and KeyFile: %w", err)
			}
			return &pair, nil
		}
		if _, err := load(); err != nil {
			return nil, err
		}
		result.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return load() }
	}
	return credentials.NewTLS(result), nil
}

// bearer sends the token of a Config with each attempt.
type bearer struct{ config *Config }

func (b bearer) GetRequestMetadata(ctx context.Context, _ ...string) (map[string]string, error) {
	token := b.config.Token
	if b.config.TokenFunc != nil {
		var err error
		if token, err = b.config.TokenFunc(ctx); err != nil {
			return nil, status.Errorf(codes.Unavailable, "TokenFunc: %v", err)
		}
	}
	return map[string]string{"authorization": "Bearer " + strings.TrimSpace(token)}, nil
}

func (b bearer) RequireTransportSecurity() bool { return !b.config.AllowTokenOverPlaintext }
