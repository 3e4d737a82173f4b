package main

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"runtime"
)

// client posts the file BODY, and prints who answered and what came back.
func client(arguments []string) error {
	address, body := arguments[0], arguments[4]
	config, err := configuration(arguments[1], arguments[2], arguments[3])
	if err != nil {
		return err
	}
	if len(arguments) > 5 {
		config.CurvePreferences = groups(arguments[5])
	}
	content, err := os.ReadFile(body)
	if err != nil {
		return err
	}
	// Offers h2 too. A gateway chooses no protocol, so HTTP/1.1 is spoken.
	client := http.Client{Transport: &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: true}}
	response, err := client.Post(address, "application/octet-stream", bytes.NewReader(content))
	if err != nil {
		return err
	}
	defer response.Body.Close()
	hash := sha256.New()
	if _, err := io.Copy(hash, response.Body); err != nil {
		return err
	}
	id, err := peer(*response.TLS)
	fmt.Println("peer", id)
	fmt.Printf("body %x\n", hash.Sum(nil))
	fmt.Println("runtime", runtime.Version())
	return err
}

// halfClose sends BODY, says that this was all, and then reads until the other side has done so too.
func halfClose(arguments []string) error {
	to, err := url.Parse(arguments[0])
	if err != nil {
		return err
	}
	config, err := configuration(arguments[1], arguments[2], arguments[3])
	if err != nil {
		return err
	}
	config.ServerName = to.Hostname()
	content, err := os.ReadFile(arguments[4])
	if err != nil {
		return err
	}
	connection, err := tls.Dial("tcp", net.JoinHostPort(to.Hostname(), to.Port()), config)
	if err != nil {
		return err
	}
	defer connection.Close()
	if _, err := connection.Write(content); err != nil {
		return err
	}
	if err := connection.CloseWrite(); err != nil {
		return err
	}
	answer, err := io.ReadAll(connection)
	fmt.Print(string(answer))
	return err
}
