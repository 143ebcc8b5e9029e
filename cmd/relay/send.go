package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/urfave/cli/v3"

	"approvalrelay/configs"
	"approvalrelay/crypto"
)

func sendCommand() *cli.Command {
	return &cli.Command{
		Name: "send", Usage: "plays the issuer: seals a payload and posts it to the relay", ArgsUsage: "TYPE",
		Description: "TYPE is an event type such as CARD_3DS. Without --payload a sample of that type is sent.",
		Flags: []cli.Flag{
			configFlag(),
			&cli.StringFlag{Name: "payload", Usage: "`FILE` with the decrypted JSON, or - for standard input"},
			&cli.StringFlag{Name: "url", Usage: "the relay's `URL`; default: server.listen on this machine"},
			&cli.StringFlag{Name: "merchant", Usage: "the merchant's `NAME`; default: the only one"},
		},
		Action: func(ctx context.Context, c *cli.Command) error {
			if c.Args().Len() != 1 {
				return errors.New("send takes one event type, e.g. relay send CARD_3DS")
			}
			cfg, err := configs.Load(c.String("config"))
			if err != nil {
				return err
			}
			payload, err := sendPayload(c.Args().First(), c.String("payload"), c.Root().Reader)
			if err != nil {
				return err
			}
			return send(ctx, cfg, c.String("merchant"), c.String("url"), c.Args().First(), payload, c.Root().Writer)
		},
	}
}

func sendPayload(typ, file string, in io.Reader) ([]byte, error) {
	switch file {
	case "":
		return json.Marshal(samplePayload(typ, time.Now()))
	case "-":
		return io.ReadAll(in)
	}
	return os.ReadFile(file)
}

// send posts one sealed envelope and prints the relay's answer. An answer that is
// not 200 is an error.
func send(ctx context.Context, cfg *configs.Config, merchant, base, typ string, payload []byte, out io.Writer) error {
	merchant, err := oneMerchant(cfg, merchant)
	if err != nil {
		return err
	}
	ring, err := keyring(cfg.Merchants[merchant])
	if err != nil {
		return err
	}
	body, err := sealEnvelope(ring, typ, payload)
	if err != nil {
		return err
	}
	if base == "" {
		base = "http://" + localAddress(cfg.Server.Listen)
	}
	u, err := url.JoinPath(base, "webhooks", merchant)
	if err != nil {
		return fmt.Errorf("--url: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, u, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("--url: %w", err)
	}
	req.Header.Set("Content-Type", "application/json")
	client := http.Client{Timeout: 10 * time.Second}
	res, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("is the relay running? %w", err)
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(res.Body, 64<<10))
	if err != nil {
		return fmt.Errorf("read the answer: %w", err)
	}
	fmt.Fprintln(out, res.StatusCode, strings.TrimSpace(string(answer)))
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("the relay did not take it (status %d)", res.StatusCode)
	}
	return nil
}

func sealEnvelope(ring *crypto.Keyring, typ string, payload []byte) ([]byte, error) {
	encrypted, mac, err := ring.Seal(payload)
	if err != nil {
		return nil, fmt.Errorf("seal the payload: %w", err)
	}
	return json.Marshal(map[string]string{"encrypted_payload": encrypted, "type": typ, "hmac": mac})
}

// localAddress is how a listen address is reached from this machine.
func localAddress(listen string) string {
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return listen // validated when it was loaded
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, port)
}
