package forward

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"time"

	"approvalrelay/crypto"
	"approvalrelay/relay"
)

// IssuerAPI is how one merchant's decisions reach the issuer. It redacts itself.
type IssuerAPI struct {
	crypto.Redacted
	BaseURL    string        // the calls' paths are appended
	MerchantID string        // sent as Merchant-ID
	Timeout    time.Duration // of one attempt, above zero
	Keyring    *crypto.Keyring
	Mapping    relay.Mapping // the merchant's, tells the JSON type of ids; nil is relay.DefaultMapping
	Confirm    *Call         // nil: the issuer is not told of decisions
	Lock       *Call         // nil: cards are not locked
}

// Call is a request to the issuer's API. Body is any JSON object; in its values
// these placeholders are replaced:
//
//	$card_id $user_id $reference   as the event writes them: number or string
//	$challenge_id
//	$decision                      the decision's value in Decisions (Confirm only)
//	$payload.any.path              any value of the event's decrypted payload
//
// As a whole value a placeholder becomes the value with its JSON type, numbers
// digit by digit as they came; inside of a longer text it becomes text. Paths
// are tried in the payload's object named data first. What is missing is null,
// and the empty text inside of one. Names of members are left as they are. It
// redacts itself, because a body may hold a key of the issuer's API.
type Call struct {
	crypto.Redacted
	Path      string
	Body      map[string]any
	Decisions map[relay.Action]any // JSON values; Confirm needs one for each action
}

// Issuer tells the issuer about decisions and card locks. It implements
// relay.Issuer.
type Issuer struct {
	crypto.Redacted
	apis map[string]*issuerAPI
}

var _ relay.Issuer = (*Issuer)(nil)

type issuerAPI struct {
	merchantID    string
	timeout       time.Duration
	keyring       *crypto.Keyring
	mapping       relay.Mapping
	transport     *http.Transport
	confirm, lock *call
}

type call struct {
	url       string
	body      map[string]any
	decisions map[string]any
}

const (
	issuerConns     = 64       // kept to one issuer; as many confirms are under way at most
	maxIssuerAnswer = 64 << 10 // bytes
)

// NewIssuer prepares the APIs by merchant. Errors name the merchant and what is
// wrong with it; they hold no secret, URL or part of a body but its unknown
// placeholders.
func NewIssuer(merchants map[string]IssuerAPI) (*Issuer, error) {
	i := &Issuer{apis: make(map[string]*issuerAPI, len(merchants))}
	for name, m := range merchants {
		api, err := newIssuerAPI(m)
		if err != nil {
			return nil, fmt.Errorf("forward: issuer_api of merchant %q: %w", name, err)
		}
		i.apis[name] = api
	}
	return i, nil
}

func newIssuerAPI(m IssuerAPI) (*issuerAPI, error) {
	switch {
	case m.Keyring == nil:
		return nil, errors.New("it needs the merchant's keyring")
	case m.Timeout <= 0:
		return nil, errors.New("its timeout must be above zero")
	}
	api := &issuerAPI{
		merchantID: m.MerchantID, timeout: m.Timeout, keyring: m.Keyring,
		mapping: m.Mapping, transport: newTransport(issuerConns),
	}
	if api.mapping == nil {
		api.mapping = relay.DefaultMapping()
	}
	var err error
	if m.Confirm != nil {
		if api.confirm, err = newConfirm(m.BaseURL, *m.Confirm); err != nil {
			return nil, fmt.Errorf("confirm: %w", err)
		}
	}
	if m.Lock != nil {
		if api.lock, _, err = newCall(m.BaseURL, *m.Lock, placeholders...); err != nil {
			return nil, fmt.Errorf("lock_card: %w", err)
		}
	}
	return api, nil
}

var placeholders = []string{"$card_id", "$user_id", "$reference", "$challenge_id"}

// newConfirm refuses a call in which approve and reject could not be told apart.
func newConfirm(base string, c Call) (*call, error) {
	made, used, err := newCall(base, c, append(slices.Clone(placeholders), "$decision")...)
	if err != nil {
		return nil, err
	}
	decisions, err := json.Marshal(c.Decisions)
	if err != nil {
		return nil, errors.New("its decision values cannot be written as JSON")
	}
	if made.decisions, err = relay.ParsePayload(decisions); err != nil {
		return nil, errors.New("it has no decision values")
	}
	approve, reject := made.decisions[string(relay.Approve)], made.decisions[string(relay.Reject)]
	if approve == nil || reject == nil || reflect.DeepEqual(approve, reject) {
		return nil, errors.New("its decision values must be two different ones, for approve and reject")
	}
	if !slices.Contains(used, "$decision") {
		return nil, errors.New("its body does not hold $decision")
	}
	return made, nil
}

