package configs

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"regexp"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

func TestSecretRedactsItself(t *testing.T) {
	t.Parallel()
	s := NewSecret(canary)
	if s.Reveal() != canary || !s.IsSet() || NewSecret("").IsSet() || (Secret{}).Reveal() != "" {
		t.Fatal("Reveal or IsSet is wrong")
	}
	for _, shown := range append(prints(t, s), s.String(), s.GoString(), s.LogValue().String()) {
		if !strings.Contains(shown, "[redacted]") {
			t.Errorf("shown as %q", shown)
		}
	}
	// Where fmt cannot call methods, the text must still be out of reach.
	type holder struct{ s Secret }
	for _, verb := range verbs {
		if got := fmt.Sprintf(verb, holder{s}) + fmt.Sprintf(verb, &holder{s}); strings.Contains(got, canary) {
			t.Errorf("%s of an unexported field: %s", verb, got)
		}
	}
}

var verbs = []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%t", "%p", "%w", "%20s"}

// prints shows a value in every way a program is likely to.
func prints(t *testing.T, v any) []string {
	t.Helper()
	asJSON, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	asYAML, err := yaml.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	var logs, logsJSON bytes.Buffer
	slog.New(slog.NewTextHandler(&logs, nil)).Info("x", "v", v)
	slog.New(slog.NewJSONHandler(&logsJSON, nil)).Info("x", "v", v)
	return []string{fmt.Sprint(v), fmt.Sprintf("%+v", v), fmt.Sprintf("%#v", v), fmt.Sprintf("%s", v), fmt.Sprintf("%q", v), fmt.Sprintf("%x", v),
		string(asJSON), string(asYAML), logs.String(), logsJSON.String()}
}

// secretsOf are the secrets of testdata/secrets.yaml, in the forms it needs.
func secretsOf(t testing.TB) map[string]string {
	t.Helper()
	b64 := func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }
	return map[string]string{
		"TOKEN": "canary-admin-token", "REDIS": "rediss://canary-user:canary-password@redis.example:6379/0",
		"STORAGE": b64("canary-storage-key-of-32-bytes!!"), "MERCHANT": "canary-merchant!", "MERCHANT_HEX": fmt.Sprintf("%x", "canary-of-hex-16"),
		"JWT": "canary-jwt-secret-of-32-bytes-or-more", "VAPID": base64.RawURLEncoding.EncodeToString(bytes.Repeat([]byte{7}, 32)),
		"WHSEC": "whsec_" + b64("canary-webhook-secret-24+"), "HEADER": "Bearer canary-header",
	}
}

// TestNoSecretLeaks plants a canary in every secret, by value and by file, and
// looks for it in everything a Config prints; then breaks the file in turn at
// every line, and looks for it in the faults.
func TestNoSecretLeaks(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("testdata/secrets.yaml")
	if err != nil {
		t.Fatal(err)
	}
	env := secretsOf(t)
	load := func(text string) (*Config, error) {
		return Parse("secrets.yaml", []byte(text), lookup(env), func(path string) ([]byte, error) {
			if secret, ok := env[path]; ok {
				return []byte(secret), nil
			}
			return nil, fmt.Errorf("open %s: %w", path, os.ErrNotExist)
		})
	}
	leaks := func(what, shown string) {
		for name, secret := range env {
			if strings.Contains(shown, secret) || strings.Contains(shown, fmt.Sprintf("%x", secret)) || strings.Contains(shown, "canary") {
				t.Errorf("%s shows %s: %s", what, name, shown)
			}
		}
	}

	files := regexp.MustCompile(`"\$\{(\w+)\}"`)
	keys := strings.NewReplacer("token:", "token_file:", "hs256_secret:", "hs256_secret_file:", "private_key:", "private_key_file:",
		"{value:", "{file:", " url: \"${", " url_file: \"${")
	inFiles := files.ReplaceAllString(keys.Replace(string(text)), "$1")
	literal := files.ReplaceAllStringFunc(string(text), func(m string) string { return `"` + env[m[3:len(m)-2]] + `"` })
	for name, text := range map[string]string{"env": string(text), "files": inFiles, "literal": literal} {
		cfg, err := load(text)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if got := cfg.Forward.Targets[0].Secrets[0].Reveal(); got != env["WHSEC"] {
			t.Errorf("%s: the secret is %q", name, got)
		}
		for _, shown := range prints(t, cfg) {
			leaks(name, shown)
		}
		for _, shown := range prints(t, *cfg) {
			leaks(name, shown)
		}

		lines := strings.Split(text, "\n")
		for i, line := range lines {
			key, value, ok := strings.Cut(line, ": ")
			if !ok {
				continue
			}
			for _, broken := range []string{
				key + "x: " + value, key + ": [" + value + "]", key + ": {" + value + "}", key + ": {" + value + ": 1}", key + ": !" + value,
				key + ": *" + strings.Trim(value, `"`), key + ": &" + strings.Trim(value, `"`), key + ": x" + strings.Trim(value, `"[]{}`),
				key + ": \"" + value, key + ":\n" + line, strings.ReplaceAll(line, "value:", "file:"), strings.ReplaceAll(line, "file:", "value:"),
				strings.ReplaceAll(line, "key:", "key_file:"), strings.ReplaceAll(line, "token:", "token_file:"), line + "\n" + line,
			} {
				all := append(append(append([]string{}, lines[:i]...), broken), lines[i+1:]...)
				if _, err := load(strings.Join(all, "\n")); err != nil {
					leaks(fmt.Sprintf("%s, line %d as %q", name, i+1, broken), err.Error())
				}
			}
		}
	}
}
