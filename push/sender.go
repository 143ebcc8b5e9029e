package push

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"code.dny.dev/ssrf"
	"github.com/SherClockHolmes/webpush-go"
)

const (
	sendTimeout   = 10 * time.Second
	maxResponse   = 1 << 10  // bytes of an answer that are kept
	maxDrain      = 16 << 10 // bytes read past them, so that the connection can be used again
	maxRetryAfter = time.Hour
)

// Message is one push, not yet encrypted. It redacts itself, also as JSON.
type Message struct {
	Payload []byte        // at most MaxPayload bytes
	TTL     time.Duration // how long the push service keeps it for an offline device; whole seconds count, below zero is zero
	Urgency string        // RFC 8030: very-low, low, normal, high, or empty
	Topic   string        // RFC 8030: at most 32 base64url characters, or empty
}

// Verdict is what a send means for the delivery.
type Verdict int

const (
	Delivered Verdict = iota // the push service has it (2xx)
	Gone                     // the subscription is no more (404, 410): remove it
	Retry                    // later may work: network, timeout, 408, 425, 429, 5xx
	Fault                    // ours, or the configuration's: all else; trying again changes nothing
)

func (v Verdict) String() string {
	switch v {
	case Delivered:
		return "delivered"
	case Gone:
		return "gone"
	case Retry:
		return "retry"
	case Fault:
		return "fault"
	}
	return "verdict " + strconv.Itoa(int(v))
}

// Result is how one send ended.
type Result struct {
	Verdict    Verdict
	StatusCode int           // 0 if there was no answer
	RetryAfter time.Duration // what the push service asked for with Retry, at most 1 h; 0 if nothing
	Latency    time.Duration
	Response   string // first 1 KiB of the answer, printable, without parts of the endpoint
	Err        error  // nil if Delivered; names the host, never the endpoint's path or a key
}

// Sender sends messages over shared connections. It is safe for concurrent use.
type Sender struct {
	vapid  VAPID
	policy *Policy
	client *http.Client
}

