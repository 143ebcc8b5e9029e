package passkey_test

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"approvalrelay/crypto/passkey"
	"approvalrelay/crypto/passkey/passkeytest"
)

const origin = "https://relay.example.com"

func newParty(t *testing.T) *passkey.Party {
	t.Helper()
	p, err := passkey.New(origin, "Relay", []string{"https://app.example.org"}, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func random() []byte {
	b := make([]byte, 32)
	rand.Read(b)
	return b
}

// enrol makes an owner with the authenticator's passkey.
func enrol(t *testing.T, p *passkey.Party, a *passkeytest.Authenticator) passkey.Owner {
	t.Helper()
	o := passkey.Owner{Handle: random(), Name: "12345"}
	challenge := random()
	options, err := p.CreationOptions(o, challenge)
	if err != nil {
		t.Fatal(err)
	}
	c, err := p.Register(o, challenge, a.Create(options))
	if err != nil {
		t.Fatal(err)
	}
	o.Credentials = []passkey.Credential{c}
	return o
}

func assert(p *passkey.Party, o passkey.Owner, challenge, response []byte) (passkey.Credential, passkey.Proof, error) {
	asserted, err := passkey.Parse(response)
	if err != nil {
		return passkey.Credential{}, passkey.Proof{}, err
	}
	return p.Assert(o, challenge, asserted)
}

func TestPasskeySignsAndIsVerifiedAgain(t *testing.T) {
	t.Parallel()
	p := newParty(t)
	for _, at := range []string{origin, "https://app.example.org"} {
		a := passkeytest.New(origin, "relay.example.com")
		o := enrol(t, p, a)
		a.Origin = at
		challenge := random()
		options, err := p.RequestOptions(o, challenge)
		if err != nil {
			t.Fatal(err)
		}
		_, proof, err := assert(p, o, challenge, a.Get(options))
		if err != nil {
			t.Fatalf("at %s: %v", at, err)
		}
		if err := p.Verify(challenge, proof); err != nil {
			t.Errorf("at %s: verified again: %v", at, err)
		}
		if err := p.Verify(random(), proof); !errors.Is(err, passkey.ErrAssertion) {
			t.Errorf("at %s: over another challenge: %v", at, err)
		}
		for name, tampered := range map[string]passkey.Proof{
			"signature":   {proof.CredentialID, proof.PublicKey, proof.ClientData, proof.AuthenticatorData, flip(proof.Signature)},
			"client data": {proof.CredentialID, proof.PublicKey, bytes.Replace(proof.ClientData, []byte(`"crossOrigin":false`), []byte(`"crossOrigin":false,"x":1`), 1), proof.AuthenticatorData, proof.Signature},
			"data":        {proof.CredentialID, proof.PublicKey, proof.ClientData, flip(proof.AuthenticatorData), proof.Signature},
			"key":         {proof.CredentialID, enrol(t, p, passkeytest.New(origin, "relay.example.com")).Credentials[0].PublicKey, proof.ClientData, proof.AuthenticatorData, proof.Signature},
			"nothing":     {},
		} {
			if err := p.Verify(challenge, tampered); !errors.Is(err, passkey.ErrAssertion) {
				t.Errorf("tampered %s: %v", name, err)
			}
		}
	}
}

func flip(b []byte) []byte {
	b = bytes.Clone(b)
	b[len(b)-1] ^= 1
	return b
}

func TestAssertionsThatAreRefused(t *testing.T) {
	t.Parallel()
	p := newParty(t)
	challenge := random()
	for name, c := range map[string]struct {
		spoil func(*passkeytest.Authenticator, *passkey.Owner)
		over  []byte
	}{
		"another challenge": {over: random()},
		"another origin": {spoil: func(a *passkeytest.Authenticator, _ *passkey.Owner) {
			a.Origin = "https://relay.example.com.evil.example"
		}},
		"plain http":            {spoil: func(a *passkeytest.Authenticator, _ *passkey.Owner) { a.Origin = "http://relay.example.com" }},
		"another port":          {spoil: func(a *passkeytest.Authenticator, _ *passkey.Owner) { a.Origin = origin + ":8443" }},
		"another relying party": {spoil: func(a *passkeytest.Authenticator, _ *passkey.Owner) { a.RPID = "evil.example" }},
		"inside a frame":        {spoil: func(a *passkeytest.Authenticator, _ *passkey.Owner) { a.CrossOrigin = true }},
		"user not verified":     {spoil: func(a *passkeytest.Authenticator, _ *passkey.Owner) { a.UserVerified = false }},
		"another key":           {spoil: func(a *passkeytest.Authenticator, _ *passkey.Owner) { a.Key = passkeytest.New("", "").Key }},
		"another user's":        {spoil: func(a *passkeytest.Authenticator, _ *passkey.Owner) { *a = *passkeytest.New(a.Origin, a.RPID) }},
		"a copy":                {spoil: func(a *passkeytest.Authenticator, o *passkey.Owner) { a.Counter, o.Credentials[0].SignCount = 3, 3 }},
		"none is registered":    {spoil: func(_ *passkeytest.Authenticator, o *passkey.Owner) { o.Credentials = nil }},
	} {
		a := passkeytest.New(origin, "relay.example.com")
		o := enrol(t, p, a)
		if _, _, err := assert(p, o, challenge, a.Sign(challenge)); err != nil {
			t.Fatalf("%s: before it is spoilt: %v", name, err)
		}
		if c.spoil != nil {
			c.spoil(a, &o)
		}
		if c.over == nil {
			c.over = challenge
		}
		if _, _, err := assert(p, o, challenge, a.Sign(c.over)); !errors.Is(err, passkey.ErrAssertion) {
			t.Errorf("%s: error %v, want ErrAssertion", name, err)
		}
	}
}

func TestWhatIsNoAnswerOfABrowser(t *testing.T) {
	t.Parallel()
	p := newParty(t)
	a := passkeytest.New(origin, "relay.example.com")
	o := enrol(t, p, a)
	challenge := random()
	good := a.Sign(challenge)
	for name, response := range map[string][]byte{
		"empty": nil, "null": []byte("null"), "text": []byte(`"x"`), "object": []byte("{}"), "trailing data": append(bytes.Clone(good), " {}"...),
		"a registration": a.Create(mustJSON(t, map[string]string{"challenge": "AAAA"})),
		"id and raw id":  bytes.Replace(good, []byte(`"rawId":"`), []byte(`"rawId":"AAAA`), 1),
	} {
		if _, _, err := assert(p, o, challenge, response); !errors.Is(err, passkey.ErrAssertion) {
			t.Errorf("%s: error %v, want ErrAssertion", name, err)
		}
	}
	if _, err := p.Register(o, challenge, good); !errors.Is(err, passkey.ErrRegistration) {
		t.Errorf("an assertion for a registration: %v", err)
	}
	if _, err := p.Register(o, random(), a.Create(mustJSON(t, map[string]string{"challenge": "AAAAAAAAAAAAAAAAAAAAAAAA"}))); !errors.Is(err, passkey.ErrRegistration) {
		t.Errorf("a registration over another challenge: %v", err)
	}
}

func mustJSON(t *testing.T, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestOptionsAskForAVerifiedUser(t *testing.T) {
	t.Parallel()
	p := newParty(t)
	o := enrol(t, p, passkeytest.New(origin, "relay.example.com"))
	creation, err := p.CreationOptions(o, random())
	if err != nil {
		t.Fatal(err)
	}
	request, err := p.RequestOptions(o, random())
	if err != nil {
		t.Fatal(err)
	}
	for name, options := range map[string]string{"creation": string(creation), "request": string(request)} {
		for _, want := range []string{`"userVerification":"required"`, `"timeout":60000`, `"challenge":"`} {
			if !strings.Contains(options, want) {
				t.Errorf("the %s options lack %s: %s", name, want, options)
			}
		}
	}
	if !strings.Contains(string(creation), `"excludeCredentials":[{`) {
		t.Errorf("an authenticator may be registered twice: %s", creation)
	}
}

func TestPartyNeedsAName(t *testing.T) {
	t.Parallel()
	for _, url := range []string{"", "relay.example.com", "https://192.0.2.1", "https://[::1]:8080"} {
		if _, err := passkey.New(url, "Relay", nil, time.Minute); err == nil {
			t.Errorf("%q was taken", url)
		}
	}
	related, err := newParty(t).RelatedOrigins()
	if want := `{"origins":["https://relay.example.com","https://app.example.org"]}`; err != nil || string(related) != want {
		t.Errorf("related origins: %s, %v; want %s", related, err, want)
	}
}
