package sim

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"go/parser"
	"go/token"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// The package is an independent check of the product only as long as it shares
// no code with it.
func TestImportsStandardLibraryOnly(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("*.go")
	if err != nil || len(files) == 0 {
		t.Fatalf("no source files: %v", err)
	}
	for _, file := range files {
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
		if err != nil {
			t.Fatal(err)
		}
		for _, spec := range parsed.Imports {
			first, _, _ := strings.Cut(strings.Trim(spec.Path.Value, `"`), "/")
			if strings.Contains(first, ".") || first == "approvalrelay" {
				t.Errorf("%s imports %s", file, spec.Path.Value)
			}
		}
	}
}

func TestJournalKeepsTheLast(t *testing.T) {
	t.Parallel()
	var j Journal[int]
	for n := range 10 {
		j.add(n, n%2 == 0)
	}
	j.Keep(3)
	for n := 10; n < 18; n++ {
		j.add(n, false)
		if len(j.records) >= 2*3 {
			t.Fatalf("holds %d records, bound is 3", len(j.records))
		}
		if got, want := fmt.Sprint(j.all()), fmt.Sprint([]int{n - 2, n - 1, n}); got != want {
			t.Fatalf("kept %s, want %s", got, want)
		}
	}
	if j.Count() != 18 || j.Faults() != 5 {
		t.Errorf("count %d, faults %d, want 18 and 5", j.Count(), j.Faults())
	}
}

func TestJournalWait(t *testing.T) {
	t.Parallel()
	var j Journal[int]
	var seen sync.Map
	j.OnRecord(func(n int) { seen.Store(n, j.Count()) })
	var waiters, writers sync.WaitGroup
	for range 8 {
		waiters.Go(func() {
			if err := j.Wait(t.Context(), 100); err != nil || j.Count() < 100 {
				t.Errorf("Wait: %v after %d records", err, j.Count())
			}
		})
	}
	for n := range 100 {
		writers.Go(func() { j.add(n, false) })
	}
	writers.Wait()
	waiters.Wait()
	for n := range 100 {
		if _, ok := seen.Load(n); !ok {
			t.Errorf("record %d was not observed", n)
		}
	}

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err := j.Wait(ctx, 101)
	if !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "101 records, 100 came") {
		t.Errorf("Wait with an ended context: %v", err)
	}
}

func TestDelayPassesBeforeTheAnswer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		i := NewIssuer("acme", testSecret, "id")
		i.Behave(func(int, string) Behaviour { return Behaviour{Delay: time.Hour, Status: 503, RetryAfter: "7"} })
		start := time.Now()
		answer := httptest.NewRecorder()
		i.ServeHTTP(answer, confirm(t, "http://issuer/confirm", "k", `{"a":1}`))
		if took := time.Since(start); took != time.Hour {
			t.Errorf("answered after %s", took)
		}
		if answer.Code != 503 || answer.Header().Get("Retry-After") != "7" {
			t.Errorf("answered %d, Retry-After %q", answer.Code, answer.Header().Get("Retry-After"))
		}
	})
}

func TestHangLastsAsLongAsTheRequest(t *testing.T) {
	t.Parallel()
	d := NewDownstream()
	d.Behave(func(int, string) Behaviour { return Behaviour{Hang: true} })
	server := httptest.NewServer(d)
	defer server.Close() // blocks while the handler hangs
	ctx, cancel := context.WithCancel(t.Context())
	d.OnRecord(func(Delivery) { cancel() })
	request, _ := http.NewRequestWithContext(ctx, http.MethodPost, server.URL, strings.NewReader("{}"))
	if _, err := server.Client().Do(request); !errors.Is(err, context.Canceled) {
		t.Errorf("a hanging party gave %v", err)
	}
	if got := d.Deliveries()[0].Status; got != 0 {
		t.Errorf("recorded status %d for no answer", got)
	}
	// The server may end the request while its client still listens: it must not
	// see an empty 200.
	answer := httptest.NewRecorder()
	mustPanic(t, "the end of a hanging request", func() {
		d.ServeHTTP(answer, httptest.NewRequestWithContext(ctx, http.MethodPost, "/", strings.NewReader("{}")))
	})
	if answer.Flushed || answer.Body.Len() > 0 {
		t.Error("a hanging party answered")
	}
}

