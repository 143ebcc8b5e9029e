package main

import (
	"context"
	"fmt"

	"github.com/urfave/cli/v3"

	"approvalrelay/push"
)

func vapidCommand() *cli.Command {
	return &cli.Command{
		Name: "vapid", Usage: "prints a new VAPID key pair as YAML, for push.vapid",
		Action: func(_ context.Context, c *cli.Command) error {
			public, private, err := push.GenerateVAPID()
			if err != nil {
				return fmt.Errorf("make a key pair: %w", err)
			}
			_, err = fmt.Fprintf(c.Root().Writer, "push:\n  vapid:\n    subject: \"mailto:ops@example.com\"  # an address of yours that push services can reach\n    public_key: %q\n    private_key: %q\n", public, private)
			return err
		},
	}
}
