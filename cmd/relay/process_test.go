package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"approvalrelay/cmd/relay/sim"
)

// binary builds the program once for all tests of this package.
var binary = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "relay")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "relay")
	out, err := exec.Command("go", "build", "-o", path, ".").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("go build: %w: %s", err, out)
	}
	return path, nil
})

func TestMain(m *testing.M) {
	code := m.Run()
	if path, err := binary(); err == nil {
		_ = os.RemoveAll(filepath.Dir(path))
	}
	os.Exit(code)
}

// process is a relay in a process of its own.
type process struct {
	*client
	cmd *exec.Cmd
}

// run starts `relay serve` on the world's Redis.
func (w *world) run() *process {
	w.t.Helper()
	path, err := binary()
	if err != nil {
		w.t.Fatal(err)
	}
	file := filepath.Join(w.t.TempDir(), "relay.yaml")
	if err := os.WriteFile(file, []byte(w.yaml), 0o600); err != nil {
		w.t.Fatal(err)
	}
	p := &process{client: &client{t: w.t, cfg: w.config()}, cmd: exec.Command(path, "serve", "--config", file)}
	stderr, err := p.cmd.StderrPipe()
	if err != nil {
		w.t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = p.cmd.Process.Kill() }) // it may have ended
	up := make(chan struct{ Msg, Public, Admin string }, 1)
	go func() {
		for s := bufio.NewScanner(io.TeeReader(stderr, w.logs)); s.Scan(); {
			var line struct{ Msg, Public, Admin string }
			if json.Unmarshal(s.Bytes(), &line) == nil && line.Msg == "relay is up" {
				up <- line
			}
		}
		close(up)
	}()
	line, ok := <-up
	if !ok {
		w.t.Fatalf("the relay did not start: %s", w.logs)
	}
	p.base, p.admin = "http://"+line.Public, "http://"+line.Admin
	p.until("ready", func() bool { return p.get("", p.admin+"/readyz").status == http.StatusOK })
	return p
}

// TestSIGTERM: what is in flight is finished, and the exit code is 0.
func TestSIGTERM(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.run()
	id := w.challenge(p.client, "CARD_3DS", purchase("c-1", "u1", "A-1"))
	asked := make(chan struct{})
	w.issuer.Behave(func(int, string) sim.Behaviour {
		close(asked)
		return sim.Behaviour{Delay: time.Second}
	})
	got := make(chan answer, 1)
	go func() {
		a, err := p.try("POST", p.token("u1"), "/v1/challenges/"+id+"/approve", "")
		if err != nil {
			t.Error(err)
		}
		got <- a
	}()
	<-asked
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if a := <-got; a.status != http.StatusOK || a.text("status") != "approved" {
		t.Errorf("the approval under way was answered %d %s", a.status, a.raw)
	}
	if err := p.cmd.Wait(); err != nil {
		t.Errorf("exit: %v", err)
	}
}

// TestKilled: what was acknowledged by a node that dies is done by the next one.
func TestKilled(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	first := w.run()
	phone := w.device(first.client, "u1")
	id := w.challenge(first.client, "CARD_3DS", purchase("c-1", "u1", "A-1"))
	w.pushed(phone, 2)

	asked := make(chan struct{}, 10)
	w.issuer.Behave(func(n int, _ string) sim.Behaviour {
		asked <- struct{}{}
		return sim.Behaviour{Hang: n == 1}
	})
	go func() { _, _ = first.try("POST", first.token("u1"), "/v1/challenges/"+id+"/approve", "") }() // dies with the node
	<-asked
	late := w.send(first.client, "CARD_RECHARGE_RESULT", map[string]any{"card_id": "c-1", "transaction_id": "T-1"})
	if late.status != http.StatusOK {
		t.Fatalf("recharge: %d %s", late.status, late.raw)
	}
	if err := first.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = first.cmd.Wait() // killed

	second := w.run()
	second.until("the decision is confirmed", func() bool {
		return second.get(second.token("u1"), "/v1/challenges/"+id).text("status") == "approved"
	})
	w.forwarded(second.client, "CARD_RECHARGE_RESULT", func(d sim.Delivery) bool { return d.ID == late.text("event_id") })
	for _, c := range w.issuer.Calls() {
		if c.IdempotencyKey != id || c.Conflict {
			t.Errorf("the issuer got %+v", c)
		}
	}
}