// NewSender makes a Sender that signs as v and reaches only what p allows. Close it
// when done.
func NewSender(v VAPID, p *Policy) *Sender {
	return &Sender{vapid: v, policy: p, client: &http.Client{
		Transport: newTransport(newDialer(p)),
		// webpush-go's own client would carry the whole message to wherever a 307 points.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// Close closes the connections that are idle.
func (s *Sender) Close() { s.client.CloseIdleConnections() }

// Send makes one attempt, within 10 s or until ctx ends, whichever is first. The
// subscription is checked against the Policy anew, because a stored one may be
// older than today's configuration.
func (s *Sender) Send(ctx context.Context, sub Subscription, m Message) Result {
	start := time.Now()
	r := s.send(ctx, sub, m)
	r.Latency = time.Since(start)
	return r
}

func (s *Sender) send(ctx context.Context, sub Subscription, m Message) Result {
	if s.vapid.private == nil {
		return Result{Verdict: Fault, Err: errors.New("push: no VAPID keys configured")}
	}
	sub, err := s.policy.Parse(sub.Endpoint, sub.P256dh, sub.Auth)
	if err != nil {
		return Result{Verdict: Fault, Err: fmt.Errorf("push: subscription refused: %w", err)}
	}
	if err := m.check(); err != nil {
		return Result{Verdict: Fault, Err: fmt.Errorf("push: %w", err)}
	}
	ctx, cancel := context.WithTimeout(ctx, sendTimeout)
	defer cancel()
	// Clip: webpush-go pads in the spare capacity of the slice, which is the caller's.
	resp, err := webpush.SendNotificationWithContext(ctx, slices.Clip(m.Payload),
		&webpush.Subscription{Endpoint: sub.Endpoint, Keys: webpush.Keys{Auth: sub.Auth, P256dh: sub.P256dh}},
		&webpush.Options{
			HTTPClient:      s.client,
			Subscriber:      s.vapid.subscriber(),
			Topic:           m.Topic,
			TTL:             int(max(m.TTL, 0) / time.Second),
			Urgency:         webpush.Urgency(m.Urgency),
			VAPIDPublicKey:  s.vapid.PublicKey,
			VAPIDPrivateKey: s.vapid.private(),
		})
	if err != nil {
		return failed(sub, err)
	}
	return answered(sub, resp)
}

// check refuses what webpush-go would drop or send unchecked.
func (m Message) check() error {
	switch {
	case len(m.Payload) > MaxPayload:
		return fmt.Errorf("payload has %d bytes, the limit is %d", len(m.Payload), MaxPayload)
	case !slices.Contains([]string{"", "very-low", "low", "normal", "high"}, m.Urgency):
		return errors.New("urgency must be very-low, low, normal or high")
	case len(m.Topic) > 32 || strings.ContainsFunc(m.Topic, func(r rune) bool {
		return r > unicode.MaxASCII || !unicode.IsLetter(r) && !unicode.IsDigit(r) && r != '-' && r != '_'
	}):
		return errors.New("topic must be at most 32 base64url characters")
	}
	return nil
}

// failed is the result when there was no answer.
func failed(sub Subscription, err error) Result {
	verdict := Fault
	// Whatever the client's Do returns is a url.Error, and that one quotes the endpoint.
	if ue, ok := errors.AsType[*url.Error](err); ok {
		verdict, err = Retry, ue.Err
	}
	if errors.Is(err, ssrf.ErrProhibitedIP) || errors.Is(err, ssrf.ErrProhibitedPort) {
		verdict = Fault
	}
	if text := err.Error(); scrub(sub, text) != text {
		err = errors.New(scrub(sub, text))
	}
	return Result{Verdict: verdict, Err: fmt.Errorf("push service %s: %w", sub.Host(), err)}
}

// answered is the result of an answer, which it reads within bounds and closes.
func answered(sub Subscription, resp *http.Response) Result {
	defer resp.Body.Close()
	r := Result{StatusCode: resp.StatusCode, Verdict: verdict(resp.StatusCode)}
	// The body of a 101 is the bare connection: reading it would heed no deadline.
	if resp.StatusCode != http.StatusSwitchingProtocols {
		// The status has decided; a body that breaks off changes nothing.
		text, _ := io.ReadAll(io.LimitReader(resp.Body, maxResponse))
		_, _ = io.CopyN(io.Discard, resp.Body, maxDrain)
		r.Response = scrub(sub, printable(string(text)))
	}
	if r.Verdict == Retry {
		r.RetryAfter = retryAfter(resp.Header.Get("Retry-After"), time.Now())
	}
	if r.Verdict != Delivered {
		r.Err = fmt.Errorf("push service %s answered %d", sub.Host(), resp.StatusCode)
	}
	return r
}

func verdict(status int) Verdict {
	switch {
	case status >= 200 && status <= 299:
		return Delivered
	case status == http.StatusNotFound || status == http.StatusGone:
		return Gone
	case status == http.StatusRequestTimeout || status == http.StatusTooEarly,
		status == http.StatusTooManyRequests, status >= 500 && status <= 599:
		return Retry
	}
	return Fault
}

// retryAfter reads both forms of the header (RFC 9110, section 10.2.3).
func retryAfter(v string, now time.Time) time.Duration {
	n, err := strconv.ParseUint(v, 10, 64)
	if err == nil || errors.Is(err, strconv.ErrRange) {
		return time.Duration(min(n, uint64(maxRetryAfter/time.Second))) * time.Second
	}
	t, err := http.ParseTime(v)
	if err != nil {
		return 0
	}
	return min(max(t.Sub(now), 0), maxRetryAfter)
}

// printable makes a foreign answer one line of visible characters.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, strings.ToValidUTF8(s, " "))
}

// scrub takes the endpoint's secret parts out of a foreign text: error pages like to
// quote the path. Short parts are names of the service, such as "wpush", not secrets.
func scrub(sub Subscription, text string) string {
	const secretLen = 8
	u, err := url.Parse(sub.Endpoint)
	if err != nil {
		return ""
	}
	query, _ := url.QueryUnescape(u.RawQuery)
	for _, form := range []string{u.RequestURI(), u.Path, query} {
		for _, part := range strings.FieldsFunc(form, func(r rune) bool { return strings.ContainsRune("/?&=", r) }) {
			if len(part) >= secretLen {
				text = strings.ReplaceAll(text, part, "[redacted]")
			}
		}
	}
	return text
}
