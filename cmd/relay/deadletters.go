package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"text/tabwriter"

	"github.com/urfave/cli/v3"

	"approvalrelay/configs"
	"approvalrelay/relay"
	"approvalrelay/relay/redisstore"
)

func deadLettersCommand() *cli.Command {
	selection := []cli.Flag{
		&cli.StringFlag{Name: "target", Usage: "only those to this target's `NAME`"},
		&cli.StringFlag{Name: "kind", Usage: "only this `KIND`: push, confirm, lock or forward"},
		&cli.BoolFlag{Name: "all", Usage: "all of them; needed where neither --target, --kind nor an id is given"},
	}
	return &cli.Command{
		Name: "deadletters", Usage: "lists, replays or drops deliveries that were given up; works on Redis directly",
		Commands: []*cli.Command{
			{
				Name: "list", Usage: "lists dead letters, the newest first",
				Flags: append([]cli.Flag{configFlag(), &cli.IntFlag{Name: "limit", Usage: "at most so many", Value: 100}, &cli.BoolFlag{Name: "json", Usage: "one JSON object a line, with every attempt"}}, selection[:2]...),
				Action: withStore(func(ctx context.Context, c *cli.Command, _ *configs.Config, s *redisstore.Store) error {
					list, err := selectDead(ctx, c, s, c.Int("limit"))
					if err != nil {
						return err
					}
					return printDead(c.Root().Writer, list, c.Bool("json"))
				}),
			},
			deadLetterAction("replay", "owes dead letters again, with a new retry schedule", "replayed", selection, (*redisstore.Store).Replay),
			deadLetterAction("drop", "forgets dead letters for good", "dropped", selection, (*redisstore.Store).Drop),
		},
	}
}

// withStore opens the configured Redis for an action, and closes it.
func withStore(action func(context.Context, *cli.Command, *configs.Config, *redisstore.Store) error) cli.ActionFunc {
	return func(ctx context.Context, c *cli.Command) error {
		cfg, err := configs.Load(c.String("config"))
		if err != nil {
			return err
		}
		if cfg.Redis.Embedded() {
			return errors.New("redis.url is embedded: it lives in the relay's process only, use the console or the ops API")
		}
		s, err := openStore(cfg, "cli", commandLog(c), nil)
		if err != nil {
			return err
		}
		defer s.Close()
		return action(ctx, c, cfg, s)
	}
}

func commandLog(c *cli.Command) *slog.Logger {
	return slog.New(slog.NewTextHandler(c.Root().ErrWriter, nil))
}

func deadLetterAction(name, usage, done string, flags []cli.Flag, act func(*redisstore.Store, context.Context, string) error) *cli.Command {
	return &cli.Command{
		Name: name, Usage: usage, ArgsUsage: "[ID…]", Flags: append([]cli.Flag{configFlag()}, flags...),
		Action: withStore(func(ctx context.Context, c *cli.Command, _ *configs.Config, s *redisstore.Store) error {
			ids := c.Args().Slice()
			if len(ids) == 0 {
				if c.String("target") == "" && c.String("kind") == "" && !c.Bool("all") {
					return fmt.Errorf("name the ids to %s, or --target, --kind or --all", name)
				}
				list, err := selectDead(ctx, c, s, 0)
				if err != nil {
					return err
				}
				for _, d := range list {
					ids = append(ids, d.ID)
				}
			}
			for _, id := range ids {
				if err := act(s, ctx, id); err != nil {
					return fmt.Errorf("%s %s: %w", name, id, err)
				}
			}
			fmt.Fprintln(c.Root().Writer, done, len(ids))
			return nil
		}),
	}
}

// deadRead is how many dead letters a partition keeps at most, so reading that
// many reads all.
const deadRead = 10_000

// selectDead lists what the flags select; limit 0 is all.
func selectDead(ctx context.Context, c *cli.Command, s *redisstore.Store, limit int) ([]relay.Delivery, error) {
	var list []relay.Delivery
	for p := range s.Partitions() {
		some, err := s.DeadLetters(ctx, p, deadRead)
		if err != nil {
			return nil, fmt.Errorf("read the dead letters: %w", err)
		}
		list = append(list, some...)
	}
	list = slices.DeleteFunc(list, func(d relay.Delivery) bool {
		target, kind := c.String("target"), c.String("kind")
		return target != "" && (d.Kind != relay.KindForward || d.Target != target) || kind != "" && string(d.Kind) != kind
	})
	slices.SortFunc(list, func(a, b relay.Delivery) int { return b.CreatedAt.Compare(a.CreatedAt) })
	if limit > 0 {
		list = list[:min(limit, len(list))]
	}
	return list, nil
}

func printDead(w io.Writer, list []relay.Delivery, asJSON bool) error {
	if asJSON {
		enc := json.NewEncoder(w)
		for _, d := range list {
			if err := enc.Encode(d.View()); err != nil {
				return err
			}
		}
		return nil
	}
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "ID\tKIND\tTARGET\tEVENT\tTRIES\tLAST ANSWER")
	for _, d := range list {
		last := ""
		if n := len(d.Attempts); n > 0 {
			a := d.Attempts[n-1]
			last = a.Error
			if a.StatusCode != 0 {
				last = fmt.Sprintf("%d %s", a.StatusCode, a.Error)
			}
		}
		fmt.Fprintf(tw, "%s\t%s\t%s\t%s\t%d\t%s\n", d.ID, d.Kind, d.Target, d.EventID, d.Tries, last)
	}
	return tw.Flush()
}