func TestResetBreaksTheConnection(t *testing.T) {
	t.Parallel()
	for name, start := range map[string]func(http.Handler) *httptest.Server{"plain": httptest.NewServer, "tls": httptest.NewTLSServer} {
		d := NewDownstream()
		d.Behave(func(n int, _ string) Behaviour { return Behaviour{Reset: n == 1} })
		server := start(d)
		_, err := server.Client().Post(server.URL, "", strings.NewReader("{}"))
		if !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, io.EOF) {
			t.Errorf("%s: a resetting party gave %v", name, err)
		}
		if name == "plain" && !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("connection ended with %v, not a reset", err)
		}
		response, err := server.Client().Post(server.URL, "", strings.NewReader("{}"))
		if err != nil {
			t.Fatalf("%s: after the reset: %v", name, err)
		}
		response.Body.Close()
		server.Close()
	}
}

// A body over the bound is refused before any script, so that a test of limits
// cannot hang.
func TestBodiesAreBounded(t *testing.T) {
	t.Parallel()
	hang := Behaviour{Hang: true}
	issuer, downstream, pushes := NewIssuer("acme", testSecret, "id"), NewDownstream(), NewPushService("")
	issuer.Behave(func(int, string) Behaviour { return hang })
	downstream.Behave(func(int, string) Behaviour { return hang })
	pushes.Behave(func(int, *Device) Behaviour { return hang })
	for name, party := range map[string]interface {
		http.Handler
		Faults() int
	}{"issuer": issuer, "downstream": downstream, "push": pushes} {
		answer := httptest.NewRecorder()
		party.ServeHTTP(answer, httptest.NewRequest(http.MethodPost, "/", bytes.NewReader(make([]byte, maxBody+1))))
		if answer.Code != http.StatusRequestEntityTooLarge || party.Faults() != 1 {
			t.Errorf("%s answered %d, %d faults", name, answer.Code, party.Faults())
		}
		answer = httptest.NewRecorder()
		party.ServeHTTP(answer, httptest.NewRequest(http.MethodGet, "/", nil))
		if answer.Code != http.StatusMethodNotAllowed || party.Faults() != 2 {
			t.Errorf("%s answered GET with %d, %d faults", name, answer.Code, party.Faults())
		}
	}
}

func TestSecretsStayOutOfFormatting(t *testing.T) {
	t.Parallel()
	device, downstream := NewPushService("").Subscribe("http://push"), NewDownstream(vectorSecret)
	secrets := []string{device.Auth, device.Endpoint}
	for _, bytes := range [][]byte{testSecret, device.auth, downstream.secrets[0]} {
		secrets = append(secrets, string(bytes), fmt.Sprintf("%x", bytes), strings.Trim(fmt.Sprint(bytes), "[]"), fmt.Sprintf("%#v", bytes))
	}
	for _, party := range []any{NewIssuer("acme", testSecret, "id"), downstream, device, Notification{Device: device}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%d"} {
			text := fmt.Sprintf(verb, party)
			for _, secret := range secrets {
				if strings.Contains(text, secret) {
					t.Errorf("%s of %T shows a secret: %s", verb, party, text)
				}
			}
		}
		if text := string(mustMarshal(party)); strings.Contains(text, device.Auth) {
			t.Errorf("JSON of %T shows a secret: %s", party, text)
		}
	}
}

func mustPanic(t *testing.T, what string, f func()) {
	t.Helper()
	defer func() {
		t.Helper()
		if recover() == nil {
			t.Errorf("%s did not panic", what)
		}
	}()
	f()
}
