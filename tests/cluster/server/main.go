// Command kubernetes holds the programs of a small Kubernetes cluster. The name of the program is the first argument:
//
//	kubernetes kube-apiserver --etcd-servers http://127.0.0.1:2379 ...
//
// One binary shares the packages of all programs, so it builds in less time and space than five.
package main

import (
	"fmt"
	"os"
	"slices"

	"github.com/spf13/cobra"
	"go.etcd.io/etcd/server/v3/etcdmain"
	"k8s.io/component-base/cli"
	_ "k8s.io/component-base/logs/json/register"
	kubectl "k8s.io/kubectl/pkg/cmd"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllermanager "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	proxy "k8s.io/kubernetes/cmd/kube-proxy/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
)

var programs = map[string]func() *cobra.Command{
	"kube-apiserver":          apiserver.NewAPIServerCommand,
	"kube-controller-manager": controllermanager.NewControllerManagerCommand,
	"kube-proxy":              proxy.NewProxyCommand,
	"kube-scheduler":          func() *cobra.Command { return scheduler.NewSchedulerCommand() },
	"kubectl":                 kubectl.NewDefaultKubectlCommand,
	"streams":                 newStreamsCommand,
}

func main() {
	if len(os.Args) < 2 {
		exit("the first argument is the name of a program")
	}
	name := os.Args[1]
	os.Args = slices.Delete(os.Args, 0, 1)
	if name == "etcd" {
		etcdmain.Main(os.Args)
		return
	}
	command, known := programs[name]
	if !known {
		exit("unknown program " + name)
	}
	os.Exit(cli.Run(command()))
}

func exit(reason string) {
	fmt.Fprintln(os.Stderr, "kubernetes:", reason)
	os.Exit(2)
}
