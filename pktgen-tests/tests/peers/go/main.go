// A direct mTLS peer of a gateway, with Go's crypto/tls.
//
//	peer client URL CHAIN KEY ROOT BODY [GROUPS]
//	peer server ROOT PORT,CHAIN,KEY[,GROUPS]...
package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"strings"
)

func main() {
	var err error
	switch os.Args[1] {
	case "client":
		err = client(os.Args[2:])
	case "server":
		err = server(os.Args[2], os.Args[3:])
	case "half-close":
		err = halfClose(os.Args[2:])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// configuration is of both roles: a certificate of our own, and the roots by which we verify theirs.
func configuration(chain, key, root string) (*tls.Config, error) {
	certificate, err := tls.LoadX509KeyPair(chain, key) // leaf and intermediates
	if err != nil {
		return nil, err
	}
	pem, err := os.ReadFile(root)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, errors.New(root + " has no certificate")
	}
	return &tls.Config{
		MinVersion:   tls.VersionTLS13,
		Certificates: []tls.Certificate{certificate},
		RootCAs:      roots,
		ClientCAs:    roots,
		ClientAuth:   tls.RequireAndVerifyClientCert,
		VerifyConnection: func(state tls.ConnectionState) error {
			_, err := peer(state)
			return err
		},
	}, nil
}

// peer is the one SPIFFE ID that the other side has shown.
func peer(state tls.ConnectionState) (string, error) {
	names := state.PeerCertificates[0].URIs
	if len(names) != 1 || names[0].Scheme != "spiffe" {
		return "", fmt.Errorf("the peer's URI SANs are %v: want one SPIFFE ID", names)
	}
	return names[0].String(), nil
}

func groups(names string) (ids []tls.CurveID) {
	known := map[string]tls.CurveID{"P-256": tls.CurveP256, "P-521": tls.CurveP521}
	for _, name := range strings.Split(names, ":") {
		ids = append(ids, known[name])
	}
	return ids
}
