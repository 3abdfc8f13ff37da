package main

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/exec"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/client-go/util/cert"
	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
	utilexec "k8s.io/utils/exec"
)

const (
	idleTimeout    = 4 * time.Hour
	streamCreation = 30 * time.Second
)

// container is a container of a request, and the command that reaches the containers of the node.
type container struct {
	command              []string
	namespace, pod, name string
}

// newStreamsCommand returns a program that serves kubectl exec, attach and logs on the port of a kubelet. It runs
//
//	COMMAND exec|attach|logs NAMESPACE POD CONTAINER [WORD]...
//
// for each request, with the streams of the client. The protocol is that of Kubernetes' own library for container runtimes.
func newStreamsCommand() *cobra.Command {
	var address string
	streams := &cobra.Command{
		Use:  "streams --address ADDRESS -- COMMAND...",
		Args: cobra.MinimumNArgs(1),
		RunE: func(_ *cobra.Command, command []string) error { return serveStreams(address, command) },
	}
	streams.Flags().StringVar(&address, "address", "", "address and port")
	return streams
}

func serveStreams(address string, command []string) error {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return err
	}
	certificate, key, err := cert.GenerateSelfSignedCertKey(host, nil, nil)
	if err != nil {
		return err
	}
	pair, err := tls.X509KeyPair(certificate, key)
	if err != nil {
		return err
	}
	of := func(request *http.Request) container {
		return container{command, request.PathValue("namespace"), request.PathValue("pod"), request.PathValue("container")}
	}
	routes := http.NewServeMux()
	routes.HandleFunc("/exec/{namespace}/{pod}/{container}", func(response http.ResponseWriter, request *http.Request) {
		of(request).serve(response, request, true)
	})
	routes.HandleFunc("/attach/{namespace}/{pod}/{container}", func(response http.ResponseWriter, request *http.Request) {
		of(request).serve(response, request, false)
	})
	routes.HandleFunc("GET /containerLogs/{namespace}/{pod}/{container}", func(response http.ResponseWriter, request *http.Request) {
		if err := of(request).run(request.Context(), "logs", nil, nil, response, os.Stderr); err != nil {
			log.Print("logs: ", err)
		}
	})
	// The API server speaks HTTP/1.1, because the streams replace the protocol of the connection.
	server := &http.Server{
		Addr:         address,
		Handler:      routes,
		TLSConfig:    &tls.Config{Certificates: []tls.Certificate{pair}},
		TLSNextProto: map[string]func(*http.Server, *tls.Conn, http.Handler){},
	}
	return server.ListenAndServeTLS("", "")
}

func (c container) serve(response http.ResponseWriter, request *http.Request, isExec bool) {
	options, err := remotecommand.NewOptions(request)
	if err != nil {
		http.Error(response, err.Error(), http.StatusBadRequest)
		return
	}
	protocols := remotecommand.SupportedStreamingProtocols
	if isExec {
		words := request.Form["command"]
		remotecommand.ServeExec(response, request, c, c.pod, "", c.name, words, options, idleTimeout, streamCreation, protocols)
	} else {
		remotecommand.ServeAttach(response, request, c, c.pod, "", c.name, options, idleTimeout, streamCreation, protocols)
	}
}

// ExecInContainer implements remotecommand.Executor.
func (c container) ExecInContainer(ctx context.Context, _, _, _ string, words []string, in io.Reader, out, err io.WriteCloser,
	_ bool, _ <-chan remotecommand.TerminalSize, _ time.Duration,
) error {
	return c.run(ctx, "exec", words, in, out, err)
}

// AttachContainer implements remotecommand.Attacher.
func (c container) AttachContainer(ctx context.Context, _, _, _ string, in io.Reader, out, err io.WriteCloser,
	_ bool, _ <-chan remotecommand.TerminalSize,
) error {
	return c.run(ctx, "attach", nil, in, out, err)
}

func (c container) run(ctx context.Context, action string, words []string, in io.Reader, out, err io.Writer) error {
	arguments := append(append([]string{}, c.command[1:]...), action, c.namespace, c.pod, c.name)
	command := exec.CommandContext(ctx, c.command[0], append(arguments, words...)...)
	command.Stdout, command.Stderr = out, err
	if in != nil {
		// The end of the command does not wait for the end of the input.
		input, failed := command.StdinPipe()
		if failed != nil {
			return failed
		}
		go func() {
			defer input.Close()
			_, _ = io.Copy(input, in)
		}()
	}
	failed := command.Run()
	var exit *exec.ExitError
	if errors.As(failed, &exit) {
		return &utilexec.CodeExitError{Err: failed, Code: exit.ExitCode()}
	}
	return failed
}
