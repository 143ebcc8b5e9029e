package main

import (
	"encoding/base64"
	"fmt"
	"io"

	"approvalrelay/crypto"
	"approvalrelay/push"
)

// The addresses of a bench on one machine; a hand-written configuration may name
// others.
const (
	benchDownstream = "127.0.0.1:18083"
	benchIssuer     = "127.0.0.1:18084"
	benchFloor      = "127.0.0.1:18085"
)

// printBenchConfig prints a configuration with fresh keys, whose outside parties
// are the bench's own.
func printBenchConfig(w io.Writer) error {
	public, private, err := push.GenerateVAPID()
	if err != nil {
		return fmt.Errorf("make a VAPID pair: %w", err)
	}
	key := func() string { return base64.StdEncoding.EncodeToString(crypto.GenerateKey()) }
	_, err = fmt.Fprintf(w, `# A configuration for relay bench. Its keys are fresh; do not use it for anything else.
server: {listen: "127.0.0.1:18080", admin_listen: "127.0.0.1:18081", public_url: "http://127.0.0.1:18080"}
redis: {url: "redis://127.0.0.1:6379/0", key_prefix: bench}
storage: {keys: [%q]}
merchants:
  bench:
    secrets: [{value: %q, encoding: base64}]
    rate_limit: {per_second: 1000000, burst: 1000000}
    issuer_api:
      base_url: "http://%s"
      merchant_id: bench
      confirm:
        path: /card/3ds_confirm
        body: {card_id: "$card_id", auth_id: "$reference", auth_result: "$decision"}
        decision_values: {approve: 2, reject: 3}
auth:
  rate_limit: {per_second: 100000, burst: 100000}
  jwt: {issuer: bench, audience: relay, hs256_secret: %q}
push:
  vapid: {subject: "mailto:bench@example.com", public_key: %q, private_key: %q}
  allow_private_networks: true
  per_card_limit: {count: 1000000, window: 10m}
forward:
  targets:
    - {name: sink, url: "http://%s/hook", secrets: ["whsec_%s"], concurrency: 64}
log: {level: warn}
`, key(), key(), benchIssuer, key(), public, private, benchDownstream, key())
	return err
}
