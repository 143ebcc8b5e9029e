package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/urfave/cli/v3"

	"approvalrelay/cmd/relay/sim"
)

func loopbackListener(t *testing.T) net.Listener {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	return ln
}

func runningDemo(t *testing.T) *demo {
	t.Helper()
	d, err := startDemo(t.Context(), loopbackListener(t), loopbackListener(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.stop)
	return d
}

// callDemo sends a request and decodes the JSON answer; answer may be nil.
func callDemo(t *testing.T, req *http.Request, answer any) *http.Response {
	t.Helper()
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	if answer != nil {
		if err := json.Unmarshal(body, answer); err != nil {
			t.Fatalf("%s %s: %d %s: %v", req.Method, req.URL.Path, res.StatusCode, body, err)
		}
	}
	return res
}

func demoRequest(t *testing.T, method, target, token string) *http.Request {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, target, nil)
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	return req
}

// awaitRecord returns the first record that is wanted, as soon as it comes.
func awaitRecord[R any](t *testing.T, journal interface {
	Wait(context.Context, int) error
}, records func() []R, want func(R) bool) R {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for {
		have := records()
		if i := slices.IndexFunc(have, want); i >= 0 {
			return have[i]
		}
		if err := journal.Wait(ctx, len(have)+1); err != nil {
			t.Fatalf("%v; have %+v", err, have)
		}
	}
}

func (d *demo) testState(t *testing.T) (s demoState) {
	t.Helper()
	callDemo(t, demoRequest(t, http.MethodGet, d.Panel+"state", ""), &s)
	return s
}

func pushStatus(n sim.Notification) string {
	challenge, _ := n.Payload["challenge"].(map[string]any)
	status, _ := challenge["status"].(string)
	return status
}

// The main job, seen from all sides: a challenge waits, the phone rang, the
// cardholder approves, and everybody hears of it.
func TestDemoApproval(t *testing.T) {
	t.Parallel()
	d := runningDemo(t)
	app, err := url.Parse(d.App)
	if err != nil {
		t.Fatal(err)
	}
	token := strings.TrimPrefix(app.Fragment, "token=")
	base := app.Scheme + "://" + app.Host

	var list struct {
		Data []struct{ ID, Status, Method, Reference string }
	}
	callDemo(t, demoRequest(t, http.MethodGet, base+"/v1/challenges", token), &list)
	if len(list.Data) != 1 || list.Data[0].Status != "pending" || list.Data[0].Method != "approve" {
		t.Fatalf("waiting: %+v", list.Data)
	}
	challenge := list.Data[0]
	p := d.panel
	awaitRecord(t, p.pushes, p.pushes.Notifications, func(n sim.Notification) bool { return pushStatus(n) == "pending" })

	var approved struct{ Status string }
	res := callDemo(t, demoRequest(t, http.MethodPost, base+"/v1/challenges/"+challenge.ID+"/approve", token), &approved)
	if res.StatusCode != http.StatusOK || approved.Status != "approved" {
		t.Fatalf("approve: %d %q", res.StatusCode, approved.Status)
	}
	awaitRecord(t, p.pushes, p.pushes.Notifications, func(n sim.Notification) bool { return pushStatus(n) == "approved" })
	awaitRecord(t, p.downstream, p.downstream.Deliveries, func(d sim.Delivery) bool { return d.Type == "relay.challenge.approved" })

	s := d.testState(t)
	if s.App != d.App {
		t.Errorf("link to the app is %q, want %q", s.App, d.App)
	}
	if len(s.Sent) != 1 || s.Sent[0].Status != http.StatusOK || s.Sent[0].Answer != "accepted" {
		t.Errorf("sent: %+v", s.Sent)
	}
	if len(s.Issuer) != 1 || s.Issuer[0].Path != "/card/3ds_confirm" || s.Issuer[0].IdempotencyKey != challenge.ID ||
		s.Issuer[0].Body["auth_result"] != 2.0 || s.Issuer[0].Body["auth_id"] != challenge.Reference || s.Issuer[0].Fault != "" {
		t.Errorf("confirmed: %+v", s.Issuer)
	}
	if len(s.Phone) != 3 {
		t.Fatalf("pushed: %+v", s.Phone)
	}
	activation, announced, ended := s.Phone[0], s.Phone[1], s.Phone[2]
	if activation.Title != "Notifications are on" || activation.Challenge != "" {
		t.Errorf("activation: %+v", activation)
	}
	if announced.Status != "pending" || announced.Challenge != challenge.ID || announced.Silent || announced.AfterMS <= 0 || !strings.HasPrefix(announced.Title, "Approve ") {
		t.Errorf("announcement: %+v", announced)
	}
	if ended.Status != "approved" || ended.Challenge != challenge.ID || !ended.Silent || ended.AfterMS != 0 {
		t.Errorf("follow-up: %+v", ended)
	}
	for _, f := range s.Downstream {
		if !f.Verified || f.Status != http.StatusOK || f.ID == "" {
			t.Errorf("forwarded: %+v", f)
		}
	}
	for _, party := range []interface{ Faults() int }{p.issuer, p.pushes, p.downstream} {
		if party.Faults() > 0 {
			t.Errorf("%T found %d faults", party, party.Faults())
		}
	}
}

