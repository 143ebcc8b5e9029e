package passkey

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"time"

	"github.com/go-webauthn/webauthn/protocol"
	"github.com/go-webauthn/webauthn/webauthn"
)

// The errors of the two ceremonies.
var (
	ErrRegistration = errors.New("passkey: not a good registration")
	ErrAssertion    = errors.New("passkey: not a good assertion")
)

// Party is the relying party: the name and the origins that passkeys are bound to.
// It is immutable and safe for concurrent use.
type Party struct{ w *webauthn.WebAuthn }

// New makes a party whose id is the host of a public URL, which browsers accept at
// that origin, and at the other origins through [Party.RelatedOrigins]. timeout is
// how long a browser is told to wait for its user. The error says what is wrong
// with the URL, or that there are too many origins for browsers.
func New(publicURL, name string, origins []string, timeout time.Duration) (*Party, error) {
	u, err := url.Parse(publicURL)
	if err != nil || u.Host == "" {
		return nil, errors.New("passkey: the public URL is not an absolute URL")
	}
	limit := webauthn.TimeoutConfig{Timeout: timeout, TimeoutUVD: timeout}
	w, err := webauthn.New(&webauthn.Config{
		RPID: u.Hostname(), RPDisplayName: name, RPOrigins: append([]string{u.Scheme + "://" + u.Host}, origins...),
		AttestationPreference: protocol.PreferNoAttestation,
		AuthenticatorSelection: protocol.AuthenticatorSelection{
			ResidentKey: protocol.ResidentKeyRequirementPreferred, UserVerification: protocol.VerificationRequired,
		},
		Timeouts: webauthn.TimeoutsConfig{Login: limit, Registration: limit},
		// A browser may add some; none is relied on.
		ExtensionsUnsolicitedOutputPolicy: protocol.UnsolicitedOutputPolicyIgnore,
	})
	if err != nil {
		return nil, fmt.Errorf("passkey: the public URL's host cannot be a relying party: %w", err)
	}
	p := &Party{w}
	if _, err := p.RelatedOrigins(); err != nil {
		return nil, err
	}
	return p, nil
}

// RelatedOrigins is the document at /.well-known/webauthn (WebAuthn Level 3,
// section 5.11): it lets pages of the party's other origins use its passkeys. The
// error says that there are too many of them for browsers.
func (p *Party) RelatedOrigins() ([]byte, error) {
	related, err := p.w.RelatedOrigins()
	if err != nil {
		return nil, fmt.Errorf("passkey: related origins: %w", err)
	}
	return json.Marshal(related)
}

// Credential is what is kept of a passkey: public, but only its owner's.
type Credential struct {
	ID         []byte   `json:"id"`
	PublicKey  []byte   `json:"pk"` // COSE (RFC 9052)
	SignCount  uint32   `json:"sc,omitempty"`
	Flags      byte     `json:"f,omitempty"`
	Transports []string `json:"t,omitempty"`
}

// Owner is whose passkeys they are. Handle is 1 to 64 bytes that tell nothing of the
// user, always the same for one user; Name is what the browser shows.
type Owner struct {
	Handle      []byte
	Name        string
	Credentials []Credential
}

// The methods that the library asks for.

// WebAuthnID is the handle.
func (o Owner) WebAuthnID() []byte { return o.Handle }

// WebAuthnName is the name.
func (o Owner) WebAuthnName() string { return o.Name }

// WebAuthnDisplayName is the name.
func (o Owner) WebAuthnDisplayName() string { return o.Name }

// WebAuthnCredentials are the credentials.
func (o Owner) WebAuthnCredentials() []webauthn.Credential {
	list := make([]webauthn.Credential, len(o.Credentials))
	for i, c := range o.Credentials {
		list[i] = webauthn.Credential{
			ID: c.ID, PublicKey: c.PublicKey, Flags: webauthn.NewCredentialFlags(protocol.AuthenticatorFlags(c.Flags)),
			Authenticator: webauthn.Authenticator{SignCount: c.SignCount},
		}
		for _, t := range c.Transports {
			list[i].Transport = append(list[i].Transport, protocol.AuthenticatorTransport(t))
		}
	}
	return list
}

