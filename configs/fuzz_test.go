package configs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// FuzzParse: whatever the file, Parse returns a Config or Faults with file and
// line, one line each, sorted, and none shows what stood in a variable or file,
// be it a value that fits or one that does not. What is accepted is accepted again
// with the same meaning in another layout, and shows no secret however it is printed.
func FuzzParse(f *testing.F) {
	files, _ := filepath.Glob("testdata/bad/*.yaml")
	files = append(files, "relay.yaml", "testdata/secrets.yaml")
	if len(files) < 100 {
		f.Fatalf("only %d seeds", len(files))
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	planted := func(string) (string, bool) { return "Planted\x01Se\nc: [ret] *", true }
	fitting := exampleEnv(f)
	for name, secret := range secretsOf(f) {
		fitting[name] = secret
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, env := range []func(string) (string, bool){planted, lookup(fitting)} {
			parse := func(data []byte) (*Config, error) {
				return Parse("f.yaml", data, env, func(path string) ([]byte, error) {
					if secret, ok := env(filepath.Base(path)); ok {
						return []byte(secret), nil
					}
					return nil, os.ErrNotExist
				})
			}
			cfg, err := parse(data)
			shown := ""
			if err != nil {
				checkFaults(t, data, cfg, err)
				shown = err.Error()
			} else {
				checkAccepted(t, data, cfg, parse)
				shown = fmt.Sprintf("%+v %#v", cfg, *cfg)
			}
			for _, word := range []string{"Planted", "canary"} {
				if strings.Contains(shown, word) && !strings.Contains(string(data), word) {
					t.Errorf("leaks: %s", shown)
				}
			}
		}
	})
}

func checkFaults(t *testing.T, data []byte, cfg *Config, err error) {
	t.Helper()
	var faults Faults
	if !errors.As(err, &faults) || len(faults) == 0 || cfg != nil {
		t.Fatalf("not Faults: %T", err)
	}
	for _, fault := range faults {
		if fault.File != "f.yaml" || fault.Line < 1 || fault.Line > strings.Count(string(data), "\n")+strings.Count(string(data), "\r")+2 || fault.Problem == "" {
			t.Errorf("%#v", fault)
		}
		if strings.ContainsAny(fault.String(), "\n\r\x00") || !strings.Contains(fault.Problem, "; allowed: ") {
			t.Errorf("%q", fault.String())
		}
	}
	if !slices.IsSortedFunc(faults, func(a, b Fault) int { return a.Line - b.Line }) {
		t.Errorf("not sorted: %s", err)
	}
}

func checkAccepted(t *testing.T, data []byte, cfg *Config, parse func([]byte) (*Config, error)) {
	t.Helper()
	if len(cfg.Merchants) == 0 {
		t.Fatal("accepted without merchants")
	}
	if keys, err := cfg.Storage.Keys.Bytes(); err != nil || len(keys) == 0 && !cfg.Redis.Embedded() {
		t.Errorf("accepted with %d storage keys, %v", len(keys), err)
	}
	for name, m := range cfg.Merchants {
		for _, s := range m.Secrets {
			if _, err := s.Key(); err != nil {
				t.Errorf("accepted with a secret of %s that is %v", name, err)
			}
		}
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(data, &doc); err != nil {
		t.Fatal(err)
	}
	otherwise(&doc)
	again, err := yaml.Marshal(&doc)
	if err != nil {
		t.Fatal(err)
	}
	other, err := parse(again)
	if err != nil {
		t.Fatalf("accepted, but not as\n%s\n%v", again, err)
	}
	cfg.lines, other.lines = nil, nil
	if !reflect.DeepEqual(cfg, other) {
		t.Errorf("it means something else as\n%s", again)
	}
}

// otherwise lays a document out anew: without comments, in flow style, its texts quoted.
func otherwise(n *yaml.Node) {
	n.HeadComment, n.LineComment, n.FootComment = "", "", ""
	switch {
	case n.Kind == yaml.ScalarNode && n.ShortTag() == "!!str":
		n.Style = yaml.DoubleQuotedStyle
	case n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null":
		n.Value = "null" // of none at all the library would make a text
	case n.Kind == yaml.MappingNode, n.Kind == yaml.SequenceNode:
		n.Style = yaml.FlowStyle
	}
	for _, child := range n.Content {
		otherwise(child)
	}
}
