// Answers GET /healthz by what the CSI driver answers to Probe, as livenessprobe does. A stand-in of our own for the
// cluster of the tests, because the Go module proxy does not serve kubernetes-csi/livenessprobe. It takes the flags
// that a manifest for the original gives; those that it has no use for have no effect.
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"net/http"
	"time"

	"github.com/kubernetes-csi/csi-lib-utils/connection"
	"github.com/kubernetes-csi/csi-lib-utils/rpc"
)

func main() {
	address := flag.String("csi-address", "/run/csi/socket", "socket of the driver")
	port := flag.Int("health-port", 9808, "port of /healthz on every address; --http-endpoint wins")
	endpoint := flag.String("http-endpoint", "", "address:port of /healthz")
	timeout := flag.Duration("probe-timeout", time.Second, "how long the driver may take to answer")
	flag.Int("v", 0, "no effect")
	flag.String("metrics-address", "", "no effect")
	flag.Parse()
	if *endpoint == "" {
		*endpoint = fmt.Sprintf(":%d", *port)
	}

	driver, err := connection.ConnectWithoutMetrics(context.Background(), *address)
	if err != nil {
		log.Fatalf("the driver at %s: %v", *address, err)
	}
	http.HandleFunc("/healthz", func(answer http.ResponseWriter, request *http.Request) {
		ctx, cancel := context.WithTimeout(request.Context(), *timeout)
		defer cancel()
		ready, err := rpc.Probe(ctx, driver)
		switch {
		case err != nil:
			http.Error(answer, err.Error(), http.StatusInternalServerError)
			log.Printf("the driver does not answer: %v", err)
		case !ready:
			http.Error(answer, "driver responded but is not ready", http.StatusInternalServerError)
		default:
			fmt.Fprint(answer, "ok")
		}
	})
	log.Printf("serving /healthz at %s", *endpoint)
	log.Fatal(http.ListenAndServe(*endpoint, nil))
}
