// Writes the Envoy resources that Istio's control plane sends to the proxies of a client and of the gateway.
//
// The arguments are three files: Istio's resources, the Kubernetes objects, and the output. scripts/mesh-configs runs it.
package main

import (
	"encoding/json"
	"fmt"
	"os"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"istio.io/istio/pilot/pkg/config/kube/crd"
	"istio.io/istio/pilot/pkg/model"
	"istio.io/istio/pilot/test/xds"
	"istio.io/istio/pkg/test"

	// The types in the configuration of the filters.
	_ "istio.io/istio/pkg/config/xds"
)

func main() {
	istio, err := os.ReadFile(os.Args[1])
	fail(err)
	kubernetes, err := os.ReadFile(os.Args[2])
	fail(err)
	configs, _, err := crd.ParseInputs(string(istio))
	fail(err)
	for i := range configs {
		// As of resources that are read from an API server: short names of hosts are in this domain.
		configs[i].Domain = "cluster.local"
	}
	fail(test.Wrap(func(t test.Failer) {
		server := xds.NewFakeDiscoveryServer(t, xds.FakeOptions{
			Configs:                configs,
			KubernetesObjectString: string(kubernetes),
		})
		output, err := json.Marshal(map[string]any{
			"client":  resources(server, proxy("fleet", "fleet-service", "10.0.0.9")),
			"gateway": resources(server, proxy("iot", "thingspace-gateway", "10.0.0.5")),
		})
		fail(err)
		fail(os.WriteFile(os.Args[3], output, 0o644))
	}))
}

// proxy describes the sidecar of a pod to the control plane.
func proxy(namespace, app, address string) *model.Proxy {
	labels := map[string]string{"app.kubernetes.io/name": app}
	return &model.Proxy{
		Type:            model.SidecarProxy,
		ConfigNamespace: namespace,
		IPAddresses:     []string{address},
		Labels:          labels,
		Metadata: &model.NodeMetadata{
			Namespace:      namespace,
			Labels:         labels,
			ServiceAccount: app,
		},
	}
}

func resources(server *xds.FakeDiscoveryServer, description *model.Proxy) map[string]any {
	proxy := server.SetupProxy(description)
	return map[string]any{
		"listeners": list(server.Listeners(proxy)),
		"routes":    list(server.Routes(proxy)),
		"clusters":  list(server.Clusters(proxy)),
		"endpoints": list(server.Endpoints(proxy)),
	}
}

func list[M proto.Message](messages []M) []json.RawMessage {
	out := []json.RawMessage{}
	for _, message := range messages {
		text, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(message)
		fail(err)
		out = append(out, text)
	}
	return out
}

func fail(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