// TestKilledAfterNotMe: "this wasn't me" is one tap. The node that took it dies
// before anything of it has reached anybody; the next one tells the issuer, locks the
// card, tells the team, and keeps the card silent.
func TestKilledAfterNotMe(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	first := w.run()
	phone := w.device(first.client, "u1")
	id := w.challenge(first.client, "CARD_3DS", purchase("c-1", "u1", "A-1"))
	w.pushed(phone, 2)

	asked := make(chan struct{}, 10)
	var dead atomic.Bool
	w.issuer.Behave(func(int, string) sim.Behaviour {
		asked <- struct{}{}
		return sim.Behaviour{Hang: !dead.Load()}
	})
	w.downstream.Behave(func(int, string) sim.Behaviour { return sim.Behaviour{Hang: !dead.Load()} })
	go func() {
		_, _ = first.try("POST", first.token("u1"), "/v1/challenges/"+id+"/reject", `{"reason":"not_me"}`)
	}() // dies with the node
	<-asked
	if err := first.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = first.cmd.Wait() // killed
	dead.Store(true)

	second := w.run()
	second.until("it is rejected", func() bool {
		return second.get(second.token("u1"), "/v1/challenges/"+id).text("status") == "rejected"
	})
	paths := func() map[string]bool {
		done := map[string]bool{}
		for _, c := range w.issuer.Calls() {
			done[c.Path] = done[c.Path] || c.Status == http.StatusOK
		}
		return done
	}
	second.until("the issuer knows, and the card is locked", func() bool { return paths()["/card/3ds_confirm"] && paths()["/card/update_status"] })
	w.forwarded(second.client, "relay.challenge.reported", func(d sim.Delivery) bool { return true })
	w.pushed(phone, 3) // that it has ended
	muted := w.challenge(second.client, "CARD_3DS", purchase("c-1", "u1", "A-2"))
	w.forwarded(second.client, "relay.challenge.created", func(d sim.Delivery) bool { return strings.Contains(string(d.Body), muted) }) // it is announced
	heard := w.challenge(second.client, "CARD_3DS", purchase("c-2", "u1", "A-3"))
	if last := (answer{json: w.pushed(phone, 4)[3].Payload}); last.text("challenge", "id") != heard {
		t.Errorf("pushed is %v, want only what is of another card, %s", last.json, heard)
	}
	second.until("the silent one is there", func() bool {
		return second.get(second.token("u1"), "/v1/challenges/"+muted).text("status") == "pending"
	})
}

// TestCommands: the program as a person at a terminal has it.
func TestCommands(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.run()
	file := p.cmd.Args[len(p.cmd.Args)-1]
	relay := func(in string, args ...string) (string, error) {
		cmd := exec.CommandContext(t.Context(), p.cmd.Path, args...)
		cmd.Stdin = strings.NewReader(in)
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	for _, c := range []struct {
		name string
		in   string
		args []string
		want string
		fail bool
	}{
		{"help", "", []string{"--help"}, "serve", false},
		{"help of a command", "", []string{"deadletters", "replay", "--help"}, "--target", false},
		{"version", "", []string{"version"}, "relay ", false},
		{"vapid", "", []string{"vapid"}, "private_key:", false},
		{"check", "", []string{"check", "--config", file}, "is good", false},
		{"check of no file", "", []string{"check", "--config", "/nonexistent.yaml"}, "nonexistent.yaml", true},
		{"token", "", []string{"token", "--config", file, "--user", "u1"}, "eyJ", false},
		{"send a sample", "", []string{"send", "CARD_3DS", "--config", file, "--url", p.base}, `"status":"accepted"`, false},
		{"send from standard input", `{"user_id":7}`, []string{"send", "USER_CREATE_RESULT", "--config", file, "--url", p.base, "--payload", "-"}, `"status":"accepted"`, false},
		{"send to nobody", "", []string{"send", "CARD_3DS", "--config", file, "--url", "http://127.0.0.1:1"}, "is the relay running?", true},
		{"send nothing", "", []string{"send", "--config", file}, "takes one event type", true},
		{"dead letters", "", []string{"deadletters", "list", "--config", file}, "LAST ANSWER", false},
		{"drop all, by accident", "", []string{"deadletters", "drop", "--config", file}, "name the ids", true},
		{"unknown command", "", []string{"serf"}, "serf", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			out, err := relay(c.in, c.args...)
			if (err != nil) != c.fail || !strings.Contains(out, c.want) {
				t.Errorf("relay %v: %v\n%s\nwant %q", c.args, err, out, c.want)
			}
		})
	}
}

// TestDeadLetters: what was given up is listed, and goes out when it is replayed.
func TestDeadLetters(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.yaml = strings.Replace(w.yaml, `events: ["*", "relay.*"],`, `events: ["*"], retry: [10ms],`, 1)
	p := w.run()
	file := p.cmd.Args[len(p.cmd.Args)-1]
	w.downstream.Behave(func(int, string) sim.Behaviour { return sim.Behaviour{Status: http.StatusInternalServerError} })
	a := w.send(p.client, "CARD_RECHARGE_RESULT", map[string]any{"card_id": "c-1", "transaction_id": "T-1"})
	relay := func(args ...string) string {
		out, err := exec.CommandContext(t.Context(), p.cmd.Path, append([]string{"deadletters"}, args...)...).CombinedOutput()
		if err != nil {
			t.Fatalf("relay deadletters %v: %v\n%s", args, err, out)
		}
		return string(out)
	}
	p.until("a dead letter", func() bool { return strings.Contains(relay("list", "--config", file), a.text("event_id")) })
	if out := relay("list", "--config", file, "--json", "--target", "core"); strings.Count(out, `"status_code":500`) != 2 {
		t.Fatalf("want both attempts in %s", out)
	}
	w.downstream.Behave(func(int, string) sim.Behaviour { return sim.Behaviour{} })
	if out := relay("replay", "--config", file, "--target", "core"); !strings.Contains(out, "replayed 1") {
		t.Fatalf("replay: %s", out)
	}
	p.until("the replay", func() bool {
		for _, d := range w.downstream.Deliveries() {
			if d.ID == a.text("event_id") && d.Status == http.StatusOK && d.Fault == "" {
				return true
			}
		}
		return false
	})
	if out := relay("list", "--config", file); strings.Contains(out, a.text("event_id")) {
		t.Fatalf("still listed: %s", out)
	}
}
