// Command relay is the approval relay: it takes an issuer's encrypted webhooks,
// pushes what needs the cardholder to the cardholder's devices, brings the
// decision back to the issuer, and forwards everything else.
//
// One file per command. The parts are wired together in node.go; nothing is
// decided here that another package could decide.
package main

import (
	"context"
	"os"
)

func main() {
	os.Exit(run(context.Background(), os.Args, os.Stdin, os.Stdout, os.Stderr))
}
