package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/urfave/cli/v3"

	"approvalrelay/configs"
)

// checkTimeout bounds each look at somebody else.
const checkTimeout = 5 * time.Second

func checkCommand() *cli.Command {
	return &cli.Command{
		Name: "check", Usage: "validates the configuration, then looks whether Redis, the JWKS and the targets can be reached",
		Flags: []cli.Flag{configFlag()},
		Action: func(ctx context.Context, c *cli.Command) error {
			name := c.String("config")
			cfg, err := configs.Load(name)
			if err != nil {
				return err
			}
			faults := checkOutside(ctx, name, cfg)
			if len(faults) > 0 {
				return faults
			}
			fmt.Fprintln(c.Root().Writer, name, "is good; Redis, the JWKS and the targets can be reached")
			return nil
		},
	}
}

// checkOutside looks at everything that the configuration names. The faults
// carry the lines of the keys that are to be mended.
func checkOutside(ctx context.Context, file string, cfg *configs.Config) configs.Faults {
	var faults configs.Faults
	look := func(key string, fn func(context.Context) error) {
		ctx, cancel := context.WithTimeout(ctx, checkTimeout)
		defer cancel()
		if err := fn(ctx); err != nil {
			faults = append(faults, configs.Fault{File: file, Line: cfg.Line(key), Key: key, Problem: err.Error()})
		}
	}
	look("redis.url", func(ctx context.Context) error { return checkRedis(ctx, cfg) })
	if u := cfg.Auth.JWT.JWKSURL; u != "" {
		look("auth.jwt.jwks_url", func(ctx context.Context) error { return checkJWKS(ctx, u) })
	}
	for i, t := range cfg.Forward.Targets {
		look(fmt.Sprintf("forward.targets[%d].url", i), func(ctx context.Context) error { return checkReachable(ctx, t.URL) })
	}
	for name, m := range cfg.Merchants {
		if m.IssuerAPI != nil {
			look("merchants."+name+".issuer_api.base_url", func(ctx context.Context) error { return checkReachable(ctx, m.IssuerAPI.BaseURL) })
		}
	}
	return faults
}

func checkRedis(ctx context.Context, cfg *configs.Config) error {
	if cfg.Redis.Embedded() {
		return nil
	}
	s, err := openStore(cfg, "check", slog.New(slog.DiscardHandler), nil)
	if err != nil {
		return err
	}
	defer s.Close()
	if err := s.Ping(ctx); err != nil {
		return fmt.Errorf("no answer: %w", err)
	}
	if _, err := s.Root(ctx); err != nil {
		return err
	}
	policy, err := s.Policy(ctx)
	if err != nil {
		return fmt.Errorf("its set-up cannot be read: %w", err)
	}
	var errs []error
	for _, p := range policy {
		errs = append(errs, errors.New(p))
	}
	return errors.Join(errs...)
}

func checkJWKS(ctx context.Context, u string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u, nil)
	if err != nil {
		return err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("the key set cannot be read: %w", err)
	}
	defer res.Body.Close()
	if _, err := io.Copy(io.Discard, io.LimitReader(res.Body, 1<<20)); err != nil || res.StatusCode != http.StatusOK {
		return fmt.Errorf("the key set answers with status %d", res.StatusCode)
	}
	return nil
}

// checkReachable opens a connection and says nothing: a target must not see a
// request that is no event.
func checkReachable(ctx context.Context, raw string) error {
	u, err := url.Parse(raw)
	if err != nil {
		return errors.New("is not a URL")
	}
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	addr := net.JoinHostPort(u.Hostname(), port)
	var conn net.Conn
	if u.Scheme == "https" {
		conn, err = (&tls.Dialer{}).DialContext(ctx, "tcp", addr)
	} else {
		conn, err = (&net.Dialer{}).DialContext(ctx, "tcp", addr)
	}
	if err != nil {
		return fmt.Errorf("cannot be reached: %w", err)
	}
	return conn.Close()
}
