package configs

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

// canary stands in the place of secrets; no fault may ever show it.
const canary = "canary-s3cret"

var testEnv = map[string]string{"CANARY": canary, "LIST": "[https://a.example]"}

func lookup(env map[string]string) func(string) (string, bool) {
	return func(name string) (string, bool) {
		value, ok := env[name]
		return value, ok
	}
}

// TestBadFiles loads one file per mistake. The exact faults stand at the end
// of each file, after "# want: ".
func TestBadFiles(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/bad/*.yaml")
	if err != nil || len(files) < 100 {
		t.Fatalf("%d bad files, %v", len(files), err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			t.Parallel()
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var want []string
			for line := range strings.Lines(string(data)) {
				if w, ok := strings.CutPrefix(line, "# want: "); ok {
					want = append(want, strings.TrimSuffix(w, "\n"))
				}
			}
			// The name is the file's base: paths in it start at testdata/bad all the same.
			cfg, err := Parse(filepath.Base(file), data, lookup(testEnv), func(path string) ([]byte, error) {
				return os.ReadFile(filepath.Join("testdata/bad", path))
			})
			var faults Faults
			if cfg != nil || !errors.As(err, &faults) {
				t.Fatalf("got %v, %v", cfg, err)
			}
			if got := err.Error(); got != strings.Join(want, "\n") {
				t.Errorf("got\n%s\nwant\n%s", got, strings.Join(want, "\n"))
			}
			for _, part := range []string{canary, "canary", "s3cret"} {
				if strings.Contains(err.Error(), part) {
					t.Errorf("a fault shows %s", part)
				}
			}
		})
	}
}

// minimal is the least that is a valid configuration, and sections to add to it.
const minimal = `redis: {url: embedded}
merchants: {acme: {secrets: [{value: 0123456789abcdef}]}}
auth: {jwt: {issuer: i, audience: a, hs256_secret: 0123456789abcdef0123456789abcdef}}
`

func parse(t *testing.T, text string, env, files map[string]string) *Config {
	t.Helper()
	cfg, err := Parse("conf/relay.yaml", []byte(text), lookup(env), func(path string) ([]byte, error) {
		if text, ok := files[path]; ok {
			return []byte(text), nil
		}
		return os.ReadFile(path)
	})
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

func TestDefaults(t *testing.T) {
	t.Parallel()
	// Written as the contract writes them, so that the defaults can be read side by side.
	explicit := `
server: {listen: ":8080", admin_listen: "127.0.0.1:9090", public_url: "", shutdown_timeout: 10s, max_body: 64KiB}
admin: {token: ""}
redis: {url: embedded, key_prefix: relay, partitions: 16, wait_replicas: 0}
merchants:
  acme:
    secrets: [{value: 0123456789abcdef, encoding: utf8}]
    action_types: {CARD_3DS: three_ds, CARD_VERIFICATION: card_verification}
    method: ""
    rate_limit: {per_second: 5000, burst: 10000}
    issuer_api:
      base_url: https://api.example
      merchant_id: m
      timeout: 5s
      confirm: {path: /c, body: {r: $decision}, decision_values: {approve: 2, reject: 3}, retry: [250ms, 500ms, 1s, 2s, 4s, 8s]}
challenges: {ttl: {three_ds: 300s, card_verification: 600s}, max_ttl: 600s, require_shown: false}
retention: {challenges: 72h, events: 72h, deliveries: 72h, duplicates: 72h}
auth:
  rate_limit: {per_second: 10, burst: 100}
  jwt: {issuer: i, audience: a, user_claim: sub, merchant_claim: "", leeway: 30s, hs256_secret: 0123456789abcdef0123456789abcdef}
push:
  vapid: {subject: "", public_key: "", private_key: ""}
  include_otp: false
  privacy: full
  action_token: true
  allow_private_networks: false
  max_subscriptions_per_user: 10
  per_card_limit: {count: 5, window: 10m}
  mute_after_report: 20m
forward:
  targets:
    - name: core
      url: https://core.example
      events: ["*"]
      format: json
      include_otp: false
      secrets: [whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3]
      timeout: 10s
      concurrency: 16
      max_backlog: 100000
      retry: [5s, 30s, 2m, 10m, 30m, 2h, 6h, 12h, 24h]
log: {level: info, format: json}
tracing: {otlp_endpoint: ""}
`
	implied := `
redis: {url: embedded}
merchants:
  acme:
    secrets: [{value: 0123456789abcdef}]
    issuer_api: {base_url: https://api.example/, merchant_id: m, confirm: {path: /c, body: {r: $decision}, decision_values: {approve: 2, reject: 3}}}
auth: {jwt: {issuer: i, audience: a, hs256_secret: 0123456789abcdef0123456789abcdef}}
forward: {targets: [{name: core, url: https://core.example, secrets: [whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3]}]}
`
	a, b := parse(t, explicit, nil, nil), parse(t, implied, nil, nil)
	a.lines, b.lines = nil, nil
	if !reflect.DeepEqual(a, b) {
		t.Errorf("explicit %+v\nimplied  %+v", a, b)
	}
	if a.Retention.Deliveries != 72*time.Hour || a.Server.MaxBody != 65536 || a.Redis.Partitions != 16 || a.Push.PerCardLimit.Count != 5 {
		t.Errorf("%+v", a)
	}

	url := strings.Replace(minimal, "redis: {url: embedded}", "storage: {keys: [MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=]}", 1)
	if got := parse(t, url, nil, nil).Redis.URL.Reveal(); got != "redis://localhost:6379/0" {
		t.Errorf("default redis.url %q", got)
	}
}

func TestNamingActionTypesReplacesTheDefault(t *testing.T) {
	t.Parallel()
	cfg := parse(t, strings.Replace(minimal, "acme: {", "acme: {action_types: {MY_3DS: three_ds}, ", 1), nil, nil)
	if got := cfg.Merchants["acme"].ActionTypes; !reflect.DeepEqual(got, map[string]string{"MY_3DS": "three_ds"}) {
		t.Error(got)
	}
}

func TestEnvironment(t *testing.T) {
	t.Parallel()
	cfg := parse(t, minimal+`
server:
  listen: "${HOST}:${PORT}"
  shutdown_timeout: ${WAIT}
  max_body: ${SIZE}
  trusted_proxies: ["${NET}", 10.1.2.3]
push: {include_otp: "${YES}", max_subscriptions_per_user: "${TWELVE}"}
log: {level: "${LEVEL}"}
admin: {token: "$${x}-$$${HOST}-$5-${YAML}"}
`, map[string]string{"HOST": "127.0.0.1", "PORT": "8081", "WAIT": "3s", "SIZE": "1MiB", "NET": "10.9.8.7/8", "YES": "true",
		"TWELVE": "12", "LEVEL": "warn", "YAML": "*a,{b:${PORT}}"}, nil)
	if cfg.Server.Listen != "127.0.0.1:8081" || cfg.Server.ShutdownTimeout != 3*time.Second || cfg.Server.MaxBody != 1<<20 ||
		!cfg.Push.IncludeOTP || cfg.Push.MaxSubscriptionsPerUser != 12 || cfg.Log.Level != "warn" {
		t.Errorf("%+v", cfg)
	}
	want := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("10.1.2.3/32")}
	if !reflect.DeepEqual(cfg.Server.TrustedProxies, want) {
		t.Error(cfg.Server.TrustedProxies)
	}
	if got := cfg.Admin.Token.Reveal(); got != "${x}-$${HOST}-$5-*a,{b:${PORT}}" {
		t.Errorf("token %q", got)
	}
}

func TestSecretFiles(t *testing.T) {
	t.Parallel()
	files := map[string]string{
		"conf/token": "t0ken\n", "/run/redis": "rediss://u:p@redis.example:6380/1\r\n", "conf/key": "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=",
		"conf/acme": "30313233343536373839616263646566\n", "conf/jwt": "0123456789abcdef0123456789abcde\n\n", "conf/whsec": "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3\n",
		"conf/auth": "Bearer ${NOT_READ}\n",
	}
	cfg := parse(t, `
admin: {token: "", token_file: token}
redis: {url_file: "${DIR}/redis"}
storage: {keys: [{file: key}, {value: MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=}, MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=]}
merchants: {acme: {secrets: [{file: acme, encoding: hex}, {value: 0123456789abcdef}]}}
auth: {jwt: {issuer: i, audience: a, hs256_secret_file: ./jwt}}
forward:
  targets:
    - name: core
      url: http://10.0.0.7/hook
      secrets: [{file: whsec}, {value: whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3}]
      headers: {Authorization: {file: auth}, X-Plain: y}
`, map[string]string{"DIR": "/run"}, files)
	target := cfg.Forward.Targets[0]
	for name, got := range map[string][2]string{
		"token":   {cfg.Admin.Token.Reveal(), "t0ken"},
		"redis":   {cfg.Redis.URL.Reveal(), "rediss://u:p@redis.example:6380/1"},
		"jwt":     {cfg.Auth.JWT.HS256Secret.Reveal(), "0123456789abcdef0123456789abcde\n"}, // one newline trimmed, not two
		"whsec":   {target.Secrets[0].Reveal(), target.Secrets[1].Reveal()},
		"header":  {target.Headers["Authorization"].Reveal(), "Bearer ${NOT_READ}"},
		"x-plain": {target.Headers["X-Plain"].Reveal(), "y"},
	} {
		if got[0] != got[1] {
			t.Errorf("%s: %q, want %q", name, got[0], got[1])
		}
	}
	keys, err := cfg.Storage.Keys.Bytes()
	if err != nil || len(keys) != 3 || string(keys[0]) != "0123456789abcdef0123456789abcdef" || !bytes.Equal(keys[0], keys[1]) {
		t.Errorf("%q %v", keys, err)
	}
	for i, s := range cfg.Merchants["acme"].Secrets {
		if key, err := s.Key(); err != nil || string(key) != "0123456789abcdef" {
			t.Errorf("secrets[%d]: %q %v", i, key, err)
		}
	}
}

func TestUnreadableFile(t *testing.T) {
	t.Parallel()
	for _, cause := range []error{fs.ErrPermission, errors.New(canary)} {
		_, err := Parse("relay.yaml", []byte(minimal+"admin: {token_file: "+canary+"}\n"), lookup(nil), func(path string) ([]byte, error) {
			return nil, &fs.PathError{Op: "open", Path: path, Err: cause}
		})
		var faults Faults
		if !errors.As(err, &faults) || len(faults) != 1 || faults[0].Key != "admin.token_file" || faults[0].Line != 4 || strings.Contains(err.Error(), canary) {
			t.Errorf("%v: %v", cause, err)
		}
	}
}

func TestBodyKeepsJSONTypes(t *testing.T) {
	t.Parallel()
	cfg := parse(t, strings.Replace(minimal, "acme: {", `acme: {issuer_api: {base_url: "http://[::1]:8080/v1/", merchant_id: m, confirm: {path: /c,
  body: {i: 2, f: 2.5, s: "2", b: true, n: null, l: [1, {x: $payload.a.b}], t: 2026-01-02, r: $decision, e: "${N}", big: 18446744073709551615, price: $5},
  decision_values: {approve: 2, reject: "3"}}}, `, 1), map[string]string{"N": "7"}, nil)
	api := cfg.Merchants["acme"].IssuerAPI
	want := map[string]any{"i": 2, "f": 2.5, "s": "2", "b": true, "n": nil, "l": []any{1, map[string]any{"x": "$payload.a.b"}},
		"t": "2026-01-02", "r": "$decision", "e": "7", "big": uint64(18446744073709551615), "price": "$5"}
	if !reflect.DeepEqual(api.Confirm.Body, want) {
		t.Errorf("%#v", api.Confirm.Body)
	}
	if api.Confirm.DecisionValues != (DecisionValues{Approve: 2, Reject: "3"}) || api.BaseURL != "http://[::1]:8080/v1" {
		t.Errorf("%#v", api)
	}
}

func TestPublicKeys(t *testing.T) {
	t.Parallel()
	for file, want := range map[string]any{
		"rsa2048.pem": &rsa.PublicKey{}, "rsa2048-pkcs1.pem": &rsa.PublicKey{}, "p256.pem": &ecdsa.PublicKey{}, "ed25519.pem": ed25519.PublicKey{},
	} {
		text := strings.Replace(minimal, "hs256_secret: 0123456789abcdef0123456789abcdef", "public_key_file: testdata/keys/"+file, 1)
		cfg, err := Parse("relay.yaml", []byte(text), lookup(nil), os.ReadFile)
		if err != nil {
			t.Error(err)
		} else if got := cfg.Auth.JWT.PublicKey; reflect.TypeOf(got) != reflect.TypeOf(want) {
			t.Errorf("%s: %T", file, got)
		}
	}
}

func TestGoodValues(t *testing.T) {
	t.Parallel()
	storage := "storage: {keys: [MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=]}\n"
	redis := func(url string) string { return storage + strings.Replace(minimal, "embedded", `"`+url+`"`, 1) }
	target := func(rest string) string {
		return minimal + "forward: {targets: [{name: t, secrets: [whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3], " + rest + "}]}\n"
	}
	for _, text := range []string{
		redis("redis://localhost"), redis("rediss://user:p%40ss@redis.example:6380/3"), redis("redis://:pw@10.0.0.1:6379/"),
		redis("redis+sentinel://u:p@a:26379,b:26379,c/mymaster"), redis("rediss+sentinel://a/mymaster/2"),
		redis("redis+cluster://u:p@a:7000,b:7001,[::1]:7002"), redis("rediss+cluster://a"),
		redis("redis://localhost:6379/0?read_timeout=3s"),
		minimal + "server: {listen: '[::]:0', admin_listen: 'localhost:0', public_url: 'http://localhost:8080/'}\n",
		minimal + "server: {listen: '10.0.0.1:80', admin_listen: '127.0.0.1:80', cors_origins: ['https://a.example:8443', 'http://localhost:5173', 'capacitor://localhost']}\n",
		minimal + "server: {admin_listen: ':9090'}\nadmin: {token: t}\n",
		minimal + "push: {endpoint_hosts: [push.example, 'push.example:8443', '*.push.example', '127.0.0.1:9000'], mute_after_report: 0s}\n",
		strings.Replace(minimal, "hs256_secret: 0123456789abcdef0123456789abcdef", "leeway: 0s, jwks_url: 'http://localhost:9000/jwks'", 1),
		target("url: 'http://192.168.1.2:8080/x?y=z', events: [CARD_*, CARD_3DS, relay.*, relay.event.quarantined], merchants: [acme]"),
		target("url: 'http://localhost/', format: envelope, events: ['*', CARD_3DS], include_otp: true"),
		target("url: 'https://a.example', format: envelope, events: ['CARD_*']"),
		minimal + "retention: {duplicates: 5s, deliveries: 1m}\n", // nothing to outlast without targets
		minimal + "forward: {targets: []}\ntracing: {otlp_endpoint: 'http://collector:4318'}\n",
	} {
		parse(t, text, nil, nil)
	}
}

func TestLine(t *testing.T) {
	t.Parallel()
	cfg := parse(t, minimal+`forward:
  targets:
    - name: core
      url: https://core.example
      secrets:
        - whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3
`, nil, nil)
	for key, want := range map[string]int{"redis.url": 1, "merchants.acme": 2, "forward": 4, "forward.targets[0]": 6, "forward.targets[0].url": 7,
		"forward.targets[0].secrets[0]": 9, "forward.targets[0].timeout": 0, "log": 0} {
		if got := cfg.Line(key); got != want {
			t.Errorf("%s: line %d, want %d", key, got, want)
		}
	}
}

func TestLoad(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "relay.yaml")
	if _, err := Load(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	text := minimal + "admin: {token_file: token}\n"
	if err := errors.Join(os.WriteFile(path, []byte(text), 0o600), os.WriteFile(filepath.Join(dir, "token"), []byte("t\n"), 0o600)); err != nil {
		t.Fatal(err)
	}
	cfg, err := Load(path)
	if err != nil || cfg.Admin.Token.Reveal() != "t" {
		t.Errorf("%v %v", cfg, err)
	}
}
