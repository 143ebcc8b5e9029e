package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"

	"github.com/urfave/cli/v3"

	"approvalrelay/cmd/relay/floor"
	"approvalrelay/configs"
)

func floorCommand() *cli.Command {
	return &cli.Command{
		Name: "floor", Usage: "serves the least that any relay must do, for relay bench --floor to measure against",
		Flags: []cli.Flag{configFlag(), &cli.StringFlag{Name: "listen", Usage: "its `ADDRESS`", Value: benchFloor}},
		Action: func(ctx context.Context, c *cli.Command) error {
			cfg, err := configs.Load(c.String("config"))
			if err != nil {
				return err
			}
			return serveFloor(ctx, cfg, c.String("listen"))
		},
	}
}

// serveFloor runs until ctx ends. It forwards to the first target.
func serveFloor(ctx context.Context, cfg *configs.Config, address string) error {
	name, err := oneMerchant(cfg, "")
	if err != nil {
		return err
	}
	if len(cfg.Forward.Targets) == 0 {
		return errors.New("the floor needs a forward target")
	}
	ring, err := keyring(cfg.Merchants[name])
	if err != nil {
		return fmt.Errorf("merchants.%s.secrets: %w", name, err)
	}
	t := cfg.Forward.Targets[0]
	s, err := floor.New(ctx, floor.Options{Redis: cfg.Redis.URL.Reveal(), Keyring: ring, URL: t.URL, Secret: t.Secrets[0].Reveal(), Concurrency: t.Concurrency})
	if err != nil {
		return err
	}
	ln, err := net.Listen("tcp", address)
	if err != nil {
		return errors.Join(err, s.Close())
	}
	srv := &http.Server{Handler: s, ReadHeaderTimeout: headerTimeout}
	defer context.AfterFunc(ctx, func() { _ = srv.Close() })()
	go func() { _ = srv.Serve(ln) }() // ends with ctx
	return errors.Join(s.Run(ctx), srv.Close(), s.Close())
}