func TestDemoButtons(t *testing.T) {
	t.Parallel()
	d := runningDemo(t)
	for _, c := range []struct {
		name, typ string
		status    int
		answer    string
	}{
		{"approve", "CARD_3DS", 200, "accepted"},
		{"wallet", "CARD_VERIFICATION", 200, "accepted"},
		{"recharge", "CARD_RECHARGE_RESULT", 200, "accepted"},
		{"otp", "CARD_3DS", 200, "accepted"},
		{"again", "CARD_3DS", 200, "duplicate"},
		{"forged", "CARD_3DS", 401, "invalid_signature"},
		{"again", "CARD_3DS", 200, "duplicate"}, // of the last authentic one
	} {
		var sent demoSent
		callDemo(t, demoRequest(t, http.MethodPost, d.Panel+"send/"+c.name, ""), &sent)
		if sent.Status != c.status || sent.Answer != c.answer || sent.Type != c.typ {
			t.Errorf("%s: %d %s %s, want %d %s %s", c.name, sent.Status, sent.Answer, sent.Type, c.status, c.answer, c.typ)
		}
	}
	p := d.panel
	awaitRecord(t, p.downstream, p.downstream.Deliveries, func(d sim.Delivery) bool { return d.Type == "CARD_RECHARGE_RESULT" })

	// The codes are for the cardholder, who gets them; the panel does not.
	var list struct{ Data []struct{ ID, Method string } }
	callDemo(t, demoRequest(t, http.MethodGet, d.relayURL+"/v1/challenges", d.token), &list)
	var codes []string
	for _, challenge := range list.Data {
		if challenge.Method != "otp" {
			continue
		}
		awaitRecord(t, p.pushes, p.pushes.Notifications, func(n sim.Notification) bool { return strings.Contains(string(n.Raw), challenge.ID) })
		var revealed struct{ OTP string }
		callDemo(t, demoRequest(t, http.MethodPost, d.relayURL+"/v1/challenges/"+challenge.ID+"/reveal", d.token), &revealed)
		codes = append(codes, revealed.OTP)
	}
	if len(codes) != 2 || len(codes[0]) != 6 || len(codes[1]) != 6 {
		t.Fatalf("codes: %q", codes)
	}
	state, err := json.Marshal(d.testState(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, code := range codes {
		if bytes.Contains(state, []byte(`"`+code+`"`)) {
			t.Errorf("the panel shows a code: %s", state)
		}
	}
}

func TestDemoTimer(t *testing.T) {
	t.Parallel()
	d := runningDemo(t)
	for _, on := range []bool{true, false} {
		state := map[bool]string{true: "on", false: "off"}[on]
		if res := callDemo(t, demoRequest(t, http.MethodPost, d.Panel+"timer/"+state, ""), nil); res.StatusCode != http.StatusNoContent {
			t.Fatalf("timer/%s: %d", state, res.StatusCode)
		}
		if got := d.testState(t).Timer; got != on {
			t.Errorf("the timer is %t after %s", got, state)
		}
	}
	d.panel.setTimer(true)
	d.panel.timer.Reset(time.Millisecond) // the ticks only; what they do is the panel's
	p := d.panel
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := p.pushes.Wait(ctx, 4); err != nil { // activation, the first challenge, two of the timer's
		t.Error(err)
	}
}

func TestDemoPanelKeepsOthersOut(t *testing.T) {
	t.Parallel()
	d := runningDemo(t)
	for name, c := range map[string]struct {
		method, path string
		host, header string
		want         int
	}{
		"page":               {http.MethodGet, "", "", "", 200},
		"without slash":      {http.MethodGet, "../demo", "", "", 200}, // redirected
		"script":             {http.MethodGet, "demo.js", "", "", 200},
		"style":              {http.MethodGet, "demo.css", "", "", 200},
		"icon":               {http.MethodGet, "icon.svg", "", "", 200},
		"localhost":          {http.MethodGet, "state", "localhost:9090", "", 200},
		"rebound name":       {http.MethodGet, "state", "evil.example:9090", "", 403},
		"name like loopback": {http.MethodGet, "state", "127.0.0.1.evil.example", "", 403},
		"other site's post":  {http.MethodPost, "send/approve", "", "cross-site", 403},
		"own post":           {http.MethodPost, "send/recharge", "", "same-origin", 200},
		"unknown event":      {http.MethodPost, "send/nothing", "", "", 404},
		"unknown timer":      {http.MethodPost, "timer/maybe", "", "", 404},
		"send by GET":        {http.MethodGet, "send/approve", "", "", 405},
		"health beside it":   {http.MethodGet, "../healthz", "", "", 200},
	} {
		req := demoRequest(t, c.method, d.Panel+c.path, "")
		if c.host != "" {
			req.Host = c.host
		}
		if c.header != "" {
			req.Header.Set("Sec-Fetch-Site", c.header)
		}
		res := callDemo(t, req, nil)
		if res.StatusCode != c.want {
			t.Errorf("%s: %d, want %d", name, res.StatusCode, c.want)
		}
		policy := res.Header.Get("Content-Security-Policy")
		if !strings.HasPrefix(policy, "default-src 'none'") || strings.Contains(policy, "unsafe") {
			t.Errorf("%s: policy %q", name, policy)
		}
	}
}

func TestDemoPanelIsForLoopbackOnly(t *testing.T) {
	t.Parallel()
	everywhere, err := net.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	defer everywhere.Close()
	d, err := startDemo(t.Context(), loopbackListener(t), everywhere)
	if err == nil {
		d.stop()
		t.Fatal("the panel listens everywhere")
	}
	if !strings.Contains(err.Error(), "--admin-listen") {
		t.Errorf("the error names no flag: %v", err)
	}
}

// The lines are read by scripts, and a signal ends it well.
func TestDemoCommand(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	out, w := io.Pipe()
	exit := make(chan int, 1)
	go func() {
		exit <- run(ctx, []string{"relay", "demo", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"}, strings.NewReader(""), w, io.Discard)
		w.Close()
	}()
	found := map[string]string{}
	for lines := bufio.NewScanner(out); lines.Scan(); {
		name, address, ok := strings.Cut(lines.Text(), ": http://")
		if ok && !strings.Contains(name, " curl ") {
			if found[name] != "" {
				t.Errorf("%s stands there twice", name)
			}
			found[name] = "http://" + address
		}
		if strings.Contains(lines.Text(), "Ctrl-C") {
			for _, name := range []string{"Cardholder app", "Demo panel", "Operator's console", "Admin"} {
				if res := callDemo(t, demoRequest(t, http.MethodGet, found[name], ""), nil); found[name] == "" || name != "Admin" && res.StatusCode != http.StatusOK {
					t.Errorf("%s at %q: status %d", name, found[name], res.StatusCode)
				}
			}
			cancel()
		}
	}
	if code := <-exit; code != 0 || len(found) != 4 {
		t.Errorf("exit %d, addresses %v", code, found)
	}
}

func TestDemoListensElsewhereIfItMay(t *testing.T) {
	t.Parallel()
	taken := loopbackListener(t)
	try := func(args ...string) (said string, bound net.Listener, err error) {
		var errw bytes.Buffer
		root := &cli.Command{
			Flags: []cli.Flag{&cli.StringFlag{Name: "listen", Value: taken.Addr().String()}}, ErrWriter: &errw,
			Action: func(_ context.Context, c *cli.Command) error {
				bound, err = demoListen(c, "listen")
				return nil
			},
		}
		if err := root.Run(t.Context(), append([]string{"relay"}, args...)); err != nil {
			t.Fatal(err)
		}
		return errw.String(), bound, err
	}
	said, bound, err := try()
	if err != nil {
		t.Fatal(err)
	}
	defer bound.Close()
	if !strings.Contains(said, bound.Addr().String()) || !strings.Contains(said, "--listen") {
		t.Errorf("said %q of %s", said, bound.Addr())
	}
	if _, _, err := try("--listen", taken.Addr().String()); err == nil || !strings.Contains(err.Error(), "--listen") {
		t.Errorf("an address that was asked for and is taken: %v", err)
	}
}
