package main

import (
	"context"

	"github.com/urfave/cli/v3"

	"approvalrelay/configs"
)

func serveCommand() *cli.Command {
	return &cli.Command{
		Name: "serve", Usage: "runs the service until SIGTERM",
		Flags: []cli.Flag{configFlag()},
		Action: func(ctx context.Context, c *cli.Command) error {
			cfg, err := configs.Load(c.String("config"))
			if err != nil {
				return err
			}
			return serve(ctx, cfg)
		},
	}
}

// serve runs until ctx ends.
func serve(ctx context.Context, cfg *configs.Config) error {
	log, level := newLogger(cfg.Log)
	n, err := startNode(ctx, cfg, log, level, nil)
	if err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		return n.stop()
	case err := <-n.failed:
		_ = n.stop() // the first fault is the one to report
		return err
	}
}
