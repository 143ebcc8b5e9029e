package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/urfave/cli/v3"

	"approvalrelay/configs"
)

func tokenCommand() *cli.Command {
	return &cli.Command{
		Name: "token", Usage: "mints a development JWT under the configured auth.jwt.hs256_secret",
		Flags: []cli.Flag{
			configFlag(),
			&cli.StringFlag{Name: "user", Usage: "the cardholder's `ID`", Required: true},
			&cli.StringFlag{Name: "merchant", Usage: "the `NAME` for auth.jwt.merchant_claim; default: the only merchant"},
			&cli.DurationFlag{Name: "ttl", Usage: "how long it is valid", Value: time.Hour},
		},
		Action: func(_ context.Context, c *cli.Command) error {
			cfg, err := configs.Load(c.String("config"))
			if err != nil {
				return err
			}
			token, err := mintToken(cfg, c.String("user"), c.String("merchant"), time.Now().Add(c.Duration("ttl")))
			if err != nil {
				return err
			}
			fmt.Fprintln(c.Root().Writer, token)
			return nil
		},
	}
}

func mintToken(cfg *configs.Config, user, merchant string, expires time.Time) (string, error) {
	j := cfg.Auth.JWT
	if !j.HS256Secret.IsSet() {
		return "", errors.New("auth.jwt.hs256_secret is not set: tokens of your identity provider cannot be minted here")
	}
	now := time.Now().Unix()
	claims := jwt.MapClaims{"iss": j.Issuer, "aud": j.Audience, "exp": expires.Unix(), "iat": now, "auth_time": now, j.UserClaim: user}
	if j.MerchantClaim != "" {
		name, err := oneMerchant(cfg, merchant)
		if err != nil {
			return "", err
		}
		claims[j.MerchantClaim] = name
	}
	return jwt.NewWithClaims(jwt.SigningMethodHS256, claims).SignedString([]byte(j.HS256Secret.Reveal()))
}

// oneMerchant is the named merchant, or the only one there is.
func oneMerchant(cfg *configs.Config, name string) (string, error) {
	if name != "" {
		if _, ok := cfg.Merchants[name]; !ok {
			return "", fmt.Errorf("no merchant %q is configured", name)
		}
		return name, nil
	}
	var names []string
	for n := range cfg.Merchants {
		names = append(names, n)
	}
	if slices.Sort(names); len(names) != 1 {
		return "", fmt.Errorf("several merchants are configured, name one with --merchant: %v", names)
	}
	return names[0], nil
}
