package forward

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"approvalrelay/relay"
)

// signature is Standard Webhooks' v1, in code of its own.
func signature(t *testing.T, secret, id, timestamp, body string) string {
	t.Helper()
	key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(secret, "whsec_"))
	if err != nil {
		t.Error(err)
	}
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(id + "." + timestamp + "." + body))
	return "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))
}

func TestForwardRequest(t *testing.T) {
	t.Parallel()
	const head = `{"id":"evt_01J8ZQ5X4N8K3T0V7B2M6C9R1D0a","type":"CARD_APPLY_RESULT","merchant":"acme",`
	const times = `"occurred_at":"2025-12-01T08:30:00.005Z","received_at":"2025-12-01T08:30:01.250Z",`
	untouched := `{ "z":1.50, "big":12345678901234567890123,"html":"<a&b>", "a":"\u00e9é" }`
	for name, c := range map[string]struct {
		target  func(*Target)
		message func(*relay.Message)
		body    string
	}{
		"json":         {nil, nil, head + times + `"data":{"card_id":67890}}`},
		"data as is":   {nil, func(m *relay.Message) { m.Data = []byte(untouched) }, head + times + `"data":` + untouched + `}`},
		"unknown time": {nil, func(m *relay.Message) { m.OccurredAt = time.Time{} }, head + `"occurred_at":null,"received_at":"2025-12-01T08:30:01.250Z","data":{"card_id":67890}}`},
		"envelope": {func(t *Target) { t.Envelope = true },
			func(m *relay.Message) { m.Envelope = []byte("{\n \"type\" : \"X\",\"x\":1.0}\r\n"); m.Data = nil }, "{\n \"type\" : \"X\",\"x\":1.0}\r\n"},
		"two secrets": {func(t *Target) { t.Secrets = []string{signingA, signingB} }, nil, head + times + `"data":{"card_id":67890}}`},
		"static headers": {func(t *Target) {
			t.Headers = map[string]string{"authorization": "Bearer abc", "X-Relay-Attempt": "9", "webhook-id": "forged", "content-type": "text/plain"}
		}, nil, head + times + `"data":{"card_id":67890}}`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var target Target
			got := make(chan *http.Request, 1)
			body := make(chan string, 1)
			s := serve(t, func(w http.ResponseWriter, r *http.Request) {
				body <- readAll(t, r)
				got <- r
				w.WriteHeader(http.StatusNoContent)
			})
			d := downstream(t, func(t *Target) {
				t.Secrets = []string{signingA}
				if c.target != nil {
					c.target(t)
				}
				target = *t
			}, s.URL+"/hooks?x=1")
			m := message()
			if c.message != nil {
				c.message(&m)
			}
			before := time.Now().Unix()
			checkAttempt(t, d.Forward(t.Context(), "core", m), relay.Delivered, 204, "")

			text, r := <-body, <-got
			if text != c.body {
				t.Errorf("body\n %s\nwant\n %s", text, c.body)
			}
			if r.Method != http.MethodPost || r.URL.RequestURI() != "/hooks?x=1" {
				t.Errorf("%s %s", r.Method, r.URL.RequestURI())
			}
			stamp := r.Header.Get("webhook-timestamp")
			if n, err := strconv.ParseInt(stamp, 10, 64); err != nil || n < before || n > time.Now().Unix() {
				t.Errorf("timestamp %q is not that of the attempt", stamp)
			}
			var want []string
			for _, secret := range target.Secrets {
				want = append(want, signature(t, secret, m.EventID, stamp, text))
			}
			for header, value := range map[string]string{
				"webhook-id": m.EventID, "webhook-signature": strings.Join(want, " "), "X-Relay-Event-Type": m.Type,
				"X-Relay-Attempt": "3", "Content-Type": "application/json", "User-Agent": "approvalrelay",
				"Authorization": target.Headers["authorization"],
			} {
				if r.Header.Get(header) != value || len(r.Header.Values(header)) > 1 {
					t.Errorf("%s: %q, want %q", header, r.Header.Values(header), value)
				}
			}
			if _, sent := r.Header["Idempotency-Key"]; sent {
				t.Error("Idempotency-Key was sent")
			}
		})
	}
}

