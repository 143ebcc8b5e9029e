package configs

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"
)

// deployed loads the relay.yaml of deploy/ with the secrets that secrets.sh
// makes and the issuer's, and names those that were read.
func deployed(t *testing.T) (cfg *Config, secrets []string) {
	t.Helper()
	script, err := filepath.Abs("deploy/secrets.sh")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cmd := exec.Command("bash", script)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("secrets.sh: %v\n%s", err, out)
	}
	if err := os.WriteFile(filepath.Join(dir, "secrets/acme_secret"), []byte("0123456789abcdef\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	name, value, _ := strings.Cut(strings.TrimSpace(readText(t, filepath.Join(dir, ".env"))), "=")
	env := map[string]string{name: value, "CREDENTIALS_DIRECTORY": filepath.Join(dir, "secrets")}
	cfg, err = Parse("relay.yaml", []byte(readText(t, "deploy/relay.yaml")), lookup(env), func(path string) ([]byte, error) {
		secrets = append(secrets, "secrets/"+filepath.Base(path))
		return os.ReadFile(path)
	})
	if err != nil {
		t.Fatal(err)
	}
	return cfg, slices.Sorted(slices.Values(secrets))
}

func readText(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// yamlAt is the value at a path of keys and indexes in a file of deploy/.
func yamlAt[T any](t *testing.T, file string, path ...any) (value T) {
	t.Helper()
	var n yaml.Node
	if err := yaml.Unmarshal([]byte(readText(t, "deploy/"+file)), &n); err != nil {
		t.Fatal(err)
	}
	at := n.Content[0]
	for _, step := range path {
		i, isIndex := step.(int)
		if !isIndex {
			i = 1 + slices.IndexFunc(at.Content, func(c *yaml.Node) bool { return c.Value == step })
		}
		if i >= len(at.Content) || !isIndex && i == 0 {
			t.Fatalf("%s: there is no %v", file, path)
		}
		at = at.Content[i]
	}
	if err := at.Decode(&value); err != nil {
		t.Fatalf("%s: %v: %v", file, path, err)
	}
	return value
}

// TestDeploySecrets: compose, Kubernetes and systemd each hand over the secrets
// that their relay.yaml reads, and no others.
func TestDeploySecrets(t *testing.T) {
	t.Parallel()
	_, want := deployed(t)
	handed := map[string][]string{"kustomization.yaml": yamlAt[[]string](t, "kustomization.yaml", "secretGenerator", 0, "files")}
	for _, name := range yamlAt[[]string](t, "compose.yaml", "services", "relay", "secrets") {
		handed["compose.yaml"] = append(handed["compose.yaml"], yamlAt[string](t, "compose.yaml", "secrets", name, "file"))
	}
	credential := regexp.MustCompile(`(?m)^LoadCredential=(.*):/etc/relay/(.*)$`)
	for _, m := range credential.FindAllStringSubmatch(readText(t, "deploy/relay.service"), -1) {
		handed["relay.service"] = append(handed["relay.service"], m[2])
		if m[2] != "secrets/"+m[1] {
			t.Errorf("relay.service hands over %s as %s", m[2], m[1])
		}
	}
	for _, file := range []string{"compose.yaml", "kustomization.yaml", "relay.service"} {
		slices.Sort(handed[file])
		if !slices.Equal(handed[file], want) {
			t.Errorf("%s hands over %v, relay.yaml reads %v", file, handed[file], want)
		}
	}
}

// TestDeployGrace: none of the three kills a relay that may still be finishing.
func TestDeployGrace(t *testing.T) {
	t.Parallel()
	cfg, _ := deployed(t)
	pod := []any{"spec", "template", "spec"}
	preStop := yamlAt[int](t, "kubernetes/deployment.yaml", append(pod, "containers", 0, "lifecycle", "preStop", "sleep", "seconds")...)
	_, rest, _ := strings.Cut(readText(t, "deploy/relay.service"), "\nTimeoutStopSec=")
	seconds, _, _ := strings.Cut(rest, "\n")
	unit, err := time.ParseDuration(seconds + "s")
	if err != nil {
		t.Fatal(err)
	}
	for file, grace := range map[string]time.Duration{
		"compose.yaml":    yamlAt[time.Duration](t, "compose.yaml", "services", "relay", "stop_grace_period"),
		"deployment.yaml": time.Duration(yamlAt[int](t, "kubernetes/deployment.yaml", append(pod, "terminationGracePeriodSeconds")...)-preStop) * time.Second,
		"relay.service":   unit,
	} {
		if grace < cfg.Server.ShutdownTimeout+2*time.Second {
			t.Errorf("%s gives %s, server.shutdown_timeout is %s", file, grace, cfg.Server.ShutdownTimeout)
		}
	}
}
