package relay

import (
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "approvalrelay"

// ours: who may import which of our packages. A line is a folder, with all below
// it that have no line of their own.
var ours = map[string][]string{
	"crypto":                    {},
	"crypto/passkey":            {},
	"push":                      {},
	"configs":                   {},
	"api/web":                   {},
	"relay":                     {"push", "crypto", "crypto/passkey"},
	"relay/redisstore":          {"relay", "push", "crypto"},
	"relay/forward":             {"relay", "push", "crypto"},
	"relay/storetest":           {"relay", "push", "crypto", "crypto/passkey"},
	"relay/storetest/redistest": {"relay/storetest/freeport"},
	"api":                       {"relay", "push", "crypto", "api/web"},
	"cmd":                       {"*"},
}

// theirs: where a package of others, or of the standard library, may be
// imported: in a folder with all below it, or, with a dot, in that folder alone.
// What has no line may be imported anywhere.
var theirs = []struct {
	name  string // with all below it
	code  []string
	tests []string // beside the code's
}{
	{"github.com/redis/go-redis", []string{"relay/redisstore", "cmd/relay/floor"}, []string{"relay/storetest", "cmd"}},
	{"github.com/alicebob/miniredis", []string{"relay/redisstore"}, []string{"relay", "cmd"}},
	{"github.com/gin-gonic/gin", []string{"api", "cmd/relay/floor"}, nil},
	{"github.com/SherClockHolmes/webpush-go", []string{"push"}, []string{"cmd"}},
	{"github.com/go-webauthn/webauthn", []string{"crypto/passkey"}, nil},
	{"github.com/golang-jwt/jwt", []string{"api", "cmd/relay"}, nil},
	{"go.opentelemetry.io/otel", []string{"relay/.", "cmd/relay/."}, nil},
	{"go.opentelemetry.io/otel/sdk", []string{"cmd/relay/."}, nil},
	{"go.opentelemetry.io/otel/exporters", []string{"cmd/relay/."}, nil},
	{"go.opentelemetry.io/proto", nil, []string{"cmd/relay/."}},
	{"net/http", []string{"push", "api", "relay/forward", "cmd"}, []string{"*"}},
}

func TestImports(t *testing.T) {
	t.Parallel()
	files := 0
	err := filepath.WalkDir("..", func(file string, e fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case e.IsDir() && file != ".." && (strings.HasPrefix(e.Name(), ".") || e.Name() == "testdata" || e.Name() == "node_modules"):
			return filepath.SkipDir
		case e.IsDir() || !strings.HasSuffix(file, ".go"):
			return nil
		}
		files++
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		folder := strings.TrimPrefix(filepath.ToSlash(filepath.Dir(file)), "../")
		for _, spec := range parsed.Imports {
			name, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			if why := forbidden(folder, name, strings.HasSuffix(file, "_test.go")); why != "" {
				t.Errorf("%s imports %s: %s", file, name, why)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if files < 20 {
		t.Fatalf("only %d files were looked at", files)
	}
}

// forbidden is why a file of a folder may not import a package, "" if it may.
func forbidden(folder, name string, test bool) string {
	if room, ok := strings.CutPrefix(name, module+"/"); ok {
		allowed, known := ours[longest(folder)]
		switch {
		case !known:
			return "this folder has no line in the table"
		case !test && !slices.Contains(allowed, "*") && !slices.Contains(allowed, room):
			return "only " + strings.Join(append(allowed, "nothing else"), ", ") + " of ours may be imported here"
		}
		return ""
	}
	for _, rule := range theirs {
		if !under(name, rule.name) {
			continue
		}
		places := rule.code
		if test {
			places = slices.Concat(rule.code, rule.tests)
		}
		if !slices.ContainsFunc(places, func(place string) bool { return place == "*" || folder+"/." == place || under(folder, place) }) {
			return "it may only be imported in " + strings.Join(places, ", ")
		}
	}
	return ""
}

func under(name, place string) bool { return name == place || strings.HasPrefix(name, place+"/") }

// longest is the most special line of ours that is about a folder.
func longest(folder string) string {
	for ; folder != "."; folder = path.Dir(folder) {
		if _, ok := ours[folder]; ok {
			return folder
		}
	}
	return ""
}

// The rules themselves: without this a typing error in the tables would let
// everything through.
func TestForbidden(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		folder, name string
		test         bool
		want         bool
	}{
		{"crypto", "approvalrelay/push", false, true},
		{"push", "approvalrelay/crypto", false, true},
		{"configs", "approvalrelay/relay", false, true},
		{"api/web", "approvalrelay/relay", false, true},
		{"relay", "approvalrelay/crypto", false, false},
		{"relay", "approvalrelay/relay/redisstore", false, true},
		{"relay", "approvalrelay/relay/redisstore", true, false},
		{"relay", "approvalrelay/api", false, true},
		{"relay/redisstore", "approvalrelay/relay", false, false},
		{"relay/forward", "approvalrelay/relay/redisstore", false, true},
		{"api", "approvalrelay/api/web", false, false},
		{"api", "approvalrelay/configs", false, true},
		{"api", "approvalrelay/relay/redisstore", false, true},
		{"cmd/relay/sim", "approvalrelay/api", false, false},
		{"elsewhere", "approvalrelay/relay", false, true},
		{"relay", "github.com/redis/go-redis/v9", false, true},
		{"relay", "github.com/redis/go-redis/v9", true, true},
		{"relay/redisstore", "github.com/redis/go-redis/v9", false, false},
		{"relay/storetest", "github.com/alicebob/miniredis/v2", false, true},
		{"relay/storetest", "github.com/alicebob/miniredis/v2", true, false},
		{"relay", "github.com/gin-gonic/gin", true, true},
		{"api", "github.com/gin-gonic/gin/binding", false, false},
		{"api", "github.com/SherClockHolmes/webpush-go", false, true},
		{"configs", "github.com/golang-jwt/jwt/v5", false, true},
		{"relay", "net/http", false, true},
		{"relay", "net/http/httptest", true, false},
		{"relay", "net/url", false, false},
		{"relay/redisstore", "net/http", false, true},
		{"relay", "go.opentelemetry.io/otel/trace", false, false},
		{"relay", "go.opentelemetry.io/otel/sdk/trace", false, true},
		{"relay/forward", "go.opentelemetry.io/otel/trace", false, true},
		{"api", "go.opentelemetry.io/otel", true, true},
		{"cmd/relay", "go.opentelemetry.io/otel/sdk/trace", false, false},
		{"cmd/relay", "go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp", false, false},
		{"cmd/relay", "go.opentelemetry.io/proto/otlp/trace/v1", false, true},
		{"cmd/relay", "go.opentelemetry.io/proto/otlp/trace/v1", true, false},
	} {
		if got := forbidden(tc.folder, tc.name, tc.test); (got != "") != tc.want {
			t.Errorf("%s importing %s (test %v): %q, want forbidden %v", tc.folder, tc.name, tc.test, got, tc.want)
		}
	}
}
