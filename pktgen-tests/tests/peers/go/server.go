package main

import (
	"crypto/sha256"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"strings"
)

// server sends back what it was sent, with the caller's SPIFFE ID in the header X-Peer.
func server(root string, listeners []string) error {
	failed := make(chan error)
	for _, listener := range listeners {
		parts := strings.Split(listener, ",")
		config, err := configuration(parts[1], parts[2], root)
		if err != nil {
			return err
		}
		if len(parts) > 3 && parts[3] == "half-close" {
			go func() { failed <- digests(":"+parts[0], config) }()
			continue
		}
		if len(parts) > 3 {
			config.CurvePreferences = groups(parts[3])
		}
		server := http.Server{Addr: ":" + parts[0], TLSConfig: config, Handler: http.HandlerFunc(echo)}
		go func() { failed <- server.ListenAndServeTLS("", "") }()
	}
	return <-failed
}

func echo(response http.ResponseWriter, request *http.Request) {
	id, _ := peer(*request.TLS)
	response.Header().Set("X-Peer", id)
	response.Header().Set("X-Runtime", runtime.Version())
	response.Header().Set("Content-Length", request.Header.Get("Content-Length"))
	// Else an HTTP/1 server takes no more of the request once it has begun to answer.
	_ = http.NewResponseController(response).EnableFullDuplex()
	_, _ = io.Copy(response, request.Body)
}

// digests answers with the digest of all that came before the other side's close_notify.
func digests(address string, config *tls.Config) error {
	listener, err := tls.Listen("tcp", address, config)
	if err != nil {
		return err
	}
	for {
		connection, err := listener.Accept()
		if err != nil {
			return err
		}
		go func(connection net.Conn) {
			defer connection.Close()
			hash := sha256.New()
			if _, err := io.Copy(hash, connection); err != nil {
				fmt.Fprintln(os.Stderr, "half-close:", err)
				return
			}
			fmt.Fprintf(connection, "%x\n", hash.Sum(nil))
		}(connection)
	}
}
