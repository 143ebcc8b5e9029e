package main

import (
	"context"
	"fmt"
	"io"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/urfave/cli/v3"
)

// defaultConfig is the file that commands read if they are not told another.
const defaultConfig = "configs/relay.yaml"

// run is the program: it returns the exit code. Faults are printed to errw, once.
func run(ctx context.Context, args []string, in io.Reader, out, errw io.Writer) int {
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	root := &cli.Command{
		Name:  "relay",
		Usage: "brings card approvals to cardholders' phones and their answers back to the issuer",
		Commands: []*cli.Command{
			serveCommand(), demoCommand(), checkCommand(), sendCommand(), tokenCommand(), vapidCommand(), deadLettersCommand(), verifyCommand(), benchCommand(), versionCommand(),
		},
		Reader: in, Writer: out, ErrWriter: errw,
		ExitErrHandler: func(context.Context, *cli.Command, error) {}, // printed below, once
		Action: func(_ context.Context, c *cli.Command) error {
			if name := c.Args().First(); name != "" {
				return fmt.Errorf("there is no command %q; see relay --help", name)
			}
			return cli.ShowRootCommandHelp(c)
		},
	}
	if err := root.Run(ctx, args); err != nil {
		fmt.Fprintln(errw, "relay:", err)
		return 1
	}
	return 0
}

func configFlag() *cli.StringFlag {
	return &cli.StringFlag{Name: "config", Usage: "the configuration `FILE`", Value: defaultConfig}
}

func versionCommand() *cli.Command {
	return &cli.Command{
		Name: "version", Usage: "prints the version",
		Action: func(_ context.Context, c *cli.Command) error {
			fmt.Fprintln(c.Root().Writer, "relay", version())
			return nil
		},
	}
}

// version is what the Go toolchain knows of this build.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "" {
		return "(devel)"
	}
	return info.Main.Version
}