func TestForwardStatuses(t *testing.T) {
	t.Parallel()
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		status, _ := strconv.Atoi(r.URL.Query().Get("status"))
		w.Header().Set("Retry-After", "30")
		w.WriteHeader(status)
	})
	for status := 200; status <= 599; status++ {
		d := downstream(t, nil, s.URL+"/?status="+strconv.Itoa(status))
		want, wait, text := relay.TryAgain, time.Duration(0), ""
		switch {
		case status < 300:
			want = relay.Delivered
		case status < 400:
			text = "redirects are not followed"
		case status == 410:
			want = relay.Gone
		case status == 429, status == 503:
			wait = 30 * time.Second
		}
		o := d.Forward(t.Context(), "core", message())
		checkAttempt(t, o, want, status, text)
		if o.RetryAfter != wait {
			t.Errorf("%d: retry after %s, want %s", status, o.RetryAfter, wait)
		}
		d.Close()
	}
}

func TestRetryAfter(t *testing.T) {
	t.Parallel()
	in := func(d time.Duration) string { return time.Now().Add(d).UTC().Format(http.TimeFormat) }
	for value, want := range map[string]struct{ from, to time.Duration }{
		"":                               {},
		"0":                              {},
		"7":                              {7 * time.Second, 7 * time.Second},
		"-7":                             {},
		"7.5":                            {},
		"soon":                           {},
		"7200":                           {2 * time.Hour, 2 * time.Hour}, // the domain caps it
		"99999999999":                    {maxRetryAfter, maxRetryAfter}, // would overflow
		strings.Repeat("9", 100):         {maxRetryAfter, maxRetryAfter},
		in(100 * time.Second):            {90 * time.Second, 100 * time.Second},
		in(-100 * time.Second):           {},
		in(100 * 365 * 24 * time.Hour):   {maxRetryAfter, maxRetryAfter},
		"Sun, 06 Nov 1994 08:49:37 GMT":  {},
		"Sunday, 06-Nov-94 08:49:37 GMT": {},
	} {
		for _, status := range []int{429, 503, 500, 200} {
			got := answer{status: status, header: http.Header{"Retry-After": {value}}}.retryAfter()
			from, to := want.from, want.to
			if status == 500 || status == 200 {
				from, to = 0, 0
			}
			if got < from || got > to {
				t.Errorf("%d with %q: %s, want %s to %s", status, value, got, from, to)
			}
		}
	}
}

func TestRedirectsAreNotFollowed(t *testing.T) {
	t.Parallel()
	var followed atomic.Int32
	elsewhere := serve(t, func(http.ResponseWriter, *http.Request) { followed.Add(1) })
	for _, location := range []string{elsewhere.URL, "http://[bad", ""} {
		for _, status := range []int{301, 302, 303, 307, 308} {
			s := serve(t, func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Location", location)
				w.WriteHeader(status)
			})
			o := downstream(t, nil, s.URL).Forward(t.Context(), "core", message())
			checkAttempt(t, o, relay.TryAgain, status, "redirects are not followed")
			o = issuer(t, s.URL, nil).Confirm(t.Context(), issuerCall(t))
			checkAttempt(t, o, relay.TryAgain, status, "redirects are not followed")
		}
	}
	if n := followed.Load(); n != 0 {
		t.Errorf("followed %d times", n)
	}
}

func TestForwardNotSent(t *testing.T) {
	t.Parallel()
	s := serve(t, func(http.ResponseWriter, *http.Request) { t.Error("a request was made") })
	d := downstream(t, nil, s.URL)
	for _, c := range []struct {
		target, data, err string
		envelope          bool
	}{
		{"other", `{}`, "not sent: the target is not configured", false},
		{"core", ``, "not sent: the event's data is not JSON", false},
		{"core", `{},"id":"forged"`, "not sent: the event's data is not JSON", false},
		{"core", `{}`, "not sent: the issuer's envelope is missing", true},
	} {
		if c.envelope {
			d = downstream(t, func(t *Target) { t.Envelope = true }, s.URL)
		}
		m := message()
		m.Data = []byte(c.data)
		checkAttempt(t, d.Forward(t.Context(), c.target, m), relay.Faulty, 0, c.err)
	}
}

