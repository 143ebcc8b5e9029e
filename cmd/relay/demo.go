package main

import (
	"context"
	"crypto/rand"
	_ "embed"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/urfave/cli/v3"

	"approvalrelay/cmd/relay/sim"
	"approvalrelay/configs"
	"approvalrelay/crypto"
	"approvalrelay/push"
)

func demoCommand() *cli.Command {
	return &cli.Command{
		Name: "demo", Usage: "runs everything in one process with no set-up: the relay, and a simulated issuer, phone and service of yours",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "listen", Usage: "`ADDRESS` of webhooks, cardholder API and cardholder app", Value: "127.0.0.1:8080"},
			&cli.StringFlag{Name: "admin-listen", Usage: "`ADDRESS` of the demo panel, console, health and ops API; loopback only", Value: "127.0.0.1:9090"},
		},
		Action: func(ctx context.Context, c *cli.Command) error {
			public, err := demoListen(c, "listen")
			if err != nil {
				return err
			}
			admin, err := demoListen(c, "admin-listen")
			if err != nil {
				return err
			}
			d, err := startDemo(ctx, public, admin)
			if err != nil {
				return err
			}
			defer d.stop()
			d.print(c.Root().Writer)
			select {
			case <-ctx.Done():
				return nil
			case err := <-d.node.failed:
				return err
			}
		},
	}
}

// demoListen binds the address of a flag, or any free one if it is only the
// default and cannot be had.
func demoListen(c *cli.Command, flag string) (net.Listener, error) {
	addr := c.String(flag)
	ln, err := net.Listen("tcp", addr)
	if err != nil && !c.IsSet(flag) {
		if ln, err = net.Listen("tcp", "127.0.0.1:0"); err == nil {
			fmt.Fprintf(c.Root().ErrWriter, "%s is taken; using %s instead (--%s chooses another)\n", addr, ln.Addr(), flag)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("--%s: %w", flag, err)
	}
	return ln, nil
}

// demo is a relay with all its outside parties in one process.
type demo struct {
	App, Panel, Admin string // URLs; App signs the demo cardholder in

	relayURL, token string
	node            *node
	panel           *demoPanel
	closers         []func()
}

// startDemo starts everything on the given listeners, registers the simulated
// phone and sends a first challenge. End it by stop.
func startDemo(ctx context.Context, public, admin net.Listener) (*demo, error) {
	d := &demo{}
	d.later(public.Close)
	d.later(admin.Close)
	if err := d.start(ctx, public, admin); err != nil {
		d.stop()
		return nil, err
	}
	return d, nil
}

func (d *demo) start(ctx context.Context, public, admin net.Listener) error {
	if tcp, ok := admin.Addr().(*net.TCPAddr); !ok || !tcp.IP.IsLoopback() {
		return errors.New("--admin-listen must be a loopback address such as 127.0.0.1:9090: the demo panel asks for no password")
	}
	d.relayURL = "http://" + localAddress(public.Addr().String())
	d.Admin = "http://" + admin.Addr().String()
	d.Panel = d.Admin + "/demo/"
	d.panel = newDemoPanel(d.relayURL)
	cfg, pushURL, err := d.world(public.Addr().String(), admin.Addr().String())
	if err != nil {
		return err
	}
	if d.token, err = mintToken(cfg, demoUser, "", time.Now().Add(24*time.Hour)); err != nil {
		return err
	}
	d.App = d.relayURL + "/app/#token=" + d.token
	d.panel.appURL = d.App

	log, level := newLogger(cfg.Log)
	d.node, err = startNode(ctx, cfg, log, level, &embedding{public: public, admin: admin, mount: d.panel.mount})
	if err != nil {
		return err
	}
	d.later(d.node.stop)
	if err := d.registerPhone(ctx, pushURL); err != nil {
		return fmt.Errorf("register the simulated phone: %w", err)
	}
	if err := d.firstChallenge(ctx); err != nil {
		return fmt.Errorf("send a first challenge: %w", err)
	}
	d.runTimer()
	return nil
}

//go:embed demo/relay.yaml
var demoConfig []byte

// The merchant, by the name in the webhook path and by the id of the issuer's API.
const (
	demoMerchant   = "acme"
	demoMerchantID = "3f2c9a52-7d0e-4a41-9c59-0f6f4d1c2b77"
)

// world starts the outside parties, each on a loopback port, and configures a
// relay that knows them. pushURL is the push service.
func (d *demo) world(listen, adminListen string) (cfg *configs.Config, pushURL string, err error) {
	public, private, err := push.GenerateVAPID()
	if err != nil {
		return nil, "", err
	}
	merchantSecret, webhookSecret := crypto.GenerateKey(), "whsec_"+base64.StdEncoding.EncodeToString(crypto.GenerateKey())
	p := d.panel
	p.issuer = sim.NewIssuer(demoMerchant, merchantSecret, demoMerchantID)
	p.downstream = sim.NewDownstream(webhookSecret)
	p.pushes = sim.NewPushService(public)
	p.issuer.Keep(demoShown)
	p.downstream.Keep(demoShown)
	p.pushes.Keep(demoShown)

	values := map[string]string{
		"LISTEN": listen, "ADMIN_LISTEN": adminListen, "PUBLIC_URL": d.relayURL, "MERCHANT_ID": demoMerchantID,
		"MERCHANT_SECRET": base64.StdEncoding.EncodeToString(merchantSecret), "WEBHOOK_SECRET": webhookSecret,
		"JWT_SECRET": rand.Text() + rand.Text(), "VAPID_PUBLIC_KEY": public, "VAPID_PRIVATE_KEY": private,
	}
	if values["ISSUER_URL"], err = d.serve(p.issuer); err != nil {
		return nil, "", err
	}
	if values["DOWNSTREAM_URL"], err = d.serve(p.downstream); err != nil {
		return nil, "", err
	}
	if pushURL, err = d.serve(p.pushes); err != nil {
		return nil, "", err
	}
	cfg, err = configs.Parse("demo/relay.yaml", demoConfig, func(name string) (string, bool) {
		value, ok := values[name]
		return value, ok
	}, os.ReadFile)
	return cfg, pushURL, err
}

// serve starts a server on a free loopback port and returns its URL.
func (d *demo) serve(h http.Handler) (string, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("start a simulated party: %w", err)
	}
	srv := &http.Server{Handler: h, ReadHeaderTimeout: headerTimeout}
	d.later(srv.Close)
	go func() { _ = srv.Serve(ln) }() // ends by Close
	return "http://" + ln.Addr().String(), nil
}

