package forward

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"approvalrelay/crypto"
	"approvalrelay/relay"
)

// redactedText stands where a secret was in a target's answer.
const redactedText = "[redacted]"

// Target is a downstream URL and how to post to it. It redacts itself.
type Target struct {
	crypto.Redacted
	Name        string
	URL         string            // http or https, without user name and password
	Secrets     []string          // whsec_ and base64, one signature each; at least one
	Headers     map[string]string // static ones; those that the relay sets itself win
	Timeout     time.Duration     // of one attempt, above zero
	Concurrency int               // how many connections are kept open
	Envelope    bool              // the issuer's body byte for byte instead of our JSON
}

// Downstream posts events to targets. It implements relay.Downstream.
type Downstream struct {
	crypto.Redacted
	targets map[string]*target
}

var _ relay.Downstream = (*Downstream)(nil)

type target struct {
	url       string
	signers   []*standardwebhooks.Webhook
	headers   http.Header
	timeout   time.Duration
	envelope  bool
	transport *http.Transport
	scrub     *strings.Replacer
}

// NewDownstream prepares the targets. Errors name the target and what is wrong
// with it, never a secret or its URL.
func NewDownstream(targets []Target) (*Downstream, error) {
	d := &Downstream{targets: make(map[string]*target, len(targets))}
	for _, t := range targets {
		if d.targets[t.Name] != nil {
			return nil, fmt.Errorf("forward: target %q is given twice: names must differ", t.Name)
		}
		made, err := newTarget(t)
		if err != nil {
			return nil, fmt.Errorf("forward: target %q: %w", t.Name, err)
		}
		d.targets[t.Name] = made
	}
	return d, nil
}

func newTarget(t Target) (*target, error) {
	u, err := url.Parse(t.URL)
	switch {
	case err != nil || u.Host == "": // the error quotes the URL
		return nil, errors.New("its url is not an absolute URL")
	case t.Timeout <= 0:
		return nil, errors.New("its timeout must be above zero")
	case len(t.Secrets) == 0:
		return nil, errors.New("it needs at least one secret to sign with")
	}
	made := &target{
		url: t.URL, timeout: t.Timeout, envelope: t.Envelope, transport: newTransport(t.Concurrency),
		headers: http.Header{"User-Agent": {userAgent}}, scrub: scrubber(u, t.Headers),
	}
	for i, secret := range t.Secrets {
		signer, err := standardwebhooks.NewWebhook(secret)
		if err != nil || strings.TrimPrefix(secret, "whsec_") == "" {
			return nil, fmt.Errorf("its secret %d is not whsec_ and base64", i+1)
		}
		made.signers = append(made.signers, signer)
	}
	// Deliveries may be repeated, so the transport may do so when a kept
	// connection was just being closed. Without a value it is not sent.
	made.headers["Idempotency-Key"] = nil
	for name, value := range t.Headers {
		made.headers.Set(name, value)
	}
	made.headers.Set("Content-Type", "application/json")
	return made, nil
}

// minScrubbed spares words such as "true" that are no credential.
const minScrubbed = 8

// scrubber removes what only the target and we know from answers that echo it.
func scrubber(u *url.URL, headers map[string]string) *strings.Replacer {
	var secrets []string
	for _, value := range headers {
		secrets = append(secrets, value)
		secrets = append(secrets, strings.Fields(value)...) // "Bearer …"
	}
	secrets = append(secrets, u.RawQuery)
	for _, values := range u.Query() {
		secrets = append(secrets, values...)
	}
	// The longest first: of several that fit, a Replacer takes the first.
	slices.SortFunc(secrets, func(a, b string) int { return len(b) - len(a) })
	var pairs []string
	for _, s := range secrets {
		if len(s) >= minScrubbed {
			pairs = append(pairs, s, redactedText)
		}
	}
	return strings.NewReplacer(pairs...)
}

// Close closes the connections that are idle.
func (d *Downstream) Close() {
	for _, t := range d.targets {
		t.transport.CloseIdleConnections()
	}
}

