// Registers a CSI driver with the kubelet, as node-driver-registrar does: it asks the driver for its name and serves
// kubelet's plugin registration API on a socket that kubelet watches. A stand-in of our own for the cluster of the
// tests, because the Go module proxy does not serve kubernetes-csi/node-driver-registrar. It takes the flags that a
// manifest for the original gives; those that it has no use for have no effect.
package main

import (
	"context"
	"flag"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/kubernetes-csi/csi-lib-utils/connection"
	"github.com/kubernetes-csi/csi-lib-utils/rpc"
	"google.golang.org/grpc"
	registration "k8s.io/kubelet/pkg/apis/pluginregistration/v1"
)

type server struct {
	registration.UnsafeRegistrationServer
	driver, endpoint string
}

func (s *server) GetInfo(context.Context, *registration.InfoRequest) (*registration.PluginInfo, error) {
	return &registration.PluginInfo{
		Type:              registration.CSIPlugin,
		Name:              s.driver,
		Endpoint:          s.endpoint,
		SupportedVersions: []string{"1.0.0"},
	}, nil
}

func (s *server) NotifyRegistrationStatus(_ context.Context, status *registration.RegistrationStatus) (*registration.RegistrationStatusResponse, error) {
	if !status.PluginRegistered {
		log.Fatalf("kubelet refused %s: %s", s.driver, status.Error)
	}
	log.Printf("kubelet registered %s", s.driver)
	return &registration.RegistrationStatusResponse{}, nil
}

func main() {
	address := flag.String("csi-address", "/run/csi/socket", "socket of the driver, as this container sees it")
	endpoint := flag.String("kubelet-registration-path", "", "socket of the driver, as kubelet sees it")
	directory := flag.String("plugin-registration-path", "/registration", "directory that kubelet watches")
	timeout := flag.Duration("timeout", 30*time.Second, "how long the driver may take to tell its name")
	flag.Int("v", 0, "no effect")
	health := flag.String("http-endpoint", "", "address:port of /healthz: the socket for kubelet is there")
	flag.Parse()
	if *endpoint == "" {
		log.Fatal("--kubelet-registration-path is missing")
	}

	ctx, cancel := context.WithTimeout(context.Background(), *timeout)
	driver, err := connection.ConnectWithoutMetrics(ctx, *address)
	if err != nil {
		log.Fatalf("the driver at %s: %v", *address, err)
	}
	name, err := rpc.GetDriverName(ctx, driver)
	if err != nil {
		log.Fatalf("the driver at %s does not tell its name: %v", *address, err)
	}
	cancel()
	driver.Close()

	socket := filepath.Join(*directory, name+"-reg.sock")
	if err := os.Remove(socket); err != nil && !os.IsNotExist(err) {
		log.Fatal(err)
	}
	listener, err := net.Listen("unix", socket)
	if err != nil {
		log.Fatal(err)
	}
	serving := grpc.NewServer()
	registration.RegisterRegistrationServer(serving, &server{driver: name, endpoint: *endpoint})
	ending := make(chan os.Signal, 1)
	signal.Notify(ending, syscall.SIGTERM, syscall.SIGINT)
	go func() {
		<-ending
		serving.GracefulStop() // closes the listener, which removes the socket: kubelet forgets the driver
	}()
	if *health != "" {
		http.HandleFunc("/healthz", func(answer http.ResponseWriter, _ *http.Request) {
			if _, err := os.Stat(socket); err != nil {
				http.Error(answer, err.Error(), http.StatusInternalServerError)
			}
		})
		go func() { log.Fatal(http.ListenAndServe(*health, nil)) }()
	}
	log.Printf("serving the registration of %s at %s", name, socket)
	if err := serving.Serve(listener); err != nil {
		log.Fatal(err)
	}
}
