package sim

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"
)

// Issuer plays the card issuer's platform: it seals and posts webhooks, and is
// the API (an http.Handler on every path) that takes confirms and card locks.
type Issuer struct {
	Journal[Call]
	Script[string]
	merchant   string
	merchantID string
	key        envelopeKey
	client     *http.Client
	firsts     firstCalls
}

// Call is one call of the issuer's API.
type Call struct {
	At             time.Time
	Path           string
	IdempotencyKey string
	Body           map[string]any // decrypted, numbers as json.Number; nil when it could not be opened
	Status         int            // what was answered, 0: nothing
	Conflict       bool           // same path and Idempotency-Key as an earlier call, another body
	Fault          string         // why it was refused, "" if it was not; a conflict is one
}

// Answer is what the relay answered to a webhook.
type Answer struct {
	Status int
	Body   map[string]any // nil when Raw is not a JSON object; numbers as json.Number
	Raw    []byte
}

// NewIssuer makes an issuer for one merchant: merchant is the name in the
// webhook path, secret the bytes of its key for AES and HMAC (16, 24 or 32),
// merchantID what the API expects in Merchant-ID. It panics on any other length
// of the secret.
func NewIssuer(merchant string, secret []byte, merchantID string) *Issuer {
	key, err := newEnvelopeKey(secret)
	if err != nil {
		panic("sim: issuer: " + err.Error())
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConnsPerHost = 256 // a load run posts from many goroutines
	return &Issuer{
		merchant: merchant, merchantID: merchantID, key: key,
		client: &http.Client{
			Transport:     transport,
			Timeout:       10 * time.Second, // the platform counts a slower answer as failed
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
}

// Format keeps the secret out of every fmt verb.
func (i *Issuer) Format(f fmt.State, _ rune) { fmt.Fprintf(f, "sim.Issuer(%s)", i.merchant) }

// Seal returns the webhook body for payload, under a fresh IV: two calls differ
// in every byte but open to the same content. A []byte is sealed as it is, JSON
// or not; anything else is marshalled, and what cannot be panics.
func (i *Issuer) Seal(eventType string, payload any) []byte {
	plaintext, raw := payload.([]byte)
	if !raw {
		plaintext = mustMarshal(payload)
	}
	sealed, mac := i.key.seal(plaintext)
	return mustMarshal(map[string]string{"encrypted_payload": sealed, "type": eventType, "hmac": mac})
}

// Post seals payload and sends it to relayURL + /webhooks/{merchant}. The error
// is non-nil only when there was no answer within 10 s; any status is an Answer.
func (i *Issuer) Post(ctx context.Context, relayURL, eventType string, payload any) (Answer, error) {
	return i.Send(ctx, relayURL, i.Seal(eventType, payload))
}

// Send is Post for a body that is sealed already, or tampered with.
func (i *Issuer) Send(ctx context.Context, relayURL string, body []byte) (Answer, error) {
	target := strings.TrimRight(relayURL, "/") + "/webhooks/" + url.PathEscape(i.merchant)
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, target, bytes.NewReader(body))
	if err != nil {
		return Answer{}, fmt.Errorf("webhook: %w", err)
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := i.client.Do(request)
	if err != nil {
		return Answer{}, fmt.Errorf("webhook: %w", err)
	}
	defer response.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(response.Body, maxBody))
	if err != nil {
		return Answer{}, fmt.Errorf("webhook: reading the answer: %w", err)
	}
	answer := Answer{Status: response.StatusCode, Raw: raw}
	// Not every status promises JSON; Raw is there for those.
	answer.Body, _ = object(raw)
	return answer, nil
}

// Calls returns the calls of the API, oldest first, as far as kept.
func (i *Issuer) Calls() []Call { return i.all() }

// ServeHTTP is the issuer's API. 400 for a wrong Merchant-ID or X-HMAC, a
// malformed payload or one that is no JSON object; 409 for a conflict; else 200.
// Authentic calls get a sealed answer. The first body under a path and an
// Idempotency-Key wins, also when the script made its answer a failure: a sender
// may never change its mind.
func (i *Issuer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	call := Call{At: time.Now(), Path: r.URL.Path, IdempotencyKey: r.Header.Get("Idempotency-Key")}
	behaviour := i.next(call.Path)
	body, err := readBody(w, r)
	if err != nil {
		behaviour = Behaviour{}
	} else if call.Body, err = i.open(r.Header, body); err == nil && i.firsts.contradicts(call) {
		call.Conflict = true
		err = refuse(http.StatusConflict, "contradicts an earlier body under the same Idempotency-Key")
	}
	call.Status, call.Fault = behaviour.answered(err, http.StatusOK), faultText(err)
	i.add(call, err != nil)
	behaviour.play(w, r, call.Status)
	i.answer(w, call, behaviour.BadHMAC)
}

func (i *Issuer) open(header http.Header, body []byte) (map[string]any, error) {
	if header.Get("Merchant-ID") != i.merchantID {
		return nil, refuse(http.StatusBadRequest, "Merchant-ID is missing or unknown")
	}
	outer, err := object(body)
	if err != nil {
		return nil, refuse(http.StatusBadRequest, "body: %v", err)
	}
	payload, ok := outer["encrypted_payload"].(string)
	if !ok {
		return nil, refuse(http.StatusBadRequest, "body: encrypted_payload is missing or no string")
	}
	plaintext, err := i.key.open(payload, header.Get("X-HMAC"))
	if err != nil {
		return nil, refuse(http.StatusBadRequest, "%v", err)
	}
	content, err := object(plaintext)
	if err != nil {
		return nil, refuse(http.StatusBadRequest, "plaintext: %v", err)
	}
	return content, nil
}

func (i *Issuer) answer(w http.ResponseWriter, call Call, badHMAC bool) {
	answer := map[string]string{"status": "success"}
	if call.Fault != "" {
		answer = map[string]string{"status": "error", "message": call.Fault}
	} else if call.Status >= 300 {
		answer = map[string]string{"status": "error", "message": http.StatusText(call.Status)}
	}
	if call.Body != nil {
		payload, mac := i.key.seal(mustMarshal(answer))
		if badHMAC {
			mac = strings.Repeat("0", len(mac))
		}
		answer = map[string]string{"encrypted_payload": payload, "hmac": mac}
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(call.Status)
	// The sender may have gone; the call is recorded as it was taken.
	_, _ = w.Write(mustMarshal(answer))
}

func mustMarshal(v any) []byte {
	data, err := json.Marshal(v)
	if err != nil {
		panic("sim: " + err.Error())
	}
	return data
}

// maxFirstCalls bounds the memory of idempotency keys: the oldest is forgotten.
const maxFirstCalls = 1 << 17

// firstCalls remembers, by digest, the first body of every idempotency key.
type firstCalls struct {
	mu     sync.Mutex
	bodies map[[sha256.Size]byte][sha256.Size]byte
	ring   [][sha256.Size]byte
	oldest int
}

func (f *firstCalls) contradicts(call Call) bool {
	if call.IdempotencyKey == "" {
		return false
	}
	key := sha256.Sum256([]byte(call.Path + "\x00" + call.IdempotencyKey))
	body := sha256.Sum256(mustMarshal(call.Body)) // sorted keys, so the order of members does not matter
	f.mu.Lock()
	defer f.mu.Unlock()
	if first, known := f.bodies[key]; known {
		return first != body
	}
	if f.bodies == nil {
		f.bodies = make(map[[sha256.Size]byte][sha256.Size]byte)
	}
	if len(f.ring) < maxFirstCalls {
		f.ring = append(f.ring, key)
	} else {
		delete(f.bodies, f.ring[f.oldest])
		f.ring[f.oldest] = key
		f.oldest = (f.oldest + 1) % maxFirstCalls
	}
	f.bodies[key] = body
	return false
}