// newCall also returns the placeholders that the body uses.
func newCall(base string, c Call, known ...string) (_ *call, used []string, err error) {
	made := &call{url: base + c.Path}
	if u, err := url.Parse(made.url); err != nil || u.Host == "" { // the error quotes the URL
		return nil, nil, errors.New("its base_url and path do not make a URL")
	}
	// Through JSON and back: a copy that nobody else can change, of the few types
	// that fill knows, and with numbers as they were.
	body, err := json.Marshal(c.Body)
	if err != nil {
		return nil, nil, errors.New("its body cannot be written as JSON")
	}
	if made.body, err = relay.ParsePayload(body); err != nil {
		return nil, nil, fmt.Errorf("its body: %w", err)
	}
	var unknown []string
	fill(made.body, func(p string) any {
		used = append(used, p)
		if !slices.Contains(known, p) && !strings.HasPrefix(p, payloadPrefix) {
			unknown = append(unknown, p)
		}
		return nil
	})
	if unknown != nil {
		slices.Sort(unknown)
		return nil, nil, fmt.Errorf("its body holds %s; it may hold %s and $payload.any.path",
			strings.Join(slices.Compact(unknown), " "), strings.Join(known, " "))
	}
	return made, used, nil
}

// Close closes the connections that are idle.
func (i *Issuer) Close() {
	for _, api := range i.apis {
		api.transport.CloseIdleConnections()
	}
}

// Confirm makes one attempt to tell the issuer a decision: Delivered if it took
// it, Refused if it never will, Unclear if it may have taken it, TryAgain if it
// has not, Faulty if there is nothing to send. Attempt.At is left to the caller.
func (i *Issuer) Confirm(ctx context.Context, c relay.IssuerCall) relay.Outcome {
	api := i.apis[c.Merchant]
	if api == nil || api.confirm == nil {
		return faulty("the merchant has no issuer_api.confirm")
	}
	decision, ok := api.confirm.decisions[string(c.Action)]
	if !ok {
		return faulty("there is no decision value for this action")
	}
	return api.ask(ctx, api.confirm, c, decision)
}

// Lock makes one attempt to have a card locked; verdicts are those of Confirm.
func (i *Issuer) Lock(ctx context.Context, c relay.IssuerCall) relay.Outcome {
	api := i.apis[c.Merchant]
	if api == nil || api.lock == nil {
		return faulty("the merchant has no issuer_api.lock_card")
	}
	return api.ask(ctx, api.lock, c, nil)
}

// ask seals the filled body and posts it. The same call has the same plaintext
// on every attempt.
func (api *issuerAPI) ask(ctx context.Context, k *call, c relay.IssuerCall, decision any) relay.Outcome {
	plain, err := json.Marshal(fill(k.body, api.lookup(c, decision)))
	if err != nil {
		return faulty("the body cannot be written as JSON")
	}
	payload, mac, err := api.keyring.Seal(plain)
	if err != nil {
		return faulty(err.Error())
	}
	header := http.Header{
		"User-Agent":      {userAgent},
		"Content-Type":    {"application/json"},
		"Merchant-Id":     {api.merchantID},
		"X-Hmac":          {mac},
		"Idempotency-Key": {c.ChallengeID},
	}
	body := []byte(`{"encrypted_payload":"` + payload + `"}`)
	return api.outcome(post(ctx, api.transport, api.timeout, k.url, header, body, maxIssuerAnswer))
}

// outcome judges an answer. Only a yes must be authentic: whoever could forge a
// refusal could as well drop the request, but a forged confirmation would let a
// cardholder believe in a decision that the issuer never got.
func (api *issuerAPI) outcome(a answer) relay.Outcome {
	text, authentic := api.open(a.body)
	if !authentic {
		text = a.body
	}
	o := relay.Outcome{Verdict: issuerVerdict(a.status), RetryAfter: a.retryAfter(), Attempt: a.attempt()}
	// Some bytes more, so that excerpt sees whether it cuts.
	o.Attempt.Response = excerpt(printable(text[:min(len(text), 2*maxResponse)]))
	switch {
	case a.status == 0 && a.reached:
		o.Verdict = relay.Unclear
	case o.Verdict != relay.Delivered || authentic:
	case a.err != nil:
		o.Verdict, o.Attempt.Error = relay.Unclear, errorText(a.err)
	default:
		o.Verdict, o.Attempt.Error = relay.Unclear, "the issuer's answer is not authentic"
	}
	return o
}

func issuerVerdict(status int) relay.Verdict {
	switch {
	case status >= 200 && status <= 299:
		return relay.Delivered
	case status == http.StatusRequestTimeout, status == http.StatusTooEarly, status == http.StatusTooManyRequests:
		return relay.TryAgain
	case status >= 400 && status <= 499:
		return relay.Refused
	}
	return relay.TryAgain
}

// open returns the plaintext of an answer that was made with one of the
// merchant's secrets.
func (api *issuerAPI) open(body []byte) (plain []byte, authentic bool) {
	var envelope struct {
		Payload string `json:"encrypted_payload"`
		HMAC    string `json:"hmac"`
	}
	if err := json.Unmarshal(body, &envelope); err != nil {
		return nil, false
	}
	plain, err := api.keyring.Open(envelope.Payload, envelope.HMAC)
	return plain, err == nil
}