// CreationOptions is a PublicKeyCredentialCreationOptionsJSON: what a browser needs
// to make a passkey for the owner that none of the owner's authenticators has yet.
func (p *Party) CreationOptions(o Owner, challenge []byte) (json.RawMessage, error) {
	creation, _, err := p.w.BeginRegistration(o, func(c *protocol.PublicKeyCredentialCreationOptions) error {
		c.Challenge = challenge
		for _, known := range o.WebAuthnCredentials() {
			c.CredentialExcludeList = append(c.CredentialExcludeList, known.Descriptor())
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("passkey: creation options: %w", err)
	}
	return json.Marshal(creation.Response)
}

// Register checks a RegistrationResponseJSON: ErrRegistration.
func (p *Party) Register(o Owner, challenge, response []byte) (Credential, error) {
	parsed, err := protocol.ParseCredentialCreationResponseBytes(response)
	if err != nil {
		return Credential{}, wrapped(ErrRegistration, err)
	}
	session := p.session(o, challenge)
	session.CredParams = webauthn.CredentialParametersDefault()
	c, err := p.w.CreateCredential(o, session, parsed)
	if err != nil {
		return Credential{}, wrapped(ErrRegistration, err)
	}
	return kept(c), nil
}

// kept is what is kept of the library's credential.
func kept(c *webauthn.Credential) Credential {
	k := Credential{ID: c.ID, PublicKey: c.PublicKey, SignCount: c.Authenticator.SignCount, Flags: byte(c.Flags.ProtocolValue())}
	for _, t := range c.Transport {
		k.Transports = append(k.Transports, string(t))
	}
	return k
}

func (p *Party) session(o Owner, challenge []byte) webauthn.SessionData {
	return webauthn.SessionData{
		Challenge: base64.RawURLEncoding.EncodeToString(challenge), RelyingPartyID: p.w.Config.RPID, UserID: o.Handle,
		UserVerification: protocol.VerificationRequired,
	}
}

// RequestOptions is a PublicKeyCredentialRequestOptionsJSON: what a browser needs to
// sign the challenge with one of the owner's passkeys, of which there must be one.
func (p *Party) RequestOptions(o Owner, challenge []byte) (json.RawMessage, error) {
	assertion, _, err := p.w.BeginLogin(o, webauthn.WithChallenge(challenge))
	if err != nil {
		return nil, fmt.Errorf("passkey: request options: %w", err)
	}
	return json.Marshal(assertion.Response)
}

// Proof is an assertion that was good, with the key that it was good under: what it
// takes to check it again.
type Proof struct {
	CredentialID      []byte `json:"credential_id"`
	PublicKey         []byte `json:"public_key"` // COSE (RFC 9052)
	ClientData        []byte `json:"client_data"`
	AuthenticatorData []byte `json:"authenticator_data"`
	Signature         []byte `json:"signature"`
}

// Asserted is an AuthenticationResponseJSON that can be read, but was not checked.
type Asserted struct {
	Challenge []byte // that it claims to be about
	parsed    *protocol.ParsedCredentialAssertionData
}

// Parse reads an AuthenticationResponseJSON: ErrAssertion.
func Parse(response []byte) (Asserted, error) {
	parsed, err := protocol.ParseCredentialRequestResponseBytes(response)
	if err != nil {
		return Asserted{}, wrapped(ErrAssertion, err)
	}
	challenge, err := base64.RawURLEncoding.Strict().DecodeString(parsed.Response.CollectedClientData.Challenge)
	if err != nil {
		return Asserted{}, fmt.Errorf("%w: its challenge is not base64url", ErrAssertion)
	}
	return Asserted{challenge, parsed}, nil
}

// Assert checks an assertion by one of the owner's passkeys over a challenge:
// ErrAssertion. It returns the credential as it is to be kept from now on.
func (p *Party) Assert(o Owner, challenge []byte, a Asserted) (Credential, Proof, error) {
	var ids [][]byte
	for _, c := range o.Credentials {
		ids = append(ids, c.ID)
	}
	if len(ids) == 0 {
		return Credential{}, Proof{}, fmt.Errorf("%w: there is no passkey", ErrAssertion)
	}
	session := p.session(o, challenge)
	session.AllowedCredentialIDs = ids
	used, err := p.w.ValidateLogin(o, session, a.parsed)
	if err != nil {
		return Credential{}, Proof{}, wrapped(ErrAssertion, err)
	}
	if used.Authenticator.CloneWarning {
		return Credential{}, Proof{}, fmt.Errorf("%w: the counter went backwards, there may be a copy of the passkey", ErrAssertion)
	}
	raw := a.parsed.Raw.AssertionResponse
	return kept(used), Proof{
		CredentialID: used.ID, PublicKey: used.PublicKey,
		ClientData: raw.ClientDataJSON, AuthenticatorData: raw.AuthenticatorData, Signature: raw.Signature,
	}, nil
}

// Verify checks a proof again: that its key signed the challenge, for this party,
// under one of its origins, with the user verified. ErrAssertion.
func (p *Party) Verify(challenge []byte, proof Proof) error {
	parsed, err := protocol.CredentialAssertionResponse{
		PublicKeyCredential: protocol.PublicKeyCredential{
			Credential: protocol.Credential{ID: base64.RawURLEncoding.EncodeToString(proof.CredentialID), Type: string(protocol.PublicKeyCredentialType)},
			RawID:      proof.CredentialID,
		},
		AssertionResponse: protocol.AuthenticatorAssertionResponse{
			AuthenticatorResponse: protocol.AuthenticatorResponse{ClientDataJSON: proof.ClientData},
			AuthenticatorData:     proof.AuthenticatorData, Signature: proof.Signature,
		},
	}.Parse()
	if err != nil {
		return wrapped(ErrAssertion, err)
	}
	c := p.w.Config
	err = parsed.Verify(base64.RawURLEncoding.EncodeToString(challenge), c.RPID, "", c.RPOrigins, nil, nil, c.RPTopOriginVerificationMode, false, true, true, proof.PublicKey, c.Signature)
	if err != nil {
		return wrapped(ErrAssertion, err)
	}
	return nil
}

// wrapped keeps the library's short account of what was wrong, not what it found.
func wrapped(kind, err error) error {
	if e, ok := errors.AsType[*protocol.Error](err); ok {
		return fmt.Errorf("%w: %s", kind, e.Type)
	}
	return fmt.Errorf("%w: it cannot be read", kind)
}
