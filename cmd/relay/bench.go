package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
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
			&cli.StringSliceFlag{Name: "server", Usage: "`ADDRESS` of a relay, several times for several; default: server.listen"},
			&cli.BoolFlag{Name: "print-config", Usage: "prints a configuration for a bench on this machine, and ends"},
			&cli.StringFlag{Name: "kind", Usage: "challenge (webhook to push), event (webhook to target) or stream (webhook to event stream)", Value: "challenge"},
			&cli.FloatFlag{Name: "rate", Usage: "webhooks per second, latency counted from when each was due; 0: as fast as --connections allow", Value: 200},
			&cli.DurationFlag{Name: "duration", Value: 10 * time.Second},
			&cli.IntFlag{Name: "connections", Usage: "at most so many webhooks under way", Value: 50},
			&cli.IntFlag{Name: "users", Usage: "cardholders with a device each", Value: 50},
			&cli.IntFlag{Name: "streams", Usage: "of --kind stream: event streams, each of a cardholder of its own", Value: 10000},
			&cli.BoolFlag{Name: "approve", Usage: "answers each push with an approve, and measures until the issuer is told"},
			&cli.StringFlag{Name: "floor", Usage: "also loads the floor at `ADDRESS` (see relay bench floor), in turn with the relay, and prints the ratios"},
			&cli.IntFlag{Name: "rounds", Usage: "how many runs, of the relay and of the floor", Value: 1},
			&cli.BoolFlag{Name: "json", Usage: "prints the report as JSON"},
		},
		Commands: []*cli.Command{floorCommand()},
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
			b, err := newBench(cfg, load.connections)
			if err != nil {
				return err
			}
			defer b.close()
			servers := c.StringSlice("server")
			if len(servers) == 0 {
				servers = []string{localAddress(cfg.Server.Listen)}
			}
			runs := comparison{}
			for range max(1, c.Int("rounds")) {
				report, err := b.run(ctx, load, servers...)
				if err != nil {
					return err
				}
				runs.Relay = append(runs.Relay, report)
				if floor := c.String("floor"); floor != "" {
					if report, err = b.run(ctx, load, floor); err != nil {
						return err
					}
					runs.Floor = append(runs.Floor, report)
				}
			}
			return runs.print(c.Root().Writer, c.Bool("json"))
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

func (r benchReport) print(w io.Writer, who string) {
	fmt.Fprintf(w, "%s, %s: sent %d, accepted %d, errors %d, arrived %d, lost %d, duplicates %d, failed verification %d\n",
		who, r.Kind, r.Sent, r.Accepted, r.Errors, r.Arrived, r.Lost, r.Duplicates, r.Faults)
	fmt.Fprintf(w, "accepted %.0f/s, accepted and delivered %.0f/s\n", r.AcceptedPS, r.DeliveredPS)
	for _, l := range []struct {
		name string
		ms   map[string]float64
	}{{"webhook -> answer", r.Answer}, {"webhook -> delivery", r.Delivery}, {"approve -> confirm", r.Confirm}} {
		if l.ms != nil {
			fmt.Fprintf(w, "%-20s p50 %.2f  p90 %.2f  p99 %.2f  max %.2f ms\n", l.name, l.ms["p50"], l.ms["p90"], l.ms["p99"], l.ms["max"])
		}
	}
}

func printJSON(w io.Writer, report any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(report)
}

// comparison is the runs of the relay, and of the floor in turn with them.
type comparison struct {
	Relay []benchReport      `json:"relay"`
	Floor []benchReport      `json:"floor,omitempty"`
	Ratio map[string]float64 `json:"relay_to_floor,omitempty"` // median of the rounds
}

func (c comparison) print(w io.Writer, asJSON bool) error {
	c.Ratio = c.ratios()
	if asJSON {
		return printJSON(w, c)
	}
	for i, r := range c.Relay {
		r.print(w, "relay")
		if i < len(c.Floor) {
			c.Floor[i].print(w, "floor")
		}
	}
	for _, name := range slices.Sorted(maps.Keys(c.Ratio)) {
		fmt.Fprintf(w, "relay / floor, median of %d: %-28s %.2f\n", len(c.Floor), name, c.Ratio[name])
	}
	return nil
}

// ratios compares each run of the relay with that of the floor after it.
func (c comparison) ratios() map[string]float64 {
	if len(c.Floor) == 0 {
		return nil
	}
	all := map[string][]float64{}
	for i, f := range c.Floor {
		r := c.Relay[i]
		all["accepted_per_second"] = append(all["accepted_per_second"], r.AcceptedPS/f.AcceptedPS)
		all["delivered_per_second"] = append(all["delivered_per_second"], r.DeliveredPS/f.DeliveredPS)
		for _, q := range []string{"p50", "p99"} {
			all["webhook_answer_"+q] = append(all["webhook_answer_"+q], r.Answer[q]/f.Answer[q])
			all["webhook_to_delivery_"+q] = append(all["webhook_to_delivery_"+q], r.Delivery[q]/f.Delivery[q])
		}
	}
	median := map[string]float64{}
	for name, of := range all {
		slices.Sort(of)
		median[name] = of[len(of)/2]
	}
	return median
}
