package configs

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// FuzzParse: whatever the file, Parse returns a Config or Faults with file and
// line, one line each, sorted, and none shows what stood in a variable or file.
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
	const planted = "Planted\x01Se\nc: [ret] *"
	f.Fuzz(func(t *testing.T, data []byte) {
		cfg, err := Parse("f.yaml", data,
			func(string) (string, bool) { return planted, true },
			func(string) ([]byte, error) { return []byte(planted), nil })
		if err == nil {
			if cfg == nil || len(cfg.Merchants) == 0 {
				t.Fatal("no configuration and no error")
			}
			return
		}
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
		if strings.Contains(err.Error(), "Planted") && !strings.Contains(string(data), "Planted") {
			t.Errorf("leaks: %s", err)
		}
	})
}