// Forward makes one attempt to post a message to a target. 2xx is Delivered, 410
// Gone, everything else and no answer TryAgain; what cannot be sent at all is
// Faulty. Attempt.At is left to the caller.
func (d *Downstream) Forward(ctx context.Context, name string, m relay.Message) relay.Outcome {
	t := d.targets[name]
	if t == nil {
		return faulty("the target is not configured")
	}
	body, err := t.body(m)
	if err != nil {
		return faulty(err.Error())
	}
	header, err := t.header(m, body, time.Now())
	if err != nil {
		return faulty(err.Error())
	}
	// More is read than recorded, to find secrets that the end would cut in two.
	a := post(ctx, t.transport, t.timeout, t.url, header, body, 2*maxResponse)
	o := relay.Outcome{Verdict: forwardVerdict(a.status), RetryAfter: a.retryAfter(), Attempt: a.attempt()}
	o.Attempt.Response = excerpt(t.scrub.Replace(printable(a.body)))
	return o
}

func faulty(why string) relay.Outcome {
	return relay.Outcome{Verdict: relay.Faulty, Attempt: relay.Attempt{Error: "not sent: " + why}}
}

// forwardVerdict goes by the status alone: a body that breaks off after it
// changes nothing.
func forwardVerdict(status int) relay.Verdict {
	switch {
	case status >= 200 && status <= 299:
		return relay.Delivered
	case status == http.StatusGone:
		return relay.Gone
	}
	return relay.TryAgain
}

// timeFormat is RFC 3339 with milliseconds.
const timeFormat = "2006-01-02T15:04:05.000Z07:00"

// body is what is posted. The event's data is put in as it is: encoding/json
// would rewrite it.
func (t *target) body(m relay.Message) ([]byte, error) {
	if t.envelope {
		if len(m.Envelope) == 0 {
			return nil, errors.New("the issuer's envelope is missing")
		}
		return m.Envelope, nil
	}
	if !json.Valid(m.Data) {
		return nil, errors.New("the event's data is not JSON")
	}
	var occurred *string
	if !m.OccurredAt.IsZero() {
		at := m.OccurredAt.UTC().Format(timeFormat)
		occurred = &at
	}
	head, err := json.Marshal(struct {
		ID         string  `json:"id"`
		Type       string  `json:"type"`
		Merchant   string  `json:"merchant"`
		OccurredAt *string `json:"occurred_at"`
		ReceivedAt string  `json:"received_at"`
	}{m.EventID, m.Type, m.Merchant, occurred, m.ReceivedAt.UTC().Format(timeFormat)})
	if err != nil {
		return nil, fmt.Errorf("encode the event: %w", err)
	}
	body := append(head[:len(head)-1], `,"data":`...)
	body = append(body, m.Data...)
	return append(body, '}'), nil
}

// header signs the body for this attempt (Standard Webhooks 1.0.0: one v1
// signature for each secret, separated by spaces).
func (t *target) header(m relay.Message, body []byte, now time.Time) (http.Header, error) {
	signatures := make([]string, len(t.signers))
	for i, signer := range t.signers {
		var err error
		if signatures[i], err = signer.Sign(m.EventID, now, body); err != nil {
			return nil, fmt.Errorf("sign the event: %w", err)
		}
	}
	h := t.headers.Clone()
	h.Set(standardwebhooks.HeaderWebhookID, m.EventID)
	h.Set(standardwebhooks.HeaderWebhookTimestamp, strconv.FormatInt(now.Unix(), 10))
	h.Set(standardwebhooks.HeaderWebhookSignature, strings.Join(signatures, " "))
	h.Set("X-Relay-Event-Type", m.Type)
	h.Set("X-Relay-Attempt", strconv.Itoa(m.Attempt))
	if m.Traceparent != "" {
		h.Set("Traceparent", m.Traceparent)
	}
	return h, nil
}
