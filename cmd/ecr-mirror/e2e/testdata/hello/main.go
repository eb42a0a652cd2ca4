// Command hello is what the test images run: it prints its arguments.
package main

import (
	"os"
	"runtime"
	"strings"
)

func main() {
	os.Stdout.WriteString(strings.Join(append(os.Args[1:], runtime.GOARCH), " ") + "\n")
}
