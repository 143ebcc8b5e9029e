package configs

import (
	"crypto/ecdh"
	"crypto/rand"
	"encoding/base64"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// exampleEnv is what the example's ${NAME} may be.
func exampleEnv(t testing.TB) map[string]string {
	t.Helper()
	vapid, err := ecdh.P256().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return map[string]string{
		"RELAY_ADMIN_TOKEN": "token", "RELAY_STORAGE_KEY": base64.StdEncoding.EncodeToString(make([]byte, 32)),
		"ACME_SECRET": strings.Repeat("k", 32), "RELAY_JWT_SECRET": strings.Repeat("s", 32),
		"RELAY_VAPID_PUBLIC_KEY":  base64.RawURLEncoding.EncodeToString(vapid.PublicKey().Bytes()),
		"RELAY_VAPID_PRIVATE_KEY": base64.RawURLEncoding.EncodeToString(vapid.Bytes()),
		"CORE_WEBHOOK_SECRET":     "whsec_" + base64.StdEncoding.EncodeToString(make([]byte, 24)),
	}
}

func example(t *testing.T) *Config {
	t.Helper()
	data, err := os.ReadFile("relay.yaml")
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := Parse("relay.yaml", data, lookup(exampleEnv(t)), os.ReadFile)
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

// keyPaths lists every key a Config can have, with the names of the example
// for maps and the first item for lists.
func keyPaths(t reflect.Type, key string) []string {
	switch {
	case t.Kind() == reflect.Pointer:
		return keyPaths(t.Elem(), key)
	case t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.Struct && t.Elem() != secretType && t.Elem() != prefixType:
		return keyPaths(t.Elem(), key+"[0]")
	case t == reflect.TypeFor[map[string]Merchant]():
		return keyPaths(t.Elem(), key+".acme")
	case t.Kind() != reflect.Struct || t == secretType || t == prefixType:
		return []string{key}
	}
	var paths []string
	for i := range t.NumField() {
		name, file := tags(t.Field(i))
		if file != "" {
			paths = append(paths, join(key, file))
		}
		if name != "" && name != "-" {
			paths = append(paths, keyPaths(t.Field(i).Type, join(key, name))...)
		}
	}
	return paths
}

func TestExampleHasEveryKey(t *testing.T) {
	t.Parallel()
	cfg := example(t)
	paths := keyPaths(reflect.TypeFor[Config](), "")
	for _, sample := range []string{"admin.token_file", "merchants.acme.issuer_api.lock_card.body", "forward.targets[0].retry", "merchants.acme.secrets[0].file"} {
		if !slices.Contains(paths, sample) {
			t.Fatalf("the walk misses %s", sample)
		}
	}
	for _, key := range paths {
		if cfg.Line(key) == 0 {
			t.Errorf("relay.yaml does not show %s", key)
		}
	}
}

// TestExampleShowsDefaults: what the example does not call an example is the default.
func TestExampleShowsDefaults(t *testing.T) {
	t.Parallel()
	got := example(t)
	want := &Config{}
	want.setDefaults()
	got.Redis.URL, want.Redis.URL = Secret{}, Secret{}
	got.Server.PublicURL = ""
	got.Server.TrustedProxies, got.Server.CORSOrigins, got.Push.EndpointHosts = nil, nil, nil
	jwt := &got.Auth.JWT
	jwt.Issuer, jwt.Audience, jwt.HS256Secret = "", "", Secret{}
	got.Push.VAPID = VAPID{}
	for name, pair := range map[string][2]any{
		"server": {got.Server, want.Server}, "redis": {got.Redis, want.Redis}, "challenges": {got.Challenges, want.Challenges},
		"retention": {got.Retention, want.Retention}, "auth": {got.Auth, want.Auth}, "push": {got.Push, want.Push},
		"app": {got.App, want.App}, "log": {got.Log, want.Log}, "tracing": {got.Tracing, want.Tracing},
	} {
		if !reflect.DeepEqual(pair[0], pair[1]) {
			t.Errorf("%s: the example has %+v, the default is %+v", name, pair[0], pair[1])
		}
	}

	var m Merchant
	m.setDefaults()
	acme := got.Merchants["acme"]
	if !reflect.DeepEqual(acme.ActionTypes, m.ActionTypes) || acme.RateLimit != m.RateLimit {
		t.Errorf("merchant: %+v", acme)
	}
	var confirm Confirm
	confirm.setDefaults()
	if !slices.Equal(acme.IssuerAPI.Confirm.Retry, confirm.Retry) || acme.IssuerAPI.Timeout != 5*time.Second {
		t.Errorf("issuer_api: %+v", acme.IssuerAPI)
	}
	target := Target{Name: "core", URL: got.Forward.Targets[0].URL, Secrets: got.Forward.Targets[0].Secrets, Merchants: []string{}, Headers: map[string]Secret{}}
	target.setDefaults()
	if !reflect.DeepEqual(got.Forward.Targets[0], target) {
		t.Errorf("target: %+v, default %+v", got.Forward.Targets[0], target)
	}
}
