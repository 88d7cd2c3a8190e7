// Sends back what its clients send, many clients at a time.
package main

import (
	"fmt"
	"io"
	"net"
	"os"
)

// The first descriptor that a container finds open: see LISTEN_FDS in sd_listen_fds(3).
const firstListener = 3

func main() {
	if os.Getenv("LISTEN_FDS") == "" {
		fmt.Fprintln(os.Stderr, "no socket to listen on: the container declares no TCP port")
		os.Exit(1)
	}
	listener, err := net.FileListener(os.NewFile(firstListener, "listener"))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println("listening")
	for {
		client, err := listener.Accept()
		if err != nil {
			fmt.Fprintln(os.Stderr, "accept:", err)
			os.Exit(1)
		}
		go func() {
			defer client.Close()
			io.Copy(client, client)
		}()
	}
}
