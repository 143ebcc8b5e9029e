package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v3"

	"approvalrelay/api"
	"approvalrelay/configs"
	"approvalrelay/push"
	"approvalrelay/relay/forward"
	"approvalrelay/relay/redisstore"
)

const (
	checkTimeout = 5 * time.Second // of each look at somebody else
	worstSkew    = time.Second     // of clocks, before it is worth a word
)

func checkCommand() *cli.Command {
	return &cli.Command{
		Name: "check", Usage: "validates the configuration, then looks at Redis, its clock, the VAPID keys, the JWKS, the issuer and the targets",
		Flags: []cli.Flag{configFlag()},
		Action: func(ctx context.Context, c *cli.Command) error {
			name := c.String("config")
			cfg, err := configs.Load(name)
			if err != nil {
				return err
			}
			k := &checks{out: c.Root().Writer, file: name, cfg: cfg}
			if k.all(ctx); len(k.faults) > 0 {
				return k.faults
			}
			fmt.Fprintln(k.out, name, "is good")
			return nil
		},
	}
}

// checks looks at everything that a configuration names. What is good, or only
// worth knowing, is printed at once; faults carry the lines of the keys that are to
// be mended.
type checks struct {
	out    io.Writer
	file   string
	cfg    *configs.Config
	faults configs.Faults
}

// warning is worth knowing, and no fault.
type warning string

func (w warning) Error() string { return string(w) }

// look prints what fn found to be good.
func (k *checks) look(ctx context.Context, key string, fn func(context.Context) (string, error)) {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	found, err := fn(ctx)
	if w, ok := errors.AsType[warning](err); ok {
		fmt.Fprintf(k.out, "warning  %s: %s\n", key, w)
		return
	}
	if err != nil {
		k.faults = append(k.faults, configs.Fault{File: k.file, Line: k.cfg.Line(key), Key: key, Problem: err.Error()})
		return
	}
	fmt.Fprintf(k.out, "ok       %s: %s\n", key, found)
}

func (k *checks) all(ctx context.Context) {
	k.redis(ctx)
	k.look(ctx, "push.vapid", func(context.Context) (string, error) { return checkVAPID(k.cfg.Push.VAPID) })
	if u := k.cfg.Auth.JWT.JWKSURL; u != "" {
		k.look(ctx, "auth.jwt.jwks_url", func(ctx context.Context) (string, error) { return checkJWKS(ctx, u) })
	}
	for _, name := range slices.Sorted(maps.Keys(k.cfg.Merchants)) {
		if a := k.cfg.Merchants[name].IssuerAPI; a != nil {
			k.look(ctx, "merchants."+name+".issuer_api.base_url", func(ctx context.Context) (string, error) { return checkReachable(ctx, a.BaseURL) })
		}
	}
	for i, t := range k.cfg.Forward.Targets {
		k.look(ctx, fmt.Sprintf("forward.targets[%d].url", i), func(ctx context.Context) (string, error) { return checkReachable(ctx, t.URL) })
	}
}

func (k *checks) redis(ctx context.Context) {
	const key = "redis.url"
	if k.cfg.Redis.Embedded() {
		k.look(ctx, key, func(context.Context) (string, error) {
			return "", warning("it is embedded: nothing survives a restart; name a real Redis for anything but trying out")
		})
		return
	}
	s, err := openStore(k.cfg, "check", slog.New(slog.DiscardHandler), nil)
	if err != nil {
		k.look(ctx, key, func(context.Context) (string, error) { return "", err })
		return
	}
	defer s.Close()
	before := len(k.faults)
	k.look(ctx, key, func(ctx context.Context) (string, error) { return checkRedis(ctx, s) })
	if len(k.faults) > before {
		return
	}
	k.look(ctx, key, func(ctx context.Context) (string, error) { return checkPolicy(ctx, s) })
	k.look(ctx, key, func(ctx context.Context) (string, error) { return checkClock(ctx, s) })
}

func checkRedis(ctx context.Context, s *redisstore.Store) (string, error) {
	if err := s.Ping(ctx); err != nil {
		return "", fmt.Errorf("no answer: %w; is it running there, and are user and password right?", err)
	}
	if _, err := s.Root(ctx); err != nil {
		return "", err
	}
	return "Redis answers, and its data can be read with storage.keys", nil
}

func checkPolicy(ctx context.Context, s *redisstore.Store) (string, error) {
	faults, err := s.Policy(ctx)
	if err != nil {
		return "", fmt.Errorf("its set-up cannot be read: %w", err)
	}
	if len(faults) > 0 {
		return "", errors.New(strings.Join(faults, "; "))
	}
	return "what it has acknowledged it keeps (appendonly, noeviction)", nil
}

func checkClock(ctx context.Context, s *redisstore.Store) (string, error) {
	skew, err := s.Skew(ctx)
	if err != nil {
		return "", fmt.Errorf("its clock cannot be read: %w", err)
	}
	apart := skew.Abs().Round(time.Millisecond)
	if apart <= worstSkew {
		return fmt.Sprintf("its clock and this machine's are %s apart", apart), nil
	}
	which := "ahead of"
	if skew < 0 {
		which = "behind"
	}
	return "", warning(fmt.Sprintf("its clock is %s %s this machine's; the relay goes by Redis' clock, but run NTP on both: logs and traces do not", apart, which))
}

func checkVAPID(v configs.VAPID) (string, error) {
	if v.PublicKey == "" {
		return "", warning("there are no keys: nothing will be pushed; relay vapid makes a pair")
	}
	keys, err := push.NewVAPID(v.Subject, v.PublicKey, v.PrivateKey.Reveal())
	if err != nil {
		return "", err
	}
	if w := keys.Warning(); w != "" {
		return "", warning(w)
	}
	return "the two keys are a pair", nil
}

func checkJWKS(ctx context.Context, url string) (string, error) {
	n, err := api.CountKeys(ctx, url)
	if err != nil {
		return "", fmt.Errorf("%w; until it can be read nobody can sign in", err)
	}
	return fmt.Sprintf("%d keys that tokens may be signed with", n), nil
}

func checkReachable(ctx context.Context, url string) (string, error) {
	status, err := forward.Reach(ctx, url)
	if err != nil {
		return "", fmt.Errorf("cannot be reached: %w; check the address, and what stands between: DNS, firewalls, certificates", err)
	}
	return fmt.Sprintf("answers (%d to an empty OPTIONS)", status), nil
}
