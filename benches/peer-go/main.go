// Command peer-go is the service that a Go team would write instead of the
// gateway, to compare the two: a gRPC server that forwards changes of eSIM plans
// to ThingSpace, an HTTP server that stores callbacks in SQLite before it
// acknowledges them, and a watch of the results of a change.
//
// It has what the measured paths need: idempotency keys, de-duplication of
// callbacks, counts, resumable watches. It has none of the gateway's lookups,
// attribution, limits, telemetry or handling of unclear outcomes.
package main

import (
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"time"

	"google.golang.org/grpc"

	pb "github.com/thingspace-gateway/thingspace-gateway/benches/peer-go/gen/thingspace/gateway/v1"
)

func main() {
	grpcAddress := flag.String("grpc", "127.0.0.1:0", "address of the gRPC server")
	callbackAddress := flag.String("callbacks", "127.0.0.1:0", "address of the callback listener")
	database := flag.String("db", "peer.db", "path of the database")
	thingspace := flag.String("thingspace", "", "base URL of ThingSpace")
	path := flag.String("path", "/callbacks", "path of the callback listener")
	username := flag.String("username", "user", "user name in the callbacks")
	password := flag.String("password", "password", "password in the callbacks")
	flag.Parse()

	store, err := OpenStore(*database)
	if err != nil {
		log.Fatal(err)
	}
	grpcListener, err := net.Listen("tcp", *grpcAddress)
	if err != nil {
		log.Fatal(err)
	}
	callbackListener, err := net.Listen("tcp", *callbackAddress)
	if err != nil {
		log.Fatal(err)
	}

	mux := http.NewServeMux()
	mux.Handle("POST "+*path, &CallbackHandler{store: store, username: *username, password: *password})
	go func() {
		server := &http.Server{Handler: mux, ReadTimeout: 5 * time.Second, IdleTimeout: time.Minute}
		log.Fatal(server.Serve(callbackListener))
	}()

	server := grpc.NewServer(grpc.MaxRecvMsgSize(16 << 20))
	pb.RegisterGatewayServiceServer(server, &Gateway{store: store, client: newThingSpace(*thingspace)})
	fmt.Println(grpcListener.Addr(), callbackListener.Addr())
	log.Fatal(server.Serve(grpcListener))
}
