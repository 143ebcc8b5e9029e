package push

import (
	"cmp"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"strings"
	"time"
)

// MaxPayload is how many bytes fit the one record of 4096 that push services must
// take (RFC 8030, section 7.2; RFC 8291, section 4).
const MaxPayload = 3993

// Phase is the part of a challenge's life a Notice speaks of.
type Phase int

const (
	Announce Phase = iota // the challenge waits for the cardholder
	Ended                 // it no longer does: replaces the announcement, silently
	Blocked               // it can only be rejected: the passkey failed too often
)

// Notice is what a device is told about one challenge. Its texts may come from
// outside: they are stripped of control and direction characters and shortened. It
// redacts itself, also as JSON; Payload is the way to encode it.
type Notice struct {
	Phase       Phase
	ChallengeID string
	Tag         string // of the notification, which replaces one with the same; empty: the challenge's id
	Kind        string // three_ds, card_verification
	Method      string // approve, otp, url
	Status      string
	Amount      string // decimal, as it came; empty if there is none
	Currency    string
	Payee       string
	Last4       string
	Wallet      string
	ExpiresAt   time.Time
	StepUp      bool   // approving needs a passkey, which a worker cannot ask for
	ActionToken string // empty: not sent; never sent when Ended
	OTP         string // empty: not sent; never sent when Ended, never in the visible text
	PublicURL   string
	Minimal     bool   // neither amount nor payee nor card on the lock screen
	Lang        string // what the device asked for; see Language
}

// declarative marks a message for Declarative Web Push, which shows the
// notification even if the worker fails; mutable lets the worker change it first.
// The worker is then given the notification and no other part of the message, so
// the parts stand in the notification's data as well.
type declarative struct {
	WebPush int  `json:"web_push,omitempty"`
	Mutable bool `json:"mutable,omitempty"`
}

type notification struct {
	Title    string `json:"title"`
	Body     string `json:"body"`
	Navigate string `json:"navigate"`
	Tag      string `json:"tag"`
	Lang     string `json:"lang"`
	Dir      string `json:"dir"`
	Silent   bool   `json:"silent"`
	Data     *parts `json:"data,omitempty"`
}

type challenge struct {
	ID          string `json:"id"`
	Kind        string `json:"kind"`
	Method      string `json:"method"`
	Status      string `json:"status"`
	ExpiresAt   string `json:"expires_at,omitempty"`
	StepUp      string `json:"step_up,omitempty"` // passkey, or blocked: the worker must not approve
	ActionToken string `json:"action_token,omitempty"`
	OTP         string `json:"otp,omitempty"`
}

type activation struct {
	ID   string `json:"id"`
	Code string `json:"code"`
}

// parts are what the worker needs beside the notification.
type parts struct {
	Challenge  *challenge  `json:"challenge,omitempty"`
	Activation *activation `json:"activation,omitempty"`
}

type body struct {
	declarative
	Notification notification `json:"notification"`
	parts
}

// Payload is the JSON to send, at most MaxPayload bytes; apple adds what
// Declarative Web Push needs. Should it not fit, the token and the code are left
// out, then everything but the notification.
func (n Notice) Payload(apple bool) []byte {
	c := challenge{ID: n.ChallengeID, Kind: n.Kind, Method: n.Method, Status: n.Status}
	if !n.ExpiresAt.IsZero() {
		c.ExpiresAt = n.ExpiresAt.UTC().Format(time.RFC3339)
	}
	if n.Phase != Ended {
		c.ActionToken, c.OTP = n.ActionToken, n.OTP
	}
	switch {
	case n.Phase == Blocked:
		c.StepUp = "blocked"
	case n.StepUp && n.Phase == Announce:
		c.StepUp = "passkey"
	}
	title, text := n.text()
	b := body{parts: parts{Challenge: &c}, Notification: notification{
		Title:    title,
		Body:     text,
		Navigate: appURL(n.PublicURL) + "#/challenges/" + n.ChallengeID,
		Tag:      cmp.Or(n.Tag, n.ChallengeID),
		Lang:     Language(n.Lang),
		Silent:   n.Phase == Ended,
	}}
	payload := b.encode(apple)
	if len(payload) > MaxPayload {
		c.ActionToken, c.OTP = "", ""
		payload = b.encode(apple)
	}
	return b.fit(payload, apple)
}

// ActivationPayload is the first push to a new subscription: visible, and proof to
// whoever reads the code in it that the endpoint is theirs. lang is what the device
// asked for; see Language.
func ActivationPayload(subscriptionID, code, lang, publicURL string, apple bool) []byte {
	t := textsFor(lang)
	return news("activation", t.activationTitle, t.activationBody, lang, publicURL, apple, parts{Activation: &activation{subscriptionID, code}})
}

// PasskeyPayload says that a passkey was registered, so that a cardholder who did not
// do it hears of it.
func PasskeyPayload(lang, publicURL string, apple bool) []byte {
	t := textsFor(lang)
	return news("passkey", t.passkeyTitle, t.passkeyBody, lang, publicURL, apple, parts{})
}

// TestPayload is what a cardholder sends to their own device to see that it works.
func TestPayload(lang, publicURL string, apple bool) []byte {
	t := textsFor(lang)
	return news("test", t.testTitle, t.testBody, lang, publicURL, apple, parts{})
}

// news is a push about no challenge: it leads to the app.
func news(tag, title, text, lang, publicURL string, apple bool, p parts) []byte {
	b := body{parts: p, Notification: notification{Title: title, Body: text, Navigate: appURL(publicURL), Tag: tag, Lang: Language(lang)}}
	return b.fit(b.encode(apple), apple)
}

// Topic is the RFC 8030 topic of a notification: 32 base64url characters that let
// the push service replace an older message and tell it nothing of the tag.
func Topic(tag string) string {
	sum := sha256.Sum256([]byte("approval relay push topic\x00" + tag))
	return encodeKey(sum[:24])
}

func (b body) encode(apple bool) []byte {
	if apple {
		b.declarative = declarative{WebPush: 8030, Mutable: true}
		if b.parts != (parts{}) {
			b.Notification.Data = &b.parts
		}
	}
	b.Notification.Dir = "ltr" // so are all languages there are
	out, err := json.Marshal(b)
	if err != nil {
		panic(fmt.Sprintf("push: encode payload: %v", err)) // only strings and booleans: cannot fail
	}
	return out
}

// fit returns payload if it can be sent, else what is left without the parts whose
// length this package does not bound.
func (b body) fit(payload []byte, apple bool) []byte {
	if len(payload) <= MaxPayload {
		return payload
	}
	b.parts = parts{}
	b.Notification.Navigate, b.Notification.Tag = appURL(""), Topic(b.Notification.Tag)
	return b.encode(apple)
}

func appURL(publicURL string) string { return strings.TrimRight(publicURL, "/") + "/app/" }
