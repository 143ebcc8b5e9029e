// Package passkeytest is a passkey for tests: an authenticator and its browser in
// software, which can also be made to do what a good one never would.
package passkeytest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"

	"github.com/fxamacker/cbor/v2"
)

// Authenticator holds one passkey. Its fields may be changed between ceremonies.
type Authenticator struct {
	ID           []byte
	Key          *ecdsa.PrivateKey
	Origin       string
	RPID         string
	CrossOrigin  bool
	UserVerified bool
	Counter      uint32
}

// New makes one for a page of an origin, with a verified user.
func New(origin, rpID string) *Authenticator {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	id := make([]byte, 32)
	rand.Read(id)
	return &Authenticator{ID: id, Key: key, Origin: origin, RPID: rpID, UserVerified: true}
}

// Flags of authenticator data (WebAuthn Level 3, section 6.1).
const (
	flagPresent  = 0x01
	flagVerified = 0x04
	flagAttested = 0x40
)

func b64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

func (a *Authenticator) clientData(typ string, challenge []byte) []byte {
	return mustJSON(map[string]any{"type": typ, "challenge": b64(challenge), "origin": a.Origin, "crossOrigin": a.CrossOrigin})
}

func (a *Authenticator) data(flags byte, rest []byte) []byte {
	flags |= flagPresent
	if a.UserVerified {
		flags |= flagVerified
	}
	hash := sha256.Sum256([]byte(a.RPID))
	return append(binary.BigEndian.AppendUint32(append(hash[:], flags), a.Counter), rest...)
}

// cose is the public key (RFC 9053, section 7.1).
func (a *Authenticator) cose() []byte {
	point, err := a.Key.PublicKey.Bytes()
	if err != nil {
		panic(err)
	}
	return mustCBOR(map[int]any{1: 2, 3: -7, -1: 1, -2: point[1:33], -3: point[33:]})
}

// Create answers a PublicKeyCredentialCreationOptionsJSON with a
// RegistrationResponseJSON.
func (a *Authenticator) Create(options []byte) []byte {
	attested := binary.BigEndian.AppendUint16(make([]byte, 16), uint16(len(a.ID)))
	attested = append(append(attested, a.ID...), a.cose()...)
	object := mustCBOR(map[string]any{"fmt": "none", "attStmt": map[string]any{}, "authData": a.data(flagAttested, attested)})
	return mustJSON(map[string]any{
		"id": b64(a.ID), "rawId": b64(a.ID), "type": "public-key", "clientExtensionResults": map[string]any{},
		"response": map[string]any{
			"clientDataJSON": b64(a.clientData("webauthn.create", challengeOf(options))), "attestationObject": b64(object), "transports": []string{"internal"},
		},
	})
}

// Get answers a PublicKeyCredentialRequestOptionsJSON with an
// AuthenticationResponseJSON.
func (a *Authenticator) Get(options []byte) []byte { return a.Sign(challengeOf(options)) }

// Sign answers a challenge of anybody's.
func (a *Authenticator) Sign(challenge []byte) []byte {
	client := a.clientData("webauthn.get", challenge)
	data := a.data(0, nil)
	hash := sha256.Sum256(client)
	digest := sha256.Sum256(append(append([]byte(nil), data...), hash[:]...))
	signature, err := ecdsa.SignASN1(rand.Reader, a.Key, digest[:])
	if err != nil {
		panic(err)
	}
	return mustJSON(map[string]any{
		"id": b64(a.ID), "rawId": b64(a.ID), "type": "public-key", "clientExtensionResults": map[string]any{},
		"response": map[string]any{"clientDataJSON": b64(client), "authenticatorData": b64(data), "signature": b64(signature)},
	})
}

func challengeOf(options []byte) []byte {
	var o struct {
		Challenge string `json:"challenge"`
	}
	if err := json.Unmarshal(options, &o); err != nil {
		panic(fmt.Sprintf("passkeytest: options: %v", err))
	}
	challenge, err := base64.RawURLEncoding.DecodeString(o.Challenge)
	if err != nil {
		panic(fmt.Sprintf("passkeytest: challenge: %v", err))
	}
	return challenge
}

func mustJSON(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return b
}

func mustCBOR(v any) []byte {
	b, err := cbor.Marshal(v)
	if err != nil {
		panic(err)
	}
	return b
}
