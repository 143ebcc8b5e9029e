package crypto_test

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"approvalrelay/crypto"
)

// leaks returns the first spelling of key found in text.
func leaks(text string, key []byte) string {
	spellings := []string{
		string(key), hex.EncodeToString(key), base64.StdEncoding.EncodeToString(key),
		strings.Trim(fmt.Sprintf("%d", key[:4]), "[]"), strings.Trim(fmt.Sprintf("%#v", key[:4]), "[]byte{}"),
	}
	for _, s := range spellings {
		if strings.Contains(strings.ToLower(text), strings.ToLower(s)) {
			return s
		}
	}
	return ""
}

func TestSecretsRedactThemselves(t *testing.T) {
	t.Parallel()
	key := []byte(testKey)
	secret, err := crypto.ParseSecret(testKey, crypto.UTF8)
	if err != nil {
		t.Fatal(err)
	}
	r, err := crypto.NewRoot(key)
	if err != nil {
		t.Fatal(err)
	}
	k, v := keyring(t, testKey), vault(t, key)
	for name, value := range map[string]any{
		"Secret": secret, "*Secret": &secret, "Root": r, "*Root": &r,
		"*Keyring": k, "Keyring": *k, "*Vault": v, "Vault": *v,
	} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
			if got := fmt.Sprintf(verb, value); got != "[redacted]" {
				t.Errorf("%s as %s: %s", name, verb, got)
			}
		}
		if got, err := json.Marshal(value); err != nil || string(got) != `"[redacted]"` {
			t.Errorf("%s as JSON: %s, %v", name, got, err)
		}
		// Handlers other than slog's own rely on LogValue.
		if got := slog.AnyValue(value).Resolve(); got.Kind() != slog.KindString || got.String() != "[redacted]" {
			t.Errorf("%s resolves to a %v: %v", name, got.Kind(), got)
		}
		for _, got := range logged(value) {
			if !strings.Contains(got, "[redacted]") || leaks(got, key) != "" {
				t.Errorf("%s in the log: %s", name, got)
			}
		}
	}
}

// fmt does not call methods of unexported fields, so there the shape of the types
// must keep the keys out.
func TestSecretsStayHiddenInsideOtherTypes(t *testing.T) {
	t.Parallel()
	key := []byte(testKey)
	secret, err := crypto.ParseSecret(testKey, crypto.UTF8)
	if err != nil {
		t.Fatal(err)
	}
	r, err := crypto.NewRoot(key)
	if err != nil {
		t.Fatal(err)
	}
	type holder struct {
		secret  crypto.Secret
		root    crypto.Root
		keyring crypto.Keyring
		vault   crypto.Vault
		list    []crypto.Secret
		Secret  crypto.Secret
		Keyring *crypto.Keyring
		Vault   *crypto.Vault
		Root    crypto.Root
	}
	k, v := keyring(t, testKey), vault(t, key)
	h := holder{secret, r, *k, *v, []crypto.Secret{secret}, secret, k, v, r}
	outputs := logged(h)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		outputs = append(outputs, fmt.Sprintf(verb, h), fmt.Sprintf(verb, &h))
	}
	asJSON, err := json.Marshal(h)
	if err != nil {
		t.Fatal(err)
	}
	for _, got := range append(outputs, string(asJSON)) {
		if spelling := leaks(got, key); spelling != "" {
			t.Errorf("%q found in %s", spelling, got)
		}
	}
	for _, verb := range []string{"%v", "%#v", "%d", "%x", "%s"} {
		if leaks(fmt.Sprintf(verb, struct{ key []byte }{key}), key) == "" {
			t.Errorf("the search misses a key printed with %s, so this test proves nothing", verb)
		}
	}
}

// logged returns value as slog writes it, as text and as JSON.
func logged(value any) []string {
	var text, asJSON bytes.Buffer
	slog.New(slog.NewTextHandler(&text, nil)).Info("m", "value", value)
	slog.New(slog.NewJSONHandler(&asJSON, nil)).Info("m", "value", value)
	return []string{text.String(), asJSON.String()}
}
