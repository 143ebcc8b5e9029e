package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/urfave/cli/v3"

	"approvalrelay/configs"
	"approvalrelay/relay"
	"approvalrelay/relay/redisstore"
)

func verifyCommand() *cli.Command {
	return &cli.Command{
		Name: "verify", Usage: "checks the proof that a payment was approved with: who signed what; works on Redis directly",
		ArgsUsage: "CHALLENGE_ID", Flags: []cli.Flag{configFlag()},
		Action: func(ctx context.Context, c *cli.Command) error {
			if c.Args().Len() != 1 {
				return errors.New("name one challenge: relay verify CHALLENGE_ID")
			}
			return withStore(verify)(ctx, c)
		},
	}
}

// verify prints what was approved, and how that is known. The error says what does
// not hold.
func verify(ctx context.Context, cmd *cli.Command, cfg *configs.Config, store *redisstore.Store) error {
	id, out := cmd.Args().First(), cmd.Root().Writer
	options, err := domainOptions(cfg)
	if err != nil {
		return err
	}
	c, err := relay.New(options, store, commandLog(cmd)).VerifyProof(ctx, id)
	switch {
	case errors.Is(err, relay.ErrNotFound):
		return fmt.Errorf("there is no challenge %s here: its id is wrong, or retention.challenges is over", id)
	case errors.Is(err, relay.ErrNoProof) && c.Decision == nil:
		return fmt.Errorf("challenge %s is %s: %w", id, c.Status, err)
	case err != nil:
		return fmt.Errorf("challenge %s: %w", id, err)
	}
	d := c.Decision
	fmt.Fprintf(out, "valid: user %s of %s approved %s %s to %q at %s (challenge %s, now %s)\n", c.UserID, c.Merchant, c.Amount, c.Currency, c.Payee, d.DecidedAt.UTC().Format(time.RFC3339), c.ID, c.Status)
	fmt.Fprintf(out, "signed by passkey %s, credential %x, over SHA-256 %x\n", d.Proof.PasskeyID, d.Proof.CredentialID, c.Linked(d.Action, d.Proof.Nonce))
	return nil
}