func TestForwardTimeout(t *testing.T) {
	t.Parallel()
	s := serve(t, hang)
	d := downstream(t, func(t *Target) { t.Timeout = 50 * time.Millisecond }, s.URL)
	o := d.Forward(t.Context(), "core", message())
	checkAttempt(t, o, relay.TryAgain, 0, "timeout")
	if o.Attempt.Latency < 50*time.Millisecond {
		t.Errorf("gave up after %s", o.Attempt.Latency)
	}

	ctx, cancel := context.WithCancel(t.Context())
	arrived := serve(t, func(w http.ResponseWriter, r *http.Request) { cancel(); hang(w, r) })
	checkAttempt(t, downstream(t, nil, arrived.URL).Forward(ctx, "core", message()), relay.TryAgain, 0, "broken off: the relay is stopping")
}

// A status that has come stands, whatever becomes of the body after it.
func TestForwardBodyBreaksOff(t *testing.T) {
	t.Parallel()
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "100")
		_, _ = w.Write([]byte("half"))
		w.(http.Flusher).Flush()
		if r.URL.Path == "/slow" {
			hang(w, r)
		}
		panic(http.ErrAbortHandler)
	})
	for _, path := range []string{"/broken", "/slow"} {
		o := downstream(t, func(t *Target) { t.Timeout = 200 * time.Millisecond }, s.URL+path).Forward(t.Context(), "core", message())
		checkAttempt(t, o, relay.Delivered, 200, "")
		if o.Attempt.Response != "half" {
			t.Errorf("response %q", o.Attempt.Response)
		}
	}
}

// One slow target takes nothing from the others, and one target serves many
// goroutines.
func TestForwardConcurrently(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	slow := serve(t, func(http.ResponseWriter, *http.Request) { <-release })
	fast := serve(t, func(http.ResponseWriter, *http.Request) {})
	d, err := NewDownstream([]Target{
		{Name: "slow", URL: slow.URL, Secrets: []string{signingA}, Timeout: time.Minute, Concurrency: 1},
		{Name: "fast", URL: fast.URL, Secrets: []string{signingA, signingB}, Timeout: time.Minute, Concurrency: 8},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Close)
	var slowOnes, fastOnes sync.WaitGroup
	send := func(wg *sync.WaitGroup, target string) {
		wg.Go(func() { checkAttempt(t, d.Forward(t.Context(), target, message()), relay.Delivered, 200, "") })
	}
	for range 20 {
		send(&slowOnes, "slow")
		send(&fastOnes, "fast")
	}
	fastOnes.Wait()
	close(release)
	slowOnes.Wait()
}

func TestNewDownstreamRefuses(t *testing.T) {
	t.Parallel()
	good := Target{Name: "core", URL: "https://core.example/hooks", Secrets: []string{signingA}, Timeout: time.Second}
	for want, change := range map[string]func(*Target){
		`forward: target "core": its url is not an absolute URL`:            func(t *Target) { t.URL = "canary://\x7f" },
		`forward: target "core": its timeout must be above zero`:            func(t *Target) { t.Timeout = 0 },
		`forward: target "core": it needs at least one secret to sign with`: func(t *Target) { t.Secrets = nil },
		`forward: target "core": its secret 2 is not whsec_ and base64`:     func(t *Target) { t.Secrets = []string{signingA, "whsec_canary!"} },
		`forward: target "core": its secret 1 is not whsec_ and base64`:     func(t *Target) { t.Secrets = []string{"whsec_"} },
		`forward: target "other" is given twice: names must differ`:         nil,
	} {
		targets := []Target{good}
		if change != nil {
			change(&targets[0])
		} else {
			targets[0].Name = "other"
			targets = append(targets, targets[0])
		}
		if _, err := NewDownstream(targets); err == nil || err.Error() != want {
			t.Errorf("%v\nwant %s", err, want)
		}
	}
	if _, err := NewDownstream([]Target{good}); err != nil {
		t.Error(err)
	}
}