func (d *demo) later(closeIt func() error) {
	d.closers = append(d.closers, func() { _ = closeIt() }) // what is in flight is lost, as everything is in the end
}

// registerPhone makes the simulated phone the demo cardholder's.
func (d *demo) registerPhone(ctx context.Context, pushURL string) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	c := cardholder{client: http.DefaultClient, base: d.relayURL, token: d.token}
	return c.register(ctx, d.panel.pushes.Subscribe(pushURL))
}

// firstChallenge gives the cardholder something to approve at once.
func (d *demo) firstChallenge(ctx context.Context) error {
	sent, err := d.panel.send(ctx, "approve")
	if err != nil {
		return err
	}
	if sent.Status != http.StatusOK {
		return fmt.Errorf("the relay answered %d %s", sent.Status, sent.Answer)
	}
	return nil
}

// runTimer lets the issuer send a challenge every now and then, once the panel's
// checkbox is set.
func (d *demo) runTimer() {
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	done.Go(func() { d.panel.runTimer(ctx) })
	d.later(func() error { cancel(); done.Wait(); return nil })
}

// print writes the addresses, one a line and each with its name, so that a
// script can read them too.
func (d *demo) print(out io.Writer) {
	fmt.Fprintf(out, `The approval relay is running, with a simulated issuer, phone and downstream service.
A first 3DS challenge is waiting for the cardholder.

Cardholder app: %s
Demo panel: %s
Operator's console: %s/console/
Admin: %s

Let the issuer send:  curl -X POST %ssend/approve
See what happened:    curl %sstate
Is it healthy?        curl %s/readyz

Nothing is kept. Ctrl-C ends it.
`, d.App, d.Panel, d.Admin, d.Admin, d.Panel, d.Panel, d.Admin)
}

// stop ends everything, the last started first.
func (d *demo) stop() {
	for i := len(d.closers) - 1; i >= 0; i-- {
		d.closers[i]()
	}
}
