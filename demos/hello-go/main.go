// Says hello, and shows the arguments and the one variable that its pod gave it.
package main

import (
	"fmt"
	"os"
)

func main() {
	name := os.Getenv("NAME")
	if name == "" {
		name = "world"
	}
	fmt.Printf("Hello, %s, from Go in WebAssembly\n", name)
	for _, argument := range os.Args[1:] {
		fmt.Println("argument:", argument)
	}
}
