package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/urfave/cli/v3"

	"approvalrelay/configs"
)

func benchCommand() *cli.Command {
	return &cli.Command{
		Name: "bench", Usage: "loads a running relay and measures it, with outside parties of its own that verify everything",
		Description: "Write a configuration with --print-config, run `relay serve --config FILE` with it, then `relay bench --config FILE`.\n" +
			"The bench plays the issuer, the push service and the downstream target at the addresses which the configuration names.",
		Flags: []cli.Flag{
			configFlag(),
			&cli.BoolFlag{Name: "print-config", Usage: "prints a configuration for a bench on this machine, and ends"},
			&cli.StringFlag{Name: "kind", Usage: "challenge (webhook to push), event (webhook to target) or stream (webhook to event stream)", Value: "challenge"},
			&cli.FloatFlag{Name: "rate", Usage: "webhooks per second, latency counted from when each was due; 0: as fast as --connections allow", Value: 200},
			&cli.DurationFlag{Name: "duration", Value: 10 * time.Second},
			&cli.IntFlag{Name: "connections", Usage: "at most so many webhooks under way", Value: 50},
			&cli.IntFlag{Name: "users", Usage: "cardholders with a device each", Value: 50},
			&cli.IntFlag{Name: "streams", Usage: "of --kind stream: event streams, each of a cardholder of its own", Value: 10000},
			&cli.BoolFlag{Name: "approve", Usage: "answers each push with an approve, and measures until the issuer is told"},
			&cli.BoolFlag{Name: "json", Usage: "prints the report as JSON"},
		},
		Action: func(ctx context.Context, c *cli.Command) error {
			if c.Bool("print-config") {
				return printBenchConfig(c.Root().Writer)
			}
			cfg, err := configs.Load(c.String("config"))
			if err != nil {
				return err
			}
			load := benchLoad{
				kind: c.String("kind"), rate: c.Float("rate"), duration: c.Duration("duration"), connections: c.Int("connections"),
				users: c.Int("users"), approve: c.Bool("approve"),
			}
			if load.kind == "stream" {
				load.users = c.Int("streams")
				report, err := benchStreams(ctx, cfg, load)
				if err != nil {
					return err
				}
				return report.print(c.Root().Writer, c.Bool("json"))
			}
			if load.kind != "challenge" && load.kind != "event" {
				return fmt.Errorf("--kind is challenge, event or stream, not %q", load.kind)
			}
			b, err := newBench(cfg, load)
			if err != nil {
				return err
			}
			defer b.close()
			report, err := b.run(ctx)
			if err != nil {
				return err
			}
			return report.print(c.Root().Writer, c.Bool("json"))
		},
	}
}

// benchReport is what a run measured. Latencies are in milliseconds.
type benchReport struct {
	Kind        string             `json:"kind"`
	Sent        int                `json:"sent"`
	Accepted    int                `json:"accepted"`
	Errors      int                `json:"errors"`
	Arrived     int                `json:"arrived"` // pushed, or forwarded
	Lost        int                `json:"lost"`
	Duplicates  int                `json:"duplicates"`
	Faults      int                `json:"faults"` // messages that failed verification
	AcceptedPS  float64            `json:"accepted_per_second"`
	DeliveredPS float64            `json:"accepted_and_delivered_per_second"`
	Answer      map[string]float64 `json:"webhook_answer_ms"`
	Delivery    map[string]float64 `json:"webhook_to_delivery_ms"`
	Confirm     map[string]float64 `json:"approve_to_confirm_ms,omitempty"`
}

func (r benchReport) print(w io.Writer, asJSON bool) error {
	if asJSON {
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		return enc.Encode(r)
	}
	fmt.Fprintf(w, "%s: sent %d, accepted %d, errors %d, arrived %d, lost %d, duplicates %d, failed verification %d\n",
		r.Kind, r.Sent, r.Accepted, r.Errors, r.Arrived, r.Lost, r.Duplicates, r.Faults)
	fmt.Fprintf(w, "accepted %.0f/s, accepted and delivered %.0f/s\n", r.AcceptedPS, r.DeliveredPS)
	for _, l := range []struct {
		name string
		ms   map[string]float64
	}{{"webhook -> answer", r.Answer}, {"webhook -> delivery", r.Delivery}, {"approve -> confirm", r.Confirm}} {
		if l.ms != nil {
			fmt.Fprintf(w, "%-20s p50 %.2f  p90 %.2f  p99 %.2f  max %.2f ms\n", l.name, l.ms["p50"], l.ms["p90"], l.ms["p99"], l.ms["max"])
		}
	}
	return nil
}
